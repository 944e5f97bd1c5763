//! The hub: what an application publishes to and subscribes through.

mod builder;
mod figures;
mod open;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewire_core::event::Event;
use tidewire_core::id::NativeId;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

pub use self::builder::HubBuilder;
pub(crate) use self::figures::describe;
pub use self::figures::{ConnectionInfo, Stats};
pub use self::open::Opened;
pub(crate) use self::open::Peer;
pub(crate) use self::shared::{Settings, Shared, Watcher};
use crate::broker::{EventId, Figures, IdempotencyKey, Publication};
use crate::clock::now_ms;
use crate::connections::ConnectionId;
use crate::publish::PublishError;

/// Topics with this prefix address one connection; their events are transient.
pub(crate) const CONNECTION_TOPIC: &str = "connection:";
/// Topics with this prefix belong to one user.
pub(crate) const USER_TOPIC: &str = "user:";

/// A hub. Cheap to clone: all clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    pub(crate) shared: Arc<Shared>,
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

    /// Closes a connection for a reason. False if there is none.
    pub(crate) fn close_for(&self, connection: ConnectionId, reason: CloseReason) -> bool {
        let found = self.shared.connections.find(connection);
        found.is_some_and(|connection| {
            connection.request_close(reason);
            true
        })
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
