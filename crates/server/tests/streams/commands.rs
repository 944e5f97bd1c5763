//! The commands of the system that the service stands in for, as they stand in its documentation.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{EVENTS, hub, is_now, streams};
use crate::support::Hub;

/// The address in that documentation.
const THEIRS: &str = "http://localhost:8080";

fn bash(hub: &Hub, command: &str) -> Command {
    let mut bash = Command::new("bash");
    let here = format!("http://localhost:{}", hub.port());
    bash.args(["-c", &format!("exec {}", command.replace(THEIRS, &here))])
        .stderr(Stdio::null());
    bash
}

/// Runs a command; returns the JSON that it prints.
fn run(hub: &Hub, command: &str) -> Value {
    let output = bash(hub, command).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{command}: {text}"));
    assert!(
        answer["success"] == json!(true) && is_now(&answer["timestamp"]),
        "{answer}"
    );
    answer
}

/// Runs a command that follows a stream until the first message of this type; returns that.
fn follow(hub: &Hub, command: &str, event_type: &str) -> Value {
    let mut curl = bash(hub, command).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let data = lines.map_while(Result::ok).find_map(|line| {
        let data: Value = serde_json::from_str(line.strip_prefix("data: ")?).unwrap();
        (data["type"] == event_type).then_some(data)
    });
    curl.kill().unwrap();
    curl.wait().unwrap();
    data.unwrap_or_else(|| panic!("{command}: no {event_type}"))
}

#[test]
fn following_a_stream() {
    let hub = hub();
    for (command, stream) in [
        (
            "curl -N -H \"Accept: text/event-stream\" \
                 -H \"Cache-Control: no-cache\" \
                 http://localhost:8080/api/v1/events/stream/default",
            "default",
        ),
        (
            "curl -N http://localhost:8080/api/v1/events/stream/default",
            "default",
        ),
        (
            "curl -N http://localhost:8080/api/v1/broadcast-demo/stream/demo-notifications",
            "demo-notifications",
        ),
    ] {
        assert_eq!(follow(&hub, command, "connection")["stream_id"], stream);
    }
}

#[test]
fn checking_the_streams() {
    let hub = hub();
    let answer = run(&hub, "curl http://localhost:8080/api/v1/events/streams");
    assert_eq!(answer["data"]["default"]["generator"]["running"], true);
    let answer = run(
        &hub,
        "curl http://localhost:8080/api/v1/broadcast-demo/streams",
    );
    assert_eq!(answer["data"]["demo-notifications"]["active"], true);
}

#[test]
fn managing_a_stream() {
    let hub = hub();
    for (what, message) in [
        ("start", "Stream 'custom' started"),
        ("pause", "Stream 'custom' paused"),
        ("resume", "Stream 'custom' resumed"),
        ("stop", "Stream 'custom' stopped and removed"),
    ] {
        let command =
            format!("curl -X POST http://localhost:8080/api/v1/events/stream/custom/{what}");
        assert_eq!(run(&hub, &command)["message"], message);
    }
    assert!(streams(&hub, EVENTS).get("custom").is_none());
}

#[test]
fn broadcasting() {
    let hub = hub();
    let one = r#"curl -X POST http://localhost:8080/api/v1/events/broadcast \
  -H "Content-Type: application/json" \
  -d '{
    "stream_id": "default",
    "type": "test_event",
    "message": "Test message",
    "data": {"test": true}
  }'"#;
    assert_eq!(
        run(&hub, one)["message"],
        "Event broadcasted to stream: default"
    );
    let all = r#"curl -X POST http://localhost:8080/api/v1/events/broadcast \
  -H "Content-Type: application/json" \
  -d '{
    "type": "global_test",
    "message": "Global test message"
  }'"#;
    assert_eq!(
        run(&hub, all)["message"],
        "Event broadcasted to all streams"
    );
    for service in ["events", "broadcast-demo"] {
        let hello = r#"curl -X POST http://localhost:8080/api/v1/SERVICE/broadcast \
  -H "Content-Type: application/json" \
  -d '{"type":"test","message":"Hello from Service G"}'"#;
        let answer = run(&hub, &hello.replace("SERVICE", service));
        assert_eq!(answer["message"], "Event broadcasted to all streams");
    }
    let command = "curl -N 'http://localhost:8080/api/v1/events/stream/default?since=earliest'";
    let event = follow(&hub, command, "test_event");
    assert_eq!(event["data"], json!({"test": true}));
    assert_eq!(follow(&hub, command, "global_test").get("stream_id"), None);
}
