//! Connections by the client's id, over HTTP: on one node, and on three that share a real Redis.
//!
//! | module | what must hold |
//! |---|---|
//! | `door` | every address, answer and refusal, on one node without Redis |
//! | `nodes` | whichever node is asked; takeover, death, presence |
//! | `silence` | Redis hangs, a node is dead: nobody waits for long |
//! | `trust` | the registry says what is not so |
//! | `cost` | what connections cost Redis |
//! | `slots` | a slot of a Redis Cluster moves |
//! | `faults` | Redis or a node is away, silent, empty, or says what is not so |

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cost;
mod door;
mod faults;
mod nodes;
mod silence;
mod slots;
mod trust;

#[path = "../auth/issuer.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod issuer;

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use support::{Hub, RedisServer, Response, until};

/// How long entries live here.
const TTL: Duration = Duration::from_secs(2);

/// A node with a name.
fn node(redis: &RedisServer, name: &str) -> Hub {
    node_with(redis, name, &[])
}

fn node_with(redis: &RedisServer, name: &str, more: &[(&str, &str)]) -> Hub {
    node_at(&redis.url(), name, more)
}

fn node_at(url: &str, name: &str, more: &[(&str, &str)]) -> Hub {
    let mut env = vec![
        ("TIDEWIRE_BROKER__KIND", "redis"),
        ("TIDEWIRE_BROKER__URL", url),
        ("TIDEWIRE_NODE__ID", name),
        ("TIDEWIRE_CLUSTER__TTL", "2s"),
        ("TIDEWIRE_CLUSTER__RETRY_WITHIN", "600ms"),
        ("TIDEWIRE_CLUSTER__CHECK_INTERVAL", "300ms"),
        ("TIDEWIRE_CLUSTER__SWEEP_INTERVAL", "500ms"),
        ("TIDEWIRE_CLUSTER__LEAK_INTERVAL", "500ms"),
    ];
    env.extend(more);
    Hub::spawn(&[], &env)
}

/// Waits until every node knows of all.
fn until_joined(nodes: &[Hub]) {
    until("all nodes are there", || {
        nodes.iter().all(|node| {
            let listed = node.get("/api/v1/nodes");
            listed.status == 200 && listed.json()["nodes"].as_array().unwrap().len() == nodes.len()
        })
    });
}

fn send(node: &Hub, client: &str, data: &str) -> Response {
    let path = format!("/sse/send/{client}");
    node.send(
        "POST",
        &path,
        &[("Content-Type", "text/plain")],
        data.as_bytes(),
    )
}

fn count(node: &Hub, scope: &str) -> u64 {
    let answer = node.get(&format!("/sse/count?scope={scope}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["count"].as_u64().unwrap()
}
