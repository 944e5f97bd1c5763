//! A node holds less than the stream: what is older is read from there.

use serde_json::{Value, json};

use crate::node_with;
use crate::support::{Hub, RedisServer};

/// Far less than what is published.
const SMALL: (&str, &str) = ("TIDEWIRE_HISTORY__MEMORY", "1MiB");
const EVENTS: usize = 4_000;

fn publish(node: &Hub, rare_every: usize) -> Vec<String> {
    let filling = "x".repeat(1_000);
    let mut ids = Vec::new();
    for from in (0..EVENTS).step_by(500) {
        let events: Vec<_> = (from..from + 500)
            .map(|n| {
                let topic = if n % rare_every == 0 { "rare" } else { "busy" };
                json!({"topic": topic, "data": format!("{n} {filling}")})
            })
            .collect();
        let answer = node.post_json(&Value::from(events));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answered = answer.json();
        let answered = answered["ids"].as_array().unwrap();
        ids.extend(answered.iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    ids
}

fn numbers(data: &[String]) -> Vec<usize> {
    let number = |data: &String| data.split(' ').next().unwrap().parse().unwrap();
    data.iter().map(number).collect()
}

#[test]
fn who_resumes_from_before_the_log_gets_everything_and_goes_on_live() {
    let redis = RedisServer::start();
    let node = node_with(
        &redis,
        &[
            SMALL,
            ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "512KiB"),
            ("TIDEWIRE_LIMITS__BODY_BYTES_MAX", "8MiB"),
        ],
    );
    let ids = publish(&node, 10);
    let held = node.stats()["events"].as_u64().unwrap();
    assert!(held < EVENTS as u64 / 2, "the log holds {held}");
    let mut live = Vec::new();
    for topics in ["topic=busy&topic=rare", "topic=**", "topic=rare"] {
        let path = format!("/events?{topics}&fields=topic");
        let mut stream = node.stream_with(&path, &[("Last-Event-ID", &ids[5])]);
        let wanted: Vec<_> = (6..EVENTS)
            .filter(|n| topics != "topic=rare" || n % 10 == 0)
            .collect();
        let events: Vec<_> = wanted.iter().map(|_| stream.event()).collect();
        let data: Vec<_> = events.iter().map(|event| event.data.clone()).collect();
        assert_eq!(numbers(&data), wanted, "{topics}");
        for event in &events {
            let n = numbers(std::slice::from_ref(&event.data))[0];
            assert_eq!(event.id, ids[n], "the same id as from the log");
            let topic = if n.is_multiple_of(10) { "rare" } else { "busy" };
            assert_eq!(event.topics, [topic], "{topics}");
        }
        live.push(node.publish("rare", &json!("live")));
        for id in &live {
            assert_eq!(stream.event().id, *id);
        }
    }
}

#[test]
fn many_who_come_back_at_once_share_what_is_read() {
    let redis = RedisServer::start();
    let node = node_with(
        &redis,
        &[SMALL, ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "512KiB")],
    );
    let ids = publish(&node, 100);
    redis.command(&["CONFIG", "RESETSTAT"]);
    let mut streams: Vec<_> = (0..200)
        .map(|n| node.stream_with("/events?topic=rare", &[("Last-Event-ID", &ids[n])]))
        .collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        let wanted: Vec<_> = (n + 1..EVENTS).filter(|n| n % 100 == 0).collect();
        assert_eq!(numbers(&stream.data(wanted.len())), wanted);
    }
    let stats = redis.command(&["INFO", "commandstats"]);
    let reads = stats.split("cmdstat_xrange:calls=").nth(1).unwrap();
    let reads: usize = reads.split(',').next().unwrap().parse().unwrap();
    assert!(
        reads < 100,
        "{reads} reads for 200 clients of {EVENTS} events"
    );
}

/// Those who are sent what is older take turns; a turn used to be kept for as long as a client took for its frame.
#[test]
fn clients_that_read_nothing_hold_up_nobody_who_comes_back() {
    let redis = RedisServer::start();
    // Longer than this test waits for anything.
    let node = node_with(&redis, &[SMALL, ("TIDEWIRE_LIMITS__STALL_TIMEOUT", "10m")]);
    let ids = publish(&node, 10);
    let idle: Vec<_> = (0..80)
        .map(|_| node.stream_with("/events?topic=**", &[("Last-Event-ID", &ids[0])]))
        .collect();
    let mut stream = node.stream_with("/events?topic=rare", &[("Last-Event-ID", &ids[5])]);
    let wanted: Vec<_> = (6..EVENTS).filter(|n| n % 10 == 0).collect();
    assert_eq!(numbers(&stream.data(wanted.len())), wanted);
    assert_eq!(node.stats()["connections"], 81);
    drop(idle);
}

#[test]
fn what_the_stream_has_no_more_is_a_gap() {
    let redis = RedisServer::start();
    let node = node_with(
        &redis,
        &[SMALL, ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "512KiB")],
    );
    let ids = publish(&node, 10);
    // An id carries the entry's.
    let oldest = ids[1_000].split_once('-').unwrap().1.replace('.', "-");
    redis.command(&["XTRIM", "tidewire:log", "MINID", &oldest]);
    let mut stream = node.stream_with(
        "/events?topic=busy&topic=rare",
        &[("Last-Event-ID", &ids[5])],
    );
    let gap = stream.event();
    assert_eq!(gap.event, "gap");
    assert!(gap.data.contains("expired"), "{}", gap.data);
    let data = stream.data(3_000);
    assert_eq!(numbers(&data), (1_000..EVENTS).collect::<Vec<_>>());
}
