//! The connections of this node: who is there, in order of age and by filter.
//!
//! A connection is known here from the moment it is admitted until it is closed, whichever transport carries it. What
//! the transport and others need to tell each other is in `Connection`: a few atomics, no queue.

use std::borrow::Borrow;
use std::cmp::Ordering as Order;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;
use tidewire_core::filter::FilterKey;
use tidewire_core::log::TopicKey;
use tidewire_core::subscription::CloseReason;
use uuid::Uuid;

use crate::clock::{AtomicMoment, Moment};
use crate::hub::Peer;
use crate::serve::{Inbox, Signals};

/// A connection's id: a UUID of version 7, so that ids sort by age.
pub type ConnectionId = Uuid;

/// What others may ask of a connection, and what it tells.
///
/// There is one for each client, so its size counts: `serve::tests::reactors` prints it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) filter: FilterKey,
    /// Where the connection stands in its filter's list; [`GONE`] once it is out of all tables.
    at: AtomicU32,
    remote: Remote,
    /// Whose it is, where that is known.
    user: Option<Arc<str>>,
    /// Whether the carrier was told that there is something to do, and has not looked since.
    noted: AtomicBool,
    /// The reason to close that was asked for, plus one; 0 for none.
    close: AtomicU8,
    pub(crate) heartbeat_due: AtomicBool,
    /// Whether the transport is busy with what it was given; it waits for us otherwise.
    blocked: AtomicBool,
    /// When bytes were last handed to the transport, or since when it takes none.
    active: AtomicMoment,
    /// When it is over, and whether that is because its credential is.
    pub(crate) ends: Moment,
    pub(crate) expires: bool,
    carrier: Mutex<Carrier>,
    /// The connection's own topic, from the first event that is sent to it alone.
    own_topic: OnceLock<TopicKey>,
    pub(crate) delivered: AtomicU64,
    /// The next place of the log that the connection looks at.
    pub(crate) place: AtomicU64,
}

/// In no list any more. So many connections there can't be.
const GONE: u32 = u32::MAX;

/// What carries the stream, and how it is told that there is something to do.
#[derive(Debug)]
enum Carrier {
    /// An HTTP body.
    Body {
        /// Set while the body sleeps.
        waker: Option<Waker>,
        /// Set where the server can cut the connection off although it reads nothing.
        signals: Option<Arc<Signals>>,
    },
    /// A reactor, in this slot.
    Reactor(Arc<Inbox>, u32),
}

impl Connection {
    pub(crate) fn new(filter: FilterKey, peer: Peer, max_lifetime_ms: u64, now: Moment) -> Self {
        let lifetime_end = now.after_ms(max_lifetime_ms);
        let expires = peer.expires.filter(|expires| *expires < lifetime_end);
        Self {
            id: Uuid::now_v7(),
            filter,
            at: AtomicU32::new(0),
            remote: Remote::new(peer.remote),
            user: peer.user,
            noted: AtomicBool::new(false),
            close: AtomicU8::new(0),
            heartbeat_due: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            active: AtomicMoment::new(now),
            ends: expires.unwrap_or(lifetime_end),
            expires: expires.is_some(),
            carrier: Mutex::new(Carrier::Body {
                waker: None,
                signals: peer.signals,
            }),
            own_topic: OnceLock::new(),
            delivered: AtomicU64::new(0),
            place: AtomicU64::new(0),
        }
    }

