//! One hub of three nodes.

use serde_json::json;

use crate::support::{Hub, RedisServer};
use crate::{node, node_with};

fn three(redis: &RedisServer) -> [Hub; 3] {
    [node(redis), node(redis), node(redis)]
}

#[test]
fn every_node_has_the_same_order_and_resumes_any_client() {
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let mut streams: Vec<_> = nodes
        .iter()
        .map(|node| node.stream("/events?topic=a"))
        .collect();
    let ids: Vec<_> = (0..30)
        .map(|n| nodes[n % 3].publish("a", &json!(n)))
        .collect();
    let expected: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    for stream in &mut streams {
        let events: Vec<_> = (0..30).map(|_| stream.event()).collect();
        let data: Vec<_> = events.iter().map(|event| event.data.clone()).collect();
        assert_eq!(data, expected, "one publisher after the other");
        let seen: Vec<_> = events.into_iter().map(|event| event.id).collect();
        assert_eq!(seen, ids, "the same ids everywhere");
    }
    for (node, at) in nodes.iter().zip([0, 13, 28]) {
        let mut stream = node.stream_with("/events?topic=a", &[("Last-Event-ID", &ids[at])]);
        assert_eq!(stream.data(29 - at), expected[at + 1..]);
    }
    // One that starts later has the history too.
    let late = node(&redis);
    let mut stream = late.stream_with("/events?topic=a", &[("Last-Event-ID", &ids[3])]);
    assert_eq!(stream.data(26), expected[4..]);
}

#[test]
fn keys_ids_and_ends_count_on_every_node() {
    let redis = RedisServer::start();
    let [a, b, c] = three(&redis);
    let publish = |node: &Hub, body: &str| {
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", "k"),
        ];
        node.send("POST", "/events", &headers, body.as_bytes())
    };
    let first = publish(&a, r#"{"topic":"t","data":"1"}"#);
    assert_eq!(first.status, 200, "{first:?}");
    let again = publish(&b, r#"{"topic":"t","data":"1"}"#);
    assert_eq!(again.json()["id"], first.json()["id"]);
    let other = publish(&c, r#"{"topic":"t","data":"2"}"#);
    assert_eq!(
        (other.status, other.json()["code"].as_str()),
        (422, Some("key_reused"))
    );

    let own = json!({"topic": "t", "data": "x", "id": "own"});
    assert_eq!(a.post_json(&own).status, 200);
    let taken = b.post_json(&own);
    assert_eq!(
        (taken.status, taken.json()["code"].as_str()),
        (409, Some("id_taken"))
    );

    let end = a.request("POST", "/topics/t/close", None).json();
    assert_eq!(
        b.request("POST", "/topics/t/close", None).json(),
        end,
        "closed once"
    );
    let closed = c.post_json(&json!({"topic": "t", "data": "3"}));
    assert_eq!(
        (closed.status, closed.json()["code"].as_str()),
        (409, Some("topic_closed"))
    );
    let mut reader = c.stream("/events?topic=t&since=earliest");
    let seen: Vec<_> = reader.rest().into_iter().map(|event| event.event).collect();
    assert_eq!(seen, ["message", "message", "end"]);
}

#[test]
fn a_batch_is_seen_whole_on_another_node() {
    let redis = RedisServer::start();
    let [a, b, _] = three(&redis);
    let mut stream = b.stream("/events?topic=t");
    let events: Vec<_> = (0..5_000)
        .map(|n| json!({"topic": "t", "data": n}))
        .collect();
    let answer = a.post_json(&json!(events));
    assert_eq!(answer.json()["ids"].as_array().unwrap().len(), 5_000);
    let expected: Vec<_> = (0..5_000).map(|n| n.to_string()).collect();
    assert_eq!(stream.data(5_000), expected);
}

#[test]
fn hubs_with_other_prefixes_know_nothing_of_each_other() {
    let redis = RedisServer::start();
    let here = node(&redis);
    let there = node_with(&redis, &[("TIDEWIRE_BROKER__PREFIX", "other:")]);
    let id = here.publish("t", &json!(1));
    let mut stream = there.stream_with("/events?topic=t", &[("Last-Event-ID", &id)]);
    assert_eq!(stream.event().event, "gap");
    assert_eq!(there.get("/topics/t/events").json()["events"], json!([]));
    assert_eq!(
        redis.command(&["EXISTS", "other:epoch", "tidewire:epoch", "tidewire:log"]),
        ":3\r\n"
    );
}
