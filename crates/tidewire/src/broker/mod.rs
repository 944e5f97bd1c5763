//! Brokers: where the log's truth lives.
//!
//! A broker gives every stored event its place in one order and keeps it as safe as it promises. The hub's local log
//! is filled by the broker alone, through the [`Tail`] that it is given at the start, and only with what is committed.
//!
//! # The contract
//! What [`Broker`]'s implementations promise, and what `tests/brokers` holds each of them to:
//!
//! - **Answers.** `append` answers `Ok` once the whole batch is stored as safely as the broker promises. Any error but
//!   [`OutcomeUnknown`](PublishError::OutcomeUnknown) says that nothing of it is stored or ever will be. `OutcomeUnknown`
//!   says that the store fell silent, or failed, after the write: all of the batch is stored, or nothing. A broker never
//!   repeats a write by itself.
//! - **Whole batches.** A batch is stored and shown whole or not at all, and no other event comes between its events.
//! - **Order.** Offsets only grow. The tail gets every stored event exactly once, in the order of the offsets, and only
//!   once it is stored as promised. Whoever is answered finds the events in the tail already.
//! - **Ids.** An id that a subscriber has seen is never given to another event. A broker that may have lost events that
//!   were seen goes on in a new *epoch*, or raises the log's marks, so that a client with an old id is told of a gap.
//! - **Checks.** A batch is refused with `IdTaken` if it has an own id that is in the node's history or twice in the
//!   batch, and with `TopicClosed` if the end of one of its topics is in history.
//! - **Keys.** Within the window the same key and fingerprint of a publisher are answered as the first time and store
//!   nothing; another fingerprint is `KeyReused`; while the first request is under way it is `KeyInFlight`. After an
//!   `OutcomeUnknown` a key is either known as stored or free, or still answers `OutcomeUnknown` or `KeyInFlight`. A
//!   durable broker keeps keys, ends and time stamps over a restart.
//! - **Waiting.** `append`, `close_topic` and `start` may take their time, but never block the thread that polls them; all
//!   other calls return at once. Nobody waits for a subscriber. Requests that wait for the same store are
//!   committed together where the store gains from it. What waits is bounded: beyond the bound `append` is `NotStored`.
//!   A dropped future takes nothing back.
//! - **The store is away.** While it is, publishes are refused with `NotStored` or `StorageFull`, and streams go on from the
//!   node's log. `ready` says so, unless taking the node out of service would only make things worse.

mod answers;
mod disk;
mod memory;
mod packed;
#[cfg(feature = "redis")]
mod redis;

/// Fuzz targets.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    pub use super::disk::fuzz::{records, segment};
    #[cfg(feature = "redis")]
    pub use super::redis::fuzz::entries;
}

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tidewire_core::event::Event;
use tidewire_core::id::{Epoch, NativeId, Offset};
use tidewire_core::log::{Log, Refused};
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

pub use self::disk::{
    DiskBroker, DiskOptions, Finding, Fsync, RepairError, Repaired, Storage, StorageFile, inspect,
    repair,
};
pub use self::memory::MemoryBroker;
#[cfg(feature = "redis")]
pub use self::redis::{RedisBroker, RedisOptions};
use crate::hub::{CONNECTION_TOPIC, Shared};
use crate::publish::PublishError;

/// A future as the trait needs it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An event and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// At least one.
    pub topics: Vec<Topic>,
    /// The event.
    pub event: Event,
}

/// What makes a repeated publish known as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is.
    pub publisher: String,
    /// The key.
    pub key: String,
    /// A digest of the request: another request must not use the key.
    pub fingerprint: [u8; 32],
}

/// An event's id on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventId {
    /// Given by the hub.
    Native(NativeId),
    /// Chosen by the publisher.
    Own(Arc<str>),
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Native(id) => id.fmt(f),
            Self::Own(id) => f.write_str(id),
        }
    }
}

/// What a broker answers to a batch that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The events' ids, in the order of the batch.
    pub ids: Arc<[EventId]>,
    /// Whether they were stored by an earlier request with the same key.
    pub replayed: bool,
}

/// Why a broker could not start: a sentence or more that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// An error with what went wrong and what to do about it.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Figures about a broker since its start. Those that it has no use for stay zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes to the store, each of one or more batches.
    pub commits: u64,
    /// What the store takes up, in bytes.
    pub stored_bytes: u64,
    /// Publishes refused for want of room.
    pub refused_full: u64,
    /// Bytes of unfinished writes that were cut off the end of the store at the start.
    pub tail_bytes_cut: u64,
    /// How far this node's log is behind the store, in milliseconds between the events.
    pub lag_ms: u64,
    /// Entries of other programs in the store that are no events, and were left out.
    pub malformed: u64,
    /// Times that the store could not be followed.
    pub interruptions: u64,
}

