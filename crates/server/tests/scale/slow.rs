//! Clients that stop reading.

use std::sync::Arc;

use serde_json::Value;

use crate::support::{Crowd, Hub, Reader, Seen, process, wait_for_all};
use crate::{alone, publish, scaled};

const MIB: u64 = 1024 * 1024;
/// The log's budget in these tests.
const BUDGET: (&str, u64) = ("4MiB", 4 * MIB);
/// Long enough that nobody is closed for it while a test runs.
const NEVER: &str = "1h";
const OTHERS: usize = 1_000;
/// `bulk` events of this size go to those who stall and a few who read.
const BULK_BYTES: usize = 8 * 1024;
/// An event of which a reader has a part can only be ended, and skipped to the next, if the rest is small.
const SKIPPABLE_BYTES: usize = 2 * 1024;
/// Published at a time: less than the budget, so that whoever reads can keep up.
const ROUND_BYTES: u64 = MIB;

/// What a client that stopped reading may keep of the server's memory: what the HTTP implementation holds for it.
const STALLED_BYTES_MAX: u64 = 48 * 1024;
/// What everything else may grow by while the log fills and many read: the allocator's slack, frames on their way.
const SLACK_BYTES_MAX: u64 = 16 * MIB;

/// Ten times the budget, in rounds. After each the readers have it all, whoever else does not read.
struct Flood<'a> {
    hub: &'a Hub,
    bulk_bytes: usize,
    bulk: u64,
    feed: u64,
    memory_max: u64,
}

impl<'a> Flood<'a> {
    fn new(hub: &'a Hub, bulk_bytes: usize) -> Self {
        Self {
            hub,
            bulk_bytes,
            bulk: 0,
            feed: 0,
            memory_max: 0,
        }
    }

    fn run(&mut self, feed: &[Arc<Reader>], bulk: &[Arc<Reader>]) {
        let target = self.bulk + scaled(10) * BUDGET.1 / self.bulk_bytes as u64;
        let round = ROUND_BYTES / self.bulk_bytes as u64;
        while self.bulk < target {
            publish(self.hub, "feed", self.feed..self.feed + 20, 100);
            publish(
                self.hub,
                "bulk",
                self.bulk..self.bulk + round,
                self.bulk_bytes,
            );
            self.feed += 20;
            self.bulk += round;
            wait_for_all(feed, "all of the feed", |seen| {
                seen.last("feed") == Some(self.feed - 1)
            });
            wait_for_all(bulk, "all of the bulk", |seen| {
                seen.last("bulk") == Some(self.bulk - 1)
            });
            self.memory_max = self.memory_max.max(process::memory_bytes(self.hub.pid()));
        }
    }
}

fn closes(stats: &Value, reason: &str) -> u64 {
    stats["closes"][reason]
        .as_u64()
        .expect("every reason is counted")
}

