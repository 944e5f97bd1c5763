//! `Idempotency-Key`: a publish that can be repeated without harm.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Hub, Response, WAIT_MAX};
use crate::{events_held, history, id_of, problem};

fn post(hub: &Hub, path: &str, key: &str, kind: &str, body: &str) -> Response {
    let headers = [("Content-Type", kind), ("Idempotency-Key", key)];
    hub.send("POST", path, &headers, body.as_bytes())
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_publishes_nothing() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        (
            "/events",
            "application/json",
            r#"{"topic":"a","data":1}"#,
            1,
        ),
        (
            "/events",
            "application/json",
            r#"{"topic":"a","data":1,"id":"own"}"#,
            1,
        ),
        (
            "/events",
            "application/json",
            r#"[{"topic":"a","data":1},{"topic":"a","data":2}]"#,
            2,
        ),
        ("/events?topic=a", "text/plain", "raw", 1),
    ];
    for (number, (path, kind, body, events)) in cases.iter().enumerate() {
        let before = events_held(&hub);
        let key = format!("key {number}");
        let first = post(&hub, path, &key, kind, body);
        assert_eq!(first.status, 200, "{first:?}");
        for _ in 0..3 {
            let again = post(&hub, path, &key, kind, body);
            assert_eq!((again.status, &again.body), (200, &first.body));
        }
        assert_eq!(events_held(&hub), before + events, "{body}");
        // Only a raw body means something under another content type.
        let other_kind = if *kind == "text/plain" {
            "text/html"
        } else {
            "application/json; a=b"
        };
        let other_body = body.replace('1', "3").replace("raw", "cooked");
        problem(
            &post(&hub, path, &key, kind, &other_body),
            422,
            "key_reused",
        );
        let other_path = format!(
            "{path}{}topic=b",
            if path.contains('?') { '&' } else { '?' }
        );
        problem(
            &post(&hub, &other_path, &key, kind, body),
            422,
            "key_reused",
        );
        let other = post(&hub, path, &key, other_kind, body);
        if *kind == "text/plain" {
            problem(&other, 422, "key_reused");
        } else {
            assert_eq!(
                other.body, first.body,
                "a parameter of the type makes no other request"
            );
        }
        assert_eq!(events_held(&hub), before + events, "{body}");
    }
}

#[test]
fn a_request_that_was_refused_leaves_its_key_free() {
    let hub = Hub::spawn(&[], &[]);
    hub.request("POST", "/topics/closed/close", None);
    let bad = [
        (r#"{"topic":"a"}"#, 422, "bad_document"),
        (r#"{"topic":"closed","data":1}"#, 409, "topic_closed"),
    ];
    for (body, status, code) in bad {
        problem(
            &post(&hub, "/events", "k", "application/json", body),
            status,
            code,
        );
    }
    id_of(&post(
        &hub,
        "/events",
        "k",
        "application/json",
        r#"{"topic":"a","data":1}"#,
    ));
    assert_eq!(history(&hub, "a"), ["1"]);
}

#[test]
fn a_key_counts_for_its_window() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__IDEMPOTENCY_WINDOW", "1s")]);
    let publish = || id_of(&post(&hub, "/events?topic=a", "k", "text/plain", "x"));
    let first = publish();
    let deadline = Instant::now() + WAIT_MAX;
    while publish() == first {
        assert!(Instant::now() < deadline, "the key does not expire");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(history(&hub, "a").len(), 2);
}

#[test]
fn keys_that_can_not_be_kept_are_refused() {
    let hub = Hub::spawn(&[], &[]);
    let stream = hub.stream("/events");
    let connection = stream.connection();
    let to_connection = json!({"topic": format!("connection:{connection}"), "data": 1}).to_string();
    let to_topic = r#"{"topic":"a","data":1}"#;
    for (key, body) in [
        ("", to_topic),
        (&*"k".repeat(257), to_topic),
        ("größe", to_topic),
        ("k", &to_connection),
    ] {
        problem(
            &post(&hub, "/events", key, "application/json", body),
            422,
            "bad_idempotency_key",
        );
    }
    assert_eq!(events_held(&hub), 0);
    id_of(&post(
        &hub,
        "/events",
        &"k".repeat(256),
        "application/json",
        to_topic,
    ));
}
