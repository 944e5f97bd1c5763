//! The hub: what an application publishes to and subscribes through.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::RwLock;
use tidewire_core::coalesce::{CoalesceRule, Touched};
use tidewire_core::event::Event;
use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{Epoch, NativeId};
use tidewire_core::log::{HistoryPage, Log, LogStats, Retention, TopicInfo};
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{CloseReason, SlowClient};
use tidewire_core::topic::Topic;
use tokio::sync::Notify;

use crate::broker::{
    Broker, EventId, Figures, IdempotencyKey, MemoryBroker, Publication, StartError, Tail,
};
use crate::clock::{Moment, now_ms};
use crate::connections::{
    Admission, AtCapacity, Connection, ConnectionId, Connections, NoRoom, Shares,
};
use crate::counters::{Counters, Totals};
use crate::fanout::{self, Inbox};
use crate::older::{Older, Pages};
use crate::publish::PublishError;
use crate::rights::Rights;
use crate::stream::{Beginning, EventStream, StreamOptions};
use crate::subscribe::First;

/// Topics with this prefix address one connection; their events are transient.
pub(crate) const CONNECTION_TOPIC: &str = "connection:";
/// Topics with this prefix belong to one user.
pub(crate) const USER_TOPIC: &str = "user:";

/// What all parts of a hub share.
pub(crate) struct Shared {
    log: RwLock<Log>,
    pub(crate) connections: Connections,
    pub(crate) counters: Counters,
    pub(crate) settings: Settings,
    broker: Box<dyn Broker>,
    pub(crate) pages: Arc<Pages>,
    inbox: Arc<Inbox>,
    draining: AtomicBool,
    watcher: OnceLock<Box<dyn Watcher>>,
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
    fn forget(&self, connection: &Connection, reason: CloseReason) {
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
    fn watched_topics(&self, connection: &Connection) -> Vec<String> {
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

/// A hub. Cheap to clone: all clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    pub(crate) shared: Arc<Shared>,
}

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

/// Who wants a stream, as far as the server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) cut_off: Option<Arc<Notify>>,
    pub(crate) user: Option<Arc<str>>,
    /// When their credential is over.
    pub(crate) expires: Option<Moment>,
}

/// What came of a wish to subscribe.
pub enum Opened {
    /// The stream, ready to be sent.
    Stream(EventStream),
    /// The stream that the client resumes is over for good: 204.
    Over,
    /// There is no room.
    Full(NoRoom),
}

impl Hub {
    /// Settings, all with defaults, for a new hub.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// Publishes an event to a topic. Answers once it is stored.
    ///
    /// # Errors
    /// If the event or topic is not valid, the topic is closed, or the broker could not store it.
    pub async fn publish(
        &self,
        topic: impl AsRef<str>,
        event: impl Into<Event>,
    ) -> Result<EventId, PublishError> {
        let ids = self
            .publish_all(&[Publication::new([topic], event)?], None)
            .await?;
        Ok(ids[0].clone())
    }

    /// Publishes several events, whole or not at all. Answers their ids in order.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); the first error found counts for the batch.
    pub async fn publish_all(
        &self,
        batch: &[Publication],
        key: Option<IdempotencyKey>,
    ) -> Result<Arc<[EventId]>, PublishError> {
        for (index, publication) in batch.iter().enumerate() {
            self.check_stored(publication)
                .map_err(|error| error.at(index, batch.len()))?;
        }
        if batch.is_empty() {
            return Ok(Arc::default());
        }
        let stored = self.shared.broker.append(batch, key).await?;
        if !stored.replayed {
            self.shared.counters.add_published(batch.len());
        }
        Ok(stored.ids)
    }

    /// Whether an event can go to the broker.
    fn check_stored(&self, publication: &Publication) -> Result<(), PublishError> {
        publication.validate(self.shared.settings.event_bytes_max)?;
        let mut topics = publication.topics.iter();
        if topics.any(|topic| topic.as_str().starts_with(CONNECTION_TOPIC)) {
            return Err(PublishError::MixedTransient);
        }
        Ok(())
    }

    /// Publishes an event to a user's own topic, `user:{id}`.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_to_user(
        &self,
        user: &str,
        event: impl Into<Event>,
    ) -> Result<EventId, PublishError> {
        self.publish(format!("{USER_TOPIC}{user}"), event).await
    }

