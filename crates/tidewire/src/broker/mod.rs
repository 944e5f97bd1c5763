//! Brokers: where the log's truth lives.
//!
//! A broker gives every stored event its place in one order and keeps it as safe as it promises. The hub's local log
//! is filled by the broker alone, through the [`Tail`] that it is given at the start, and only with what is committed.
//!
//! **The contract.**
//! - `append` answers once the whole batch is stored, or says that none of it was, or that the outcome is unknown. It
//!   never repeats a write by itself. Whoever waits for it blocks nobody else.
//! - Offsets only grow, and an offset that a subscriber has seen is never given to another event.
//! - The tail gets every stored event exactly once, in the order of the offsets. An answered event is in the tail.

mod memory;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tidewire_core::event::Event;
use tidewire_core::id::NativeId;
use tidewire_core::log::Log;
use tidewire_core::topic::Topic;

pub use self::memory::MemoryBroker;
use crate::hub::Shared;
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

/// Where events are stored. See the [module's documentation](self) for what is promised.
pub trait Broker: Send + Sync + 'static {
    /// Its name in the configuration and in metrics.
    fn kind(&self) -> &'static str;

    /// Called once, before anything else. The broker keeps the tail and fills it.
    fn start(&self, tail: Tail);

    /// Stores a batch, whole or not at all. Answers the ids in the order of the batch; the same ones again where the
    /// key was used for this request within the broker's window.
    fn append(
        &self,
        batch: Vec<Publication>,
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'_, Result<Arc<[EventId]>, PublishError>>;

    /// Stores a topic's final event. Answers its id; that of the present end where the topic is closed already.
    fn close_topic(&self, topic: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>>;

    /// Whether events can be stored now; the reason where not.
    ///
    /// # Errors
    /// The reason why not.
    fn ready(&self) -> Result<(), String>;
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

    /// The time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        crate::clock::now_ms()
    }
}
