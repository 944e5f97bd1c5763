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
}

/// The clients of this node.
#[derive(Default)]
pub(super) struct Local {
    tables: Mutex<Tables>,
    /// Somebody has left, or there is something else to do.
    pub(super) left: Arc<Notify>,
}

#[derive(Default)]
struct Tables {
    by_client: HashMap<Arc<str>, Held>,
    by_connection: HashMap<ConnectionId, Arc<str>>,
    /// Entries to be given back. There are no more than there were connections since the last time.
    leaving: Vec<Entry>,
}

impl Local {
    /// A client has this connection now; answers the one that it had before.
    pub(super) fn put(
        &self,
        client: &str,
        connection: ConnectionId,
        user: Option<Arc<str>>,
    ) -> Option<ConnectionId> {
        let mut tables = self.tables.lock();
        let client: Arc<str> = client.into();
        tables.by_connection.insert(connection, client.clone());
        let before = tables.by_client.insert(client, Held { connection, user })?;
        tables.by_connection.remove(&before.connection);
        Some(before.connection)
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