    /// Whether the connection has been taken out of the tables.
    pub(crate) fn is_gone(&self) -> bool {
        self.at.load(Ordering::Relaxed) == GONE
    }

    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote.get()
    }

    /// Whom its address stands for.
    fn network(&self) -> Option<IpAddr> {
        self.remote().map(|remote| network_of(remote.ip()))
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// When the connection was opened, in milliseconds since the Unix epoch.
    pub(crate) fn connected_ms(&self) -> u64 {
        let (s, ns) = self.id.get_timestamp().map_or((0, 0), |at| at.to_unix());
        s * 1_000 + u64::from(ns / 1_000_000)
    }

    /// Asks the connection to close. The first reason counts.
    pub(crate) fn request_close(&self, reason: CloseReason) {
        let _ =
            self.close
                .compare_exchange(0, reason as u8 + 1, Ordering::AcqRel, Ordering::Relaxed);
        self.wake();
    }

    /// Tells whoever carries the stream that there is something to do for it, unless it was told and has not looked.
    ///
    /// No wake-up is lost: all of `noted` are swaps, in one order. One that finds the note there comes before the
    /// carrier takes it, so the carrier sees what it is for. One that finds none comes after the carrier left its
    /// waker, or was replaced by one that does.
    pub(crate) fn wake(&self) {
        if self.noted.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut carrier = self.carrier.lock();
        let waker = match &mut *carrier {
            Carrier::Body { waker, .. } => waker.take(),
            Carrier::Reactor(inbox, slot) => {
                inbox.wake(*slot);
                None
            }
        };
        drop(carrier);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The body is about to look for news and may go to sleep after that. Answers whether it was told of any since it
    /// looked last.
    pub(crate) fn look(&self, by: &Waker) -> bool {
        self.blocked.store(false, Ordering::Relaxed);
        if let Carrier::Body { waker, .. } = &mut *self.carrier.lock() {
            match waker {
                Some(waker) => waker.clone_from(by),
                None => *waker = Some(by.clone()),
            }
        }
        self.note_taken()
    }

    /// Whoever carries the stream will look after it now. Answers whether there was a reason to.
    pub(crate) fn note_taken(&self) -> bool {
        // A swap, not a store: it sees what was there before every wake-up that found the note.
        self.noted.swap(false, Ordering::AcqRel)
    }

    /// From now on a reactor carries the stream. It must look after it once, as wake-ups before went elsewhere.
    pub(crate) fn carried_by(&self, inbox: Arc<Inbox>, slot: u32) {
        // The body's waker would keep the memory of its whole task.
        *self.carrier.lock() = Carrier::Reactor(inbox, slot);
        self.note_taken();
        // The body handed over all that it took; the reactor notes what its own writes come to.
        self.blocked.store(false, Ordering::Relaxed);
    }

    /// Cuts a client off that takes nothing, where the server can.
    pub(crate) fn cut_off(&self) {
        if let Carrier::Body { signals, .. } = &*self.carrier.lock()
            && let Some(signals) = signals
        {
            signals.cut_off();
        }
    }

    /// Bytes were handed to the transport, or it takes none. It is busy from now on, unless it took them all.
    pub(crate) fn note_active(&self, now: Moment, blocked: bool) {
        self.active.store(now);
        self.blocked.store(blocked, Ordering::Release);
    }

    /// When bytes were last handed to the transport, and whether it is busy with them still.
    pub(crate) fn active(&self) -> (Moment, bool) {
        let blocked = self.is_blocked();
        (self.active.load(), blocked)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// The reason to close that was asked for.
    pub(crate) fn close_requested(&self) -> Option<CloseReason> {
        let reason = self.close.load(Ordering::Acquire);
        CloseReason::ALL
            .get(usize::from(reason).checked_sub(1)?)
            .copied()
    }

    pub(crate) fn own_topic(&self) -> Option<TopicKey> {
        self.own_topic.get().copied()
    }

    /// Gives the connection a topic of its own; only once.
    pub(crate) fn set_own_topic(&self, key: TopicKey) {
        let _ = self.own_topic.set(key);
    }
}

/// A client's address, in 18 bytes where std's type takes 32.
#[derive(Debug)]
struct Remote {
    /// Zeros where the address is not known.
    ip: [u8; 16],
    port: u16,
}

impl Remote {
    fn new(address: Option<SocketAddr>) -> Self {
        let ip = match address.map(|address| address.ip()) {
            Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
            Some(IpAddr::V6(ip)) => ip,
            None => Ipv6Addr::UNSPECIFIED,
        };
        Self {
            ip: ip.octets(),
            port: address.map_or(0, |address| address.port()),
        }
    }

    fn get(&self) -> Option<SocketAddr> {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        (!ip.is_unspecified()).then(|| SocketAddr::new(ip, self.port))
    }
}

/// A connection in its place by id: a table of pointers, as one with the ids would take three times the memory.
struct ById(Arc<Connection>);

impl Borrow<ConnectionId> for ById {
    fn borrow(&self) -> &ConnectionId {
        &self.0.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Order {
        self.0.id.cmp(&other.0.id)
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

/// How many connections one address and one user may have at a time. Without a limit nothing is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    pub(crate) per_address_max: Option<usize>,
    pub(crate) per_user_max: Option<usize>,
}

/// What there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The hub has as many connections as it may.
    Hub,
    /// The client's address has.
    Address,
    /// The user has.
    User,
}

/// Whom an address stands for: of IPv6, one customer has a network of 64 bits at least (RFC 6177).
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[derive(Default)]
struct Tables {
    by_id: BTreeSet<ById>,
    by_filter: Vec<Vec<Arc<Connection>>>,
    /// How many each has, where that is limited.
    addresses: HashMap<IpAddr, usize>,
    users: HashMap<Arc<str>, usize>,
}

fn count<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn discount<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

impl Tables {
    fn remove(&mut self, id: ConnectionId) -> Option<Arc<Connection>> {
        let ById(connection) = self.by_id.take(&id)?;
        let list = &mut self.by_filter[connection.filter.index()];
        let at = connection.at.swap(GONE, Ordering::Relaxed) as usize;
        list.swap_remove(at);
        match list.get(at) {
            Some(moved) => moved.at.store(at as u32, Ordering::Relaxed),
            None if list.is_empty() => *list = Vec::new(),
            None => {}
        }
        if let Some(address) = connection.network() {
            discount(&mut self.addresses, &address);
        }
        if let Some(user) = &connection.user {
            discount(&mut self.users, user);
        }
        Some(connection)
    }

    fn check(&self, connection: &Connection, shares: Shares) -> Result<(), NoRoom> {
        let n = |n: Option<&usize>| n.copied().unwrap_or(0);
        let of_address = || {
            connection
                .network()
                .map_or(0, |address| n(self.addresses.get(&address)))
        };
        let of_user = || {
            connection
                .user
                .as_ref()
                .map_or(0, |user| n(self.users.get(user)))
        };
        if shares
            .per_address_max
            .is_some_and(|max| of_address() >= max)
        {
            return Err(NoRoom::Address);
        }
        if shares.per_user_max.is_some_and(|max| of_user() >= max) {
            return Err(NoRoom::User);
        }
        Ok(())
    }

    fn count(&mut self, connection: &Connection, shares: Shares) {
        if let Some(address) = connection
            .network()
            .filter(|_| shares.per_address_max.is_some())
        {
            count(&mut self.addresses, address);
        }
        if let Some(user) = connection
            .user
            .clone()
            .filter(|_| shares.per_user_max.is_some())
        {
            count(&mut self.users, user);
        }
    }
}

/// All connections of a node.
pub(crate) struct Connections {
    tables: Mutex<Tables>,
    max: usize,
    at_capacity: AtCapacity,
    shares: Shares,
}

/// What came of a new connection.
pub(crate) enum Admission {
    Admitted,
    /// Admitted in place of this one, which is out of the tables already.
    Evicting(Arc<Connection>),
    Refused(NoRoom),
}

impl Connections {
    pub(crate) fn new(connections_max: usize, at_capacity: AtCapacity, shares: Shares) -> Self {
        Self {
            tables: Mutex::default(),
            max: connections_max,
            at_capacity,
            shares,
        }
    }

    pub(crate) fn admit(&self, connection: &Arc<Connection>) -> Admission {
        let mut tables = self.tables.lock();
        let mut admission = Admission::Admitted;
        if let Err(no_room) = tables.check(connection, self.shares) {
            return Admission::Refused(no_room);
        }
        if tables.by_id.len() >= self.max {
            let oldest = tables.by_id.first().map(|ById(oldest)| oldest.id);
            match oldest
                .filter(|_| self.at_capacity == AtCapacity::EvictOldest)
                .and_then(|id| tables.remove(id))
            {
                Some(evicted) => admission = Admission::Evicting(evicted),
                None => return Admission::Refused(NoRoom::Hub),
            }
        }
        let index = connection.filter.index();
        if tables.by_filter.len() <= index {
            tables.by_filter.resize_with(index + 1, Vec::new);
        }
        let list = &mut tables.by_filter[index];
        connection.at.store(list.len() as u32, Ordering::Relaxed);
        list.push(connection.clone());
        tables.by_id.insert(ById(connection.clone()));
        tables.count(connection, self.shares);
        admission
    }

    /// Takes a connection out; `None` if somebody did before.
    pub(crate) fn remove(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        self.tables.lock().remove(id)
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<Arc<Connection>> {
        let tables = self.tables.lock();
        tables.by_id.get(&id).map(|ById(found)| found.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.lock().by_id.len()
    }

    /// Adds the connections that read through any of the filters, which may be out of date.
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
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        tables
            .by_id
            .range::<ConnectionId, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|ById(connection)| connection.clone())
            .collect()
    }
}
