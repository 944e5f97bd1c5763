//! The connections of this node: who is there, in order of age and by filter.
//!
//! A connection is known here from the moment it is admitted until it is closed, whichever transport carries it. What
//! the transport and others need to tell each other is in `Connection`: a few atomics, no queue.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use tidewire_core::filter::FilterKey;
use tidewire_core::log::TopicKey;
use tidewire_core::subscription::CloseReason;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::serve::Inbox;

/// A connection's id: a UUID of version 7, so that ids sort by age.
pub type ConnectionId = Uuid;

/// What others may ask of a connection, and what it tells.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) filter: FilterKey,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) connected_ms: u64,
    /// The waker of the body, while that carries the stream.
    pub(crate) waker: AtomicWaker,
    /// Whether a note for this connection is in its reactor's inbox, which so has one for each at most.
    noted: AtomicBool,
    /// The reactor that carries the stream, and the slot there.
    reactor: OnceLock<(Arc<Inbox>, u32)>,
    /// Set where the server can cut the connection off although it reads nothing.
    pub(crate) cut_off: Option<Arc<Notify>>,
    /// The reason to close that was asked for, plus one; 0 for none.
    close: AtomicU8,
    /// The connection's own topic, from the first event that is sent to it alone.
    own_topic: Mutex<Option<TopicKey>>,
    pub(crate) heartbeat_due: AtomicBool,
    /// When bytes were last handed to the transport, in milliseconds since the Unix epoch.
    pub(crate) active_ms: AtomicU64,
    /// Since when the transport has not come back for more; 0 while it waits for us.
    pub(crate) blocked_ms: AtomicU64,
    pub(crate) delivered: AtomicU64,
    /// The next place of the log that the connection looks at.
    pub(crate) place: AtomicU64,
    /// Where the connection stands in its filter's list.
    at: AtomicU32,
}

impl Connection {
    pub(crate) fn new(
        filter: FilterKey,
        remote: Option<SocketAddr>,
        cut_off: Option<Arc<Notify>>,
        now_ms: u64,
    ) -> Self {
        Self {
            id: Uuid::now_v7(),
            filter,
            remote,
            connected_ms: now_ms,
            waker: AtomicWaker::new(),
            noted: AtomicBool::new(false),
            reactor: OnceLock::new(),
            cut_off,
            close: AtomicU8::new(0),
            own_topic: Mutex::new(None),
            heartbeat_due: AtomicBool::new(false),
            active_ms: AtomicU64::new(now_ms),
            blocked_ms: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            place: AtomicU64::new(0),
            at: AtomicU32::new(0),
        }
    }

    /// Asks the connection to close. The first reason counts.
    pub(crate) fn request_close(&self, reason: CloseReason) {
        let _ =
            self.close
                .compare_exchange(0, reason as u8 + 1, Ordering::AcqRel, Ordering::Relaxed);
        self.wake();
    }

    /// Tells whoever carries the stream that there is something to do for it.
    pub(crate) fn wake(&self) {
        // Pairs with the fence in `carried_by`: either the reactor is seen here, or what this wake-up is for is seen
        // there.
        fence(Ordering::SeqCst);
        match self.reactor.get() {
            Some((inbox, slot)) => {
                if !self.noted.swap(true, Ordering::AcqRel) {
                    inbox.wake(*slot);
                }
            }
            None => self.waker.wake(),
        }
    }

    /// The reactor has taken the note, and will look after the connection.
    pub(crate) fn note_taken(&self) {
        // A swap, not a store: it sees what was there before every wake-up that found the note in the inbox.
        self.noted.swap(false, Ordering::AcqRel);
    }

    /// From now on a reactor carries the stream. It must look after it once, as wake-ups before went elsewhere.
    pub(crate) fn carried_by(&self, inbox: Arc<Inbox>, slot: u32) {
        let _ = self.reactor.set((inbox, slot));
        // The body was busy with its first frame; a reactor that has nothing to send waits for us.
        self.blocked_ms.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // The body's waker would keep the memory of its whole task.
        drop(self.waker.take());
        // The body handed over all that it took; the reactor notes what its own writes come to.
        self.blocked_ms.store(0, Ordering::Relaxed);
    }

