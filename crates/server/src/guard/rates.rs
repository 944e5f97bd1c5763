//! How often: the streams that an address may begin, and the events that an address, a key and a user may publish.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tidewire::problem::{Code, Problem};

use crate::config::Limits;

/// Addresses and keys that are remembered before those are forgotten that have kept quiet. Stops a crowd of addresses from
/// filling the memory.
const KEYS_MAX: usize = 10_000;

/// So many a second for each key, and as many at once.
struct Rate<K: Hash + Eq + Clone> {
    limiter: RateLimiter<K, DashMapStateStore<K>, DefaultClock>,
    per_s_max: NonZeroU32,
    setting: &'static str,
    began: Instant,
    /// When the quiet ones were forgotten last, in seconds since then.
    cleaned_s: AtomicU64,
}

impl<K: Hash + Eq + Clone> Rate<K> {
    fn new(setting: &'static str, per_s_max: Option<usize>) -> Option<Self> {
        let per_s_max = u32::try_from(per_s_max?).ok().and_then(NonZeroU32::new)?;
        Some(Self {
            limiter: RateLimiter::dashmap(Quota::per_second(per_s_max)),
            per_s_max,
            setting,
            began: Instant::now(),
            cleaned_s: AtomicU64::new(0),
        })
    }

    /// Takes so many, or says how long to wait for them.
    fn take(&self, key: &K, n: NonZeroU32) -> Result<(), Duration> {
        if self.limiter.len() > KEYS_MAX {
            let now_s = self.began.elapsed().as_secs();
            if self.cleaned_s.swap(now_s, Ordering::Relaxed) != now_s {
                self.limiter.retain_recent();
            }
        }
        match self.limiter.check_key_n(key, n.min(self.per_s_max)) {
            Ok(Err(early)) => Err(early.wait_time_from(DefaultClock::default().now())),
            // No more than there can be is asked for.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn refuse(&self, wait: Duration, what: &str) -> Problem {
        let seconds = u32::try_from(wait.as_secs()).map_or(u32::MAX, |s| s.saturating_add(1));
        let detail = format!(
            "{what} {} a second at most (`{}`); try again in {seconds} s",
            self.per_s_max, self.setting
        );
        Problem::new(Code::TooManyRequests, detail).retry_after_s(seconds)
    }
}

/// The rates that are limited.
pub(super) struct Rates {
    connects: Option<Rate<IpAddr>>,
    publishes_of_address: Option<Rate<IpAddr>>,
    publishes_of_key: Option<Rate<Arc<str>>>,
}

impl Rates {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            connects: Rate::new(
                "limits.connects_per_address_per_s_max",
                limits.connects_per_address_per_s_max,
            ),
            publishes_of_address: Rate::new(
                "limits.publishes_per_address_per_s_max",
                limits.publishes_per_address_per_s_max,
            ),
            publishes_of_key: Rate::new(
                "limits.publishes_per_key_per_s_max",
                limits.publishes_per_key_per_s_max,
            ),
        }
    }

    /// An address begins a stream.
    pub(super) fn connect(&self, address: Option<IpAddr>) -> Result<(), Problem> {
        let (Some(rate), Some(address)) = (&self.connects, address) else {
            return Ok(());
        };
        rate.take(&address, NonZeroU32::MIN)
            .map_err(|wait| rate.refuse(wait, "an address may begin streams"))
    }
}

/// Who publishes, for as long as one request takes: in its extensions.
#[derive(Clone)]
pub(crate) struct Publishing {
    pub(super) rates: Arc<Rates>,
    pub(super) address: Option<IpAddr>,
    /// The name of the key or user, where one is known.
    pub(super) key: Option<Arc<str>>,
}

impl Publishing {
    /// Counts a batch, one of which was counted with its request.
    ///
    /// # Errors
    /// If it is too large for now, or for ever.
    pub(crate) fn count_batch(&self, events: usize) -> Result<(), Problem> {
        let rates = &self.rates;
        if let (Some(rate), Some(_)) = (&rates.publishes_of_address, self.address) {
            check_size(rate, events)?;
        }
        if let (Some(rate), Some(_)) = (&rates.publishes_of_key, &self.key) {
            check_size(rate, events)?;
        }
        self.count(events.saturating_sub(1))
    }

    /// Counts so many events, all or none of which are published.
    ///
    /// # Errors
    /// If they are too many for now.
    pub(crate) fn count(&self, events: usize) -> Result<(), Problem> {
        let Some(n) = u32::try_from(events).ok().and_then(NonZeroU32::new) else {
            return Ok(());
        };
        if let (Some(rate), Some(address)) = (&self.rates.publishes_of_address, self.address) {
            rate.take(&address, n)
                .map_err(|wait| rate.refuse(wait, "an address may publish events"))?;
        }
        if let (Some(rate), Some(key)) = (&self.rates.publishes_of_key, &self.key) {
            rate.take(key, n)
                .map_err(|wait| rate.refuse(wait, "a key or user may publish events"))?;
        }
        Ok(())
    }

    /// Waits until so many events, of a stream that has no end, may be published.
    pub(crate) async fn wait(&self, events: usize) {
        if let (Some(rate), Some(address)) = (&self.rates.publishes_of_address, self.address) {
            wait_for(rate, &address, events).await;
        }
        if let (Some(rate), Some(key)) = (&self.rates.publishes_of_key, &self.key) {
            wait_for(rate, key, events).await;
        }
    }
}

async fn wait_for<K: Hash + Eq + Clone>(rate: &Rate<K>, key: &K, events: usize) {
    let mut left = u32::try_from(events).unwrap_or(u32::MAX);
    while let Some(n) = NonZeroU32::new(left.min(rate.per_s_max.get())) {
        match rate.take(key, n) {
            Ok(()) => left -= n.get(),
            Err(wait) => tokio::time::sleep(wait).await,
        }
    }
}

/// A batch that is larger than a second's worth would never be let through.
fn check_size<K: Hash + Eq + Clone>(rate: &Rate<K>, n: usize) -> Result<(), Problem> {
    if u32::try_from(n).is_ok_and(|n| n <= rate.per_s_max.get()) {
        return Ok(());
    }
    let detail = format!(
        "a batch may have {} events here, as many as may be published in a second (`{}`), not {n}; send several, or a \
         stream of lines (application/x-ndjson)",
        rate.per_s_max, rate.setting
    );
    Err(Problem::new(Code::TooManyEvents, detail).with("max", rate.per_s_max.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_addresses_is_forgotten_again() {
        let rate = Rate::new("x", Some(1_000_000)).expect("a rate");
        // Each is quiet a microsecond later, and cleaning is once a second.
        for n in 0..100_000_u32 {
            rate.take(&IpAddr::from(n.to_be_bytes()), NonZeroU32::MIN)
                .expect("the first of an address");
        }
        rate.cleaned_s.store(u64::MAX, Ordering::Relaxed);
        rate.take(&IpAddr::from([255, 0, 0, 1]), NonZeroU32::MIN)
            .expect("the first of an address");
        assert!(rate.limiter.len() < KEYS_MAX, "{}", rate.limiter.len());
    }
}
