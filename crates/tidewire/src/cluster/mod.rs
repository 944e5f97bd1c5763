//! Connections by the client's id, on whichever node they are.
//!
//! An application addresses a client by an id of its own choice: `connect` gives the client a stream, `send` reaches it
//! wherever it is connected. A client has one connection; a second one takes over, and the first is closed with
//! `event: replaced`.
//!
//! | file | what lives there |
//! |---|---|
//! | `registry.rs` | the contract of the registry, and the one in memory |
//! | `redis_registry.rs`, `registry.lua` | the one that nodes share |
//! | `answer.rs` | answers, and why there is none |
//! | `local.rs` | which clients this node holds |
//! | `node.rs` | what a node does itself, and what it asks of others |
//! | `control.rs` | what nodes say to each other |
//! | `presence.rs` | who comes to a topic, and who leaves |
//! | `upkeep.rs` | heartbeats, clearing away what dead nodes left, comparing what is with what the registry says |
//!
//! What is sent here is transient: it reaches who is connected, has no id, and is stored nowhere.

mod answer;
#[cfg(feature = "redis")]
mod control;
mod local;
mod node;
mod presence;
#[cfg(feature = "redis")]
mod redis_registry;
mod registry;
#[cfg(test)]
mod tests;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::Response;
use parking_lot::Mutex;
use tidewire_core::event::Event;
use tidewire_core::pattern::Pattern;
use tidewire_core::topic::Topic;
use tokio::sync::mpsc;

pub use self::answer::{ClusterError, ClusterSetupError, Presence, Present, Reach, Scope};
#[cfg(feature = "redis")]
use self::control::Control;
use self::local::Local;
use self::node::{AskAll, Inner};
#[cfg(feature = "redis")]
pub use self::redis_registry::{RedisRegistry, RetryOptions};
pub use self::registry::{
    Answer, Entry, MemoryRegistry, NodeInfo, Place, Registry, Renewed, Unavailable,
};
pub use self::upkeep::{ClusterFigures, Inconsistency, UpkeepOptions};
use crate::clock::now_ms;
use crate::hub::Hub;
use crate::problem::Problem;
use crate::rights::{Rights, UserId};
use crate::stream::CONNECTION_HEADER;

/// The topic that all clients of this module read; a client's id has no `/`.
const EVERY_CLIENT: &str = "connection:/clients";
/// Longest id of a client.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Longest name of a node.
const NODE_BYTES_MAX: usize = 128;
/// Connections of a node that presence tells of.
const PRESENT_MAX: usize = 1_000;
/// Locks among which clients are spread, so that one's connects come one after the other.
const LOCKS: usize = 64;

/// A node of a cluster. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// Settings of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// This node's name, other than that of any other: 1 to 128 letters, digits and `._-`.
    pub node: String,
    /// What it says as its version.
    pub version: String,
    /// How the registry is kept in step.
    pub upkeep: UpkeepOptions,
    /// How long other nodes may take to answer. Default: 2 seconds.
    pub answer_timeout: Duration,
    /// Topics, by pattern, of which it is published on `presence:{topic}` who comes and goes. Default: none.
    pub presence_events: Vec<Pattern>,
}

impl ClusterOptions {
    /// The defaults, for a node of this name.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            upkeep: UpkeepOptions::default(),
            answer_timeout: Duration::from_secs(2),
            presence_events: Vec::new(),
        }
    }
}

impl Cluster {
    /// A hub that is a cluster by itself. Needs tokio.
    ///
    /// # Errors
    /// If the node's name is not valid, or the hub is a node already.
    pub fn alone(hub: &Hub, options: &ClusterOptions) -> Result<Self, ClusterSetupError> {
        let registry = Arc::new(MemoryRegistry::new(options.upkeep.ttl));
        Self::with_registry(hub, registry, options)
    }

    /// A node of those that share a Redis. Needs tokio.
    ///
    /// # Errors
    /// As [`alone`](Self::alone).
    #[cfg(feature = "redis")]
    pub fn over_redis(
        hub: &Hub,
        redis: Arc<crate::redis::Redis>,
        retry: RetryOptions,
        options: &ClusterOptions,
    ) -> Result<Self, ClusterSetupError> {
        let registry = RedisRegistry::new(redis.clone(), options.upkeep.ttl, retry);
        let cluster = Self::with_registry(hub, Arc::new(registry), options)?;
        let servant = Arc::downgrade(&cluster.inner);
        let control = Control::open(redis, &options.node, options.answer_timeout, servant);
        let _ = cluster.inner.control.set(control);
        Ok(cluster)
    }

