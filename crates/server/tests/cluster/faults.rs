//! What is not as it should be.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::netns::Namespace;
use crate::support::{Hub, RedisServer};
use crate::{TTL, count, node, node_at, node_with, send, until, until_joined};

fn signal(hub: &Hub, signal: Signal) {
    let pid = Pid::from_raw(hub.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_killed_node_is_gone_with_its_clients_within_their_time_to_live() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let mut b = node(&redis, "b");
    let streams: Vec<_> = (0..1_000)
        .map(|n| b.stream(&format!("/sse/connect/c{n}")))
        .collect();
    until("all are counted", || count(&a, "cluster") == 1_000);
    b.stop();
    let killed = Instant::now();
    until("none is counted", || count(&a, "cluster") == 0);
    let took = killed.elapsed();
    assert!(took < TTL * 2, "{took:?}");
    assert_eq!(a.get("/sse/status/c7").json()["connected"], json!(false));
    assert_eq!(send(&a, "c7", "x").status, 404);
    // What it left is cleared away.
    until("nothing is left", || {
        redis.command(&[
            "EXISTS",
            "tidewire:clients:b",
            "tidewire:node:b",
            "tidewire:route:c7",
        ]) == ":0\r\n"
    });
    drop(streams);
}

#[test]
fn a_node_that_slept_over_its_time_gives_up_what_is_elsewhere_by_now() {
    let redis = RedisServer::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let mut old = b.stream("/sse/connect/c");
    let mut kept = b.stream("/sse/connect/kept");
    signal(&b, Signal::STOP);
    until("its node is not alive any more", || {
        a.get("/sse/status/c").json()["connected"] == json!(false)
    });
    let mut new = a.stream("/sse/connect/c");
    signal(&b, Signal::CONT);
    assert_eq!(old.rest().pop().unwrap().event, "replaced");
    until("the node is back", || {
        a.get("/sse/status/kept").json()["node"] == json!("b")
    });
    assert_eq!(send(&a, "kept", "x").json()["node"], json!("b"));
    assert_eq!(kept.event().data, "x");
    assert_eq!(send(&b, "c", "y").json()["node"], json!("a"));
    assert_eq!(new.event().data, "y");
    assert_eq!(count(&b, "cluster"), 2);
}

#[test]
fn a_node_that_is_cut_off_keeps_its_streams_and_gives_up_what_is_elsewhere_when_it_is_back() {
    let namespace = Namespace::with_lines(2);
    let (redis, urls) = namespace.redis();
    let [url_of_a, url_of_b] = urls;
    let (a, b) = (node_at(&url_of_a, "a", &[]), node_at(&url_of_b, "b", &[]));
    let mut moved = a.stream("/sse/connect/moved");
    let mut kept = a.stream("/sse/connect/kept");
    let mut topic = a.stream("/events?topic=t");
    let before = b.publish("t", &json!("before"));
    assert_eq!(topic.event().id, before);
    namespace.cut(0);
    until("the others take it for dead", || {
        b.get("/sse/status/moved").json()["connected"] == json!(false)
    });
    // Its own clients are served all the same.
    assert_eq!(send(&a, "kept", "local").status, 200);
    assert_eq!(kept.event().data, "local");
    until("it says that it is cut off", || {
        a.get("/readyz").status == 503
    });
    let mut elsewhere = b.stream("/sse/connect/moved");
    let meanwhile = b.publish("t", &json!("meanwhile"));
    namespace.heal(0);
    assert_eq!(moved.rest().pop().unwrap().event, "replaced");
    assert_eq!(
        topic.event().id,
        meanwhile,
        "nothing is missed, and nothing comes twice"
    );
    until("it is back", || {
        b.get("/sse/status/kept").json()["node"] == json!("a")
    });
    until("it is reached from the other", || {
        send(&b, "kept", "from b").status == 200
    });
    assert_eq!(kept.event().data, "from b");
    assert_eq!(send(&b, "moved", "x").json()["node"], json!("b"));
    assert_eq!(elsewhere.event().data, "x");
    until("it is ready", || a.get("/readyz").status == 200);
    assert_eq!(count(&a, "cluster"), 2);
    drop(redis);
}

#[test]
fn a_silent_node_is_reported() {
    let redis = RedisServer::start();
    let nodes = [
        node_with(
            &redis,
            "a",
            &[("TIDEWIRE_CLUSTER__ANSWER_TIMEOUT", "300ms")],
        ),
        node(&redis, "b"),
    ];
    until_joined(&nodes);
    let [a, b] = &nodes;
    let _stream = b.stream("/sse/connect/c");
    signal(b, Signal::STOP);
    let sent = send(a, "c", "x");
    let reached = a.send("POST", "/sse/broadcast", &[], b"x");
    signal(b, Signal::CONT);
    assert_eq!(
        (sent.status, sent.json()["code"].as_str()),
        (504, Some("node_silent")),
        "{sent:?}"
    );
    assert_eq!(sent.json()["node"], json!("b"));
    assert_eq!(
        (reached.status, &reached.json()["silent"]),
        (504, &json!(["b"])),
        "{reached:?}"
    );
}

#[test]
fn while_redis_is_away_local_sends_go_on_and_all_is_put_right_afterwards() {
    let mut redis = RedisServer::start();
    let nodes = [node(&redis, "a"), node(&redis, "b")];
    let [a, b] = &nodes;
    let mut stream = a.stream("/sse/connect/c");
    redis.kill();
    assert_eq!(send(a, "c", "local").status, 200);
    assert_eq!(stream.event().data, "local");
    let cluster = send(a, "elsewhere", "x");
    assert_eq!(
        (cluster.status, cluster.json()["code"].as_str()),
        (503, Some("registry_unavailable")),
        "{cluster:?}"
    );
    assert!(cluster.header("retry-after").is_some());
    assert_eq!(a.get("/sse/count?scope=cluster").status, 503);
    assert_eq!(count(a, "local"), 1);
    // One who comes meanwhile is served as well.
    let mut meanwhile = b.stream("/sse/connect/d");
    redis.forget();
    redis.run();
    until("the registry is built anew", || {
        let answer = b.get("/sse/count?scope=cluster");
        answer.status == 200 && answer.json()["count"] == json!(2)
    });
    // Streams with a place in the lost history are closed; those of clients have none, and were closed too once.
    until("the history is a new one", || {
        redis.command(&["EXISTS", "tidewire:epoch"]) == ":1\r\n"
    });
    until("both nodes follow it", || {
        [a, b].iter().all(|node| node.get("/readyz").status == 200)
    });
    // The nodes listen to each other again a little later; until then they say that the other is silent.
    until("b reaches a", || send(b, "c", "from b").status == 200);
    assert_eq!(stream.event().data, "from b");
    until("a reaches b", || send(a, "d", "from a").status == 200);
    assert_eq!(meanwhile.event().data, "from a");
}

fn falsify(redis: &RedisServer) {
    redis.command(&["SADD", "tidewire:clients:a", "ghost"]);
    let connection = uuid::Uuid::now_v7();
    let route = format!("a {connection} {connection}");
    redis.command(&["SET", "tidewire:route:ghost", &route, "PX", "60000"]);
}

#[test]
fn an_entry_that_is_not_so_is_corrected() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let _stream = a.stream("/sse/connect/c");
    // What a node finds at its start is nobody's fault, and cleared away without a word.
    until("the ghost is counted", || {
        falsify(&redis);
        count(&a, "cluster") == 2
    });
    until("the ghost is gone", || count(&a, "cluster") == 1);
    assert_eq!(redis.command(&["EXISTS", "tidewire:route:ghost"]), ":0\r\n");
    assert!(
        a.get("/metrics")
            .body
            .contains("tidewire_registry_inconsistencies_total 1")
    );
    // And one that lacks.
    redis.command(&["DEL", "tidewire:route:c", "tidewire:clients:a"]);
    until("the client is back", || {
        a.get("/sse/count").json()["count"] == json!(1)
    });
    assert_eq!(a.get("/readyz").status, 200);
}

