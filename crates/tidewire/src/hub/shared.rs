//! What all parts of a hub share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tidewire_core::coalesce::Touched;
use tidewire_core::log::Log;
use tidewire_core::subscription::{CloseReason, SlowClient};

use crate::broker::Broker;
use crate::clock::now_ms;
use crate::connections::{Connection, ConnectionId, Connections};
use crate::counters::Counters;
use crate::fanout::Inbox;
use crate::older::Pages;

/// What all parts of a hub share.
pub(crate) struct Shared {
    pub(super) log: RwLock<Log>,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
    pub(crate) settings: Settings,
    pub(super) broker: Box<dyn Broker>,
    pub(crate) pages: Arc<Pages>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) draining: AtomicBool,
    pub(super) watcher: OnceLock<Box<dyn Watcher>>,
}

/// Is told of connections as they come and go, and does nothing slow about it.
pub(crate) trait Watcher: Send + Sync {
    /// Whether it wants to know the topics of connections, which takes looking them up.
    fn wants_topics(&self) -> bool;

    /// A connection was opened that names these topics.
    fn opened(&self, connection: &Connection, topics: Vec<String>);

    /// A connection has ended.
    fn ended(&self, connection: &Connection, topics: Vec<String>);
}

/// Settings that count for every connection; times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) heartbeat_ms: u64,
    pub(crate) retry_ms: u64,
    pub(crate) stall_timeout_ms: u64,
    pub(crate) max_lifetime_ms: u64,
    pub(crate) slow_client: SlowClient,
    pub(crate) event_bytes_max: usize,
    pub(crate) topics_per_subscription_max: usize,
    pub(crate) patterns_per_subscription_max: usize,
}

impl Shared {
    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.broker
    }

    pub(crate) fn read_log<T>(&self, read: impl FnOnce(&Log) -> T) -> T {
        read(&self.log.read())
    }

    /// Changes the log, and notes for the fan-out thread if readers were touched.
    pub(crate) fn write_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.write();
        let result = change(&mut log);
        let touched = log.has_touched();
        drop(log);
        if touched {
            self.inbox.note_news();
        }
        result
    }

    pub(crate) fn take_touched(&self, touched: &mut Vec<Touched>) {
        self.log.write().take_touched(touched);
    }

    /// Drops events that are too old.
    pub(crate) fn expire(&self) {
        self.log.write().expire(now_ms());
    }

    /// Ends what the hub knows of a connection. Only the first call for a connection does anything.
    pub(crate) fn end_connection(&self, id: ConnectionId, reason: CloseReason) {
        if let Some(connection) = self.connections.remove(id) {
            self.forget(&connection, reason);
        }
    }

    /// Gives back what a connection held that is out of the tables.
    pub(super) fn forget(&self, connection: &Connection, reason: CloseReason) {
        self.counters.add_close(reason);
        let topics = self.watched_topics(connection);
        let mut log = self.log.write();
        log.release_filter(connection.filter);
        if let Some(own) = connection.own_topic() {
            log.release_topic(own);
        }
        drop(log);
        if let Some(watcher) = self.watcher.get() {
            watcher.ended(connection, topics);
        }
        tracing::debug!(connection = %connection.id, reason = reason.as_str(), "connection closed");
    }

    /// From now on this is told of connections. There can be one such.
    pub(crate) fn watch(&self, watcher: Box<dyn Watcher>) -> bool {
        self.watcher.set(watcher).is_ok()
    }

    /// The topics that a connection names, if anybody wants to know.
    pub(super) fn watched_topics(&self, connection: &Connection) -> Vec<String> {
        if !self
            .watcher
            .get()
            .is_some_and(|watcher| watcher.wants_topics())
        {
            return Vec::new();
        }
        let names = self.read_log(|log| log.filter_names(connection.filter));
        names.map(|(topics, _)| topics).unwrap_or_default()
    }

    /// Closes a connection whose client takes no bytes. It is not polled, so it can't end by itself.
    pub(crate) fn close_stalled(&self, connection: &Connection) {
        connection.request_close(CloseReason::Stalled);
        self.end_connection(connection.id, CloseReason::Stalled);
        connection.cut_off();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}
