//! What the tests of streams share: servers of every kind, and clients that look at each byte.

// Not every test uses everything.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod server;
pub mod tls;

use std::time::{Duration, Instant};

/// Nothing that these tests wait for takes this long.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WAIT_MAX, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
