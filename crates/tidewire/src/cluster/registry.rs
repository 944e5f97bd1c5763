//! The registry: which node holds the connection of which client. One trait, in memory and in Redis.
//!
//! # The contract
//! - A client has one place at most. [`register`](Registry::register) takes it over, whoever had it, and answers who did:
//!   of any number that register at once, the last one has it, and each of the others is answered to somebody.
//!   Whatever the clocks of nodes say: who was taken over does not get the place back by renewing it.
//! - [`unregister`](Registry::unregister) gives back only what is still the caller's.
//! - Every entry lives for the registry's time to live, and as long again with each [`renew`](Registry::renew), which
//!   also makes entries anew that are gone, and answers those that somebody newer has.
//! - A node lives as long as it [beats](Registry::beat). Entries of one that does not any more are not found and not
//!   counted.
//! - Nothing goes through all entries, but [`entries`](Registry::entries), page by page. The one in memory does so to
//!   count, too.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::broker::BoxFuture;
use crate::connections::ConnectionId;

/// Where a client's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node that holds it.
    pub node: String,
    /// The connection.
    pub connection: ConnectionId,
}

/// A node, as it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub node: String,
    /// The hub's version.
    pub version: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Open streams, of whatever kind.
    pub connections: usize,
    /// How far its log is behind the broker's store, in milliseconds.
    pub lag_ms: u64,
    /// Whether it is shutting down.
    pub draining: bool,
}

/// What came of renewing entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Clients that have another connection by now, and where.
    pub lost: Vec<(String, Place)>,
    /// How many entries were not there, and are again.
    pub restored: usize,
}

/// The registry can't be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the registry of connections can't be reached: {}",
            self.0
        )
    }
}

impl std::error::Error for Unavailable {}

/// A client and the connection that it has here.
pub type Entry = (String, ConnectionId);

/// An answer that may take its time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Unavailable>>;

/// Where it is known which node holds which connection. Its module says what is promised.
pub trait Registry: Send + Sync + 'static {
    /// Gives a client's place to a connection; answers where it was before.
    fn register<'a>(&'a self, client: &'a str, place: &'a Place) -> Answer<'a, Option<Place>>;

    /// Gives places back that are still of these connections of a node.
    fn unregister<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, ()>;

    /// Lets a node's entries live on.
    fn renew<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, Renewed>;

    /// Where a client is connected.
    fn find<'a>(&'a self, client: &'a str) -> Answer<'a, Option<Place>>;

    /// How many clients are connected, to whichever node.
    fn count(&self) -> Answer<'_, usize>;

    /// A node is alive. Answers what it said of itself the last time, where that still holds: somebody else's words, if
    /// two nodes have one name.
    fn beat<'a>(&'a self, info: &'a NodeInfo) -> Answer<'a, Option<NodeInfo>>;

    /// A node has ended, in good order.
    fn leave<'a>(&'a self, node: &'a str) -> Answer<'a, ()>;

    /// The nodes that are alive, by name.
    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>>;

    /// Clears away what nodes have left that are not alive any more. Answers how many entries that were.
    fn sweep(&self) -> Answer<'_, usize>;

    /// A page of the clients that the registry has under a node, and the cursor of the next one; 0 at the start and at
    /// the end.
    fn entries<'a>(&'a self, node: &'a str, cursor: u64) -> Answer<'a, (Vec<String>, u64)>;

    /// Removes clients from a node's own list that it does not hold.
    fn forget<'a>(&'a self, node: &'a str, clients: &'a [String]) -> Answer<'a, ()>;
}

/// The registry of a hub that is one node, or of several in one process.
pub struct MemoryRegistry {
    ttl: Duration,
    state: Mutex<State>,
}

/// A client's place.
struct Held {
    place: Place,
    /// The greatest connection that ever had the place.
    rank: ConnectionId,
    until: Instant,
}

#[derive(Default)]
struct State {
    places: HashMap<String, Held>,
    nodes: BTreeMap<String, (NodeInfo, Instant)>,
}