#[test]
fn stalled_readers_delay_nobody_and_cost_no_memory() {
    let _alone = alone();
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_HISTORY__MEMORY", BUDGET.0),
            ("TIDEWIRE_LIMITS__STALL_TIMEOUT", NEVER),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let readers = crowd.join(OTHERS, |_| "/events?topic=feed".to_owned());
    let bulk = crowd.join(5, |_| "/events?topic=bulk".to_owned());
    let one = crowd.join_slow(1, |_| "/events?topics=bulk,feed".to_owned());
    one[0].pause();
    let before = process::memory_bytes(hub.pid());

    let mut flood = Flood::new(&hub, BULK_BYTES);
    flood.run(&readers, &bulk);
    let stats = hub.stats();
    assert_eq!(
        stats["connections"],
        OTHERS + 6,
        "nobody was closed, the stalled one neither: {stats}"
    );
    let grown = flood.memory_max.saturating_sub(before);
    println!("one stalled: {grown} bytes more, budget {}", BUDGET.1);
    assert!(grown < BUDGET.1 + SLACK_BYTES_MAX, "{grown} bytes more");

    let many = crowd.join_slow(200, |_| "/events?topics=bulk,feed".to_owned());
    for reader in &many {
        reader.pause();
    }
    flood.run(&readers, &bulk);
    let grown = flood.memory_max.saturating_sub(before);
    println!("201 stalled: {grown} bytes more, budget {}", BUDGET.1);
    let allowed = BUDGET.1 + SLACK_BYTES_MAX + 201 * STALLED_BYTES_MAX;
    assert!(grown < allowed, "{grown} bytes more, {allowed} allowed");
    assert!(
        one[0].seen().count("bulk") < flood.bulk / 2,
        "it did not stall"
    );

    let stalled: Vec<_> = one.iter().chain(&many).cloned().collect();
    for reader in &stalled {
        reader.resume();
    }
    wait_for_all(&stalled, "the end", Seen::has_ended);
    let stats = hub.wait_for_stats("the stalled are gone", |stats| {
        stats["connections"] == OTHERS + 5
    });
    assert_eq!(closes(&stats, "lagged"), 201, "{stats}");
    for reader in readers.iter().chain(&bulk) {
        assert!(
            !reader.seen().has_ended(),
            "only those who stalled were closed"
        );
    }
    for reader in &readers {
        assert_eq!(
            reader.seen().count("feed"),
            flood.feed,
            "each got everything"
        );
    }
}

#[test]
fn whoever_takes_no_byte_for_too_long_is_closed() {
    let _alone = alone();
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_HISTORY__MEMORY", BUDGET.0),
            ("TIDEWIRE_LIMITS__STALL_TIMEOUT", "1s"),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let stalled = crowd.join_slow(20, |_| "/events?topic=bulk".to_owned());
    for reader in &stalled {
        reader.pause();
    }
    let idle = crowd.join(20, |_| "/events?topic=quiet".to_owned());

    // The kernel's buffers take some before anyone is stuck.
    publish(&hub, "bulk", 0..200, BULK_BYTES);
    let stats = hub.wait_for_stats("all of them were closed", |stats| {
        stats["connections"] == 20
    });
    assert_eq!(
        closes(&stats, "stalled") + closes(&stats, "lagged"),
        20,
        "{stats}"
    );
    assert!(closes(&stats, "stalled") > 0, "{stats}");
    assert!(
        !idle[0].seen().has_ended(),
        "to have nothing to read is not to stall"
    );
}

#[test]
fn a_slow_reader_that_may_skip_gets_a_gap_and_goes_on() {
    let _alone = alone();
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_HISTORY__MEMORY", BUDGET.0),
            ("TIDEWIRE_LIMITS__STALL_TIMEOUT", NEVER),
            ("TIDEWIRE_LIMITS__SLOW_CLIENT", "skip"),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let bulk = crowd.join(2, |_| "/events?topic=bulk".to_owned());
    let slow = crowd.join_slow(5, |_| "/events?topic=bulk".to_owned());
    let mut flood = Flood::new(&hub, SKIPPABLE_BYTES);
    for round in 1..=2 {
        for reader in &slow {
            reader.pause();
        }
        flood.run(&[], &bulk);
        for reader in &slow {
            reader.resume();
        }
        let last = flood.bulk - 1;
        wait_for_all(&slow, "the newest", |seen| seen.last("bulk") == Some(last));
        for reader in &slow {
            let seen = reader.seen();
            assert_eq!(seen.gaps.len(), round, "one gap for each time: {seen:?}");
            assert!(
                seen.gaps
                    .iter()
                    .all(|gap| gap.contains(r#""reason":"lagged""#)),
                "{seen:?}"
            );
            assert!(seen.count("bulk") < flood.bulk, "{seen:?}");
        }
    }
    hub.wait_for_stats("all are counted", |stats| stats["gaps"] == 10);
}
