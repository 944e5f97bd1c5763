//! What a node does while Redis is not as it should be.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Hub, RedisServer, Stream, WAIT_MAX};
use crate::{node, node_with, until};

/// Publishes until it is stored; answers the id.
fn publish_in_time(node: &Hub, data: &str) -> String {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let answer = node.post_json(&json!({"topic": "t", "data": data}));
        if answer.status == 200 {
            return answer.json()["id"].as_str().unwrap().to_owned();
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

fn wait_until_ready(node: &Hub, ready: bool) -> String {
    let status = if ready { 200 } else { 503 };
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let answer = node.get("/readyz");
        if answer.status == status {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Resumes until the stream begins with something.
fn resume(node: &Hub, id: &str) -> Stream {
    node.stream_with("/events?topic=t", &[("Last-Event-ID", id)])
}

fn assert_refused(node: &Hub, why: &str) {
    let answer = node.post_json(&json!({"topic": "t", "data": "x"}));
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("not_stored")),
        "{answer:?}"
    );
    assert!(answer.body.contains(why), "{}", answer.body);
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_redis_that_keeps_its_data_over_a_restart_loses_nothing() {
    let mut redis = RedisServer::start_durable();
    let node = node(&redis);
    let mut stream = node.stream("/events?topic=t");
    let before = node.publish("t", &json!("before"));
    assert_eq!(stream.event().id, before);
    redis.kill();
    wait_until_ready(&node, false);
    let refused = node.post_json(&json!({"topic": "t", "data": "meanwhile"}));
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (503, Some("not_stored"))
    );
    assert!(refused.header("retry-after").is_some());
    redis.run();
    let after = publish_in_time(&node, "after");
    // The stream lived on, and nothing came twice.
    assert_eq!(stream.event().id, after);
    assert_eq!(resume(&node, &before).event().id, after);
    wait_until_ready(&node, true);
}

#[test]
fn a_redis_that_has_forgotten_begins_a_new_epoch_and_everyone_is_told() {
    let mut redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    let mut stream = nodes[1].stream("/events?topic=t");
    let lost = nodes[0].publish("t", &json!("lost"));
    assert_eq!(stream.event().id, lost);
    redis.kill();
    redis.forget();
    redis.run();
    let after = publish_in_time(&nodes[0], "after");
    assert_ne!(after[..9], lost[..9], "another epoch");
    // Who was connected is closed, comes back, and hears of it.
    assert!(stream.rest().iter().all(|event| event.data != "after"));
    for node in &nodes {
        let mut stream = resume(node, &lost);
        let gap = stream.event();
        assert_eq!(gap.event, "gap");
        assert!(gap.data.contains("unknown_id"), "{}", gap.data);
        assert_eq!(stream.event().id, after);
    }
}

#[test]
fn events_removed_before_a_node_has_read_them_are_a_gap() {
    let redis = RedisServer::start();
    let node = node(&redis);
    let mut stream = node.stream("/events?topic=t");
    let seen = node.publish("t", &json!("seen"));
    assert_eq!(stream.event().id, seen);
    // Added and removed at once, as by a stream that is trimmed faster than it is read.
    let script = "for n = 1, 5 do redis.call('XADD', KEYS[1], '*', 'topic', 't', 'data', n) end \
                  redis.call('XTRIM', KEYS[1], 'MAXLEN', 2)";
    redis.command(&["EVAL", script, "1", "tidewire:log"]);
    let seen_of_them: Vec<_> = stream.rest().into_iter().map(|event| event.data).collect();
    assert!(seen_of_them.len() <= 2, "{seen_of_them:?}");
    let mut stream = resume(&node, &seen);
    assert_eq!(stream.event().event, "gap");
    assert_eq!(stream.data(2), ["4", "5"]);
}

#[test]
fn a_silent_redis_makes_the_outcome_unknown_in_bounded_time() {
    let redis = RedisServer::start();
    let node = node(&redis);
    node.publish("t", &json!(1));
    redis.pause();
    let started = Instant::now();
    let answer = node.post_json(&json!({"topic": "t", "data": "?"}));
    let took = started.elapsed();
    redis.resume();
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("outcome_unknown"))
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    // It was stored after all, or not; but once.
    let last = publish_in_time(&node, "last");
    let mut stream = node.stream("/events?topic=t&since=earliest");
    let mut seen = vec![stream.event()];
    while seen.last().unwrap().id != last {
        seen.push(stream.event());
    }
    assert!(seen.iter().filter(|event| event.data == "?").count() <= 1);
}

#[test]
fn a_redis_without_room_or_that_is_read_only_refuses_and_recovers() {
    let redis = RedisServer::start();
    let node = node(&redis);
    let refused = |why: &str| assert_refused(&node, why);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    refused("OOM");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    publish_in_time(&node, "1");
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    refused("read only replica");
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    publish_in_time(&node, "2");
    redis.command(&["SCRIPT", "FLUSH"]);
    publish_in_time(&node, "3");
    let mut stream = node.stream("/events?topic=t&since=earliest");
    assert_eq!(stream.data(3), ["1", "2", "3"]);
}

#[test]
fn a_redis_that_permits_it_not_or_can_not_save_refuses_and_recovers() {
    let redis = RedisServer::start_with(&["--save", "3600 1", "--appendonly", "no"]);
    let node = node(&redis);
    let refused = |why: &str| assert_refused(&node, why);
    let permit = |change: &str| redis.command(&["ACL", "SETUSER", "default", change]);
    for command in ["xadd", "evalsha"] {
        permit(&format!("-{command}"));
        refused("run ");
        permit(&format!("+{command}"));
        publish_in_time(&node, command);
    }
    // What is stored by then is not said not to be.
    permit("-set");
    let keyed = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k"),
    ];
    let event = br#"{"topic":"t","data":"stored"}"#;
    let answer = node.send("POST", "/events", &keyed, event);
    assert_eq!(answer.json()["code"], "outcome_unknown", "{answer:?}");
    permit("+set");
    // A file that can't be written, as where it is to be there is a folder.
    let file = redis.folder().join("dump.rdb");
    std::fs::create_dir_all(file.join("not empty")).unwrap();
    redis.command(&["BGSAVE"]);
    until("it can't save", || {
        let persistence = redis.command(&["INFO", "persistence"]);
        persistence.contains("rdb_last_bgsave_status:err")
    });
    refused("MISCONF");
    std::fs::remove_dir_all(file).unwrap();
    redis.command(&["BGSAVE"]);
    publish_in_time(&node, "saved");
    let mut stream = node.stream("/events?topic=t&since=earliest");
    assert_eq!(stream.data(4), ["xadd", "evalsha", "stored", "saved"]);
}