/// Events of the store that may be older than what a node's log holds.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order, each with its place. A topic's end is none of them, as it is an end only while it is in the log.
    pub events: Vec<(Offset, Publication)>,
    /// All that the store has up to here was looked at.
    pub until: Offset,
    /// Events up to here may be gone from the store too.
    pub lost: Offset,
    /// The newest place of the store. There is nothing beyond, also not for a client that claims to have it.
    pub newest: Offset,
}

/// Where events are stored. See the [module's documentation](self) for what is promised.
pub trait Broker: Send + Sync + 'static {
    /// Its name in the configuration and in metrics.
    fn kind(&self) -> &'static str;

    /// Called once, before anything else. The broker keeps the tail and fills it with the history that it has. Done when
    /// the node's log has the epoch and the newest place of the store, so that the first client can be served.
    ///
    /// # Errors
    /// If the store can't be reached or read. The broker is of no further use then.
    fn start(&self, tail: Tail) -> BoxFuture<'_, Result<(), StartError>>;

    /// Stores a batch, whole or not at all. Answers the ids in the order of the batch; the same ones again where the
    /// key was used for this request within the broker's window.
    fn append<'a>(
        &'a self,
        batch: &'a [Publication],
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'a, Result<Stored, PublishError>>;

    /// Stores a topic's final event. Answers its id; that of the present end where the topic is closed already.
    fn close_topic(&self, topic: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>>;

    /// A page of what the store has after a place, where it keeps more than the node's log. `None` if it does not.
    ///
    /// # Errors
    /// Why it can't be read now.
    fn older(&self, after: Offset) -> Option<BoxFuture<'static, Result<Page, String>>> {
        let _ = after;
        None
    }

    /// Whether events can be stored now.
    ///
    /// # Errors
    /// The reason why not.
    fn ready(&self) -> Result<(), String>;

    /// Figures.
    fn figures(&self) -> Figures {
        Figures::default()
    }

    /// Ends in good order, once nobody publishes any more: what is stored is made as safe as it can be. From then on
    /// publishes may be refused.
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Whether the log takes the whole batch. What the log can't know is which ids the batch itself has twice.
fn check(log: &Log, batch: &[Publication], now_ms: u64) -> Result<(), PublishError> {
    let mut ids = HashSet::new();
    for (index, publication) in batch.iter().enumerate() {
        let Publication { topics, event } = publication;
        let result = match &event.id {
            Some(id) if !ids.insert(id) => Err(Refused::IdTaken(id.clone())),
            _ => log.check(topics, event, now_ms),
        };
        result.map_err(|refused| PublishError::from(refused).at(index, batch.len()))?;
    }
    Ok(())
}

/// The id that an event has on the wire.
pub(crate) fn id_of(publication: &Publication, epoch: Epoch, offset: Offset) -> EventId {
    match &publication.event.id {
        Some(id) => EventId::Own(id.as_str().into()),
        None => EventId::Native(NativeId::new(epoch, offset)),
    }
}

/// A broker's way into the node's log.
#[derive(Clone)]
pub struct Tail {
    // Weak, as the hub owns the broker that keeps this.
    shared: Weak<Shared>,
}

impl Tail {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
        }
    }

    /// Changes the log, then sees to it that the readers of what was touched are woken. Nothing slow may happen inside.
    ///
    /// # Panics
    /// If the hub is gone, which can't be while one of its broker's calls is under way.
    pub fn write<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        self.shared
            .upgrade()
            .expect("a hub outlives its broker's calls")
            .write_log(change)
    }

    /// The same for a thread of the broker's own, which may outlive the hub; `None` if the hub is gone.
    pub fn try_write<T>(&self, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        Some(self.shared.upgrade()?.write_log(change))
    }

    /// Closes every connection with a position in a history that is gone. They come back and are told of a gap. Those that
    /// read nothing but what is sent to connections have none: nothing of that is ever stored.
    pub fn close_everyone(&self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        for connection in shared.connections.page(None, usize::MAX) {
            let names = shared.read_log(|log| log.filter_names(connection.filter));
            let is_transient = |(topics, patterns): &(Vec<String>, Vec<String>)| {
                let mut topics = topics.iter();
                patterns.is_empty() && topics.all(|topic| topic.starts_with(CONNECTION_TOPIC))
            };
            if !names.as_ref().is_some_and(is_transient) {
                connection.request_close(CloseReason::Lagged);
            }
        }
    }

    /// The time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        crate::clock::now_ms()
    }
}
