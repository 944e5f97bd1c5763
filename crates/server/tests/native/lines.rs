//! `POST /events` with `application/x-ndjson`: a document a line, committed as it comes.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Hub, Response, http};
use crate::{events_held, history, problem};

fn post(hub: &Hub, body: &str) -> Response {
    hub.request(
        "POST",
        "/events?topic=q",
        Some(("application/x-ndjson", body)),
    )
}

#[test]
fn every_line_is_an_event() {
    let hub = Hub::spawn(&[], &[]);
    let answer = post(
        &hub,
        "{\"topic\":\"a\",\"data\":1}\r\n\n  \n{\"data\":{ \"x\": 2 },\"id\":\"own\"}\n{\"topic\":\"a\",\"data\":\"3\"}",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = hub.get("/topics/a/events").json();
    let id = |at: usize| page["events"][at]["id"].clone();
    assert_eq!(
        answer.json(),
        json!({"count": 3, "first_id": id(0), "last_id": id(1)})
    );
    assert_eq!(history(&hub, "a"), ["1", "3"]);
    assert_eq!(history(&hub, "q"), ["{\"x\":2}"]);
    for empty in ["", "\n\n"] {
        let nothing = json!({"count": 0, "first_id": null, "last_id": null});
        assert_eq!(post(&hub, empty).json(), nothing);
    }
}

#[test]
fn lines_before_a_bad_one_are_kept_and_those_behind_it_are_not_read() {
    let hub = Hub::spawn(&[], &[]);
    hub.request("POST", "/topics/closed/close", None);
    hub.post_json(&json!({"topic": "other", "data": 1, "id": "taken"}));
    let cases = [
        ("{\"topic\":\"a\",", 400, "bad_json"),
        ("not json", 400, "bad_json"),
        ("{\"topic\":\"a\",\"data\":1}{}", 400, "bad_json"),
        ("[]", 422, "bad_document"),
        ("[\"a\",null,null,1,null,null,null]", 422, "bad_document"),
        ("{\"data\":1,\"dta\":2}", 422, "bad_document"),
        ("{\"topic\":\"\",\"data\":1}", 422, "bad_topic"),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"a\\u0000b\"}",
            422,
            "bad_event",
        ),
        ("{\"topic\":\"closed\",\"data\":1}", 409, "topic_closed"),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"taken\"}",
            409,
            "id_taken",
        ),
        (
            "{\"topic\":\"connection:x\",\"data\":1}",
            422,
            "bad_document",
        ),
        ("{\"data\":1,\"id\":\"mine-{n}\"}", 409, "id_taken"),
    ];
    for (number, (bad, status, code)) in cases.iter().enumerate() {
        let bad = bad.replace("{n}", &number.to_string());
        let topic = format!("t{number}");
        let good = |data| json!({"topic": topic, "data": data});
        let first = json!({"topic": topic, "data": 1, "id": format!("mine-{number}")});
        let answer = post(
            &hub,
            &format!("{first}\n\n{}\n{bad}\n{}\n", good(2), good(3)),
        );
        let document = problem(&answer, *status, code);
        assert_eq!(history(&hub, &topic), ["1", "2"], "{bad}");
        let page = hub.get(&format!("/topics/{topic}/events")).json();
        let expected = [
            ("line", json!(4)),
            ("count", json!(2)),
            ("first_id", page["events"][0]["id"].clone()),
            ("last_id", page["events"][1]["id"].clone()),
        ];
        for (member, value) in expected {
            assert_eq!(document[member], value, "{member}: {document}");
        }
    }
}

#[test]
fn a_body_larger_than_any_other_may_be_is_streamed() {
    const LINES: usize = 10_500;
    let hub = Hub::spawn(&[], &[]);
    let mut socket = http::connect(hub.port()).unwrap();
    let headers = [
        ("Content-Type", "application/x-ndjson"),
        ("Transfer-Encoding", "chunked"),
    ];
    let head = http::head(hub.port(), "POST", "/events", &headers);
    socket.write_all(&[&head, &b"\r\n"[..]].concat()).unwrap();
    let line = format!("{}\n", json!({"topic": "a", "data": "x".repeat(1_000)}));
    let body = line.repeat(LINES);
    assert!(body.len() > 10 * 1024 * 1024);
    // Chunks that know nothing of lines.
    for chunk in body.as_bytes().chunks(100_003) {
        write!(socket, "{:x}\r\n", chunk.len()).unwrap();
        socket.write_all(chunk).unwrap();
        socket.write_all(b"\r\n").unwrap();
    }
    socket.write_all(b"0\r\n\r\n").unwrap();
    let answer = http::read_answer(socket).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["count"], LINES);
    assert_eq!(events_held(&hub), LINES as u64);
}

#[test]
fn a_line_is_committed_when_it_arrives_and_not_when_the_body_ends() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=a");
    let mut socket = http::connect(hub.port()).unwrap();
    let headers = [
        ("Content-Type", "application/x-ndjson"),
        ("Transfer-Encoding", "chunked"),
    ];
    let head = http::head(hub.port(), "POST", "/events", &headers);
    socket.write_all(&[&head, &b"\r\n"[..]].concat()).unwrap();
    let mut send = |text: &str| write!(socket, "{:x}\r\n{text}\r\n", text.len()).unwrap();
    for n in 0..3 {
        let line = json!({"topic": "a", "data": n}).to_string();
        let (start, end) = line.split_at(5);
        send(start);
        send(&format!("{end}\n"));
        assert_eq!(stream.event().data, n.to_string());
    }
    send("{\"topic\":\"a\",\"data\":\"cut");
    drop(socket);
    hub.publish("a", &json!("next"));
    assert_eq!(stream.event().data, "next", "a line that broke off is none");
}

#[test]
fn a_stream_of_lines_takes_no_idempotency_key() {
    let hub = Hub::spawn(&[], &[]);
    let headers = [
        ("Content-Type", "application/x-ndjson"),
        ("Idempotency-Key", "k"),
    ];
    let answer = hub.send(
        "POST",
        "/events",
        &headers,
        b"{\"topic\":\"a\",\"data\":1}\n",
    );
    problem(&answer, 422, "bad_idempotency_key");
    assert_eq!(events_held(&hub), 0);
}

#[test]
fn a_line_that_never_ends_is_refused() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__BODY_BYTES_MAX", "2MiB")]);
    let good = json!({"topic": "a", "data": 1});
    let body = format!(
        "{good}\n{{\"topic\":\"a\",\"data\":\"{}",
        "x".repeat(3 * 1024 * 1024)
    );
    let document = problem(&post(&hub, &body), 413, "body_too_large");
    let members: Vec<Value> = ["line", "count"]
        .map(|member| document[member].clone())
        .into();
    assert_eq!(members, [json!(2), json!(1)], "{document}");
    assert_eq!(history(&hub, "a"), ["1"]);
}
