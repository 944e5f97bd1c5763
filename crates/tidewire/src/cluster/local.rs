//! Which clients this node holds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::registry::Entry;
use crate::connections::ConnectionId;

/// A client's connection here, and whose it is.
#[derive(Clone, Debug)]
struct Held {
    connection: ConnectionId,
    user: Option<Arc<str>>,
    /// It is being registered.
    is_registering: bool,
}

/// What putting a client's connection in its place came to.
pub(super) struct Taken {
    /// The connection that the client had before.
    pub(super) before: Option<ConnectionId>,
    /// Whether it is to be registered, and [`settle`](Local::settle)d then. If not, the next heartbeat does so.
    pub(super) is_registering: bool,
}

/// The clients of this node.
pub(super) struct Local {
    tables: Mutex<Tables>,
    /// Somebody has left, or there is something else to do.
    pub(super) left: Arc<Notify>,
}

struct Tables {
    /// Whether the registry takes what it is told. While it does not, nobody waits for it to register a client: the next
    /// heartbeat that it takes registers all.
    in_step: bool,
    by_client: HashMap<Arc<str>, Held>,
    by_connection: HashMap<ConnectionId, Arc<str>>,
    /// Entries to be given back. There are no more than there were connections since the last time.
    leaving: Vec<Entry>,
}

impl Default for Local {
    fn default() -> Self {
        let tables = Tables {
            in_step: true,
            by_client: HashMap::new(),
            by_connection: HashMap::new(),
            leaving: Vec::new(),
        };
        Self {
            tables: Mutex::new(tables),
            left: Arc::default(),
        }
    }
}

impl Local {
    /// A client has this connection now.
    pub(super) fn put(
        &self,
        client: &str,
        connection: ConnectionId,
        user: Option<Arc<str>>,
    ) -> Taken {
        let mut tables = self.tables.lock();
        let client: Arc<str> = client.into();
        let is_registering = tables.in_step;
        tables.by_connection.insert(connection, client.clone());
        let held = Held {
            connection,
            user,
            is_registering,
        };
        let before = tables.by_client.insert(client, held);
        let before = before.map(|before| before.connection);
        if let Some(before) = before {
            tables.by_connection.remove(&before);
        }
        Taken {
            before,
            is_registering,
        }
    }

    /// A client's connection is registered, or can't be. From now on heartbeats renew it.
    pub(super) fn settle(&self, client: &str, connection: ConnectionId) {
        let mut tables = self.tables.lock();
        if let Some(held) = tables.by_client.get_mut(client)
            && held.connection == connection
        {
            held.is_registering = false;
        }
    }

    pub(super) fn in_step(&self) -> bool {
        self.tables.lock().in_step
    }

    /// The registry does not take what it is told. Answers whether that is new.
    pub(super) fn fall_out_of_step(&self) -> bool {
        std::mem::take(&mut self.tables.lock().in_step)
    }

    /// The registry takes what it is told. Answers what it is to be told now: all but what is registered one by one. A
    /// connection that a heartbeat closes, as a newer one is elsewhere, must not take over from that one afterwards: the
    /// client would have none.
    pub(super) fn fall_in_step(&self) -> Vec<Entry> {
        let mut tables = self.tables.lock();
        tables.in_step = true;
        let held = tables.by_client.iter();
        held.filter(|(_, held)| !held.is_registering)
            .map(|(client, held)| (client.as_ref().to_owned(), held.connection))
            .collect()
    }

    /// A connection has ended. If it was a client's, its entry is to be given back. Answers whether it was.
    pub(super) fn end(&self, connection: ConnectionId) -> bool {
        let mut tables = self.tables.lock();
        let Some(client) = tables.by_connection.remove(&connection) else {
            return false;
        };
        tables.by_client.remove(&client);
        tables
            .leaving
            .push((client.as_ref().to_owned(), connection));
        drop(tables);
        self.left.notify_one();
        true
    }

    pub(super) fn find(&self, client: &str) -> Option<ConnectionId> {
        let tables = self.tables.lock();
        tables.by_client.get(client).map(|held| held.connection)
    }

    /// The client's connection, unless it is being registered.
    pub(super) fn settled(&self, client: &str) -> Option<ConnectionId> {
        let tables = self.tables.lock();
        let held = tables.by_client.get(client)?;
        (!held.is_registering).then_some(held.connection)
    }

    /// Whether this connection is some client's.
    pub(super) fn owns(&self, connection: ConnectionId) -> bool {
        self.tables.lock().by_connection.contains_key(&connection)
    }

    /// Whether this connection is the client's.
    pub(super) fn is_current(&self, client: &str, connection: ConnectionId) -> bool {
        self.find(client) == Some(connection)
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<ConnectionId> {
        let tables = self.tables.lock();
        let held = tables.by_client.values();
        held.filter(|held| held.user.as_deref() == Some(user))
            .map(|held| held.connection)
            .collect()
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let tables = self.tables.lock();
        let held = tables.by_client.iter();
        held.map(|(client, held)| (client.as_ref().to_owned(), held.connection))
            .collect()
    }

    pub(super) fn take_leaving(&self) -> Vec<Entry> {
        std::mem::take(&mut self.tables.lock().leaving)
    }

    pub(super) fn len(&self) -> usize {
        self.tables.lock().by_client.len()
    }
}
