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
//! | `local.rs` | which clients this node holds |
//! | `control.rs` | what nodes say to each other |
//! | `presence.rs` | who comes to a topic, and who leaves |
//! | `upkeep.rs` | heartbeats, clearing away what dead nodes left, comparing what is with what the registry says |
//!
//! What is sent here is transient: it reaches who is connected, has no id, and is stored nowhere.

#[cfg(feature = "redis")]
mod control;
mod local;
mod presence;
#[cfg(feature = "redis")]
mod redis_registry;
mod registry;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidewire_core::event::Event;
use tidewire_core::pattern::Pattern;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;
use tokio::sync::mpsc;

#[cfg(feature = "redis")]
use self::control::{Control, Done, Order, Servant};
use self::local::Local;
#[cfg(feature = "redis")]
pub use self::redis_registry::{RedisRegistry, RetryOptions};
pub use self::registry::{Answer, Entry, MemoryRegistry, NodeInfo, Place, Registry, Unavailable};
pub use self::upkeep::{ClusterFigures, Inconsistency, UpkeepOptions};
use crate::clock::now_ms;
use crate::connections::ConnectionId;
use crate::hub::Hub;
use crate::problem::{Code, Problem};
use crate::publish::PublishError;
use crate::rights::{Rights, UserId};
use crate::stream::CONNECTION_HEADER;

/// The topic that all clients of this module read; a client's id has no `/`.
const EVERY_CLIENT: &str = "connection:/clients";
/// Longest id of a client.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// Connections of a node that presence tells of.
const PRESENT_MAX: usize = 1_000;
/// Locks among which clients are spread, so that one's connects come one after the other.
const LOCKS: usize = 64;

/// Who reads a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The connection.
    pub connection: ConnectionId,
    /// Whose it is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub connected_ms: u64,
    /// The node that holds it.
    pub node: String,
}

/// How far an order reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every node.
    #[default]
    Cluster,
    /// This node.
    Local,
}

/// Why an order to the cluster was not carried out, or nobody knows whether it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// A client's id is not valid.
    BadId(String),
    /// No node holds a connection of this client.
    NotConnected(String),
    /// The node that holds it does not answer.
    Silent(String),
    /// The registry, or the way to other nodes, is not there.
    Unavailable(Unavailable),
    /// The event is not valid.
    Event(PublishError),
}

impl std::fmt::Display for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadId(id) => {
                let shown: String = id.chars().take(100).collect();
                write!(
                    f,
                    "`{shown}` is no id of a client: it has 1 to {CLIENT_ID_BYTES_MAX} letters, digits and `._~:@-`"
                )
            }
            Self::NotConnected(client) => write!(f, "no client `{client}` is connected"),
            Self::Silent(node) => write!(
                f,
                "node `{node}` holds the connection and does not answer, so it is unknown whether the client was reached"
            ),
            Self::Unavailable(why) => why.fmt(f),
            Self::Event(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClusterError {}

impl From<Unavailable> for ClusterError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<PublishError> for ClusterError {
    fn from(error: PublishError) -> Self {
        Self::Event(error)
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Self {
        let detail = error.to_string();
        match error {
            ClusterError::BadId(_) => Self::new(Code::BadClientId, detail),
            ClusterError::NotConnected(_) => Self::new(Code::NotConnected, detail),
            ClusterError::Silent(node) => Self::new(Code::NodeSilent, detail).with("node", node),
            ClusterError::Unavailable(_) => {
                Self::new(Code::RegistryUnavailable, detail).retry_after_s(1 + fastrand::u32(0..4))
            }
            ClusterError::Event(error) => error.into(),
        }
    }
}

/// What an order to several nodes came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Connections that it was done to, on all nodes that answered.
    pub connections: usize,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
}

/// A node of a cluster. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Hub,
    node: String,
    version: String,
    started_ms: u64,
    registry: Arc<dyn Registry>,
    #[cfg(feature = "redis")]
    control: std::sync::OnceLock<Arc<Control>>,
    local: Local,
    locks: Vec<tokio::sync::Mutex<()>>,
    every_client: Topic,
    draining: AtomicBool,
    state: Mutex<upkeep::State>,
}

