//! Several nodes, as processes, on one real Redis.
//!
//! | module | what must hold |
//! |---|---|
//! | `nodes` | one order, one history, one set of keys and ends, whichever node is asked |
//! | `older` | what a node's memory has no more is read from the stream |
//! | `outside` | other programs add entries and publish messages |
//! | `faults` | Redis is away, silent, read-only, full, or has forgotten |
//! | `kinds` | TLS, users, Sentinel, Cluster |
//! | `crash` | nodes and Redis are killed at any moment under load: nothing answered is lost, doubled or out of order |
//!
//! `make crash-redis` runs the last for longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod crash;
mod faults;
mod kinds;
mod nodes;
mod older;
mod outside;

#[path = "../support/mod.rs"]
mod support;

use support::{Hub, RedisServer, until};

/// A node of the hub on this Redis.
fn node(redis: &RedisServer) -> Hub {
    node_with(redis, &[])
}

fn node_with(redis: &RedisServer, more: &[(&str, &str)]) -> Hub {
    node_at(&redis.url(), more)
}

fn node_at(url: &str, more: &[(&str, &str)]) -> Hub {
    let mut env = vec![
        ("TIDEWIRE_BROKER__KIND", "redis"),
        ("TIDEWIRE_BROKER__URL", url),
    ];
    env.extend(more);
    Hub::spawn(&[], &env)
}