    fn with_registry(
        hub: &Hub,
        registry: Arc<dyn Registry>,
        options: &ClusterOptions,
    ) -> Result<Self, ClusterSetupError> {
        let node = options.node.as_str();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=NODE_BYTES_MAX).contains(&node.len()) || !node.bytes().all(fits) {
            return Err(ClusterSetupError::BadNode(node.to_owned()));
        }
        let inner = Arc::new(Inner {
            hub: hub.clone(),
            node: options.node.clone(),
            version: options.version.clone(),
            started_ms: now_ms(),
            registry,
            #[cfg(feature = "redis")]
            control: std::sync::OnceLock::new(),
            local: Local::default(),
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            every_client: Topic::new(EVERY_CLIENT).expect("a topic"),
            draining: AtomicBool::new(false),
            beat_soon: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            strategy: options.upkeep.inconsistency,
            upkeep: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        });
        let (news, told) = mpsc::channel(presence::NEWS_MAX);
        let is_first = hub.shared.watch(Box::new(presence::Reporter {
            inner: Arc::downgrade(&inner),
            patterns: options.presence_events.clone(),
            news,
            is_full: AtomicBool::new(false),
        }));
        if !is_first {
            return Err(ClusterSetupError::IsNode);
        }
        // The hub itself has the other end of the news: what holds it here would hold it for ever.
        let shared = Arc::downgrade(&hub.shared);
        tokio::spawn(presence::publish(shared, options.node.clone(), told));
        tokio::spawn(upkeep::run(
            Arc::downgrade(&inner),
            inner.local.left.clone(),
            options.upkeep.clone(),
        ));
        Ok(Self { inner })
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// Answers a `GET` with the stream of a client, and takes over from a connection that the client has already, on
    /// whichever node.
    ///
    /// # Errors
    /// If the id is not valid, the request not understood or not allowed, or there is no room.
    pub async fn connect<B>(
        &self,
        client: &str,
        request: &http::Request<B>,
    ) -> Result<Response, Problem> {
        let inner = &self.inner;
        check_id(client)?;
        let extensions = request.extensions();
        if let Some(rights) = extensions.get::<Arc<Rights>>() {
            let topic = format!("connection:{client}");
            if !rights.may_read(&topic) {
                let detail = format!("no right to subscribe to `{topic}`");
                return Err(rights.refuse(detail).with("topic", topic));
            }
        }
        let user = extensions
            .get::<UserId>()
            .map(|UserId(user)| user.as_str().into());
        let turn = inner.lock_of(client).clone().lock_owned().await;
        let stream = inner
            .hub
            .subscribe_to([])
            .joining(inner.every_client.clone());
        let response = stream.respond(request)?;
        let header = response.headers().get(CONNECTION_HEADER);
        let connection = header.and_then(|id| id.to_str().ok()?.parse().ok());
        // Without one it is a head alone, or an answer that says to come back later or never.
        let Some(connection) = connection else {
            return Ok(response);
        };
        let (inner, client) = (inner.clone(), client.to_owned());
        // Goes on also if the request is given up: whoever is registered must tell who was before.
        let adopted = tokio::spawn(async move {
            inner.adopt(&client, connection, user).await;
            drop(turn);
        });
        let _ = adopted.await;
        Ok(response)
    }

    /// Sends an event to a client, wherever it is connected. Answers the node that holds it, and that has the event in
    /// its log for that connection; a connection that breaks afterwards may lose it.
    ///
    /// # Errors
    /// If the client is not connected, its node is silent, or the registry can't be asked.
    pub async fn send(
        &self,
        client: &str,
        event: impl Into<Event>,
    ) -> Result<String, ClusterError> {
        let event = event.into();
        if self.send_local(client, event.clone())? {
            return Ok(self.inner.node.clone());
        }
        let not_connected = || ClusterError::NotConnected(client.to_owned());
        let mut asked: Option<String> = None;
        // A client that moves while it is looked for is looked for once more.
        for _ in 0..2 {
            let place = self.inner.registry.find(client).await?;
            let node = place.ok_or_else(not_connected)?.node;
            if node == self.inner.node || asked.as_ref() == Some(&node) {
                break;
            }
            if self.inner.send_to(&node, client, &event).await? {
                return Ok(node);
            }
            asked = Some(node);
        }
        if self.send_local(client, event)? {
            return Ok(self.inner.node.clone());
        }
        Err(not_connected())
    }

    /// Sends an event to a client of this node. False if there is none.
    ///
    /// # Errors
    /// If the id or the event is not valid.
    pub fn send_local(&self, client: &str, event: impl Into<Event>) -> Result<bool, ClusterError> {
        check_id(client)?;
        self.inner.send_local(client, event.into())
    }

    /// Sends an event to every client of every node.
    ///
    /// # Errors
    /// If the event is not valid, or it can't be found out which nodes there are. Nothing was sent then.
    pub async fn broadcast(&self, event: impl Into<Event>) -> Result<Reach, ClusterError> {
        let event = event.into();
        self.inner.check(&event)?;
        let nodes = self.inner.all_nodes().await?;
        let own = self.broadcast_local(event.clone())?;
        let ask = AskAll::Broadcast(&event);
        Ok(self.inner.everywhere(own, nodes, &ask).await)
    }

