//! Counters that threads share without fighting over a cache line: each thread adds to a shard of its own, and only
//! who reads them pays for the sum.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tidewire_core::subscription::CloseReason;

/// More threads than this share shards.
const SHARDS: usize = 16;

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    delivered: AtomicU64,
    gaps: AtomicU64,
    published: AtomicU64,
    closes: [AtomicU64; CloseReason::ALL.len()],
}

/// What happened since the hub was made.
#[derive(Default)]
pub(crate) struct Counters {
    shards: [Shard; SHARDS],
}

/// The sums of all counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events handed to connections.
    pub delivered: u64,
    /// Times that a client was told of missing events.
    pub gaps: u64,
    /// Events that were published on this node.
    pub published: u64,
    /// Connections that ended, by reason.
    pub closes: Vec<(CloseReason, u64)>,
}

impl Totals {
    /// Connections that ended for this reason.
    pub fn closes_by(&self, reason: CloseReason) -> u64 {
        let of_reason = self.closes.iter().filter(|(r, _)| *r == reason);
        of_reason.map(|(_, n)| n).sum()
    }
}

impl Counters {
    pub(crate) fn add_delivered(&self, n: usize) {
        self.shard()
            .delivered
            .fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_gap(&self) {
        self.shard().gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_published(&self, n: usize) {
        self.shard()
            .published
            .fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_close(&self, reason: CloseReason) {
        self.shard().closes[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let sum = |of: &dyn Fn(&Shard) -> &AtomicU64| {
            self.shards
                .iter()
                .map(|s| of(s).load(Ordering::Relaxed))
                .sum()
        };
        Totals {
            delivered: sum(&|shard| &shard.delivered),
            gaps: sum(&|shard| &shard.gaps),
            published: sum(&|shard| &shard.published),
            closes: CloseReason::ALL
                .map(|reason| (reason, sum(&|shard| &shard.closes[reason as usize])))
                .to_vec(),
        }
    }

    fn shard(&self) -> &Shard {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        &self.shards[SHARD.with(|shard| *shard)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_adds_up() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    counters.add_delivered(3);
                    counters.add_close(CloseReason::Stalled);
                });
            }
        });
        let totals = counters.totals();
        assert_eq!(totals.delivered, 120);
        assert_eq!(totals.closes_by(CloseReason::Stalled), 40);
        assert_eq!(totals.closes_by(CloseReason::Evicted), 0);
    }
}
