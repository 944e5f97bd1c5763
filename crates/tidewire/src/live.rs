//! A stream on its way, as both transports know it: what to send next, and how it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidewire_core::encode;
use tidewire_core::filter::FilterKey;
use tidewire_core::id::{NativeId, Tombstone};
use tidewire_core::log::Log;
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{Batch, CloseReason, Poll, Subscription};

use crate::clock::Moment;
use crate::clock::now_ms;
use crate::connections::Connection;
use crate::hub::Hub;
use crate::stream::{Heartbeat, StreamOptions};

/// There is no such place in a log.
const SAID: u64 = u64::MAX;

/// A filter, a place in the log, and which hub's: what streams have in common that send the same bytes next.
pub(crate) type SharedPlace = (FilterKey, u64, usize);

/// One connection's subscription, with what it takes to read on. When it is dropped, the connection is over.
pub(crate) struct Live {
    hub: Hub,
    connection: Arc<Connection>,
    subscription: Subscription,
    options: StreamOptions,
    /// The log's end when it was first seen that the connection is to be closed; 0 before, [`SAID`] once the last words
    /// are queued.
    owed_before: u64,
}

impl Live {
    pub(crate) fn new(
        hub: Hub,
        connection: Arc<Connection>,
        subscription: Subscription,
        options: StreamOptions,
    ) -> Self {
        Self {
            hub,
            connection,
            subscription,
            options,
            owed_before: 0,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Queues what the stream begins with.
    pub(crate) fn push_control_first(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.subscription.push_control_first(write);
    }

    /// Queues a heartbeat if one is due.
    pub(crate) fn heartbeat_if_due(&mut self) {
        let is_due = self.connection.heartbeat_due.swap(false, Ordering::AcqRel);
        if is_due && !self.has_said() {
            self.queue_heartbeat();
        }
    }

    /// The reason to close the connection, if it is time: whoever sent to the client before it was to be closed was told
    /// that it has it, so it gets that first, and the last words. One that takes nothing is taken out of the tables, and
    /// then it is time.
    pub(crate) fn close_now(&mut self) -> Option<CloseReason> {
        let reason = self.connection.close_requested()?;
        let shared = self.hub.shared.clone();
        shared.read_log(|log| {
            if must_break_off(&self.connection, reason) {
                return Some(reason);
            }
            // Nothing is sent to it any more, so this is the end of what was.
            if self.owed_before == 0 {
                self.owed_before = log.stats().appended + 1;
            }
            if self.has_said() {
                return (!self.subscription.has_pending()).then_some(reason);
            }
            // It gets one under the lock, with its first event: looked up before, that would be passed over.
            let own = self.connection.own_topic();
            self.subscription.skip_if_idle(log, own);
            if self.subscription.place() < self.owed_before || self.subscription.has_pending() {
                return None;
            }
            self.owed_before = SAID;
            let words = self.last_words(log, reason);
            self.subscription
                .push_control(|out| out.extend_from_slice(&words));
            None
        })
    }

    fn has_said(&self) -> bool {
        self.owed_before == SAID
    }

    /// The reason to close the connection at once, whatever the client lacks.
    pub(crate) fn break_off_now(&self) -> Option<CloseReason> {
        let reason = self.connection.close_requested()?;
        must_break_off(&self.connection, reason).then_some(reason)
    }

    /// Gathers what the client lacks, up to about `bytes_max`.
    pub(crate) fn gather(&mut self, bytes_max: usize, batch: &mut Batch) -> Poll {
        let poll = loop {
            let poll = self.poll(bytes_max, batch);
            if poll != Poll::Idle || self.connection.close_requested().is_none() {
                break poll;
            }
            // It has all: what is left are the last words.
            if let Some(reason) = self.close_now() {
                break Poll::Close(reason);
            }
        };
        if poll == Poll::Data && batch.has_new_gap() {
            self.hub.shared.counters.add_gap();
        }
        if poll == Poll::Idle {
            self.note_place();
        }
        poll
    }

    fn poll(&mut self, bytes_max: usize, batch: &mut Batch) -> Poll {
        // Nothing goes out behind the last words, and they go out whole.
        let bytes_max = if self.has_said() { 1 } else { bytes_max };
        let (connection, subscription) = (&self.connection, &mut self.subscription);
        self.hub.shared.read_log(|log| {
            // A connection leaves the table before its filter is given back under this lock.
            let close = connection.close_requested();
            match close.filter(|reason| must_break_off(connection, *reason)) {
                Some(reason) => Poll::Close(reason),
                // Looked up under the lock, as in `close_now`.
                None => subscription.poll(log, connection.own_topic(), bytes_max, batch),
            }
        })
    }

    /// Notes that so many bytes of the batch went out, or are with somebody who will send them.
    pub(crate) fn sent(&mut self, batch: &Batch, n: usize) {
        let delivered = self.subscription.sent(batch, n);
        self.hub.shared.counters.add_delivered(delivered);
        self.connection
            .delivered
            .fetch_add(delivered as u64, Ordering::Relaxed);
        self.note_place();
    }

    /// Notes that so many events went out that are older than the log.
    pub(crate) fn note_delivered(&self, events: usize) {
        self.hub.shared.counters.add_delivered(events);
        self.connection
            .delivered
            .fetch_add(events as u64, Ordering::Relaxed);
    }

    /// Goes on from the log, after a place up to which the client has everything.
    pub(crate) fn read_on_after(&mut self, place: NativeId) {
        let shared = &self.hub.shared;
        let filter = self.subscription.filter();
        let start = Start::After(place.to_string());
        let slow_client = self.subscription.slow_client();
        // Only a tombstone's id finds a stream over.
        let subscribed = shared.write_log(|log| {
            // A connection that is to be closed may have lost its filter.
            let is_held = self.connection.close_requested().is_none();
            is_held.then(|| log.subscribe(filter, &start, slow_client, now_ms()))
        });
        if let Some(Subscribed::Stream {
            subscription, gap, ..
        }) = subscribed
        {
            self.subscription = subscription;
            if gap.is_some() {
                shared.counters.add_gap();
            }
        }
    }

    /// The place in the hub's log, where that alone decides what is gathered.
    pub(crate) fn shared_place(&self) -> Option<SharedPlace> {
        let (filter, place) = self.subscription.shared_position()?;
        let alone = self.connection.own_topic().is_none();
        alone.then(|| (filter, place, Arc::as_ptr(&self.hub.shared).addr()))
    }

    /// Notes how a write went: how many bytes the socket took, and whether that was all there was.
    pub(crate) fn note_write(&self, n: usize, complete: bool, now: Moment) {
        // One that takes nothing time and again is blocked since the first time.
        if n > 0 || !self.connection.is_blocked() {
            self.connection.note_active(now, !complete);
        }
    }

    fn note_place(&self) {
        self.connection
            .place
            .store(self.subscription.place(), Ordering::Relaxed);
    }

    fn queue_heartbeat(&mut self) {
        let position = self
            .options
            .checkpoint
            .then(|| self.position_to_tell())
            .flatten();
        if self.options.heartbeat == Heartbeat::Off && position.is_none() {
            return;
        }
        let heartbeat = self.options.heartbeat;
        self.subscription.push_control(|out| {
            match heartbeat {
                Heartbeat::Comment => out.extend_from_slice(encode::HEARTBEAT_COMMENT),
                Heartbeat::Event => out.extend_from_slice(encode::HEARTBEAT_EVENT),
                Heartbeat::Off => {}
            }
            if let Some(position) = position {
                encode::checkpoint(out, position.to_string().as_bytes());
            }
        });
    }

    /// The position, if the client has everything before it.
    fn position_to_tell(&mut self) -> Option<NativeId> {
        self.hub.shared.read_log(|log| {
            if self.connection.close_requested().is_some() || self.subscription.has_pending() {
                return None;
            }
            let own = self.connection.own_topic();
            self.subscription.skip_if_idle(log, own);
            Some(self.subscription.position(log))
        })
    }

    /// Ends the stream. Answers what is still to be said to the client; nothing, if it has half an event.
    pub(crate) fn end(self, reason: CloseReason) -> Option<Vec<u8>> {
        let last_words = if self.has_said() || self.subscription.is_within_event() {
            None
        } else {
            let shared = &self.hub.shared;
            let words = shared.read_log(|log| self.last_words(log, reason));
            (!words.is_empty()).then_some(words)
        };
        self.hub.shared.end_connection(self.connection.id, reason);
        last_words
    }

    fn last_words(&self, log: &Log, reason: CloseReason) -> Vec<u8> {
        let mut out = Vec::new();
        match reason {
            CloseReason::Evicted => encode::retry_line(&mut out, far_retry_ms()),
            CloseReason::Shutdown | CloseReason::Lifetime | CloseReason::Expired => {
                encode::retry_line(&mut out, jittered(self.hub.shared.settings.retry_ms));
            }
            CloseReason::Closed => self.farewell(log, &mut out, "closed", Tombstone::Closed),
            CloseReason::Replaced => self.farewell(log, &mut out, "replaced", Tombstone::Replaced),
            _ => {}
        }
        out
    }

    /// An event whose id keeps the client from coming back.
    fn farewell(&self, log: &Log, out: &mut Vec<u8>, name: &str, tombstone: Tombstone) {
        let position = self.subscription.position(log);
        let id = position.with_tombstone(tombstone).to_string();
        // A connection leaves the table before its filter is given back, under this lock. One that was evicted too may
        // have lost its filter; it is told in the hub's own form.
        if self.connection.is_gone() {
            encode::encode(out, Some(id.as_bytes()), Some(name), None, "{}");
        } else {
            let filter = self.subscription.filter();
            log.write_notice(out, filter, &id, (name, "{}"), now_ms());
        }
    }
}

/// Whether a connection that is to be closed must not get what it lacks: it takes none of it, or its filter is not held
/// any more.
fn must_break_off(connection: &Connection, reason: CloseReason) -> bool {
    let is_polite = matches!(
        reason,
        CloseReason::Closed
            | CloseReason::Replaced
            | CloseReason::Shutdown
            | CloseReason::Lifetime
            | CloseReason::Expired
    );
    !is_polite || connection.is_gone()
}

impl Drop for Live {
    fn drop(&mut self) {
        let reason = self
            .connection
            .close_requested()
            .unwrap_or(CloseReason::ClientGone);
        self.hub.shared.end_connection(self.connection.id, reason);
    }
}

/// Up to half as much again, by chance, so that clients don't come back in step.
pub(crate) fn jittered(ms: u64) -> u64 {
    ms + fastrand::u64(0..=ms / 2)
}

/// 30 to 60 s.
pub(crate) fn far_retry_ms() -> u64 {
    fastrand::u64(30_000..=60_000)
}
