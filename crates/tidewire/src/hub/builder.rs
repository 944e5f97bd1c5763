//! Settings of a hub, and its start.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::RwLock;
use tidewire_core::coalesce::CoalesceRule;
use tidewire_core::id::Epoch;
use tidewire_core::log::{Log, Retention};
use tidewire_core::subscription::SlowClient;

use super::{Hub, Settings, Shared};
use crate::broker::{Broker, MemoryBroker, StartError, Tail};
use crate::connections::{AtCapacity, Connections, Shares};
use crate::counters::Counters;
use crate::fanout::{self, Inbox};

/// Settings of a hub that is about to be made.
pub struct HubBuilder {
    settings: Settings,
    retention: Retention,
    coalescing: Vec<CoalesceRule>,
    connections_max: usize,
    at_capacity: AtCapacity,
    shares: Shares,
    broker: Option<Box<dyn Broker>>,
}

impl Default for HubBuilder {
    fn default() -> Self {
        let settings = Settings {
            heartbeat_ms: 30_000,
            retry_ms: 3_000,
            stall_timeout_ms: 30_000,
            max_lifetime_ms: 24 * 60 * 60 * 1_000,
            slow_client: SlowClient::Close,
            event_bytes_max: 1024 * 1024,
            topics_per_subscription_max: 128,
            patterns_per_subscription_max: 16,
        };
        Self {
            settings,
            retention: Retention::default(),
            coalescing: Vec::new(),
            connections_max: 10_000,
            at_capacity: AtCapacity::default(),
            shares: Shares::default(),
            broker: None,
        }
    }
}

impl HubBuilder {
    /// How much history is kept. Default: 10 minutes in 64 MiB.
    #[must_use]
    pub fn history(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How many connections there may be. Default: 10,000.
    #[must_use]
    pub fn max_connections(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self
    }

    /// What happens to one more. Default: the oldest is evicted.
    #[must_use]
    pub fn at_capacity(mut self, at_capacity: AtCapacity) -> Self {
        self.at_capacity = at_capacity;
        self
    }

    /// How many connections one client's address may have at a time, and one user; of IPv6, the 64 bits of its network
    /// count. One more is refused. Default: no limit.
    #[must_use]
    pub fn connections_per_client_max(
        mut self,
        per_address: Option<usize>,
        per_user: Option<usize>,
    ) -> Self {
        self.shares = Shares {
            per_address_max: per_address,
            per_user_max: per_user,
        };
        self
    }

    /// What happens to a client whose position falls off the log. Default: it is closed.
    #[must_use]
    pub fn slow_client(mut self, slow_client: SlowClient) -> Self {
        self.settings.slow_client = slow_client;
        self
    }

    /// Lets streams wait for more events, to get several with one write: a stream all of whose topics and patterns are
    /// under rules is woken at most once in the shortest of their windows. An event waits no longer than that, and
    /// the end of a topic, heartbeats and closes don't wait. Default: no rules.
    #[must_use]
    pub fn coalesce(mut self, rules: Vec<CoalesceRule>) -> Self {
        self.coalescing = rules;
        self
    }

    /// After how long without an event a heartbeat is sent. Default: 30 s.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.settings.heartbeat_ms = millis(every);
        self
    }

    /// The least time after which clients are told to reconnect; up to half as much again is added by chance.
    /// Default: 3 s.
    #[must_use]
    pub fn retry(mut self, least: Duration) -> Self {
        self.settings.retry_ms = millis(least);
        self
    }

    /// How long a client may take no byte while there is something to send. Default: 30 s.
    #[must_use]
    pub fn stall_timeout(mut self, longest: Duration) -> Self {
        self.settings.stall_timeout_ms = millis(longest);
        self
    }

    /// The longest life of a connection. Default: 24 h.
    #[must_use]
    pub fn max_lifetime(mut self, longest: Duration) -> Self {
        self.settings.max_lifetime_ms = millis(longest);
        self
    }

    /// The largest event: id, name and data, in bytes. Default: 1 MiB.
    #[must_use]
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.event_bytes_max = bytes;
        self
    }

    /// How many topics and patterns one subscription may name. Default: 128 and 16.
    #[must_use]
    pub fn names_per_subscription_max(mut self, topics: usize, patterns: usize) -> Self {
        self.settings.topics_per_subscription_max = topics;
        self.settings.patterns_per_subscription_max = patterns;
        self
    }

    /// Where events are stored. Default: in this process' memory.
    #[must_use]
    pub fn broker(mut self, broker: impl Broker) -> Self {
        self.broker = Some(Box::new(broker));
        self
    }

    /// Makes a hub whose broker is there at once, as that in memory is.
    ///
    /// # Panics
    /// If the system can't start a thread, or if the broker takes time to start or can't: use [`start`](Self::start).
    pub fn build(self) -> Hub {
        self.start()
            .now_or_never()
            .expect("this broker takes time to start: use HubBuilder::start")
            .expect("the broker starts")
    }

    /// Makes the hub, and waits until its broker has started and its log has the history.
    ///
    /// # Errors
    /// If the broker can't start.
    ///
    /// # Panics
    /// If the system can't start a thread.
    pub async fn start(self) -> Result<Hub, StartError> {
        let memory =
            || Box::new(MemoryBroker::new(Duration::from_mins(5), 100_000)) as Box<dyn Broker>;
        let log = Log::new(Epoch::from_random(fastrand::u64(..)), self.retention);
        let shared = Arc::new(Shared {
            log: RwLock::new(log.with_coalescing(self.coalescing)),
            connections: Connections::new(self.connections_max, self.at_capacity, self.shares),
            counters: Counters::default(),
            settings: self.settings,
            broker: self.broker.unwrap_or_else(memory),
            pages: Arc::default(),
            inbox: Arc::new(Inbox::default()),
            draining: AtomicBool::new(false),
            watcher: OnceLock::new(),
        });
        shared.broker.start(Tail::new(&shared)).await?;
        fanout::spawn(shared.inbox.clone(), Arc::downgrade(&shared))
            .expect("the system starts a thread");
        Ok(Hub { shared })
    }
}

/// Milliseconds; not so many that a time could overflow to which they are added.
fn millis(duration: Duration) -> u64 {
    const MILLIS_MAX: u64 = u64::MAX / 8;
    u64::try_from(duration.as_millis()).map_or(MILLIS_MAX, |ms| ms.min(MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::jittered;

    #[test]
    fn the_longest_duration_is_never_and_not_at_once() {
        let longest = millis(Duration::MAX);
        assert!(jittered(longest) >= longest);
        assert_eq!(1_500, millis(Duration::from_millis(1_500)));
    }
}
