//! What a hub tells of itself: its history, figures, topics and connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidewire_core::id::NativeId;
use tidewire_core::log::{HistoryPage, Log, LogStats, TopicInfo};
use tidewire_core::subscribe::Start;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

use super::Hub;
use crate::clock::now_ms;
use crate::connections::{Connection, ConnectionId};
use crate::counters::Totals;
use crate::rights::Rights;

/// Figures about a hub at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Connections that are open.
    pub connections: usize,
    /// The log's figures.
    pub log: LogStats,
    /// What happened since the start.
    pub totals: Totals,
}

impl Stats {
    /// Topics with an event in history or a subscriber.
    pub fn topics(&self) -> usize {
        self.log.topics
    }

    /// How often a client missed events since the start: it fell out of the history and was closed, or was told of a
    /// `gap`, here or when it came back after too long. One drop may stand for any number of events, as nobody counts
    /// what leaves the history unread; a client that is closed for lagging and then told of its gap counts twice.
    pub fn drops(&self) -> u64 {
        self.totals.gaps + self.totals.closes_by(CloseReason::Lagged)
    }
}

/// What a listing tells of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The topics that it names.
    pub topics: Vec<String>,
    /// The patterns that it names.
    pub patterns: Vec<String>,
    /// Where it comes from, where the server knows.
    pub remote: Option<SocketAddr>,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub connected_ms: u64,
    /// Events handed to it.
    pub delivered: u64,
    /// Events for it that it has not been sent yet.
    pub lag: usize,
}

impl Hub {
    /// Figures.
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.shared.connections.len(),
            log: self.shared.read_log(Log::stats),
            totals: self.shared.counters.totals(),
        }
    }

    /// How many subscriptions name a topic.
    pub fn subscribers(&self, topic: &str) -> usize {
        self.shared.read_log(|log| log.subscribers_of(topic))
    }

    /// Up to `limit` connections, oldest first, that are younger than `after`; and the `after` of the next page.
    pub fn connections(
        &self,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> (Vec<ConnectionInfo>, Option<ConnectionId>) {
        let page = self.shared.connections.page(after, limit);
        let next = page.last().filter(|_| page.len() == limit);
        let next = next.map(|connection| connection.id);
        // One that ended meanwhile is left out.
        let described = self.shared.read_log(|log| {
            page.iter()
                .filter_map(|connection| describe(log, connection))
                .collect()
        });
        (described, next)
    }

    /// The place of the newest event: whoever resumes from it gets all that comes after.
    pub fn position(&self) -> NativeId {
        self.shared.read_log(|log| log.id_at(log.head()))
    }

    /// Whether an event with this id, of a publisher's own, is in the history of this node.
    pub fn knows(&self, id: &str) -> bool {
        self.shared.read_log(|log| log.knows(id))
    }

    /// From now on [`read_topics`](Self::read_topics) knows the topics with this prefix.
    pub fn follow_readers(&self, prefix: &str) {
        self.shared.write_log(|log| log.add_namespace(prefix));
    }

    /// The topics with a prefix that somebody reads by name on this node, by what follows the prefix. It is one that is
    /// followed.
    pub fn read_topics(&self, prefix: &str) -> Vec<String> {
        self.shared.read_log(|log| {
            let topics = log.read_in(prefix).into_iter();
            topics.map(|(topic, _)| topic.to_owned()).collect()
        })
    }

    /// Whether there is such a connection.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.shared.connections.find(connection).is_some()
    }

    /// Whether there is such a connection, and nobody has asked it to close.
    pub(crate) fn goes_on(&self, connection: ConnectionId) -> bool {
        let connection = self.shared.connections.find(connection);
        connection.is_some_and(|connection| connection.close_requested().is_none())
    }

    /// How many connections name a topic, and up to so many of them: their ids, whose they are, and since when.
    pub(crate) fn readers_of(
        &self,
        topic: &str,
        limit: usize,
    ) -> (usize, Vec<(ConnectionId, Option<String>, u64)>) {
        let filters = self.shared.read_log(|log| log.filters_of(topic).to_vec());
        let mut readers = Vec::new();
        self.shared.connections.of_filters(&filters, &mut readers);
        let told = |reader: &Arc<Connection>| {
            let user = reader.user().map(str::to_owned);
            (reader.id, user, reader.connected_ms())
        };
        // One that is to be closed is none any more.
        readers.retain(|reader| reader.close_requested().is_none());
        let listed = readers.iter().take(limit).map(told).collect();
        (readers.len(), listed)
    }

    /// A page of a topic's history, oldest first: up to `events_max` events or about `bytes_max` bytes. Private ones are among
    /// them as far as `rights` cover them; without rights, all.
    pub fn history(
        &self,
        topic: &Topic,
        start: &Start,
        events_max: usize,
        bytes_max: usize,
        rights: Option<&Rights>,
    ) -> HistoryPage {
        let shared = &self.shared;
        let start = shared.write_log(|log| log.find_history(topic, start, now_ms()));
        let may_read_private =
            |topic: &str| rights.is_none_or(|rights| rights.may_read_private(topic));
        shared.read_log(|log| log.history(topic, &start, events_max, bytes_max, &may_read_private))
    }

    /// Up to `limit` topics from a cursor on (0 at first), and the cursor of the next page.
    pub fn topics(&self, cursor: usize, limit: usize) -> (Vec<TopicInfo>, Option<usize>) {
        self.shared
            .read_log(|log| log.topics(cursor, limit, now_ms()))
    }
}

pub(crate) fn describe(log: &Log, connection: &Connection) -> Option<ConnectionInfo> {
    let (topics, patterns) = log.filter_names(connection.filter)?;
    Some(ConnectionInfo {
        id: connection.id,
        topics,
        patterns,
        remote: connection.remote(),
        connected_ms: connection.connected_ms(),
        delivered: connection.delivered.load(Ordering::Relaxed),
        lag: log.count_from(connection.filter, connection.place.load(Ordering::Relaxed)),
    })
}