    /// The reason to close that was asked for.
    pub(crate) fn close_requested(&self) -> Option<CloseReason> {
        let reason = self.close.load(Ordering::Acquire);
        CloseReason::ALL
            .get(usize::from(reason).checked_sub(1)?)
            .copied()
    }

    pub(crate) fn own_topic(&self) -> Option<TopicKey> {
        *self.own_topic.lock()
    }

    pub(crate) fn set_own_topic(&self, key: TopicKey) {
        *self.own_topic.lock() = Some(key);
    }
}

/// What to do with a new connection when there are as many as may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtCapacity {
    /// The oldest one makes room.
    #[default]
    EvictOldest,
    /// The new one is refused.
    Reject,
}

#[derive(Default)]
struct Tables {
    by_id: BTreeMap<ConnectionId, Arc<Connection>>,
    by_filter: Vec<Vec<Arc<Connection>>>,
}

impl Tables {
    fn remove(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let connection = self.by_id.remove(&id)?;
        let list = &mut self.by_filter[connection.filter.index()];
        let at = connection.at.load(Ordering::Relaxed) as usize;
        list.swap_remove(at);
        match list.get(at) {
            Some(moved) => moved.at.store(at as u32, Ordering::Relaxed),
            None if list.is_empty() => *list = Vec::new(),
            None => {}
        }
        Some(connection)
    }
}

/// All connections of a node.
pub(crate) struct Connections {
    tables: Mutex<Tables>,
    max: usize,
    at_capacity: AtCapacity,
}

/// What came of a new connection.
pub(crate) enum Admission {
    Admitted,
    /// Admitted in place of this one, which is out of the tables already.
    Evicting(Arc<Connection>),
    Refused,
}

impl Connections {
    pub(crate) fn new(connections_max: usize, at_capacity: AtCapacity) -> Self {
        Self {
            tables: Mutex::default(),
            max: connections_max,
            at_capacity,
        }
    }

    pub(crate) fn admit(&self, connection: &Arc<Connection>) -> Admission {
        let mut tables = self.tables.lock();
        let mut admission = Admission::Admitted;
        if tables.by_id.len() >= self.max {
            let oldest = tables.by_id.first_key_value().map(|(id, _)| *id);
            match oldest
                .filter(|_| self.at_capacity == AtCapacity::EvictOldest)
                .and_then(|id| tables.remove(id))
            {
                Some(evicted) => admission = Admission::Evicting(evicted),
                None => return Admission::Refused,
            }
        }
        let index = connection.filter.index();
        if tables.by_filter.len() <= index {
            tables.by_filter.resize_with(index + 1, Vec::new);
        }
        let list = &mut tables.by_filter[index];
        connection.at.store(list.len() as u32, Ordering::Relaxed);
        list.push(connection.clone());
        tables.by_id.insert(connection.id, connection.clone());
        admission
    }

    /// Takes a connection out; `None` if somebody did before.
    pub(crate) fn remove(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.tables.lock().remove(id)
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.tables.lock().by_id.get(&id).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.lock().by_id.len()
    }

    /// Adds the connections that read through any of the filters.
    pub(crate) fn of_filters(&self, filters: &[FilterKey], out: &mut Vec<Arc<Connection>>) {
        let tables = self.tables.lock();
        for filter in filters {
            out.extend(
                tables
                    .by_filter
                    .get(filter.index())
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
    }

    /// Up to `limit` connections, oldest first, that are younger than `after`.
    pub(crate) fn page(&self, after: Option<ConnectionId>, limit: usize) -> Vec<Arc<Connection>> {
        let tables = self.tables.lock();
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        tables
            .by_id
            .range((from, std::ops::Bound::Unbounded))
            .take(limit)
            .map(|(_, c)| c.clone())
            .collect()
    }
}
