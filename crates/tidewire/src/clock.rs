//! The one place where the library asks what time it is.
//!
//! There are two clocks. The wall clock, in milliseconds since the Unix epoch, stamps events and says how old they are;
//! it may be set at any time. Time-outs count [`Moment`]s of a clock that only goes forward. They are types of their
//! own so that the compiler keeps one from being taken for the other.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock: milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A moment of the clock for time-outs, which nobody sets. Counts milliseconds from some moment of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self(START.elapsed().as_millis() as u64)
    }

    /// So many milliseconds later. The far future is the end of all time, and no overflow.
    pub(crate) fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long it is until a moment; nothing if that has passed.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    /// In which tick of so many milliseconds the moment is; the next where it is between two.
    pub(crate) fn tick(self, tick_ms: u64) -> u64 {
        self.0.div_ceil(tick_ms)
    }

    /// When a tick of so many milliseconds begins.
    pub(crate) fn of_tick(tick: u64, tick_ms: u64) -> Self {
        Self(tick.saturating_mul(tick_ms))
    }
}

/// A moment that threads share.
#[derive(Debug)]
pub(crate) struct AtomicMoment(AtomicU64);

impl AtomicMoment {
    pub(crate) fn new(moment: Moment) -> Self {
        Self(AtomicU64::new(moment.0))
    }

    pub(crate) fn load(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn store(&self, moment: Moment) {
        self.0.store(moment.0, Ordering::Relaxed);
    }
}
