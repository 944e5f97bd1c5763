//! A connection that speaks HTTP/2: many requests and streams at a time, each with a flow control of its own.
//!
//! Floods of streams that are reset at once, and of frames that ask for an answer, are hyper's to refuse: its defaults
//! are in force (20 streams that were reset before they were accepted, 1,024 of ours that we have reset).

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Client;
use super::connection::RouterService;
use super::io::{Io, Socket};
use crate::stream::EVENT_STREAM;

/// Most streams that one HTTP/2 connection may have open. Stops one client from taking all there are.
const STREAMS_MAX: u32 = 256;
/// Bytes that one stream keeps for a client that does not take them. Stops slow streams from filling the memory.
const SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Serves a connection of which the first head must be there within `head_timeout`.
pub(super) async fn serve(
    stream: Socket,
    read_ahead: Bytes,
    router: Router,
    client: Client,
    head_timeout: Duration,
) {
    let server = client.server.clone();
    let was_served = Arc::new(AtomicBool::new(true));
    let io = TokioIo::new(Io::new(stream, read_ahead, was_served.clone(), None));
    let usage = Usage::default();
    let service = RouterService {
        router,
        client,
        served: was_served,
        usage: Some(usage.clone()),
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(server.options.head_bytes_max as u32)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = server.closing.cancelled() => connection.as_mut().graceful_shutdown(),
        () = usage.idle(head_timeout, server.options.head_timeout) => {
            connection.as_mut().graceful_shutdown();
            // Whoever does not even take the farewell is not waited for.
            let _ = timeout(server.options.head_timeout, connection).await;
            return;
        }
        () = usage.stalled(server.options.peer_timeout) => {
            tracing::debug!("HTTP/2 connection ended: its answers are not taken");
            return;
        }
    }
    let _ = connection.await;
}

/// What a connection is used for. Stops connections that are opened and left, and those that ask and don't give their
/// answers room (RFC 9113 section 5.2), as hyper has no time limit for either.
#[derive(Clone, Default)]
pub(super) struct Usage(Arc<Account>);

#[derive(Default)]
struct Account {
    /// Something was asked or answered since this was last looked at.
    used: AtomicBool,
    /// Numbers of the requests.
    begun: AtomicU64,
    /// By their numbers, the answers of which the next part waits for room, and since when.
    waiting: Mutex<HashMap<u64, Instant>>,
}

impl Usage {
    /// Waits until nothing was asked or answered for so long, with another limit for the first time.
    async fn idle(&self, first: Duration, then: Duration) {
        // One is held here and one by the service; each request has one until its answer is sent.
        const IDLE: usize = 2;
        let mut limit = first;
        loop {
            sleep(limit).await;
            let was_used = self.0.used.swap(false, Ordering::Relaxed);
            if !was_used && Arc::strong_count(&self.0) <= IDLE {
                return;
            }
            limit = then;
        }
    }

    /// Waits until an answer has waited for room for so long, and up to twice so long.
    async fn stalled(&self, limit: Duration) {
        loop {
            sleep(limit).await;
            let waiting = self.0.waiting.lock();
            if waiting.values().any(|since| since.elapsed() >= limit) {
                return;
            }
        }
    }

    /// Notes that a request has begun, and its end with the drop of what this returns.
    pub(super) fn begin(&self) -> InUse {
        self.0.used.store(true, Ordering::Relaxed);
        InUse {
            number: self.0.begun.fetch_add(1, Ordering::Relaxed),
            usage: self.clone(),
        }
    }
}

/// A request that is being answered.
pub(super) struct InUse {
    number: u64,
    usage: Usage,
}

impl InUse {
    /// The same answer, with which the request ends.
    pub(super) fn until_sent(self, answer: Response) -> Response {
        // The hub has a limit of its own for streams, and one that is not taken shall not end the others.
        let is_stream = answer.headers().get(CONTENT_TYPE) == Some(&EVENT_STREAM);
        answer.map(|body| {
            if !is_stream {
                self.waits();
            }
            Body::new(Answer {
                body,
                rest: Bytes::new(),
                is_stream,
                in_use: self,
            })
        })
    }

    /// Notes that the next part waits for room, as of now.
    fn waits(&self) {
        let mut waiting = self.usage.0.waiting.lock();
        waiting.insert(self.number, Instant::now());
    }

    fn waits_no_more(&self) {
        self.usage.0.waiting.lock().remove(&self.number);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.waits_no_more();
        self.usage.0.used.store(true, Ordering::Relaxed);
    }
}

struct Answer {
    body: Body,
    /// What is left of the body's last part.
    rest: Bytes,
    is_stream: bool,
    in_use: InUse,
}

impl Answer {
    /// The next part, small enough to leave soon: hyper takes a part of any size as soon as there is room for a byte.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let body = Pin::new(&mut self.body);
            match ready!(http_body::Body::poll_frame(body, cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(SEND_BUFFER_BYTES));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    /// hyper asks as soon as there is room.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let part = self.poll_part(cx);
        if self.is_stream {
            return part;
        }
        match part {
            Poll::Ready(_) => self.in_use.waits(),
            // Now the client waits for us.
            Poll::Pending => self.in_use.waits_no_more(),
        }
        part
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
