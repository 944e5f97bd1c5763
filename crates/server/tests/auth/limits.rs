//! Limits by address, user and key: what one of them does leaves the others alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bearer;
use crate::issuer::{Issuer, SECRET};
use crate::support::{Hub, Response, WAIT_MAX, http};

fn send(hub: &Hub, from: u8, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut socket = http::connect_from(from, hub.port());
    let bytes = http::request_bytes(hub.port(), "POST", path, headers, body);
    socket.write_all(&bytes).unwrap();
    http::read_answer(socket).unwrap()
}

/// Asks for a stream; the head of the answer and the connection, which keeps it open.
fn subscribe(hub: &Hub, from: u8, headers: &[(&str, &str)]) -> (String, TcpStream) {
    let mut socket = http::connect_from(from, hub.port());
    let mut bytes = http::head(hub.port(), "GET", "/events?topic=a", headers);
    bytes.extend_from_slice(b"\r\n");
    socket.write_all(&bytes).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(
            socket.read(&mut byte).unwrap(),
            1,
            "{}",
            head.escape_ascii()
        );
        head.push(byte[0]);
    }
    (String::from_utf8(head).unwrap(), socket)
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn hub(limit: (&str, &str)) -> Hub {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
            ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "**"),
            ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
            limit,
        ],
    )
}

fn token(user: &str) -> String {
    bearer(&Issuer::with_secret().token(&json!({ "sub": user })))
}

fn refused(answer: &Response, code: &str) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.json()["code"], code, "{answer:?}");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{answer:?}");
}

