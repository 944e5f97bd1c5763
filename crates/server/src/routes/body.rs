//! Reading request bodies with a limit on their size and on their silence.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tidewire::problem::{Code, Problem};

use crate::config::Limits;

/// How slowly a body may come, beyond `limits.body_timeout`. Stops bodies that are sent a byte at a time, of which none is ever
/// silent.
const BYTES_PER_MS_MIN: u64 = 16;

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
    let began = Instant::now();
    while let Some(chunk) = next_chunk(&mut body, limits).await? {
        if whole.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
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
