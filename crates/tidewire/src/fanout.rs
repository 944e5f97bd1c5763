//! The fan-out thread: wakes the readers of what was published, and looks after connections that nothing happens to.
//!
//! A publisher only leaves a note that there is news; it never waits for readers. While the thread is busy waking,
//! further publishes join the next round, so fan-out coalesces by itself under load. All time-outs of all connections
//! are on this one thread's calendar: a connection stands in it once, and is looked at when something may be due.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tidewire_core::coalesce::Touched;
use tidewire_core::filter::FilterKey;
use tidewire_core::subscription::CloseReason;

use crate::clock::Moment;
use crate::connections::Connection;
use crate::hub::Shared;
use crate::waiting::Waiting;

/// The calendar's resolution, in milliseconds.
const TICK_MS: u64 = 100;
/// How often old events are dropped where nothing is published, in milliseconds.
const EXPIRE_EVERY_MS: u64 = 1_000;
/// Connections that are gone and may stay on the calendar until they are due, beside as many as are there.
const GONE_KEPT_MAX: usize = 1_024;

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
    failed: AtomicBool,
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

    /// Whether the thread has ended by a panic: nobody is woken any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
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
        let _watch = Watch(inbox.clone());
        let mut fan_out = FanOut::default();
        while fan_out.round(&inbox, &hub) {}
    };
    std::thread::Builder::new()
        .name("tidewire-fan-out".into())
        .spawn(run)
        .map(drop)
}