impl MemoryRegistry {
    /// Entries live for so long.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            state: Mutex::default(),
        }
    }

    fn with<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut State, Instant) -> T,
    ) -> Answer<'_, T> {
        let answer = change(&mut self.state.lock(), Instant::now());
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl State {
    fn put(&mut self, client: &str, place: Place, until: Instant) {
        let before = self.places.get(client).map(|held| held.rank);
        let rank = before.map_or(place.connection, |rank| rank.max(place.connection));
        self.places
            .insert(client.to_owned(), Held { place, rank, until });
    }

    fn live(&self, client: &str, now: Instant) -> Option<&Place> {
        let Held { place, until, .. } = self.places.get(client)?;
        let is_live = *until > now && self.is_alive(&place.node, now);
        is_live.then_some(place)
    }

    fn is_alive(&self, node: &str, now: Instant) -> bool {
        self.nodes.get(node).is_some_and(|(_, until)| *until > now)
    }
}

impl Registry for MemoryRegistry {
    fn register<'a>(&'a self, client: &'a str, place: &'a Place) -> Answer<'a, Option<Place>> {
        self.with(|state, now| {
            let before = state.live(client, now).cloned();
            state.put(client, place.clone(), now + self.ttl);
            before
        })
    }

    fn unregister<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, ()> {
        self.with(|state, _| {
            for (client, connection) in entries {
                let is_mine = |Held { place, .. }: &Held| {
                    place.node == node && place.connection == *connection
                };
                if state.places.get(client).is_some_and(is_mine) {
                    state.places.remove(client);
                }
            }
        })
    }

    fn renew<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, Renewed> {
        self.with(|state, now| {
            let mut renewed = Renewed::default();
            for (client, connection) in entries {
                let mine = Place {
                    node: node.to_owned(),
                    connection: *connection,
                };
                let rank = state.places.get(client).map(|held| held.rank);
                match state.live(client, now) {
                    Some(place) if *place != mine && rank >= Some(*connection) => {
                        renewed.lost.push((client.clone(), place.clone()));
                    }
                    place => {
                        renewed.restored += usize::from(place != Some(&mine));
                        state.put(client, mine, now + self.ttl);
                    }
                }
            }
            renewed
        })
    }

    fn find<'a>(&'a self, client: &'a str) -> Answer<'a, Option<Place>> {
        self.with(|state, now| state.live(client, now).cloned())
    }

    fn count(&self) -> Answer<'_, usize> {
        self.with(|state, now| {
            let clients = state.places.keys();
            clients
                .filter(|client| state.live(client, now).is_some())
                .count()
        })
    }

    fn beat<'a>(&'a self, info: &'a NodeInfo) -> Answer<'a, Option<NodeInfo>> {
        self.with(|state, now| {
            let entry = (info.clone(), now + self.ttl);
            let former = state.nodes.insert(info.node.clone(), entry)?;
            (former.1 > now).then_some(former.0)
        })
    }

    fn leave<'a>(&'a self, node: &'a str) -> Answer<'a, ()> {
        self.with(|state, _| {
            state.nodes.remove(node);
            state.places.retain(|_, held| held.place.node != node);
        })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        self.with(|state, now| {
            let alive = state.nodes.values().filter(|(_, until)| *until > now);
            alive.map(|(info, _)| info.clone()).collect()
        })
    }

    fn sweep(&self) -> Answer<'_, usize> {
        self.with(|state, now| {
            let before = state.places.len();
            state.nodes.retain(|_, (_, until)| *until > now);
            let State { places, nodes } = state;
            places.retain(|_, held| held.until > now && nodes.contains_key(&held.place.node));
            before - places.len()
        })
    }

    fn entries<'a>(&'a self, node: &'a str, _: u64) -> Answer<'a, (Vec<String>, u64)> {
        // One page: all of them are here anyway.
        self.with(move |state, _| {
            let of_node = state
                .places
                .iter()
                .filter(|(_, held)| held.place.node == node);
            (of_node.map(|(client, _)| client.clone()).collect(), 0)
        })
    }

    fn forget<'a>(&'a self, node: &'a str, clients: &'a [String]) -> Answer<'a, ()> {
        self.with(|state, _| {
            for client in clients {
                if state
                    .places
                    .get(client)
                    .is_some_and(|held| held.place.node == node)
                {
                    state.places.remove(client);
                }
            }
        })
    }
}
