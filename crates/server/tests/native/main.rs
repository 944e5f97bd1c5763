//! The native door over real HTTP: the binary, and requests as a stranger with curl would send them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod access;
mod admin;
mod close;
mod errors;
mod history;
mod idempotency;
mod lines;
mod publish;
mod refused;
mod start;
mod subscribe;

use serde_json::Value;
use support::{Hub, Response};

/// Checks that an answer is a problem of this kind that a person can read too; returns the document.
fn problem(answer: &Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{code}: {answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let document = answer.json();
    assert_eq!(document["code"], code, "{document}");
    assert_eq!(document["status"], status, "{document}");
    assert_eq!(document["type"], format!("urn:tidewire:error:{code}"));
    for member in ["title", "detail"] {
        let text = document[member].as_str().unwrap_or_default();
        assert!(text.len() > 5, "{member} tells nothing: {document}");
    }
    document
}

/// Events that the hub holds.
fn events_held(hub: &Hub) -> u64 {
    let stats = hub.get("/api/v1/stats");
    assert_eq!(stats.status, 200, "{stats:?}");
    stats.json()["events"].as_u64().unwrap()
}

/// The data of a topic's whole history.
fn history(hub: &Hub, topic: &str) -> Vec<String> {
    let page = hub.get(&format!("/topics/{}/events?limit=1000", encoded(topic)));
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    let data = |event: &Value| event["data"].as_str().unwrap().to_owned();
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(data)
        .collect()
}

/// A text as one component of an address, with everything encoded that could be.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(byte).collect()
}

fn id_of(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}
