//! What the tests of the whole program share: a hub in a process of its own, a proxy that loses connections, and the
//! clients that real users have.
//!
//! | module | what it is |
//! |---|---|
//! | `hub` | [`Hub`]: the binary on a free port, ended on drop |
//! | `proxy` | [`Proxy`]: TCP in front of it that drops connections when told to |
//! | `publisher` | [`Publisher`]: numbered events, and the check that each came once and in order |
//! | `client` | [`Client`]: one of the clients in `tests/clients/`, or curl, as lines of JSON |
//! | `curl` | the loop that a user of `curl -N` writes, and the decoding that curl leaves to its user |
//! | `redis` | [`RedisServer`]: a real one, that can be killed, paused and made to forget |
//! | `acked` | [`Load`](acked::Load): publishers and subscribers that go on over every crash, and check what they were told |
//! | `netns` | [`Namespace`](netns::Namespace): a host of its own, with lines to it that can be cut |
//! | `stream` | [`Stream`]: a subscription read over plain TCP, head and bytes and events |
//! | `crowd` | [`Crowd`]: thousands of subscribers in one process, every event checked |
//! | `wire` | what one of them makes of its bytes |
//! | `process` | memory, processor time and descriptors of a process |
//! | `http` | a request and its answer, with no client library between the test and the bytes |
//!
//! Nothing here waits for luck: each wait has a condition and the deadline [`WAIT_MAX`].

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod acked;
mod client;
mod crowd;
mod curl;
pub(crate) mod http;
mod hub;
pub(crate) mod netns;
pub(crate) mod process;
mod proxy;
mod publisher;
#[path = "../../../tidewire/tests/support/redis.rs"]
#[allow(unreachable_pub, reason = "shared with the library's tests")]
mod redis;
mod stream;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::redis::RedisServer;
pub(crate) use client::{Client, Kind, installed};
pub(crate) use crowd::{Crowd, Reader, numbered, wait_for_all};
pub(crate) use http::Response;
pub(crate) use hub::{Hub, publish};
pub(crate) use proxy::Proxy;
pub(crate) use publisher::{Publisher, assert_received, number};
pub(crate) use stream::Stream;
pub(crate) use wire::{End, Seen};

/// How long anything that a test waits for may take. Far above what it does take, for a busy machine.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 3 * WAIT_MAX;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nothing listens on.
///
/// It lies below the range from which the kernel takes ports for outgoing connections, so that a hub which is restarted
/// finds its own free. Test processes start at different places, so that two rarely try the same one.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TRIED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    let start = std::process::id().wrapping_mul(37);
    (0..COUNT)
        .map(|_| start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .map(|port| u16::try_from(port).expect("FIRST + COUNT is a port"))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no free port between 20000 and 32000")
}
