//! The services of envelope streams over real HTTP, as the clients of the system that they stand in for use them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod broadcast;
mod clients;
mod commands;
mod demo;
mod generators;
mod limits;
mod resume;

use serde_json::{Value, json};
use support::{Hub, Response, Stream, until};

const EVENTS: &str = "/api/v1/events";
const DEMO: &str = "/api/v1/broadcast-demo";

/// Both services, with these settings beside. Generators say that they started and then nothing for a long time.
fn hub_with(settings: &[(&str, &str)]) -> Hub {
    let mut all = vec![
        ("TIDEWIRE_SERVICES__EVENTS", "true"),
        ("TIDEWIRE_SERVICES__BROADCAST_DEMO", "true"),
        ("TIDEWIRE_SERVICES__GENERATOR_INTERVAL", "1h"),
    ];
    all.extend(settings);
    Hub::spawn(&[], &all)
}

/// As [`hub_with`], when all four generators have said that they started.
fn hub() -> Hub {
    let hub = hub_with(&[]);
    hub.wait_for_stats("the generators have started", |stats| {
        stats["published"] == 4
    });
    hub
}

/// Generators that say something about every 100 ms.
fn lively_hub() -> Hub {
    hub_with(&[("TIDEWIRE_SERVICES__GENERATOR_INTERVAL", "100ms")])
}

/// Opens a stream of the events service and takes its greeting off.
fn open(hub: &Hub, id: &str) -> Stream {
    let mut stream = hub.stream(&format!("{EVENTS}/stream/{id}"));
    let greeting = envelope(&mut stream);
    assert_eq!(greeting["type"], "connection", "{greeting}");
    assert_eq!(greeting["stream_id"], id, "{greeting}");
    stream
}

/// The next message, which must be an envelope that `onmessage` gets.
fn envelope(stream: &mut Stream) -> Value {
    let event = stream.event();
    assert_eq!(event.event, "message", "{event:?}");
    let envelope: Value = serde_json::from_str(&event.data).unwrap();
    let text = |member: &str| envelope[member].as_str().unwrap_or_default().to_owned();
    assert!(text("id").starts_with("evt_"), "{envelope}");
    assert!(
        !text("type").is_empty() && !text("message").is_empty(),
        "{envelope}"
    );
    assert!(is_now(&envelope["timestamp"]), "{envelope}");
    envelope
}

/// Whether a time in seconds lies in the last minute.
fn is_now(timestamp: &Value) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now
        .unwrap()
        .as_secs()
        .checked_sub(timestamp.as_u64().unwrap());
    age.is_some_and(|age| age < 60)
}

fn post(hub: &Hub, path: &str, body: &Value) -> Response {
    hub.request("POST", path, Some(("application/json", &body.to_string())))
}

/// Broadcasts; returns the answer's message.
fn broadcast(hub: &Hub, body: &Value) -> String {
    done(&post(hub, &format!("{EVENTS}/broadcast"), body))
}

/// Broadcasts an event of this type to a stream.
fn say(hub: &Hub, stream: &str, event_type: &str) {
    broadcast(
        hub,
        &json!({"stream_id": stream, "type": event_type, "message": "m"}),
    );
}

/// Starts, stops, pauses or resumes a stream's generator.
fn manage(hub: &Hub, stream: &str, what: &str) -> Response {
    hub.request("POST", &format!("{EVENTS}/stream/{stream}/{what}"), None)
}

/// Checks that an answer says that something was done, and nothing else; returns what.
fn done(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert!(is_now(&body["timestamp"]), "{body}");
    let message = body["message"].as_str().unwrap().to_owned();
    let timestamp = &body["timestamp"];
    let whole = json!({"success": true, "message": message, "timestamp": timestamp});
    assert_eq!(answer.body, whole.to_string());
    message
}

/// Checks that something was refused in the form of these services.
fn refused(answer: &Response, status: u16, error: &str) {
    assert_eq!(answer.status, status, "{error}: {answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{answer:?}"
    );
    let body = answer.json();
    assert_eq!(
        (&body["success"], &body["error"]),
        (&json!(false), &json!(error)),
        "{body}"
    );
    assert!(is_now(&body["timestamp"]), "{body}");
    assert!(body["message"].as_str().unwrap().len() > 10, "{body}");
}

/// The rows of a service's streams.
fn streams(hub: &Hub, service: &str) -> Value {
    let answer = hub.get(&format!("{service}/streams"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    assert!(
        body["success"] == json!(true) && is_now(&body["timestamp"]),
        "{body}"
    );
    body["data"].clone()
}

fn row(clients: u64, running: bool, paused: bool) -> Value {
    json!({"clients": clients, "active": true, "generator": {"running": running, "paused": paused}})
}

/// Waits until the rows of the events service are so.
fn wait_for_streams(hub: &Hub, what: &str, is_so: impl Fn(&Value) -> bool) {
    until(what, || is_so(&streams(hub, EVENTS)));
}
