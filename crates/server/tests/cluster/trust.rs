//! The registry says what is not so: by hand, by a former life, by somebody of the same name.

use serde_json::json;

use crate::support::{Hub, RedisServer};
use crate::{count, node, node_with, send, until};

/// Nothing but heartbeats finds anything.
const UNCHECKED: (&str, &str) = ("TIDEWIRE_CLUSTER__CHECK_INTERVAL", "0s");
/// A time to live that no test waits for.
const LONG_TTL: (&str, &str) = ("TIDEWIRE_CLUSTER__TTL", "30s");

/// A place of which nothing is true but its form, and that no client's own is newer than.
const NOWHERE: &str = "b ffffffff-ffff-7fff-bfff-ffffffffffff ffffffff-ffff-7fff-bfff-ffffffffffff";

#[test]
fn what_is_no_route_is_put_right() {
    let redis = RedisServer::start();
    let a = node_with(&redis, "a", &[UNCHECKED]);
    let mut streams = ["c", "d", "e"].map(|id| a.stream(&format!("/sse/connect/{id}")));
    redis.command(&["SET", "tidewire:route:c", "garbage"]);
    redis.command(&["DEL", "tidewire:route:d"]);
    redis.command(&["LPUSH", "tidewire:route:d", "x"]);
    redis.command(&["SET", "tidewire:route:nobody", "garbage"]);
    assert_eq!(send(&a, "nobody", "x").status, 404);
    for id in ["c", "d", "e"] {
        until("the route is one", || {
            let route = redis.command(&["GET", &format!("tidewire:route:{id}")]);
            route.contains("\na ")
        });
    }
    // All are renewed in one call, so none has suffered.
    for (id, stream) in ["c", "d", "e"].iter().zip(&mut streams) {
        assert_eq!(send(&a, id, "x").status, 200);
        assert_eq!(stream.event().data, "x");
    }
    assert_eq!(count(&a, "cluster"), 3);
    let mut nobody = a.stream("/sse/connect/nobody");
    assert_eq!(send(&a, "nobody", "x").status, 200);
    assert_eq!(nobody.event().data, "x");
}

#[test]
fn a_place_that_does_not_exist_costs_nobody_the_connection() {
    let redis = RedisServer::start();
    let a = node_with(&redis, "a", &[UNCHECKED]);
    let b = node_with(&redis, "b", &[UNCHECKED]);
    let mut stream = a.stream("/sse/connect/c");
    redis.command(&["SET", "tidewire:route:c", NOWHERE, "PX", "60000"]);
    redis.command(&["SADD", "tidewire:clients:b", "c"]);
    until("the client is where it is", || {
        b.get("/sse/status/c").json()["node"] == json!("a")
    });
    assert_eq!(send(&b, "c", "x").status, 200);
    assert_eq!(stream.event().data, "x");
    assert_eq!(count(&a, "cluster"), 1);
    let metrics = a.get("/metrics").body;
    assert!(
        !metrics.contains("tidewire_registry_inconsistencies_total 0"),
        "{metrics}"
    );
}

#[test]
fn a_place_that_does_not_exist_makes_a_strict_node_fail() {
    let redis = RedisServer::start();
    let strict = ("TIDEWIRE_CLUSTER__INCONSISTENCY", "fail_fast");
    let a = node_with(&redis, "a", &[UNCHECKED, strict]);
    let _b = node_with(&redis, "b", &[UNCHECKED]);
    let mut stream = a.stream("/sse/connect/c");
    redis.command(&["SET", "tidewire:route:c", NOWHERE, "PX", "60000"]);
    until("the node is not ready", || a.get("/readyz").status == 503);
    let answer = a.get("/readyz").body;
    assert!(answer.contains("elsewhere"), "{answer}");
    redis.command(&["DEL", "tidewire:route:c"]);
    until("the node is ready again", || a.get("/readyz").status == 200);
    assert_eq!(send(&a, "c", "x").status, 200);
    assert_eq!(stream.event().data, "x");
}

#[test]
fn what_a_former_life_left_is_cleared_away_at_the_start() {
    let redis = RedisServer::start();
    let a = node_with(&redis, "a", &[LONG_TTL]);
    let mut b = node_with(&redis, "b", &[LONG_TTL, UNCHECKED]);
    let ghosts: Vec<_> = (0..5)
        .map(|n| b.stream(&format!("/sse/connect/c{n}")))
        .collect();
    until("all are counted", || count(&a, "cluster") == 5);
    b.restart();
    drop(ghosts);
    until("none is counted", || count(&a, "cluster") == 0);
    assert_eq!(redis.command(&["EXISTS", "tidewire:route:c3"]), ":0\r\n");
    let mut stream = b.stream("/sse/connect/c3");
    assert_eq!(send(&a, "c3", "x").json()["node"], json!("b"));
    assert_eq!(stream.event().data, "x");
}

#[test]
fn two_nodes_of_one_name_say_so() {
    let redis = RedisServer::start();
    let [a, mut twin] =
        [(); 2].map(|()| node_with(&redis, "a", &[("TIDEWIRE_CLUSTER__TTL", "6s")]));
    let says_so = |node: &Hub| {
        let answer = node.get("/readyz");
        answer.status == 503 && answer.body.contains("another node has the name `a`")
    };
    until("one says so", || says_so(&a));
    until("the other one too", || says_so(&twin));
    twin.stop();
    until("the name is its own again", || {
        a.get("/readyz").status == 200
    });
}

#[test]
fn a_client_that_left_while_redis_was_away_is_not_counted_afterwards() {
    let mut redis = RedisServer::start_durable();
    let a = node_with(&redis, "a", &[("TIDEWIRE_CLUSTER__TTL", "10s"), UNCHECKED]);
    let _kept = a.stream("/sse/connect/kept");
    let left = a.stream("/sse/connect/left");
    assert_eq!(count(&a, "cluster"), 2);
    redis.kill();
    drop(left);
    until("it has left", || count(&a, "local") == 1);
    until("the registry has missed it", || {
        let metrics = a.get("/metrics").body;
        !metrics.contains("tidewire_registry_missed_beats_total 0")
    });
    redis.run();
    until("it is not counted", || {
        let answer = a.get("/sse/count");
        answer.status == 200 && answer.json()["count"] == json!(1)
    });
}

#[test]
fn a_node_says_at_once_that_it_drains() {
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    let b = node_with(&redis, "b", &[LONG_TTL]);
    let _stream = b.stream("/events?topic=t");
    b.terminate();
    until("it is listed so", || {
        let listed = a.get("/api/v1/nodes").json();
        let nodes = listed["nodes"].as_array().unwrap().clone();
        nodes
            .iter()
            .any(|node| node["node"] == json!("b") && node["draining"] == json!(true))
    });
}
