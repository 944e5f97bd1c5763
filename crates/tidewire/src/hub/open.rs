//! From a wish to subscribe to a stream.

use std::net::SocketAddr;
use std::sync::Arc;

use tidewire_core::filter::{FilterKey, FilterSpec};
use tidewire_core::id::NativeId;
use tidewire_core::log::Log;
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{CloseReason, GapReason, Subscription};

use super::{Hub, Shared};
use crate::clock::{Moment, now_ms};
use crate::connections::{Admission, Connection, NoRoom};
use crate::older::Older;
use crate::serve::Signals;
use crate::stream::{Beginning, EventStream, StreamOptions};
use crate::subscribe::First;

/// Who wants a stream, as far as the server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) signals: Option<Arc<Signals>>,
    pub(crate) user: Option<Arc<str>>,
    /// When their credential is over.
    pub(crate) expires: Option<Moment>,
}

/// What came of a wish to subscribe.
pub enum Opened {
    /// The stream, ready to be sent.
    Stream(EventStream),
    /// The stream that the client resumes is over for good: 204.
    Over,
    /// There is no room.
    Full(NoRoom),
}

/// Where a stream is to begin.
struct Place {
    filter: FilterKey,
    subscription: Subscription,
    /// What comes before that, where the log has it no more.
    older: Option<Older>,
    starts_after: NativeId,
    gap: Option<GapReason>,
}

impl Place {
    /// The id with which a client that has seen nothing yet shall come back.
    fn resume_id(&self, start: &Start, first: &First<'_>) -> Option<String> {
        if let Some(preceding) = first.preceding {
            // Until the client has what precedes, it has no more than it came with.
            return Some(preceding.from.to_string());
        }
        match (self.gap, start) {
            (None, _) => Some(self.starts_after.to_string()),
            // A client that took on the place behind the gap before it was told would never know.
            (Some(_), Start::After(id)) => Some(id.clone()),
            (Some(_), _) => None,
        }
    }
}

impl Hub {
    /// Opens a stream for whoever speaks HTTP by other means than this crate's handler.
    pub fn open(&self, filter: &FilterSpec, start: &Start, options: StreamOptions) -> Opened {
        self.open_for(filter, start, options, Peer::default(), First::default())
    }

    pub(crate) fn open_for(
        &self,
        filter: &FilterSpec,
        start: &Start,
        options: StreamOptions,
        peer: Peer,
        first: First<'_>,
    ) -> Opened {
        let shared = &self.shared;
        let Some(place) = self.find_place(filter, start) else {
            return Opened::Over;
        };
        let connection = Arc::new(Connection::new(
            place.filter,
            peer,
            shared.settings.max_lifetime_ms,
            Moment::now(),
        ));
        if let Err(no_room) = shared.admit(&connection) {
            return Opened::Full(no_room);
        }
        let (gap, starts_after) = (place.gap, place.starts_after);
        if shared.read_log(Log::epoch) != starts_after.epoch {
            // The history has changed since the place was found, and who was connected was closed without this one.
            connection.request_close(CloseReason::Lagged);
        }
        if gap.is_some() {
            shared.counters.add_gap();
        }
        tracing::debug!(connection = %connection.id, %starts_after, ?gap, "connection opened");
        if let Some(watcher) = shared.watcher.get() {
            watcher.opened(&connection, shared.watched_topics(&connection));
        }
        shared.inbox.note_newcomer(connection.clone());
        let beginning = Beginning {
            resume_id: place.resume_id(start, &first),
            checkpoint: gap.is_none().then_some(starts_after),
            subscription: place.subscription,
            older: place.older,
        };
        let hub = self.clone();
        Opened::Stream(EventStream::new(hub, connection, beginning, options, first))
    }

    /// Finds out where a stream begins, and holds its filter. `None` if it is over for good.
    fn find_place(&self, filter: &FilterSpec, start: &Start) -> Option<Place> {
        let mut log = self.shared.log.write();
        let key = log.acquire_filter(filter);
        let slow_client = self.shared.settings.slow_client;
        let Subscribed::Stream {
            subscription,
            mut starts_after,
            mut gap,
            older_after,
        } = log.subscribe(key, start, slow_client, now_ms())
        else {
            log.release_filter(key);
            return None;
        };
        drop(log);
        let older = older_after.and_then(|after| {
            let from_id = match start {
                Start::After(id) => Some(id.clone()),
                _ => None,
            };
            Older::new(self, filter, starts_after.epoch, after, from_id)
        });
        if let (Some(after), Some(_)) = (older_after, &older) {
            // Then nothing is missing, and the stream begins there.
            gap = None;
            starts_after = NativeId::new(starts_after.epoch, after);
        }
        Some(Place {
            filter: key,
            subscription,
            older,
            starts_after,
            gap,
        })
    }
}

impl Shared {
    /// Takes a connection into the tables if there is room, or makes some. Else its filter is given back.
    fn admit(&self, connection: &Arc<Connection>) -> Result<(), NoRoom> {
        match self.connections.admit(connection) {
            Admission::Admitted => Ok(()),
            Admission::Evicting(evicted) => {
                evicted.request_close(CloseReason::Evicted);
                self.forget(&evicted, CloseReason::Evicted);
                Ok(())
            }
            Admission::Refused(no_room) => {
                self.counters.add_close(CloseReason::Rejected);
                self.log.write().release_filter(connection.filter);
                Err(no_room)
            }
        }
    }
}
