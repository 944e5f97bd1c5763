//! What a node does itself, and what it asks of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tidewire_core::event::Event;
#[cfg(feature = "redis")]
use tidewire_core::event::EventError;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

#[cfg(feature = "redis")]
use super::PRESENT_MAX;
#[cfg(feature = "redis")]
use super::control::{Control, Done, Order, Servant};
use super::local::Local;
use super::registry::{Entry, Place, Registry};
use super::upkeep::{self, Inconsistency};
use super::{ClusterError, LOCKS, Presence, Present, Reach};
use crate::connections::ConnectionId;
use crate::hub::Hub;
use crate::publish::PublishError;

/// Clients that another node is asked for at a time.
#[cfg(feature = "redis")]
const HOLDS_MAX: usize = 500;

pub(super) struct Inner {
    pub(super) hub: Hub,
    pub(super) node: String,
    pub(super) version: String,
    pub(super) started_ms: u64,
    pub(super) registry: Arc<dyn Registry>,
    #[cfg(feature = "redis")]
    pub(super) control: std::sync::OnceLock<Arc<Control>>,
    pub(super) local: Local,
    pub(super) locks: Vec<Arc<tokio::sync::Mutex<()>>>,
    pub(super) every_client: Topic,
    pub(super) draining: AtomicBool,
    /// A heartbeat is due at once.
    pub(super) beat_soon: AtomicBool,
    /// The node has left, or is about to.
    pub(super) gone: AtomicBool,
    pub(super) strategy: Inconsistency,
    /// Held while the registry is told what is so, and while the node leaves.
    pub(super) upkeep: tokio::sync::Mutex<()>,
    pub(super) state: Mutex<upkeep::State>,
}

/// What is asked of all nodes.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "there are no others")
)]
pub(super) enum AskAll<'a> {
    Broadcast(&'a Event),
    CloseAll,
    CloseUser(&'a str),
}

/// Whoever waits for something to do looks, and sees that there is nobody any more.
impl Drop for Inner {
    fn drop(&mut self) {
        self.local.left.notify_one();
    }
}

/// Which of the locks is a client's.
pub(super) fn lock_of(client: &str) -> usize {
    tidewire_core::id::topic_hash(client) as usize % LOCKS
}

impl Inner {
    /// Has the next heartbeat come at once.
    pub(super) fn beat_soon(&self) {
        self.beat_soon.store(true, Ordering::Release);
        self.local.left.notify_one();
    }

    pub(super) fn lock_of(&self, client: &str) -> &Arc<tokio::sync::Mutex<()>> {
        &self.locks[lock_of(client)]
    }

    /// Makes a connection a client's, here and in the registry.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        client: &str,
        connection: ConnectionId,
        user: Option<Arc<str>>,
    ) {
        let taken = self.local.put(client, connection, user);
        if let Some(before) = taken.before {
            self.replace(before);
        }
        if !self.hub.has(connection) {
            // It ended before it was known here.
            self.local.end(connection);
            return;
        }
        let place = Place {
            node: self.node.clone(),
            connection,
        };
        if !taken.is_registering {
            return;
        }
        let registered = self.registry.register(client, &place).await;
        self.local.settle(client, connection);
        // One that ended, or is to end, takes over from nobody: an attempt before the last one may have been carried out, and
        // it was taken over itself since.
        let is_current = self.local.is_current(client, connection) && self.hub.goes_on(connection);
        match registered {
            // Not waited for: a node that is dead would hold up its clients where they come to next.
            Ok(Some(before)) if is_current && before.node != self.node => {
                self.take_over(client, before);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "clients are connected and not registered yet");
                if self.local.fall_out_of_step() {
                    self.beat_soon();
                }
            }
        }
        if !is_current {
            let entry = [(client.to_owned(), connection)];
            let _ = self.registry.unregister(&self.node, &entry).await;
        }
    }

    pub(super) fn replace(&self, connection: ConnectionId) {
        self.state.lock().figures.replaced += 1;
        self.hub.close_for(connection, CloseReason::Replaced);
    }

    /// Whether an event may be sent.
    pub(super) fn check(&self, event: &Event) -> Result<(), ClusterError> {
        let bytes_max = self.hub.shared.settings.event_bytes_max;
        Ok(event.validate(bytes_max).map_err(PublishError::from)?)
    }

    pub(super) fn send_local(&self, client: &str, event: Event) -> Result<bool, ClusterError> {
        let Some(connection) = self.local.find(client) else {
            self.check(&event)?;
            return Ok(false);
        };
        Ok(self.hub.send_to(connection, event)?)
    }

    pub(super) fn broadcast_local(&self, event: &Event) -> Result<usize, ClusterError> {
        self.hub.send_to_readers(&self.every_client, event)?;
        Ok(self.local.len())
    }

    pub(super) fn close_local(&self, client: &str) -> bool {
        let connection = self.local.find(client);
        connection.is_some_and(|connection| self.hub.close(connection))
    }

    pub(super) fn close_all_local(&self) -> usize {
        let entries = self.local.entries().into_iter();
        entries
            .filter(|(_, connection)| self.hub.close(*connection))
            .count()
    }

    pub(super) fn close_user_local(&self, user: &str) -> usize {
        let connections = self.local.of_user(user).into_iter();
        connections
            .filter(|connection| self.hub.close(*connection))
            .count()
    }

    /// How many read a topic here, and up to so many of them.
    pub(super) fn present(&self, topic: &str, limit: usize) -> Presence {
        let (count, readers) = self.hub.readers_of(topic, limit);
        let present = readers.into_iter();
        let present = present.map(|(connection, user, connected_ms)| Present {
            connection,
            user,
            connected_ms,
            node: self.node.clone(),
        });
        Presence {
            count,
            present: present.collect(),
            silent: Vec::new(),
        }
    }
}

