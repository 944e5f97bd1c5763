//! A connection that speaks HTTP/2: many requests and streams at a time, each with a flow control of its own.
//!
//! Floods of streams that are reset at once, and of frames that ask for an answer, are hyper's to refuse: its defaults
//! are in force (20 streams that were reset before they were accepted, 1,024 of ours that we have reset).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{sleep, timeout};

use super::Client;
use super::connection::RouterService;
use super::io::{Io, Socket};

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
    }
    let _ = connection.await;
}

/// Whether a connection is in use. Stops connections that are opened and left, as hyper has no time limit for these.
#[derive(Clone, Default)]
pub(super) struct Usage(Arc<AtomicBool>);

impl Usage {
    /// Waits until nothing was asked or answered for so long, with another limit for the first time.
    async fn idle(&self, first: Duration, then: Duration) {
        // One is held here and one by the service; each request has one until its answer is sent.
        const IDLE: usize = 2;
        let mut limit = first;
        loop {
            sleep(limit).await;
            let was_used = self.0.swap(false, Ordering::Relaxed);
            if !was_used && Arc::strong_count(&self.0) <= IDLE {
                return;
            }
            limit = then;
        }
    }

    /// Notes that a request has begun, and its end with the drop of what this returns.
    pub(super) fn begin(&self) -> InUse {
        self.0.store(true, Ordering::Relaxed);
        InUse(self.clone())
    }
}

/// A request that is being answered.
pub(super) struct InUse(Usage);

impl InUse {
    /// A body with which the request ends.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(Answer {
            body,
            _in_use: self,
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

struct Answer {
    body: Body,
    _in_use: InUse,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
