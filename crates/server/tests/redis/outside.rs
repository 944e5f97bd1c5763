//! Other programs.

use serde_json::json;

use crate::node;
use crate::support::RedisServer;

#[test]
fn an_entry_that_another_program_adds_is_an_event() {
    let redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    let mut streams: Vec<_> = nodes
        .iter()
        .map(|node| node.stream("/events?topic=a&topic=b"))
        .collect();
    let add = |words: &[&str]| {
        let answer = redis.command(&[&["XADD", "tidewire:log", "*"], words].concat());
        answer.lines().nth(1).unwrap().to_owned()
    };
    add(&["topic", "a", "data", "plain"]);
    add(&["data", "nobody's"]);
    add(&["topic", "a*", "data", "no topic"]);
    add(&[
        "topic", "a", "topic", "b", "event", "named", "data", "l1\nl2", "retry", "77", "by", "me",
    ]);
    add(&["topic", "a", "id", "own", "data", "own"]);
    let end = nodes[0].publish("a", &json!("last"));
    for stream in &mut streams {
        let events: Vec<_> = (0..4).map(|_| stream.event()).collect();
        let seen: Vec<_> = events
            .iter()
            .map(|e| (e.event.as_str(), e.data.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("message", "plain"),
                ("named", "l1\nl2"),
                ("message", "own"),
                ("tick", "last")
            ]
        );
        assert_eq!(
            (events[2].id.as_str(), events[3].id.as_str()),
            ("own", end.as_str())
        );
    }
    let metrics = nodes[1].get("/metrics").body;
    assert!(
        metrics.contains("tidewire_broker_malformed_total 2"),
        "{metrics}"
    );
}

#[test]
fn an_entry_that_claims_a_batch_does_not_hold_up_others() {
    let redis = RedisServer::start();
    let node = node(&redis);
    let mut stream = node.stream("/events?topic=a");
    redis.command(&[
        "XADD",
        "tidewire:log",
        "*",
        "topic",
        "a",
        "data",
        "1",
        "batch",
        "3",
    ]);
    assert_eq!(stream.event().data, "1");
    node.publish("a", &json!(2));
    assert_eq!(stream.event().data, "2");
}

#[test]
fn a_message_reaches_who_is_connected_on_every_node_and_is_stored_nowhere() {
    let redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    let mut streams: Vec<_> = nodes
        .iter()
        .map(|node| node.stream("/events?topic=room:1"))
        .collect();
    // The nodes subscribe in their own time.
    let deadline = std::time::Instant::now() + crate::support::WAIT_MAX;
    while redis.command(&["PUBLISH", "tidewire:topic:other", "x"]) != ":2\r\n" {
        assert!(std::time::Instant::now() < deadline, "nobody listens");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    redis.command(&["PUBLISH", "tidewire:topic:room:1", "hello\nthere"]);
    let stored = nodes[0].publish("room:1", &json!("stored"));
    for stream in &mut streams {
        let event = stream.event();
        // Without an id of its own the last one counts, which there is none of yet.
        assert_eq!(
            (event.data.as_str(), event.id.as_str()),
            ("hello\nthere", "")
        );
        assert_eq!(stream.event().id, stored);
    }
    let history = nodes[1].get("/topics/room:1/events").json();
    assert_eq!(history["events"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(redis.command(&["XLEN", "tidewire:log"]), ":1\r\n");
}