#[cfg(feature = "redis")]
impl Inner {
    pub(super) fn take_over(self: &Arc<Self>, client: &str, before: Place) {
        let Some(control) = self.control.get().cloned() else {
            return;
        };
        let order = Order::Replace {
            client: client.to_owned(),
            connection: before.connection,
        };
        // As many at a time as orders may wait for answers.
        tokio::spawn(async move {
            // A node that is silent finds out by itself when it renews its entries.
            if let Err(error) = control.ask(&before.node, &order).await {
                tracing::debug!(%error, "a node is not told that its client is elsewhere");
            }
        });
    }

    /// Of these clients of another node, those that it says it does not hold so. `None` if it is silent.
    pub(super) async fn not_held(&self, node: &str, entries: &[Entry]) -> Option<Vec<String>> {
        let control = self.control.get()?;
        let mut missing = Vec::new();
        for portion in entries.chunks(HOLDS_MAX) {
            let entries = portion.to_vec();
            let done = control.ask(node, &Order::Holds { entries }).await;
            missing.extend(done.ok()??.missing);
        }
        Some(missing)
    }

    pub(super) async fn send_to(
        &self,
        node: &str,
        client: &str,
        event: &Event,
    ) -> Result<bool, ClusterError> {
        let order = Order::Send {
            client: client.to_owned(),
            event: event.into(),
        };
        self.ask(node, &order).await
    }

    pub(super) async fn close_at(&self, client: &str, place: &Place) -> Result<bool, ClusterError> {
        let order = Order::Close {
            client: client.to_owned(),
            connection: place.connection,
        };
        self.ask(&place.node, &order).await
    }

    pub(super) async fn ask(&self, node: &str, order: &Order) -> Result<bool, ClusterError> {
        let silent = || ClusterError::Silent(node.to_owned());
        let control = self.control.get().ok_or_else(silent)?;
        let done = control.ask(node, order).await?.ok_or_else(silent)?;
        match (done.event_bytes_max, order) {
            (Some(bytes_max), Order::Send { event, .. }) => {
                let event = Event::from(event.clone());
                event.validate(bytes_max).map_err(PublishError::from)?;
                Ok(false)
            }
            _ => Ok(done.count > 0),
        }
    }

    /// The nodes that are asked when all are.
    pub(super) async fn all_nodes(&self) -> Result<Vec<String>, ClusterError> {
        if self.control.get().is_none() {
            return Ok(Vec::new());
        }
        let nodes = self.registry.nodes().await?;
        Ok(nodes.into_iter().map(|info| info.node).collect())
    }

