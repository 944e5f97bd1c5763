//! Reading request bodies with a limit on their size, on that of all of them, and on their silence.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny};
use tidewire::problem::{Code, Problem};

use crate::config::Limits;

/// How slowly a body may come, beyond `limits.body_timeout`. Stops bodies that are sent a byte at a time, of which none is ever
/// silent.
const BYTES_PER_MS_MIN: u64 = 16;

/// Bytes of each body that don't count for `limits.bodies_bytes_max`. Large bodies shall not keep out the small ones, which are most.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// What of all bodies that are coming in counts for `limits.bodies_bytes_max`. Without that limit a publisher with many
/// connections could fill the memory with bodies that they never end. What has come is bounded elsewhere: it is
/// published at once, or waits in the queue of a broker.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// One body's part of that, for as long as it is held.
#[derive(Default)]
pub(super) struct Held {
    bytes: usize,
}

impl Held {
    /// Says how long the body is by now.
    pub(super) fn set(&mut self, len: usize, limits: &Limits) -> Result<(), Problem> {
        let (before, now) = (self.bytes, len.saturating_sub(SMALL_BODY_BYTES));
        self.bytes = now;
        let Some(more) = now.checked_sub(before) else {
            HELD.fetch_sub(before - now, Ordering::Relaxed);
            return Ok(());
        };
        if HELD.fetch_add(more, Ordering::Relaxed) + more <= limits.bodies_bytes_max || more == 0 {
            return Ok(());
        }
        let detail = format!(
            "the hub holds as many bytes of bodies as it may (`limits.bodies_bytes_max`); try again, or send no more than \
             {SMALL_BODY_BYTES} bytes at a time"
        );
        Err(Problem::new(Code::BodiesFull, detail).retry_after_s(1))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a JSON object. serde alone takes an array as well: values in the order of the fields.
pub(crate) fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    if json.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<IgnoredAny>(json)?;
        return Err(Error::custom("an array is no JSON object"));
    }
    serde_json::from_slice(json)
}

/// The next piece of a body; `None` at its end.
pub(super) async fn next_chunk(body: &mut Body, limits: &Limits) -> Result<Option<Bytes>, Problem> {
    loop {
        match tokio::time::timeout(limits.body_timeout, body.frame()).await {
            Err(_) => {
                return Err(Problem::new(
                    Code::BodyTimeout,
                    "the body fell silent for longer than `limits.body_timeout`",
                ));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(Problem::new(
                    Code::BadBody,
                    format!("the body broke off: {error}"),
                ));
            }
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole body.
pub(crate) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limits: &Limits,
) -> Result<Bytes, Problem> {
    let bytes_max = limits.body_bytes_max;
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let mut whole = BytesMut::new();
    let mut held = Held::default();
    let began = Instant::now();
    while let Some(chunk) = next_chunk(&mut body, limits).await? {
        if whole.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        held.set(whole.len() + chunk.len(), limits)?;
        whole.extend_from_slice(&chunk);
        let may_take = Duration::from_millis(whole.len() as u64 / BYTES_PER_MS_MIN);
        if began.elapsed() > limits.body_timeout + may_take {
            let detail =
                "the body comes more slowly than 16 KB a second, and `limits.body_timeout` is over";
            return Err(Problem::new(Code::BodyTimeout, detail));
        }
    }
    Ok(whole.freeze())
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!(
        "a body may have {bytes_max} bytes (`limits.body_bytes_max`); only a stream of `application/x-ndjson` to `/events` may be of any length"
    );
    Problem::new(Code::BodyTooLarge, detail).with("max", bytes_max)
}