/// Settings of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// This node's name, other than that of any other.
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
    pub fn alone(hub: &Hub, options: &ClusterOptions) -> Self {
        let registry = Arc::new(MemoryRegistry::new(options.upkeep.ttl));
        Self::with_registry(hub, registry, options)
    }

    /// A node of those that share a Redis. Needs tokio.
    #[cfg(feature = "redis")]
    pub fn over_redis(
        hub: &Hub,
        redis: Arc<crate::redis::Redis>,
        retry: RetryOptions,
        options: &ClusterOptions,
    ) -> Self {
        let registry = RedisRegistry::new(redis.clone(), options.upkeep.ttl, retry);
        let cluster = Self::with_registry(hub, Arc::new(registry), options);
        let servant = Arc::downgrade(&cluster.inner);
        let control = Control::open(redis, &options.node, options.answer_timeout, servant);
        let _ = cluster.inner.control.set(control);
        cluster
    }

    fn with_registry(hub: &Hub, registry: Arc<dyn Registry>, options: &ClusterOptions) -> Self {
        let inner = Arc::new(Inner {
            hub: hub.clone(),
            node: options.node.clone(),
            version: options.version.clone(),
            started_ms: now_ms(),
            registry,
            #[cfg(feature = "redis")]
            control: std::sync::OnceLock::new(),
            local: Local::default(),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            every_client: Topic::new(EVERY_CLIENT).expect("a topic"),
            draining: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let (news, told) = mpsc::channel(presence::NEWS_MAX);
        hub.shared.watch(Box::new(presence::Reporter {
            inner: Arc::downgrade(&inner),
            patterns: options.presence_events.clone(),
            news,
        }));
        tokio::spawn(presence::publish(hub.clone(), options.node.clone(), told));
        tokio::spawn(upkeep::run(Arc::downgrade(&inner), options.upkeep.clone()));
        Self { inner }
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
        let turn = inner.lock_of(client).lock().await;
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
        inner.adopt(client, connection, user).await;
        drop(turn);
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
    /// If the event is not valid, or other nodes can't be reached: this node's clients have it then.
    pub async fn broadcast(&self, event: impl Into<Event>) -> Result<Reach, ClusterError> {
        let event = event.into();
        let own = self.broadcast_local(event.clone())?;
        self.inner.everywhere(own, &AskAll::Broadcast(&event)).await
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
        if self.inner.close_local(client) {
            return Ok(());
        }
        let place = self.inner.registry.find(client).await?;
        let place = place.filter(|place| place.node != self.inner.node);
        let not_connected = || ClusterError::NotConnected(client.to_owned());
        let node = place.ok_or_else(not_connected)?.node;
        if self.inner.close_at(&node, client).await? {
            Ok(())
        } else {
            Err(not_connected())
        }
    }

    /// Closes the connections of all clients.
    ///
    /// # Errors
    /// If other nodes can't be reached: those of this node are closed then.
    pub async fn close_all(&self, scope: Scope) -> Result<Reach, ClusterError> {
        let own = self.inner.close_all_local();
        if scope == Scope::Local {
            return Ok(Reach {
                connections: own,
                ..Reach::default()
            });
        }
        self.inner.everywhere(own, &AskAll::CloseAll).await
    }

    /// Closes the connections of a user's clients.
    ///
    /// # Errors
    /// As [`close_all`](Self::close_all).
    pub async fn close_user(&self, user: &str) -> Result<Reach, ClusterError> {
        let own = self.inner.close_user_local(user);
        self.inner.everywhere(own, &AskAll::CloseUser(user)).await
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

    /// Who reads a topic by its name, on whichever node; up to 1,000 connections of each. And the nodes that are silent.
    ///
    /// # Errors
    /// If the registry can't be asked, or other nodes can't be reached.
    pub async fn presence(&self, topic: &str) -> Result<(Vec<Present>, Vec<String>), ClusterError> {
        let present = self.inner.present(topic, PRESENT_MAX);
        self.inner.present_everywhere(present, topic).await
    }

    /// Why the node's state is not to be trusted, where that is so.
    ///
    /// # Errors
    /// The reason.
    pub fn ready(&self) -> Result<(), String> {
        self.inner.state.lock().trouble.clone().map_or(Ok(()), Err)
    }

    /// Figures.
    pub fn figures(&self) -> ClusterFigures {
        let mut figures = self.inner.state.lock().figures;
        figures.clients = self.inner.local.len();
        figures
    }

    /// Says from now on that the node is about to end.
    pub fn start_draining(&self) {
        self.inner
            .draining
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Takes the node and its entries out of the registry. The last step of a shutdown.
    pub async fn leave(&self) {
        if let Err(error) = self.inner.registry.leave(&self.inner.node).await {
            tracing::warn!(%error, "the node leaves without saying so; its entries live on for their time");
        }
    }
}

/// What is asked of all nodes.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "there are no others")
)]
enum AskAll<'a> {
    Broadcast(&'a Event),
    CloseAll,
    CloseUser(&'a str),
}

impl Inner {
    fn lock_of(&self, client: &str) -> &tokio::sync::Mutex<()> {
        let hash = tidewire_core::id::topic_hash(client) as usize;
        &self.locks[hash % LOCKS]
    }

    /// Makes a connection a client's, here and in the registry.
    async fn adopt(&self, client: &str, connection: ConnectionId, user: Option<Arc<str>>) {
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

    fn replace(&self, connection: ConnectionId) {
        self.state.lock().figures.replaced += 1;
        self.hub.close_for(connection, CloseReason::Replaced);
    }

    fn send_local(&self, client: &str, event: Event) -> Result<bool, ClusterError> {
        let Some(connection) = self.local.find(client) else {
            event.validate(usize::MAX).map_err(PublishError::from)?;
            return Ok(false);
        };
        Ok(self.hub.send_to(connection, event)?)
    }

    fn broadcast_local(&self, event: &Event) -> Result<usize, ClusterError> {
        self.hub.send_to_readers(&self.every_client, event)?;
        Ok(self.local.len())
    }

    fn close_local(&self, client: &str) -> bool {
        let connection = self.local.find(client);
        connection.is_some_and(|connection| self.hub.close(connection))
    }

    fn close_all_local(&self) -> usize {
        let entries = self.local.entries().into_iter();
        entries
            .filter(|(_, connection)| self.hub.close(*connection))
            .count()
    }

    fn close_user_local(&self, user: &str) -> usize {
        let connections = self.local.of_user(user).into_iter();
        connections
            .filter(|connection| self.hub.close(*connection))
            .count()
    }

    fn present(&self, topic: &str, limit: usize) -> Vec<Present> {
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
    async fn take_over(&self, client: &str, before: &Place) {
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

    async fn send_to(&self, node: &str, client: &str, event: &Event) -> Result<bool, ClusterError> {
        let order = Order::Send {
            client: client.to_owned(),
            event: event.into(),
        };
        self.ask(node, &order).await
    }

    async fn close_at(&self, node: &str, client: &str) -> Result<bool, ClusterError> {
        let client = client.to_owned();
        self.ask(node, &Order::Close { client }).await
    }

    async fn ask(&self, node: &str, order: &Order) -> Result<bool, ClusterError> {
        let silent = || ClusterError::Silent(node.to_owned());
        let control = self.control.get().ok_or_else(silent)?;
        let done = control.ask(node, order).await?.ok_or_else(silent)?;
        Ok(done.count > 0)
    }

    async fn everywhere(&self, own: usize, ask: &AskAll<'_>) -> Result<Reach, ClusterError> {
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

    async fn present_everywhere(
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

    async fn node_names(&self) -> Result<Vec<String>, ClusterError> {
        let nodes = self.registry.nodes().await?;
        Ok(nodes.into_iter().map(|info| info.node).collect())
    }
}

#[cfg(not(feature = "redis"))]
#[allow(clippy::unused_async, reason = "as with other nodes")]
impl Inner {
    async fn take_over(&self, _: &str, _: &Place) {}

    async fn send_to(&self, node: &str, _: &str, _: &Event) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(node.to_owned()))
    }

    async fn close_at(&self, node: &str, _: &str) -> Result<bool, ClusterError> {
        Err(ClusterError::Silent(node.to_owned()))
    }

    async fn everywhere(&self, own: usize, _: &AskAll<'_>) -> Result<Reach, ClusterError> {
        Ok(Reach {
            connections: own,
            silent: Vec::new(),
        })
    }

    async fn present_everywhere(
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

/// Ids are visible ASCII without what has a meaning in addresses.
fn check_id(client: &str) -> Result<(), ClusterError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._~:@-".contains(&b);
    if (1..=CLIENT_ID_BYTES_MAX).contains(&client.len()) && client.bytes().all(fits) {
        Ok(())
    } else {
        Err(ClusterError::BadId(client.to_owned()))
    }
}

impl IntoResponse for ClusterError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

impl From<&Reach> for StatusCode {
    fn from(reach: &Reach) -> Self {
        if reach.silent.is_empty() {
            Self::OK
        } else {
            Self::GATEWAY_TIMEOUT
        }
    }
}