    /// Asks the others, after it was done here.
    pub(super) async fn everywhere(
        &self,
        own: usize,
        nodes: Vec<String>,
        ask: &AskAll<'_>,
    ) -> Reach {
        let mut reach = Reach {
            connections: own,
            silent: Vec::new(),
        };
        let Some(control) = self.control.get() else {
            return reach;
        };
        let order = match ask {
            AskAll::Broadcast(event) => Order::Broadcast {
                event: (*event).into(),
            },
            AskAll::CloseAll => Order::CloseAll,
            AskAll::CloseUser(user) => Order::CloseUser {
                user: (*user).to_owned(),
            },
        };
        let others = || nodes.iter().filter(|node| **node != self.node).cloned();
        match control.ask_all(others(), &order).await {
            Ok((answers, silent)) => {
                reach.connections += answers.iter().map(|(_, done)| done.count).sum::<usize>();
                reach.silent = silent;
            }
            // Too late to say that nothing was done.
            Err(error) => {
                tracing::warn!(%error, "other nodes can't be asked");
                reach.silent = others().collect();
            }
        }
        reach
    }

    pub(super) async fn present_everywhere(
        &self,
        mut presence: Presence,
        topic: &str,
    ) -> Result<Presence, ClusterError> {
        let Some(control) = self.control.get() else {
            return Ok(presence);
        };
        let order = Order::Presence {
            topic: topic.to_owned(),
            limit: PRESENT_MAX,
        };
        let (answers, silent) = control.ask_all(self.all_nodes().await?, &order).await?;
        for (_, done) in answers {
            presence.count += done.count;
            presence.present.extend(done.present);
        }
        presence.silent = silent;
        Ok(presence)
    }
}

#[cfg(not(feature = "redis"))]
#[allow(clippy::unused_async, reason = "as with other nodes")]
impl Inner {
    pub(super) fn take_over(&self, _: &str, _: Place) {}

    pub(super) async fn not_held(&self, _: &str, _: &[Entry]) -> Option<Vec<String>> {
        None
    }

    pub(super) async fn send_to(
        &self,
        node: &str,
        _: &str,
        _: &Event,
    ) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(node.to_owned()))
    }

    pub(super) async fn close_at(&self, _: &str, place: &Place) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(place.node.clone()))
    }

    pub(super) async fn all_nodes(&self) -> Result<Vec<String>, ClusterError> {
        Ok(Vec::new())
    }

    pub(super) async fn everywhere(&self, own: usize, _: Vec<String>, _: &AskAll<'_>) -> Reach {
        Reach {
            connections: own,
            silent: Vec::new(),
        }
    }

    pub(super) async fn present_everywhere(
        &self,
        presence: Presence,
        _: &str,
    ) -> Result<Presence, ClusterError> {
        Ok(presence)
    }
}

#[cfg(feature = "redis")]
impl Servant for Inner {
    fn carry_out(&self, order: Order) -> Done {
        let count = match order {
            Order::Send { client, event } => match self.send_local(&client, event.into()) {
                Ok(sent) => usize::from(sent),
                Err(error) => return refused(&error),
            },
            Order::Broadcast { event } => match self.broadcast_local(&event.into()) {
                Ok(count) => count,
                Err(error) => {
                    tracing::warn!(%error, "a broadcast of another node is not valid here");
                    return refused(&error);
                }
            },
            Order::Replace { client, connection } => {
                let is_there = self.local.is_current(&client, connection);
                if is_there {
                    self.replace(connection);
                }
                usize::from(is_there)
            }
            Order::Holds { entries } => {
                let is_missing =
                    |(client, connection): &Entry| !self.local.is_current(client, *connection);
                let missing = entries.into_iter().filter(is_missing);
                return Done {
                    missing: missing.map(|(client, _)| client).collect(),
                    ..Done::default()
                };
            }
            // One that comes late must not hit the next connection.
            Order::Close { client, connection } => {
                let is_there = self.local.is_current(&client, connection);
                usize::from(is_there && self.hub.close(connection))
            }
            Order::CloseAll => self.close_all_local(),
            Order::CloseUser { user } => self.close_user_local(&user),
            Order::Presence { topic, limit } => {
                let Presence { count, present, .. } = self.present(&topic, limit.min(PRESENT_MAX));
                return Done {
                    count,
                    present,
                    ..Done::default()
                };
            }
        };
        Done {
            count,
            ..Done::default()
        }
    }
}

/// The answer of a node that does not take an event.
#[cfg(feature = "redis")]
fn refused(error: &ClusterError) -> Done {
    let too_large = match error {
        ClusterError::Event(PublishError::Event(EventError::TooLarge { bytes_max, .. })) => {
            Some(*bytes_max)
        }
        _ => None,
    };
    Done {
        event_bytes_max: too_large,
        ..Done::default()
    }
}