    /// Sends an event to one connection of this node. It is transient: not stored, without an id. False if there is
    /// no such connection.
    ///
    /// # Errors
    /// If the event is not valid.
    pub fn send_to(
        &self,
        connection: ConnectionId,
        event: impl Into<Event>,
    ) -> Result<bool, PublishError> {
        let topic = Topic::new(&format!("{CONNECTION_TOPIC}{connection}"))?;
        let publication = Publication {
            topics: vec![topic],
            event: event.into(),
        };
        publication.validate(self.shared.settings.event_bytes_max)?;
        let Some(connection) = self.shared.connections.find(connection) else {
            return Ok(false);
        };
        // Its own reader is woken here; others that name the topic are woken by the fan-out thread.
        let sent = self.shared.write_log(|log| {
            let is_there = self.shared.connections.find(connection.id).is_some();
            // One that is about to be closed sends what it has by now, and looks for no more.
            if !is_there || connection.close_requested().is_some() {
                return false;
            }
            if connection.own_topic().is_none() {
                connection.set_own_topic(log.hold_topic(&publication.topics[0]));
            }
            log.append_transient(&publication.topics, &publication.event, now_ms());
            true
        });
        connection.wake();
        Ok(sent)
    }

    /// Sends an event to every connection of this node. It is transient: not stored, without an id.
    ///
    /// # Errors
    /// If the event is not valid.
    pub fn broadcast(&self, event: impl Into<Event>) -> Result<(), PublishError> {
        let event = event.into();
        event.validate(self.shared.settings.event_bytes_max)?;
        self.shared
            .write_log(|log| log.append_to_everyone(&event, now_ms()));
        Ok(())
    }

    /// Sends an event to the readers of a topic on this node. It is transient.
    pub(crate) fn send_to_readers(&self, topic: &Topic, event: &Event) -> Result<(), PublishError> {
        event.validate(self.shared.settings.event_bytes_max)?;
        let topics = std::slice::from_ref(topic);
        self.shared
            .write_log(|log| log.append_transient(topics, event, now_ms()));
        Ok(())
    }

