//! The hub behind a real nginx with the settings of `deploy/nginx/tidewire.conf`: what `docs/nginx.md` says of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod server;
mod smuggling;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};

use serde_json::json;
use server::Nginx;
use support::{Client, Hub, Kind, Publisher, Response, Stream, http, number, until};

/// A hub that serves proxies, whose clients come back soon.
fn hub() -> Hub {
    let settings = [
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
        ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "**"),
        ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
        ("TIDEWIRE_STREAM__RETRY", "200ms"),
        ("TIDEWIRE_STREAM__HEARTBEAT", "1s"),
    ];
    Hub::spawn(&[], &settings)
}

fn subscribe(nginx: &Nginx, topic: &str) -> Stream {
    let stream = Stream::open(nginx.port(), &format!("/events?topic={topic}"), &[]);
    assert_eq!(stream.status(), 200, "{}", stream.head());
    stream
}

fn post(nginx: &Nginx, path: &str, content_type: &str, body: &str) -> Response {
    http::request(nginx.port(), "POST", path, Some((content_type, body))).unwrap()
}

#[test]
fn events_and_heartbeats_come_at_once() {
    let hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    let mut stream = subscribe(&nginx, "t");
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    stream.wait_for_text("retry: ");
    for n in 1..=3 {
        let answer = post(&nginx, "/events?topic=t", "text/plain", &n.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            stream.event().data,
            n.to_string(),
            "while the stream is open"
        );
    }
    stream.wait_for_text("\n:\n");

    drop(stream);
    hub.wait_for_stats("a client that has left nginx has left the hub", |stats| {
        stats["connections"] == 0
    });
}

#[test]
fn requests_share_connections_to_the_hub() {
    let hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    let before = connections_to(hub.port()).len();
    for n in 0..50 {
        let answer = post(&nginx, "/events?topic=t", "text/plain", &n.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let after = connections_to(hub.port());
    assert!((1..5).contains(&(after.len() - before)), "{after:?}");
}

#[test]
fn the_hub_sees_its_clients_and_not_what_they_say_of_themselves() {
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
            ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
            ("TIDEWIRE_PROXIES__TRUSTED", "127.0.0.1"),
            ("TIDEWIRE_LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "1"),
        ],
    );
    let nginx = Nginx::spawn(&hub, "");
    let subscribe = |from: u8| {
        let mut socket = http::connect_from(from, nginx.port());
        let spoofed = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
        ];
        let mut request = http::head(nginx.port(), "GET", "/events?topic=t", &spoofed);
        request.extend_from_slice(b"\r\n");
        socket.write_all(&request).unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).unwrap();
        (String::from_utf8(status.to_vec()).unwrap(), socket)
    };
    let (first, _first) = subscribe(5);
    let (second, _second) = subscribe(6);
    assert_eq!((&*first, &*second), ("HTTP/1.1 200", "HTTP/1.1 200"));
    assert_eq!(
        subscribe(5).0,
        "HTTP/1.1 429",
        "the address has one already"
    );
    let listed = hub.get("/api/v1/connections").json();
    let rows = listed["connections"].as_array().unwrap().iter();
    let remotes: BTreeSet<_> = rows.map(|row| row["remote"].as_str().unwrap()).collect();
    assert_eq!(remotes, ["127.0.0.5", "127.0.0.6"].into());
}

/// The clients' ends of all connections to a port of this machine that the kernel knows of. Those that were closed are
/// listed for a minute, at the end that closed first.
fn connections_to(port: u16) -> BTreeSet<String> {
    let hub = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace());
    rows.filter_map(|mut row| {
        let (local, remote) = (row.nth(1)?, row.next()?);
        let client = if local == hub { remote } else { local };
        let is_listener = client.ends_with(":0000");
        ((local == hub || remote == hub) && !is_listener).then(|| client.to_owned())
    })
    .collect()
}

#[test]
fn the_hubs_limits_count_for_bodies() {
    let hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    let document = json!({"topic": "t", "data": "x".repeat(9 << 20)}).to_string();
    let answer = post(&nginx, "/events", "application/json", &document);
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(answer.json()["code"], "body_too_large");

    // A stream of lines may be longer than a document, and is published while it comes.
    let line = json!({"topic": "t", "data": "x".repeat(1_000)}).to_string() + "\n";
    let lines = line.repeat(12_000);
    let answer = post(&nginx, "/events", "application/x-ndjson", &lines);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["count"], 12_000);
    let answer = post(&nginx, "/events?topic=t", "text/plain", "still there");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_reload_cuts_nobody_off() {
    let hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    let mut old = subscribe(&nginx, "t");
    let old_worker = nginx.workers()[0];
    nginx.reload();
    let title = format!("/proc/{old_worker}/cmdline");
    until("the old worker takes no more connections", || {
        fs::read_to_string(&title)
            .unwrap()
            .contains("shutting down")
    });
    let mut new = subscribe(&nginx, "t");
    hub.publish("t", &json!("both"));
    assert_eq!(old.event().data, "both", "by the old worker");
    assert_eq!(new.event().data, "both", "by the new one");

    drop(old);
    until("the old worker ends with its last stream", || {
        !nginx.workers().contains(&old_worker)
    });
    hub.publish("t", &json!("one"));
    assert_eq!(new.event().data, "one");
}

#[test]
fn a_client_resumes_after_its_worker_was_ended_and_after_a_restart() {
    let hub = hub();
    // Otherwise old workers stay for as long as their streams do, a day maybe.
    let mut nginx = Nginx::spawn(&hub, "worker_shutdown_timeout 1s;");
    let mut client = Client::spawn(Kind::EventSource, &nginx.url("/events?topic=t"));
    client.wait_for_open();
    let publisher = Publisher::spawn(hub.port());
    client.wait_for("an event", |line| number(line).is_some());

    nginx.reload();
    client.wait_for("the end of the old worker", |line| line["kind"] == "error");
    client.wait_for_open();
    nginx.restart();
    client.wait_for("the restart", |line| line["kind"] == "error");
    client.wait_for_open();
    publisher.assert_all_received_by(&mut client);
}

/// Without `@hub_away` nginx answers 502, and an `EventSource` that gets that has reconnected for the last time.
#[test]
fn browsers_come_back_when_the_hub_does() {
    let mut hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    let page = hub.url("/healthz"); // of another origin than nginx
    let stream = nginx.url("/events?topic=t");
    let mut browser = Client::spawn_with(Kind::Chromium, &stream, &["--page", &page]);
    browser.wait_for_open();
    hub.publish("t", &json!({"n": 1}));
    browser.wait_for_event("tick");

    hub.stop();
    browser.wait_for("the loss", |line| line["kind"] == "error");
    browser.wait_for("an answer by nginx alone", |line| line["kind"] == "open");
    let answer = post(&nginx, "/events?topic=t", "text/plain", "x");
    assert_eq!(answer.status, 502, "publishers are told the truth");

    hub.restart();
    browser.wait_for_event("gap");
    hub.publish("t", &json!({"n": 2}));
    browser.wait_for("the next event", |line| number(line) == Some(2));
    assert_eq!(browser.lines("closed").next(), None);
}