#[test]
fn an_entry_that_is_not_so_makes_a_strict_node_fail() {
    let redis = RedisServer::start();
    let a = node_with(
        &redis,
        "a",
        &[("TIDEWIRE_CLUSTER__INCONSISTENCY", "fail_fast")],
    );
    until("the node is not ready", || {
        falsify(&redis);
        a.get("/readyz").status == 503
    });
    assert!(a.get("/readyz").body.contains("ghost"));
    assert_eq!(count(&a, "cluster"), 1, "nothing is corrected");
    redis.command(&["DEL", "tidewire:route:ghost"]);
    redis.command(&["SREM", "tidewire:clients:a", "ghost"]);
    until("the node is ready again", || a.get("/readyz").status == 200);
}

#[test]
fn a_stream_that_belongs_to_no_client_is_a_leak_and_closed() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let mut owned = a.stream("/sse/connect/c");
    // A stream of what all clients read, by another door.
    let mut leaked = a.stream("/events?topic=connection:/clients");
    assert_eq!(leaked.rest().pop().unwrap().event, "closed");
    assert!(a.get("/metrics").body.contains("tidewire_leaks_total 1"));
    assert_eq!(send(&a, "c", "x").status, 200);
    assert_eq!(owned.event().data, "x");
}

#[test]
fn a_flushed_script_cache_is_filled_again() {
    let redis = RedisServer::start();
    let nodes = [node(&redis, "a"), node(&redis, "b")];
    until_joined(&nodes);
    let mut stream = nodes[0].stream("/sse/connect/c");
    redis.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(send(&nodes[1], "c", "x").status, 200);
    assert_eq!(stream.event().data, "x");
}