#[test]
fn an_address_has_so_many_streams_and_others_have_theirs() {
    let hub = hub(("TIDEWIRE_LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "2"));
    let mut open: Vec<_> = (0..2).map(|_| subscribe(&hub, 2, &[])).collect();
    assert!(open.iter().all(|(head, _)| status(head) == "200"));
    let (head, mut socket) = subscribe(&hub, 2, &[]);
    assert_eq!(status(&head), "429", "{head}");
    let mut body = String::new();
    socket.read_to_string(&mut body).unwrap();
    assert!(
        body.contains("too_many_connections") && body.contains("this address"),
        "{body}"
    );
    // A browser gives up for ever on any answer but 200.
    let (head, mut socket) = subscribe(&hub, 2, &[("Accept", "text/event-stream")]);
    assert_eq!(status(&head), "200", "{head}");
    let mut body = String::new();
    socket.read_to_string(&mut body).unwrap();
    assert!(body.contains("retry: ") && !body.contains("data"), "{body}");
    open.push(subscribe(&hub, 3, &[]));
    assert_eq!(status(&open[2].0), "200");
    hub.wait_for_stats("three are there", |stats| stats["connections"] == 3);
    // Who leaves makes room.
    open.remove(0);
    hub.wait_for_stats("one has left", |stats| stats["connections"] == 2);
    assert_eq!(status(&subscribe(&hub, 2, &[]).0), "200");
}

#[test]
fn a_user_has_so_many_streams_wherever_they_are() {
    let hub = hub(("TIDEWIRE_LIMITS__CONNECTIONS_PER_USER_MAX", "2"));
    let (ann, bob) = (token("ann"), token("bob"));
    let as_user = |from: u8, token: &str| subscribe(&hub, from, &[("Authorization", token)]);
    let open = [as_user(2, &ann), as_user(3, &ann), as_user(2, &bob)];
    assert!(open.iter().all(|(head, _)| status(head) == "200"));
    assert_eq!(status(&as_user(4, &ann).0), "429");
    // Nobody in particular is not a user.
    let anonymous: Vec<_> = (0..3).map(|_| subscribe(&hub, 2, &[])).collect();
    assert!(anonymous.iter().all(|(head, _)| status(head) == "200"));
}

#[test]
fn an_address_begins_so_many_streams_in_a_second() {
    let hub = hub(("TIDEWIRE_LIMITS__CONNECTS_PER_ADDRESS_PER_S_MAX", "3"));
    let open: Vec<_> = (0..20).map(|_| subscribe(&hub, 2, &[])).collect();
    let refused = open
        .iter()
        .filter(|(head, _)| status(head) == "429")
        .count();
    assert!(refused > 0, "twenty in a moment");
    assert_eq!(status(&open[0].0), "200");
    assert_eq!(status(&subscribe(&hub, 3, &[]).0), "200", "another address");
    // It may again, after a while.
    let deadline = Instant::now() + WAIT_MAX;
    while status(&subscribe(&hub, 2, &[]).0) != "200" {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_address_and_a_key_publish_so_many_events_in_a_second() {
    for (setting, key) in [
        ("TIDEWIRE_LIMITS__PUBLISHES_PER_ADDRESS_PER_S_MAX", false),
        ("TIDEWIRE_LIMITS__PUBLISHES_PER_KEY_PER_S_MAX", true),
    ] {
        // One in a second is few enough for the second to be early on any machine.
        let hub = hub((setting, "1"));
        let (ann, bob) = (token("ann"), token("bob"));
        let publish = |from: u8, token: &str| {
            send(
                &hub,
                from,
                "/events?topic=a",
                &[("Authorization", token)],
                b"x",
            )
        };
        assert_eq!(publish(2, &ann).status, 200);
        refused(&publish(2, &ann), "too_many_requests");
        // The limit that is set counts, and the other does not.
        let (same, other) = if key {
            (publish(3, &ann), publish(2, &bob))
        } else {
            (publish(2, &bob), publish(3, &ann))
        };
        refused(&same, "too_many_requests");
        assert_eq!(other.status, 200, "{setting}: {other:?}");
        assert_eq!(
            hub.stats()["published"],
            2,
            "what is refused is not published"
        );
        // To ask is not to publish.
        let asked = hub.send("GET", "/sse/status/c", &[("Authorization", &ann)], b"");
        assert_eq!(asked.status, 200, "{asked:?}");
        // Every way to publish counts.
        refused(
            &send(
                &hub,
                if key { 4 } else { 2 },
                "/topics/b/close",
                &[("Authorization", &ann)],
                b"",
            ),
            "too_many_requests",
        );
    }
}

#[test]
fn a_batch_counts_as_its_events_and_a_stream_of_lines_waits() {
    let hub = hub(("TIDEWIRE_LIMITS__PUBLISHES_PER_ADDRESS_PER_S_MAX", "10"));
    let batch = |n: usize| {
        let events: Vec<_> = (0..n).map(|n| json!({ "topic": "a", "data": n })).collect();
        let body = json!(events).to_string();
        send(
            &hub,
            2,
            "/events",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    };
    // It would never be let through.
    let large = batch(11);
    assert_eq!(large.status, 422, "{large:?}");
    assert_eq!(large.json()["code"], "too_many_events");
    assert!(
        large.body.contains("publishes_per_address_per_s_max"),
        "{large:?}"
    );
    // Ten in a second: the second batch of nine is early, wherever the first one fell.
    let answers = [batch(9), batch(9), batch(9)];
    assert!(
        answers.iter().any(|answer| answer.status == 200),
        "{answers:?}"
    );
    refused(
        answers.iter().find(|answer| answer.status != 200).unwrap(),
        "too_many_requests",
    );
    let before = hub.stats()["published"].as_u64().unwrap();
    let lines = "{\"topic\":\"a\",\"data\":1}\n".repeat(25);
    let began = Instant::now();
    let deadline = began + WAIT_MAX;
    let answer = loop {
        let answer = send(
            &hub,
            2,
            "/events",
            &[("Content-Type", "application/x-ndjson")],
            lines.as_bytes(),
        );
        if answer.status == 200 {
            break answer;
        }
        refused(&answer, "too_many_requests");
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(answer.json()["count"], 25);
    assert_eq!(hub.stats()["published"], before + 25);
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "25 at 10 a second, in {:?}",
        began.elapsed()
    );
}

/// It sends what comes in as batches, which used to be larger than the hub would ever let through.
#[test]
fn the_command_publishes_lines_as_fast_as_it_may() {
    let hub = hub(("TIDEWIRE_LIMITS__PUBLISHES_PER_ADDRESS_PER_S_MAX", "10"));
    let mut publish = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["publish", "a", "--url", &hub.url("")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = (1..=25).fold(String::new(), |lines, n| lines + &format!("{n}\n"));
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let output = publish.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("published 25 events"),
        "{said}"
    );
    let page = hub.get("/topics/a/events").json();
    let data = page["events"].as_array().unwrap().iter();
    let data: Vec<_> = data.map(|event| event["data"].as_str().unwrap()).collect();
    let expected: Vec<_> = (1..=25).map(|n| n.to_string()).collect();
    assert_eq!(data, expected, "in their order, each once");
}
