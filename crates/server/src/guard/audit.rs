//! The audit log: who was refused what, and what administrators did. It is the part of the log with the target `audit`;
//! `log.level = "info,audit=off"` leaves it out, `log.format = "json"` makes its fields fields.
//!
//! There are no secrets in it: of an address its path alone, of a credential whom it is for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Method, StatusCode, Uri};
use tidewire::problem::Problem;

/// Entries in a second. Stops a flood of bad requests from filling the disk; how many are left out is said.
const ENTRIES_PER_S_MAX: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

/// What is known of a request whatever becomes of it.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// Whose credential it has; `None` where it has none that stands.
    pub(super) who: Option<Arc<str>>,
    pub(super) client: Option<SocketAddr>,
}

/// Most bytes of what a client has chosen. Stops long addresses from filling the disk.
const TEXT_BYTES_MAX: usize = 512;

/// Writes entries. What administrators do is counted apart: a flood of refusals, which anybody can cause, shall not hide it.
pub(super) struct Audit {
    refusals: Entries,
    administration: Entries,
}

/// Entries of a kind.
struct Entries {
    limiter: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self {
            refusals: Entries::new(),
            administration: Entries::new(),
        }
    }

    /// A request was refused.
    pub(super) fn refused(&self, asked: &Asked, problem: &Problem) {
        let Some(left_out) = self.refusals.turn() else {
            return;
        };
        // A text is written with quotes and escapes, so it stays on its line; as JSON it is a string.
        tracing::info!(
            target: "audit",
            who = asked.who.as_deref().unwrap_or("nobody"),
            client = asked.client.map(|client| display(client.ip())),
            method = %cut(asked.method.as_str()),
            path = cut(asked.uri.path()),
            status = problem.code().status().as_u16(),
            code = problem.code().as_str(),
            check = problem.to_json()["check"].as_str(),
            detail = cut(problem.detail()),
            left_out,
            "refused"
        );
    }

    /// An administrator did something.
    pub(super) fn done(&self, asked: &Asked, status: StatusCode) {
        let Some(left_out) = self.administration.turn() else {
            return;
        };
        tracing::info!(
            target: "audit",
            who = asked.who.as_deref().unwrap_or("nobody"),
            client = asked.client.map(|client| display(client.ip())),
            method = %cut(asked.method.as_str()),
            path = cut(asked.uri.path()),
            status = status.as_u16(),
            left_out,
            "administration"
        );
    }
}

impl Entries {
    fn new() -> Self {
        Self {
            limiter: RateLimiter::direct(Quota::per_second(ENTRIES_PER_S_MAX)),
            left_out: AtomicU64::new(0),
        }
    }

    /// How many entries were left out before this one; `None` if this one is left out too.
    fn turn(&self) -> Option<u64> {
        if self.limiter.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
