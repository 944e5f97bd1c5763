//! The fan-out thread: wakes the readers of what was published, and looks after connections that nothing happens to.
//!
//! A publisher only leaves a note that there is news; it never waits for readers. While the thread is busy waking,
//! further publishes join the next round, so fan-out coalesces by itself under load. All time-outs of all connections
//! are on this one thread's calendar: a connection stands in it once, and is looked at when something may be due.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tidewire_core::subscription::CloseReason;

use crate::clock::now_ms;
use crate::connections::Connection;
use crate::hub::Shared;

/// The calendar's resolution, in milliseconds.
const TICK_MS: u64 = 100;
/// How often old events are dropped where nothing is published, in milliseconds.
const EXPIRE_EVERY_MS: u64 = 1_000;

/// What others leave for the thread.
#[derive(Default)]
struct Notes {
    /// Something was published.
    news: bool,
    /// Connections that are not on the calendar yet.
    newcomers: Vec<Arc<Connection>>,
    stopped: bool,
}

/// The way to the fan-out thread.
#[derive(Default)]
pub(crate) struct Inbox {
    notes: Mutex<Notes>,
    changed: Condvar,
}

impl Inbox {
    /// There is something to wake readers for.
    pub(crate) fn note_news(&self) {
        let mut notes = self.notes.lock();
        if !std::mem::replace(&mut notes.news, true) {
            self.changed.notify_one();
        }
    }

    /// There is a connection to look after.
    pub(crate) fn note_newcomer(&self, connection: Arc<Connection>) {
        // Nothing is due for it before the thread wakes by itself, one tick from now at the latest.
        let mut notes = self.notes.lock();
        let first = notes.newcomers.is_empty();
        notes.newcomers.push(connection);
        if first {
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.notes.lock().stopped = true;
        self.changed.notify_one();
    }

    fn wait(&self, longest: Duration) -> Notes {
        let mut notes = self.notes.lock();
        if !notes.news && !notes.stopped && notes.newcomers.is_empty() {
            self.changed.wait_for(&mut notes, longest);
        }
        let stopped = notes.stopped;
        Notes {
            stopped,
            ..std::mem::take(&mut *notes)
        }
    }
}

/// Starts the thread. It holds no more than a weak reference to the hub between rounds.
pub(crate) fn spawn(inbox: Arc<Inbox>, hub: Weak<Shared>) -> std::io::Result<()> {
    let run = move || {
        let mut fan_out = FanOut::default();
        while fan_out.round(&inbox, &hub) {}
    };
    std::thread::Builder::new()
        .name("tidewire-fan-out".into())
        .spawn(run)
        .map(drop)
}

#[derive(Default)]
struct FanOut {
    /// Connections by the tick at which something may be due.
    calendar: BTreeMap<u64, Vec<Arc<Connection>>>,
    expire_at_ms: u64,
    filters: Vec<tidewire_core::filter::FilterKey>,
    readers: Vec<Arc<Connection>>,
}

impl FanOut {
    /// Sleeps until there is something to do, then does it. False when the hub is gone.
    fn round(&mut self, inbox: &Inbox, hub: &Weak<Shared>) -> bool {
        let notes = inbox.wait(self.next_due_in(now_ms()));
        if notes.stopped {
            return false;
        }
        let Some(hub) = hub.upgrade() else {
            return false;
        };
        if notes.news {
            self.wake_readers(&hub);
        }
        let now_ms = now_ms();
        for connection in notes.newcomers {
            self.look_after(&hub, connection, now_ms);
        }
        while let Some(due) = self.calendar.first_entry()
            && due.key() * TICK_MS <= now_ms
        {
            for connection in due.remove() {
                self.look_after(&hub, connection, now_ms);
            }
        }
        if now_ms >= self.expire_at_ms {
            hub.expire(now_ms);
            self.expire_at_ms = now_ms + EXPIRE_EVERY_MS;
        }
        true
    }

    fn next_due_in(&self, now_ms: u64) -> Duration {
        let visit = self
            .calendar
            .keys()
            .next()
            .map_or(u64::MAX, |tick| tick * TICK_MS);
        Duration::from_millis(
            visit
                .min(self.expire_at_ms.max(now_ms + 1))
                .saturating_sub(now_ms),
        )
    }

    fn wake_readers(&mut self, hub: &Shared) {
        self.filters.clear();
        hub.take_touched(&mut self.filters);
        hub.connections.of_filters(&self.filters, &mut self.readers);
        for reader in self.readers.drain(..) {
            reader.wake();
        }
        // One large fan-out shall not keep its peak for ever.
        self.readers.shrink_to(1_024);
    }

    /// Does what is due for a connection, and enters it for the next time.
    fn look_after(&mut self, hub: &Shared, connection: Arc<Connection>, now_ms: u64) {
        if hub.connections.find(connection.id).is_none() {
            return;
        }
        let settings = &hub.settings;
        let lifetime_end = connection
            .connected_ms
            .saturating_add(settings.max_lifetime_ms);
        if now_ms >= lifetime_end {
            connection.request_close(CloseReason::Lifetime);
        }
        let blocked_ms = connection.blocked_ms.load(Ordering::Relaxed);
        if blocked_ms > 0 && now_ms >= blocked_ms + settings.stall_timeout_ms {
            hub.close_stalled(&connection);
            return;
        }
        let heartbeat_at = connection.active_ms.load(Ordering::Relaxed) + settings.heartbeat_ms;
        let heartbeat_due = now_ms >= heartbeat_at;
        if heartbeat_due && blocked_ms == 0 {
            connection.heartbeat_due.store(true, Ordering::Release);
            connection.wake();
        }
        let heartbeat_at = if heartbeat_due {
            now_ms + settings.heartbeat_ms
        } else {
            heartbeat_at
        };
        // A connection may get stuck at any time; it is noticed within twice the time-out.
        let stalled_at =
            if blocked_ms > 0 { blocked_ms } else { now_ms } + settings.stall_timeout_ms;
        let next = heartbeat_at
            .min(stalled_at)
            .min(lifetime_end)
            .max(now_ms + TICK_MS);
        self.calendar
            .entry(next.div_ceil(TICK_MS))
            .or_default()
            .push(connection);
    }
}