    /// Sends an event to every client of this node. Answers how many there are.
    ///
    /// # Errors
    /// If the event is not valid.
    pub fn broadcast_local(&self, event: impl Into<Event>) -> Result<usize, ClusterError> {
        self.inner.broadcast_local(&event.into())
    }

    /// Closes a client's connection, wherever it is, with `event: closed`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn close(&self, client: &str) -> Result<(), ClusterError> {
        check_id(client)?;
        let not_connected = || ClusterError::NotConnected(client.to_owned());
        let mut asked: Option<Place> = None;
        // As in `send`.
        for _ in 0..2 {
            if self.inner.close_local(client) {
                return Ok(());
            }
            let place = self.inner.registry.find(client).await?;
            let place = place.ok_or_else(not_connected)?;
            if asked.as_ref() == Some(&place) {
                break;
            }
            if place.node != self.inner.node && self.inner.close_at(client, &place).await? {
                return Ok(());
            }
            asked = Some(place);
        }
        Err(not_connected())
    }

    /// Closes the connections of all clients.
    ///
    /// # Errors
    /// If it can't be found out which nodes there are. None is closed then.
    pub async fn close_all(&self, scope: Scope) -> Result<Reach, ClusterError> {
        let nodes = match scope {
            Scope::Local => Vec::new(),
            Scope::Cluster => self.inner.all_nodes().await?,
        };
        let own = self.inner.close_all_local();
        Ok(self.inner.everywhere(own, nodes, &AskAll::CloseAll).await)
    }

    /// Closes the connections of a user's clients.
    ///
    /// # Errors
    /// As [`close_all`](Self::close_all).
    pub async fn close_user(&self, user: &str) -> Result<Reach, ClusterError> {
        let nodes = self.inner.all_nodes().await?;
        let own = self.inner.close_user_local(user);
        let ask = AskAll::CloseUser(user);
        Ok(self.inner.everywhere(own, nodes, &ask).await)
    }

    /// The node to which a client is connected, if it is.
    ///
    /// # Errors
    /// If the id is not valid, or the registry can't be asked.
    pub async fn is_connected(&self, client: &str) -> Result<Option<String>, ClusterError> {
        check_id(client)?;
        if self.inner.local.find(client).is_some() {
            return Ok(Some(self.inner.node.clone()));
        }
        let place = self.inner.registry.find(client).await?;
        Ok(place.map(|place| place.node))
    }

    /// How many clients are connected to this node.
    pub fn connection_count(&self) -> usize {
        self.inner.local.len()
    }

    /// How many clients are connected to whichever node.
    ///
    /// # Errors
    /// If the registry can't be asked.
    pub async fn cluster_connection_count(&self) -> Result<usize, ClusterError> {
        Ok(self.inner.registry.count().await?)
    }

    /// The nodes that are alive.
    ///
    /// # Errors
    /// If the registry can't be asked.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ClusterError> {
        Ok(self.inner.registry.nodes().await?)
    }

    /// Who reads a topic by its name, on whichever node. Of each node up to 1,000 connections are listed.
    ///
    /// # Errors
    /// If the registry can't be asked, or other nodes can't be reached.
    pub async fn presence(&self, topic: &str) -> Result<Presence, ClusterError> {
        let present = self.inner.present(topic, PRESENT_MAX);
        self.inner.present_everywhere(present, topic).await
    }

    /// Why the node's state is not to be trusted, where that is so.
    ///
    /// # Errors
    /// The reason.
    pub fn ready(&self) -> Result<(), String> {
        self.inner.state.lock().trouble().map_or(Ok(()), Err)
    }

    /// Figures.
    pub fn figures(&self) -> ClusterFigures {
        let mut figures = self.inner.state.lock().figures;
        figures.clients = self.inner.local.len();
        figures
    }

    /// Says from now on that the node is about to end.
    pub fn start_draining(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.inner.beat_soon();
    }

    /// Takes the node and its entries out of the registry. The last step of a shutdown.
    pub async fn leave(&self) {
        // A heartbeat that came after this would bring the node back.
        self.inner.gone.store(true, Ordering::Release);
        let _turn = self.inner.upkeep.lock().await;
        if let Err(error) = self.inner.registry.leave(&self.inner.node).await {
            tracing::warn!(%error, "the node leaves without saying so; its entries live on for their time");
        }
    }
}

/// Ids are visible ASCII without what has a meaning in addresses.
fn check_id(client: &str) -> Result<(), ClusterError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._~:@-".contains(&b);
    if (1..=CLIENT_ID_BYTES_MAX).contains(&client.len()) && client.bytes().all(fits) {
        Ok(())
    } else {
        Err(ClusterError::BadId(client.to_owned()))
    }
}
