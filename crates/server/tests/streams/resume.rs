//! A client carries on where it was: from its greeting, from an event; or is told that it can't, in an envelope.

use serde_json::json;

use super::{EVENTS, envelope, hub, hub_with, open, say};
use crate::support::{Hub, Stream};

fn resume(hub: &Hub, stream: &str, id: &str) -> Stream {
    let mut client = hub.stream_with(
        &format!("{EVENTS}/stream/{stream}"),
        &[("Last-Event-ID", id)],
    );
    assert_eq!(envelope(&mut client)["type"], "connection");
    client
}

fn types(client: &mut Stream, count: usize) -> Vec<String> {
    let next = |_| envelope(client)["type"].as_str().unwrap().to_owned();
    (0..count).map(next).collect()
}

#[test]
fn a_new_client_gets_what_comes_from_now_on() {
    let hub = hub();
    say(&hub, "a", "before");
    let mut client = open(&hub, "a");
    say(&hub, "a", "after");
    assert_eq!(types(&mut client, 1), ["after"]);
    let mut all = hub.stream(&format!("{EVENTS}/stream/a?since=10m"));
    assert_eq!(types(&mut all, 3), ["connection", "before", "after"]);
}

#[test]
fn a_client_that_saw_its_greeting_only_misses_nothing() {
    let hub = hub();
    say(&hub, "a", "before");
    let client = open(&hub, "a");
    let id = client.last_event_id().to_owned();
    assert!(
        !id.is_empty() && client.head().contains(&id),
        "{}",
        client.head()
    );
    drop(client);
    for event in ["one", "two"] {
        say(&hub, "b", "of_no_concern");
        say(&hub, "a", event);
    }
    assert_eq!(types(&mut resume(&hub, "a", &id), 2), ["one", "two"]);
}

#[test]
fn a_client_carries_on_behind_the_event_that_it_saw_last() {
    let hub = hub();
    let mut client = open(&hub, "a");
    for event in ["one", "two", "three"] {
        say(&hub, "a", event);
    }
    types(&mut client, 2);
    let id = client.last_event_id().to_owned();
    drop(client);
    say(&hub, "a", "four");
    assert_eq!(types(&mut resume(&hub, "a", &id), 2), ["three", "four"]);
    for name in ["last_event_id", "lastEventId"] {
        let id = id.replace('~', "%7E");
        let mut client = hub.stream(&format!("{EVENTS}/stream/a?{name}={id}"));
        assert_eq!(types(&mut client, 3), ["connection", "three", "four"]);
    }
}

#[test]
fn a_gap_is_an_envelope_and_is_told_until_it_was_heard() {
    let mut hub = hub();
    let client = open(&hub, "a");
    let id = client.last_event_id().to_owned();
    drop(client);
    hub.restart();
    say(&hub, "a", "held");
    let mut client = resume(&hub, "a", &id);
    assert_eq!(
        client.last_event_id(),
        id,
        "the greeting does not hide the gap"
    );
    let gap = envelope(&mut client);
    assert_eq!(
        (&gap["type"], &gap["stream_id"]),
        (&json!("gap"), &json!("a"))
    );
    assert_eq!(gap["data"], json!({"from": id, "reason": "unknown_id"}));
    assert_eq!(types(&mut client, 1), ["held"]);
    let id = client.last_event_id().to_owned();
    drop(client);
    let mut client = resume(&hub, "a", &id);
    say(&hub, "a", "next");
    assert_eq!(types(&mut client, 1), ["next"], "it is not told twice");
}

#[test]
fn a_slow_client_that_may_skip_is_told_in_an_envelope() {
    let hub = hub_with(&[
        ("TIDEWIRE_LIMITS__SLOW_CLIENT", "skip"),
        ("TIDEWIRE_LIMITS__SEND_BUFFER_BYTES", "4KiB"),
        ("TIDEWIRE_LIMITS__STALL_TIMEOUT", "1h"),
        ("TIDEWIRE_HISTORY__MEMORY", "1MiB"),
    ]);
    let mut client = open(&hub, "a");
    let body = json!({"stream_id": "a", "type": "large", "message": "x".repeat(40_000)});
    // More than the buffers of both ends and the history hold together, in events that fit into one chunk: who has got a
    // part of a larger one is closed.
    for _ in 0..300 {
        super::broadcast(&hub, &body);
    }
    say(&hub, "a", "last");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| seen != "last") {
        seen.append(&mut types(&mut client, 1));
    }
    assert!(
        seen.contains(&"gap".to_owned()) && seen.len() < 302,
        "{seen:?}"
    );
}

#[test]
fn the_end_of_a_stream_is_an_envelope() {
    let hub = hub();
    let mut client = open(&hub, "a");
    assert_eq!(
        hub.request("POST", "/topics/stream:a/close", None).status,
        200
    );
    let end = envelope(&mut client);
    assert_eq!(
        (&end["type"], &end["stream_id"]),
        (&json!("end"), &json!("a"))
    );
    assert!(client.next().is_none(), "the stream is over");
    let headers = [("Last-Event-ID", client.last_event_id())];
    let again = hub.send("GET", &format!("{EVENTS}/stream/a"), &headers, b"");
    assert_eq!(again.status, 204);
}

#[test]
fn a_client_that_is_closed_is_told_in_an_envelope() {
    let hub = hub();
    let mut client = open(&hub, "a");
    let path = format!("/api/v1/connections/{}", client.connection());
    assert_eq!(hub.request("DELETE", &path, None).status, 204);
    assert_eq!(types(&mut client, 1), ["closed"]);
    assert!(client.next().is_none());
}
