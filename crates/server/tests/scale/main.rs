//! The hub with as many clients as it is made for, driven from outside: slow readers, full houses, storms and drains.
//!
//! | module | what must hold |
//! |---|---|
//! | `slow` | whoever stops reading delays nobody, costs no memory, and is closed or told of the gap |
//! | `full` | one connection more than may be, under both policies |
//! | `drain` | a shutdown closes all streams at a pace, and none within an event |
//! | `churn` | clients that hang up at any moment leave nothing behind |
//! | `topics` | a topic of its own for each client |
//!
//! Each test has the machine to itself. `make scale` runs them with more events and more rounds: see [`scaled`].

mod churn;
mod drain;
mod full;
mod slow;
mod topics;

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::{Crowd, Hub, numbered, process};

/// How many times as much as usual.
const SCALE: &str = "TIDEWIRE_TEST_SCALE";

/// As many connections as a hub takes by default.
const FULL: usize = 10_000;

/// Held by the test that runs: two at once would run out of descriptors.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many times `usual` as the environment asks for.
fn scaled(usual: u64) -> u64 {
    let scale = std::env::var(SCALE).ok().map(|text| {
        text.parse::<u64>()
            .expect("TIDEWIRE_TEST_SCALE is a number")
    });
    usual * scale.unwrap_or(1)
}

/// Publishes numbers of a series to the topic of the same name.
fn publish(hub: &Hub, series: &str, numbers: std::ops::Range<u64>, data_bytes: usize) {
    let lines = numbered(series, numbers, data_bytes);
    let path = format!("/events?topic={series}");
    let answer = hub.request("POST", &path, Some(("application/x-ndjson", &lines)));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// How many descriptors the hub has without a client, once it has had one: some are opened for the first stream.
fn descriptors_when_idle(hub: &Hub, crowd: &Crowd) -> usize {
    let readers = crowd.join(8, |_| "/events?topic=first".to_owned());
    for reader in &readers {
        reader.hang_up();
    }
    hub.wait_for_stats("all are gone", |stats| stats["connections"] == 0);
    process::descriptors(hub.pid())
}