#[test]
fn how_far_a_node_is_behind_is_told() {
    let redis = RedisServer::start();
    let node = node(&redis);
    node.publish("t", &json!(1));
    let lag_s = || -> f64 {
        let metrics = node.get("/metrics").body;
        let mut lines = metrics.lines();
        let lag = lines.find_map(|line| line.strip_prefix("tidewire_broker_lag_seconds "));
        lag.unwrap().parse().unwrap()
    };
    assert!(lag_s() < f64::EPSILON);
    redis.command(&["ACL", "SETUSER", "default", "-xread"]);
    wait_until_ready(&node, false);
    until("it is behind", || {
        redis.command(&["XADD", "tidewire:log", "*", "topic", "t", "data", "2"]);
        lag_s() > 0.1
    });
    redis.command(&["ACL", "SETUSER", "default", "+xread"]);
    wait_until_ready(&node, true);
    until("it is not behind any more", || lag_s() < f64::EPSILON);
}

#[test]
fn the_largest_possible_id_is_told_and_not_crashed_on() {
    let redis = RedisServer::start();
    let node = node(&redis);
    node.publish("t", &json!(1));
    let largest = "18446744073709551615-18446744073709551615";
    redis.command(&["XADD", "tidewire:log", largest, "topic", "t", "data", "x"]);
    let why = wait_until_ready(&node, false);
    assert!(why.contains("last id"), "{why}");
    let answer = node.post_json(&json!({"topic": "t", "data": "x"}));
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("not_stored")),
        "{answer:?}"
    );
    // The way out that it names.
    redis.command(&["DEL", "tidewire:log", "tidewire:epoch"]);
    publish_in_time(&node, "again");
    wait_until_ready(&node, true);
}

#[test]
fn a_node_can_ask_for_replicas() {
    let redis = RedisServer::start();
    let node = node_with(&redis, &[("TIDEWIRE_BROKER__WAIT_REPLICAS", "1")]);
    let answer = node.post_json(&json!({"topic": "t", "data": "x"}));
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("outcome_unknown")),
        "{answer:?}"
    );
    let port = redis.port().to_string();
    let replica = RedisServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    publish_in_time_unknown(&node);
    drop(replica);
}

/// Until the replica has caught up the outcome is unknown.
fn publish_in_time_unknown(node: &Hub) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let answer = node.post_json(&json!({"topic": "t", "data": "x"}));
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.json()["code"], "outcome_unknown");
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_wrong_password_stops_the_start_and_says_so() {
    let redis = RedisServer::start_with(&["--save", "", "--requirepass", "secret"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .env_clear()
        .env("TIDEWIRE_LISTEN", "127.0.0.1:0")
        .env("TIDEWIRE_BROKER__KIND", "redis")
        .env(
            "TIDEWIRE_BROKER__URL",
            format!("redis://:wrong@127.0.0.1:{}", redis.port()),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("broker.url") && text.contains("password") && !text.contains("wrong@"),
        "{text}"
    );
}
