//! Generators as a connected client sees them. That one is silent is shown against another one that is not: time alone
//! proves nothing.

use serde_json::{Value, json};

use super::{EVENTS, envelope, hub, lively_hub, manage, open, say};
use crate::support::{Hub, Stream};

/// Reads until an event of this type; returns what came before it.
fn until(client: &mut Stream, event_type: &str) -> Vec<Value> {
    let mut before = Vec::new();
    loop {
        let event = envelope(client);
        if event["type"] == event_type {
            return before;
        }
        before.push(event);
    }
}

/// Waits until the generator of another stream has spoken a few times: one that runs would have, too.
fn let_others_speak(hub: &Hub) {
    let mut clock = open(hub, "default");
    for _ in 0..6 {
        envelope(&mut clock);
    }
}

#[test]
fn a_generator_that_is_paused_is_silent_and_broadcasts_still_arrive() {
    let hub = lively_hub();
    let mut client = open(&hub, "system");
    envelope(&mut client);
    manage(&hub, "system", "pause");
    say(&hub, "system", "paused");
    let_others_speak(&hub);
    say(&hub, "system", "still_paused");
    manage(&hub, "system", "resume");
    until(&mut client, "paused");
    assert_eq!(until(&mut client, "still_paused"), [Value::Null; 0]);
    assert_ne!(
        envelope(&mut client)["type"],
        "stream_started",
        "it goes on, and does not begin anew"
    );
}

#[test]
fn a_generator_that_is_stopped_is_silent_until_it_is_started_anew() {
    let hub = lively_hub();
    let mut client = open(&hub, "notifications");
    envelope(&mut client);
    manage(&hub, "notifications", "stop");
    say(&hub, "notifications", "stopped");
    let_others_speak(&hub);
    say(&hub, "notifications", "still_stopped");
    manage(&hub, "notifications", "start");
    until(&mut client, "stopped");
    assert_eq!(until(&mut client, "still_stopped"), [Value::Null; 0]);
    assert_eq!(envelope(&mut client)["type"], "stream_started");
    assert_eq!(envelope(&mut client)["type"], "notification");
}

#[test]
fn a_generator_that_is_restarted_begins_anew() {
    let hub = hub();
    let mut client = open(&hub, "custom");
    for _ in 0..3 {
        manage(&hub, "custom", "start");
        let started = envelope(&mut client);
        assert_eq!(started["type"], "stream_started", "{started}");
        assert_eq!(started["message"], "Stream 'custom' started");
    }
}

#[test]
fn each_stream_says_what_it_is_for() {
    let hub = lively_hub();
    for (stream, types) in [
        (
            "default",
            &["user_action", "data_update", "notification"][..],
        ),
        ("system", &["metric_update", "system_alert", "notification"]),
        ("user-activity", &["user_action", "data_update"]),
        ("notifications", &["notification"]),
    ] {
        let mut client = open(&hub, stream);
        let events: Vec<_> = (0..4).map(|_| envelope(&mut client)).collect();
        for event in &events {
            let event_type = event["type"].as_str().unwrap();
            assert!(types.contains(&event_type), "{stream}: {event}");
            assert!(
                event["data"].is_object() && event["stream_id"] == stream,
                "{event}"
            );
        }
        if stream == "system" {
            let figures = events.iter().find(|event| event["type"] == "metric_update");
            let data = &figures.expect("three in four are figures")["data"];
            let own = std::fs::read_to_string("/proc/meminfo").unwrap();
            let total = own
                .lines()
                .next()
                .unwrap()
                .split_whitespace()
                .nth(1)
                .unwrap();
            let total = total.parse::<u64>().unwrap() * 1_024;
            assert_eq!(data["memory_total_bytes"], json!(total), "{data}");
            assert!(data["disk_percent"].as_f64() > Some(0.0), "{data}");
        }
    }
}

#[test]
fn generators_of_any_stream_may_be_started() {
    let hub = lively_hub();
    let mut client = open(&hub, "document_123");
    manage(&hub, "document_123", "start");
    assert_eq!(envelope(&mut client)["type"], "stream_started");
    assert!(envelope(&mut client)["data"].is_object());
    let path = format!("{EVENTS}/stream/document_123?since=earliest");
    let mut late = hub.stream(&path);
    assert_eq!(envelope(&mut late)["type"], "connection");
    assert_eq!(envelope(&mut late)["type"], "stream_started");
}
