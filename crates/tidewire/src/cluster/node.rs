//! What a node does itself, and what it asks of others.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tidewire_core::event::Event;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

#[cfg(feature = "redis")]
use super::PRESENT_MAX;
#[cfg(feature = "redis")]
use super::control::{Control, Done, Order, Servant};
use super::local::Local;
use super::registry::{Place, Registry};
use super::{ClusterError, LOCKS, Present, Reach, upkeep};
use crate::connections::ConnectionId;
use crate::hub::Hub;
use crate::publish::PublishError;

pub(super) struct Inner {
    pub(super) hub: Hub,
    pub(super) node: String,
    pub(super) version: String,
    pub(super) started_ms: u64,
    pub(super) registry: Arc<dyn Registry>,
    #[cfg(feature = "redis")]
    pub(super) control: std::sync::OnceLock<Arc<Control>>,
    pub(super) local: Local,
    pub(super) locks: Vec<tokio::sync::Mutex<()>>,
    pub(super) every_client: Topic,
    pub(super) draining: AtomicBool,
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

impl Inner {
    pub(super) fn lock_of(&self, client: &str) -> &tokio::sync::Mutex<()> {
        let hash = tidewire_core::id::topic_hash(client) as usize;
        &self.locks[hash % LOCKS]
    }

    /// Makes a connection a client's, here and in the registry.
    pub(super) async fn adopt(
        &self,
        client: &str,
        connection: ConnectionId,
        user: Option<Arc<str>>,
    ) {
        if let Some(before) = self.local.put(client, connection, user) {
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
        match self.registry.register(client, &place).await {
            Ok(Some(before)) if before.node != self.node => self.take_over(client, &before).await,
            Ok(_) => {}
            // The next heartbeat tries again.
            Err(error) => tracing::warn!(%error, "a client is connected and not registered yet"),
        }
        if !self.local.is_current(client, connection) {
            // It ended while it was being registered.
            let entry = [(client.to_owned(), connection)];
            let _ = self.registry.unregister(&self.node, &entry).await;
        }
    }

    pub(super) fn replace(&self, connection: ConnectionId) {
        self.state.lock().figures.replaced += 1;
        self.hub.close_for(connection, CloseReason::Replaced);
    }

    pub(super) fn send_local(&self, client: &str, event: Event) -> Result<bool, ClusterError> {
        let Some(connection) = self.local.find(client) else {
            event.validate(usize::MAX).map_err(PublishError::from)?;
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

    pub(super) fn present(&self, topic: &str, limit: usize) -> Vec<Present> {
        let readers = self.hub.readers_of(topic, limit).into_iter();
        readers
            .map(|(connection, user, connected_ms)| Present {
                connection,
                user,
                connected_ms,
                node: self.node.clone(),
            })
            .collect()
    }
}

#[cfg(feature = "redis")]
impl Inner {
    pub(super) async fn take_over(&self, client: &str, before: &Place) {
        let Some(control) = self.control.get() else {
            return;
        };
        let order = Order::Replace {
            client: client.to_owned(),
            connection: before.connection,
        };
        // A node that is silent finds out by itself when it renews its entries.
        if let Err(error) = control.ask(&before.node, &order).await {
            tracing::debug!(%error, "a node is not told that its client is elsewhere");
        }
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

    pub(super) async fn close_at(&self, node: &str, client: &str) -> Result<bool, ClusterError> {
        let client = client.to_owned();
        self.ask(node, &Order::Close { client }).await
    }

    pub(super) async fn ask(&self, node: &str, order: &Order) -> Result<bool, ClusterError> {
        let silent = || ClusterError::Silent(node.to_owned());
        let control = self.control.get().ok_or_else(silent)?;
        let done = control.ask(node, order).await?.ok_or_else(silent)?;
        Ok(done.count > 0)
    }

    pub(super) async fn everywhere(
        &self,
        own: usize,
        ask: &AskAll<'_>,
    ) -> Result<Reach, ClusterError> {
        let mut reach = Reach {
            connections: own,
            silent: Vec::new(),
        };
        if let Some(control) = self.control.get() {
            let order = match ask {
                AskAll::Broadcast(event) => Order::Broadcast {
                    event: (*event).into(),
                },
                AskAll::CloseAll => Order::CloseAll,
                AskAll::CloseUser(user) => Order::CloseUser {
                    user: (*user).to_owned(),
                },
            };
            let (answers, silent) = control.ask_all(self.node_names().await?, &order).await?;
            reach.connections += answers.iter().map(|(_, done)| done.count).sum::<usize>();
            reach.silent = silent;
        }
        Ok(reach)
    }

    pub(super) async fn present_everywhere(
        &self,
        mut present: Vec<Present>,
        topic: &str,
    ) -> Result<(Vec<Present>, Vec<String>), ClusterError> {
        let Some(control) = self.control.get() else {
            return Ok((present, Vec::new()));
        };
        let order = Order::Presence {
            topic: topic.to_owned(),
            limit: PRESENT_MAX,
        };
        let (answers, silent) = control.ask_all(self.node_names().await?, &order).await?;
        present.extend(answers.into_iter().flat_map(|(_, done)| done.present));
        Ok((present, silent))
    }

    pub(super) async fn node_names(&self) -> Result<Vec<String>, ClusterError> {
        let nodes = self.registry.nodes().await?;
        Ok(nodes.into_iter().map(|info| info.node).collect())
    }
}

#[cfg(not(feature = "redis"))]
#[allow(clippy::unused_async, reason = "as with other nodes")]
impl Inner {
    pub(super) async fn take_over(&self, _: &str, _: &Place) {}

    pub(super) async fn send_to(
        &self,
        node: &str,
        _: &str,
        _: &Event,
    ) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(node.to_owned()))
    }

    pub(super) async fn close_at(&self, node: &str, _: &str) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(node.to_owned()))
    }

    pub(super) async fn everywhere(
        &self,
        own: usize,
        _: &AskAll<'_>,
    ) -> Result<Reach, ClusterError> {
        Ok(Reach {
            connections: own,
            silent: Vec::new(),
        })
    }

    pub(super) async fn present_everywhere(
        &self,
        present: Vec<Present>,
        _: &str,
    ) -> Result<(Vec<Present>, Vec<String>), ClusterError> {
        Ok((present, Vec::new()))
    }
}

#[cfg(feature = "redis")]
impl Servant for Inner {
    fn carry_out(&self, order: Order) -> Done {
        let count = match order {
            Order::Send { client, event } => {
                usize::from(self.send_local(&client, event.into()).unwrap_or(false))
            }
            Order::Broadcast { event } => self.broadcast_local(&event.into()).unwrap_or_default(),
            Order::Replace { client, connection } => {
                let is_there = self.local.is_current(&client, connection);
                if is_there {
                    self.replace(connection);
                }
                usize::from(is_there)
            }
            Order::Close { client } => usize::from(self.close_local(&client)),
            Order::CloseAll => self.close_all_local(),
            Order::CloseUser { user } => self.close_user_local(&user),
            Order::Presence { topic, limit } => {
                let present = self.present(&topic, limit.min(PRESENT_MAX));
                return Done {
                    count: present.len(),
                    present,
                };
            }
        };
        Done {
            count,
            ..Done::default()
        }
    }
}