    /// Sends an event to the readers of a topic on this node. It is transient: not stored, without an id.
    ///
    /// # Errors
    /// If the topic or the event is not valid.
    pub fn send_to_topic(&self, topic: &str, event: impl Into<Event>) -> Result<(), PublishError> {
        self.send_to_readers(&Topic::new(topic)?, &event.into())
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

    /// The place of the newest event: whoever resumes from it gets all that comes after.
    pub fn position(&self) -> NativeId {
        self.shared.read_log(|log| log.id_at(log.head()))
    }

    /// Whether an event with this id, of a publisher's own, is in the history of this node.
    pub fn knows(&self, id: &str) -> bool {
        self.shared.read_log(|log| log.knows(id))
    }

    /// Ends a topic: its subscribers get a final `end` event, and it takes no more until that has left the history.
    ///
    /// # Errors
    /// If the topic is that of a connection, or the broker could not store the end.
    pub async fn close_topic(&self, topic: Topic) -> Result<NativeId, PublishError> {
        if topic.as_str().starts_with(CONNECTION_TOPIC) {
            return Err(PublishError::NotClosable);
        }
        self.shared.broker.close_topic(topic).await
    }

    /// Opens a stream for whoever speaks HTTP by other means than this crate's handler.
    pub fn open(&self, filter: &FilterSpec, start: &Start, options: StreamOptions) -> Opened {
        self.open_for(filter, start, options, Peer::default(), First::default())
    }

    pub(crate) fn open_for(
        &self,
        filter: &FilterSpec,
        start: &Start,
        options: StreamOptions,
        peer: Peer,
        first: First<'_>,
    ) -> Opened {
        let shared = &self.shared;
        let mut log = shared.log.write();
        let key = log.acquire_filter(filter);
        let subscribed = log.subscribe(key, start, shared.settings.slow_client, now_ms());
        let Subscribed::Stream {
            subscription,
            mut starts_after,
            mut gap,
            older_after,
        } = subscribed
        else {
            log.release_filter(key);
            return Opened::Over;
        };
        drop(log);
        let older = older_after.and_then(|after| {
            let from_id = match start {
                Start::After(id) => Some(id.clone()),
                _ => None,
            };
            Older::new(self, filter, starts_after.epoch, after, from_id)
        });
        if let (Some(after), Some(_)) = (older_after, &older) {
            // Then nothing is missing, and the stream begins there.
            gap = None;
            starts_after = NativeId::new(starts_after.epoch, after);
        }
        let resume_id = match (gap, start) {
            // Until the client has what precedes, it has no more than it came with.
            _ if first.preceding.is_some() => {
                first.preceding.map(|preceding| preceding.from.to_string())
            }
            (None, _) => Some(starts_after.to_string()),
            // A client that took on the place behind the gap before it was told would never know.
            (Some(_), Start::After(id)) => Some(id.clone()),
            (Some(_), _) => None,
        };
        let checkpoint = gap.is_none().then_some(starts_after);
        let connection = Arc::new(Connection::new(
            key,
            peer,
            shared.settings.max_lifetime_ms,
            Moment::now(),
        ));
        match shared.connections.admit(&connection) {
            Admission::Admitted => {}
            Admission::Evicting(evicted) => {
                evicted.request_close(CloseReason::Evicted);
                shared.forget(&evicted, CloseReason::Evicted);
            }
            Admission::Refused(no_room) => {
                shared.counters.add_close(CloseReason::Rejected);
                shared.log.write().release_filter(key);
                return Opened::Full(no_room);
            }
        }
        if shared.read_log(Log::epoch) != starts_after.epoch {
            // The history has changed since the place was found, and who was connected was closed without this one.
            connection.request_close(CloseReason::Lagged);
        }
        if gap.is_some() {
            shared.counters.add_gap();
        }
        tracing::debug!(connection = %connection.id, %starts_after, ?gap, "connection opened");
        if let Some(watcher) = shared.watcher.get() {
            watcher.opened(&connection, shared.watched_topics(&connection));
        }
        shared.inbox.note_newcomer(connection.clone());
        let beginning = Beginning {
            subscription,
            older,
            checkpoint,
            resume_id,
        };
        Opened::Stream(EventStream::new(
            self.clone(),
            connection,
            beginning,
            options,
            first,
        ))
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

    /// Up to `limit` topics from a cursor on (0 at first), and the cursor of the next page.
    pub fn topics(&self, cursor: usize, limit: usize) -> (Vec<TopicInfo>, Option<usize>) {
        self.shared
            .read_log(|log| log.topics(cursor, limit, now_ms()))
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

    /// Whether there is such a connection.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.shared.connections.find(connection).is_some()
    }

    /// Closes a connection for a reason. False if there is none.
    pub(crate) fn close_for(&self, connection: ConnectionId, reason: CloseReason) -> bool {
        let found = self.shared.connections.find(connection);
        found.is_some_and(|connection| {
            connection.request_close(reason);
            true
        })
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

    /// Closes a connection: it gets an `event: closed` whose id keeps it from coming back. False if there is none.
    pub fn close(&self, connection: ConnectionId) -> bool {
        self.close_for(connection, CloseReason::Closed)
    }

    /// Whether events can be stored and streams be opened: the broker is there and the hub is not shutting down.
    ///
    /// # Errors
    /// The reason why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err("the hub is shutting down".into());
        }
        if self.shared.inbox.has_failed() {
            return Err("the fan-out thread has failed; restart the hub".into());
        }
        self.shared.broker.ready()
    }

    /// The broker's kind.
    pub fn broker_kind(&self) -> &'static str {
        self.shared.broker.kind()
    }

    /// The broker's figures.
    pub fn broker_figures(&self) -> Figures {
        self.shared.broker.figures()
    }

    /// Ends the broker in good order. The last step of a shutdown: from then on publishes are refused.
    pub async fn stop(&self) {
        self.shared.broker.stop().await;
    }

    /// From now on the hub says that it is not ready. The first step of a shutdown.
    pub fn start_draining(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Closes all connections, spread evenly over a time, each told to come back after a time of its own.
    pub async fn close_all(&self, over: Duration) {
        let ids: Vec<_> = self.shared.connections.page(None, usize::MAX);
        let started = tokio::time::Instant::now();
        let count = ids.len().max(1) as u32;
        for (n, connection) in ids.into_iter().enumerate() {
            tokio::time::sleep_until(started + over * n as u32 / count).await;
            connection.request_close(CloseReason::Shutdown);
        }
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
