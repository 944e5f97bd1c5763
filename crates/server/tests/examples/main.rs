//! The example clients of the event streams, run as their READMEs say: pages in a real browser, and Python.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod pages;
mod python;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Hub, http};

/// A hub whose clients come back soon.
fn hub() -> Hub {
    let settings = [
        ("TIDEWIRE_SERVICES__EVENTS", "true"),
        ("TIDEWIRE_STREAM__RETRY", "200ms"),
    ];
    Hub::spawn(&[], &settings)
}

/// Broadcasts an event as a server would. Without a stream it goes to all.
fn broadcast(hub: &Hub, stream: &str, event_type: &str, message: &str, data: &Value) {
    let event = json!({"stream_id": stream, "type": event_type, "message": message, "data": data});
    let content = ("application/json", &*event.to_string());
    let answer = http::request(
        hub.port(),
        "POST",
        "/api/v1/events/broadcast",
        Some(content),
    );
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}