/// Sees to it that a panic of the thread, which would be a bug, does not go unnoticed.
struct Watch(Arc<Inbox>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the fan-out thread has failed: nothing is delivered any more");
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct FanOut {
    /// Connections by the tick at which something may be due.
    calendar: BTreeMap<u64, Vec<Arc<Connection>>>,
    waiting: Waiting,
    expire_at: Moment,
    touched: Vec<Touched>,
    filters: Vec<FilterKey>,
    readers: Vec<Arc<Connection>>,
}

impl FanOut {
    /// Sleeps until there is something to do, then does it. False when the hub is gone.
    fn round(&mut self, inbox: &Inbox, hub: &Weak<Shared>) -> bool {
        let notes = inbox.wait(self.next_due_in(Moment::now()));
        if notes.stopped {
            return false;
        }
        let Some(hub) = hub.upgrade() else {
            return false;
        };
        self.pass(&hub, notes, Moment::now());
        true
    }

    /// Does what there is to do at a time.
    fn pass(&mut self, hub: &Shared, notes: Notes, now: Moment) {
        if notes.news {
            self.take_news(hub, now);
        }
        self.waiting.take_due(now, &mut self.filters);
        self.wake_readers(hub);
        for connection in notes.newcomers {
            self.look_after(hub, connection, now);
        }
        while let Some(due) = self.calendar.first_entry()
            && Moment::of_tick(*due.key(), TICK_MS) <= now
        {
            for connection in due.remove() {
                self.look_after(hub, connection, now);
            }
        }
        if now >= self.expire_at {
            hub.expire();
            self.forget_the_gone(hub);
            self.expire_at = now.after_ms(EXPIRE_EVERY_MS);
        }
    }

    fn next_due_in(&self, now: Moment) -> Duration {
        let visit = self.calendar.keys().next();
        let visit = visit.map(|tick| Moment::of_tick(*tick, TICK_MS));
        let due = [visit, self.waiting.next()].into_iter().flatten();
        now.until(due.fold(self.expire_at.max(now.after_ms(1)), Moment::min))
    }

    /// Takes what was published: the filters whose readers are to be woken now, and those that may wait.
    fn take_news(&mut self, hub: &Shared, now: Moment) {
        hub.take_touched(&mut self.touched);
        for Touched { filter, window_ms } in self.touched.drain(..) {
            if window_ms == 0 {
                self.filters.push(filter);
            } else {
                self.waiting.add(filter, now.after_ms(u64::from(window_ms)));
            }
        }
    }

    fn wake_readers(&mut self, hub: &Shared) {
        hub.connections.of_filters(&self.filters, &mut self.readers);
        self.filters.clear();
        for reader in self.readers.drain(..) {
            reader.wake();
        }
        // One large fan-out shall not keep its peak for ever.
        self.readers.shrink_to(1_024);
    }

    /// Does what is due for a connection, and enters it for the next time.
    fn look_after(&mut self, hub: &Shared, connection: Arc<Connection>, now: Moment) {
        if connection.is_gone() {
            return;
        }
        let settings = &hub.settings;
        if now >= connection.ends {
            connection.request_close(if connection.expires {
                CloseReason::Expired
            } else {
                CloseReason::Lifetime
            });
        }
        let (active, blocked) = connection.active();
        if blocked && now >= active.after_ms(settings.stall_timeout_ms) {
            hub.close_stalled(&connection);
            return;
        }
        let heartbeat_at = active.after_ms(settings.heartbeat_ms);
        let heartbeat_due = now >= heartbeat_at;
        if heartbeat_due && !blocked {
            connection.heartbeat_due.store(true, Ordering::Release);
            connection.wake();
        }
        let heartbeat_at = if heartbeat_due {
            now.after_ms(settings.heartbeat_ms)
        } else {
            heartbeat_at
        };
        // A connection may get stuck at any time; it is noticed within twice the time-out.
        let stalled_at = if blocked { active } else { now }.after_ms(settings.stall_timeout_ms);
        let next = heartbeat_at
            .min(stalled_at)
            .min(connection.ends)
            .max(now.after_ms(TICK_MS));
        self.calendar
            .entry(next.tick(TICK_MS))
            .or_default()
            .push(connection);
    }

    /// Takes connections off the calendar that are gone, where they are most of what stands there: many that come and
    /// go shall not be kept until something would have been due for them.
    fn forget_the_gone(&mut self, hub: &Shared) {
        let on_calendar: usize = self.calendar.values().map(Vec::len).sum();
        if on_calendar <= 2 * hub.connections.len() + GONE_KEPT_MAX {
            return;
        }
        self.calendar.retain(|_, due| {
            due.retain(|connection| !connection.is_gone());
            due.shrink_to_fit();
            !due.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use tidewire_core::filter::FilterSpec;
    use tidewire_core::subscribe::Start;

    use super::*;
    use crate::hub::{Hub, HubBuilder, Opened};
    use crate::live::Live;
    use crate::stream::StreamOptions;

    /// Connections of which each heartbeat is sent at once, on a clock of their own.
    struct Day {
        hub: Hub,
        fan_out: FanOut,
        streams: Vec<Live>,
        now: Moment,
        /// When each connection got its heartbeats.
        heartbeats: Vec<Vec<Moment>>,
    }

    impl Day {
        fn new(settings: HubBuilder, count: usize) -> Self {
            let hub = settings.build();
            let mut day = Self {
                fan_out: FanOut::default(),
                streams: Vec::new(),
                now: Moment::now(),
                heartbeats: vec![Vec::new(); count],
                hub,
            };
            for _ in 0..count {
                let opened = day.hub.open(
                    &FilterSpec::default(),
                    &Start::Live,
                    StreamOptions::default(),
                );
                let Opened::Stream(stream) = opened else {
                    panic!("the stream opens")
                };
                let live = stream.into_live();
                let newcomers = vec![live.connection().clone()];
                let notes = Notes {
                    newcomers,
                    ..Notes::default()
                };
                day.streams.push(live);
                day.now = day.now.after_ms(37);
                day.fan_out.pass(&day.hub.shared, notes, day.now);
            }
            day
        }

        /// One round of the thread; it sleeps as long as that would.
        fn round(&mut self) {
            let longest = self.fan_out.next_due_in(self.now);
            self.now = self.now.after_ms((longest.as_millis() as u64).max(1));
            self.fan_out
                .pass(&self.hub.shared, Notes::default(), self.now);
            for (live, heartbeats) in self.streams.iter().zip(&mut self.heartbeats) {
                let connection = live.connection();
                if connection.heartbeat_due.swap(false, Ordering::Relaxed) {
                    heartbeats.push(self.now);
                    connection.note_active(self.now, false);
                }
            }
        }
    }

    #[test]
    fn a_day_of_silence_has_a_heartbeat_every_30_s_and_ends() {
        let mut day = Day::new(Hub::builder(), 20);
        let ends = day.streams[0].connection().ends;
        while day.now.after_ms(1_000) < ends {
            day.round();
            let on_calendar: usize = day.fan_out.calendar.values().map(Vec::len).sum();
            assert_eq!(on_calendar, 20, "each connection stands there once");
        }
        for (live, heartbeats) in day.streams.iter().zip(&day.heartbeats) {
            assert_eq!(live.connection().close_requested(), None);
            let late = heartbeats
                .windows(2)
                .map(|pair| pair[0].until(pair[1]))
                .max();
            assert!(
                late.is_some_and(|late| late <= Duration::from_millis(30_000 + TICK_MS)),
                "{late:?}"
            );
            assert!((2_870..=2_880).contains(&heartbeats.len()));
        }
        while day.now < ends.after_ms(1_000) {
            day.round();
        }
        for live in &day.streams {
            let reason = live.connection().close_requested();
            assert_eq!(reason, Some(CloseReason::Lifetime));
        }
        day.streams.clear();
        while day.now < ends.after_ms(60_000) {
            day.round();
        }
        assert!(day.fan_out.calendar.is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn many_that_come_and_go_do_not_stay_on_the_calendar() {
        let mut day = Day::new(Hub::builder(), 3_000);
        let on_calendar = |day: &Day| day.fan_out.calendar.values().map(Vec::len).sum::<usize>();
        day.streams.truncate(1);
        let gone = day.now;
        while on_calendar(&day) > GONE_KEPT_MAX + 2 {
            day.round();
        }
        let took = gone.until(day.now);
        assert!(took <= Duration::from_secs(2), "{took:?}");
        assert!(on_calendar(&day) >= 1, "who is there stays");
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up_in_time() {
        let mut day = Day::new(Hub::builder(), 2);
        let stuck = day.streams[0].connection().clone();
        let since = day.now;
        stuck.note_active(since, true);
        while stuck.close_requested().is_none() {
            day.round();
        }
        assert_eq!(stuck.close_requested(), Some(CloseReason::Stalled));
        let took = since.until(day.now);
        assert!((30..=60).contains(&took.as_secs()), "{took:?}");
        assert_eq!(day.hub.stats().connections, 1);
        assert!(day.heartbeats[0].is_empty());
    }

    /// The sum of such a time and now used to overflow, which ended the thread and with it all fan-out.
    #[test]
    fn times_without_an_end_are_no_reason_to_stop() {
        let settings = Hub::builder()
            .heartbeat(Duration::MAX)
            .stall_timeout(Duration::MAX)
            .max_lifetime(Duration::MAX)
            .retry(Duration::MAX);
        let mut day = Day::new(settings, 1);
        for _ in 0..100 {
            day.round();
        }
        assert!(day.heartbeats[0].is_empty());
        assert_eq!(day.streams[0].connection().close_requested(), None);
    }
}
