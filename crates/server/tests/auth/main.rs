//! Who gets in with what: tokens and keys against the real binary, good ones, forged ones and confused ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod command;
mod cookies;
mod doors;
mod forged;
mod issuer;
mod keys;
mod limits;
mod origin;
mod private;
mod published;
mod rights;
mod routes;
mod webhook;

use serde_json::Value;
use support::{Hub, Response};

/// The problem with which a credential was refused: its `check` and its sentence.
fn refused(answer: &Response) -> (String, String) {
    assert_eq!(answer.status, 401, "{answer:?}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{answer:?}");
    let document = answer.json();
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(document["code"], "bad_credential", "{document}");
    (text("check"), text("detail"))
}

/// Publishes with these headers.
fn publish(hub: &Hub, topic: &str, headers: &[(&str, &str)]) -> Response {
    let path = format!("/events?topic={topic}");
    hub.send("POST", &path, headers, b"x")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Publishes with a token.
fn publish_as(hub: &Hub, topic: &str, token: &str) -> Response {
    publish(hub, topic, &[("Authorization", &bearer(token))])
}

fn code(answer: &Response) -> Value {
    answer.json()["code"].clone()
}
