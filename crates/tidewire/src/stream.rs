//! The response type: a stream of events as an HTTP body, for any server.
//!
//! The body has no task, channel or buffer of its own. When the server asks for more, it reads on from its position;
//! when there is nothing, it leaves its waker with the connection and sleeps.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll as TaskPoll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use http_body::Frame;
use tidewire_core::encode;
use tidewire_core::id::{NativeId, Tombstone};
use tidewire_core::subscription::{Batch, CloseReason, Poll, Subscription};

use crate::clock::now_ms;
use crate::connections::{Connection, ConnectionId};
use crate::hub::Hub;

/// The response header that tells a client the id of its connection.
pub const CONNECTION_HEADER: HeaderName = HeaderName::from_static("tidewire-connection");
/// Where the stream starts; the request header of the same name resumes from there (WHATWG HTML 9.2.4).
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Bytes of events handed over at a time. What a server keeps of a client that stopped reading is at most its own
/// write buffer and this.
const FRAME_BYTES: usize = 16 * 1024;

/// What a client is sent when nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// A comment, which client code never sees.
    #[default]
    Comment,
    /// `event: heartbeat`, for pages that want to notice silence.
    Event,
    /// Nothing.
    Off,
}

/// What a client may choose about its stream, beside what it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// What keeps the stream alive.
    pub heartbeat: Heartbeat,
    /// Bytes of comment at the start, for proxies that hold back the first so many bytes.
    pub padding_bytes: usize,
    /// Whether the position is told at the start and with each heartbeat, in blocks of an id alone.
    pub checkpoint: bool,
}

/// A stream that was opened. Answer with it.
pub struct EventStream {
    body: StreamBody,
    connection: ConnectionId,
    starts_after: NativeId,
}

impl EventStream {
    pub(crate) fn new(
        hub: Hub,
        connection: Arc<Connection>,
        mut subscription: Subscription,
        starts_after: NativeId,
        options: StreamOptions,
    ) -> Self {
        let retry_ms = jittered(hub.shared.settings.retry_ms);
        let id = connection.id;
        // Ahead of a gap, which the subscription may have queued: these are lines of no block of their own.
        subscription.push_control_first(|out| {
            encode::padding(out, options.padding_bytes);
            encode::retry_line(out, retry_ms);
            if options.checkpoint {
                encode::checkpoint(out, starts_after.to_string().as_bytes());
            }
        });
        Self {
            body: StreamBody {
                hub,
                connection,
                subscription,
                options,
                done: false,
            },
            connection: id,
            starts_after,
        }
    }

    /// The connection's id.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The position where the stream starts.
    pub fn starts_after(&self) -> NativeId {
        self.starts_after
    }
}

/// Up to half as much again, by chance, so that clients don't come back in step.
fn jittered(ms: u64) -> u64 {
    ms + fastrand::u64(0..=ms / 2)
}

/// Marks a response as a stream of events: its type, and what keeps caches and proxies from holding it back.
pub(crate) fn event_stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// What a client gets that there is no room for: an `EventSource` gives up for ever on any other status than 200, so
/// it is told to come back instead.
pub(crate) fn come_back_later() -> Response {
    event_stream_response(Body::from(format!("retry: {}\n", far_retry_ms())))
}

/// 30 to 60 s.
fn far_retry_ms() -> u64 {
    fastrand::u64(30_000..=60_000)
}

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let header = |text: String| HeaderValue::from_str(&text).expect("ids are visible ASCII");
        let mut response = event_stream_response(Body::new(self.body));
        response
            .headers_mut()
            .insert(LAST_EVENT_ID, header(self.starts_after.to_string()));
        response
            .headers_mut()
            .insert(CONNECTION_HEADER, header(self.connection.to_string()));
        response
    }
}

struct StreamBody {
    hub: Hub,
    connection: Arc<Connection>,
    subscription: Subscription,
    options: StreamOptions,
    done: bool,
}

impl StreamBody {
    /// Reads on from the position; `None` where there is nothing.
    fn read_on(&mut self) -> Option<Result<Bytes, CloseReason>> {
        // Shared by all streams of a thread: a connection without news owns no buffer.
        thread_local!(static BATCH: RefCell<Batch> = RefCell::default());
        BATCH.with_borrow_mut(|batch| {
            let own = self.connection.own_topic();
            let poll = self
                .hub
                .shared
                .read_log(|log| match self.connection.close_requested() {
                    // Asked for before the filter is given back under this lock, so without a request it is still held.
                    Some(reason) => Poll::Close(reason),
                    None => self.subscription.poll(log, own, FRAME_BYTES, batch),
                });
            if poll == Poll::Data && batch.has_new_gap() {
                self.hub.shared.counters.add_gap();
            }
            let result = match poll {
                Poll::Idle => None,
                Poll::Close(reason) => Some(Err(reason)),
                Poll::Data => {
                    let bytes = Bytes::copy_from_slice(batch.bytes());
                    let delivered = self.subscription.sent(batch, bytes.len());
                    self.hub.shared.counters.add_delivered(delivered);
                    self.connection
                        .delivered
                        .fetch_add(delivered as u64, Ordering::Relaxed);
                    Some(Ok(bytes))
                }
            };
            self.connection
                .place
                .store(self.subscription.place(), Ordering::Relaxed);
            result
        })
    }

    fn queue_heartbeat(&mut self) {
        let position = self.options.checkpoint.then(|| {
            self.hub
                .shared
                .read_log(|log| self.subscription.position(log))
        });
        let heartbeat = self.options.heartbeat;
        self.subscription.push_control(|out| {
            match heartbeat {
                Heartbeat::Comment => out.extend_from_slice(encode::HEARTBEAT_COMMENT),
                Heartbeat::Event => out.extend_from_slice(encode::HEARTBEAT_EVENT),
                Heartbeat::Off => {}
            }
            if let Some(position) = position {
                encode::checkpoint(out, position.to_string().as_bytes());
            }
        });
    }

    /// Ends the stream; answers the last words, where there are any.
    fn end(&mut self, reason: CloseReason) -> Option<Bytes> {
        self.done = true;
        let last_words = if self.subscription.is_within_event() {
            None
        } else {
            self.last_words(reason)
        };
        self.hub.shared.end_connection(self.connection.id, reason);
        last_words.map(Bytes::from)
    }

    fn last_words(&self, reason: CloseReason) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match reason {
            CloseReason::Evicted => encode::retry_line(&mut out, far_retry_ms()),
            CloseReason::Shutdown => {
                encode::retry_line(&mut out, jittered(self.hub.shared.settings.retry_ms));
            }
            CloseReason::Closed => self.farewell(&mut out, "closed", Tombstone::Closed),
            CloseReason::Replaced => self.farewell(&mut out, "replaced", Tombstone::Replaced),
            _ => return None,
        }
        Some(out)
    }

    /// An event whose id keeps the client from coming back.
    fn farewell(&self, out: &mut Vec<u8>, name: &str, tombstone: Tombstone) {
        let position = self
            .hub
            .shared
            .read_log(|log| self.subscription.position(log));
        let id = position.with_tombstone(tombstone).to_string();
        encode::encode(out, Some(id.as_bytes()), Some(name), None, "{}");
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> TaskPoll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.done {
            return TaskPoll::Ready(None);
        }
        // Before anything is looked at, so that news which comes in between is not missed.
        this.connection.waker.register(cx.waker());
        this.connection.blocked_ms.store(0, Ordering::Relaxed);
        if this.connection.heartbeat_due.swap(false, Ordering::AcqRel) {
            this.queue_heartbeat();
        }
        let frame = match this.read_on() {
            None => return TaskPoll::Pending,
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(reason)) => this.end(reason),
        };
        let now_ms = now_ms();
        this.connection.active_ms.store(now_ms, Ordering::Relaxed);
        // Until the server comes back for more, this is what it is busy with.
        this.connection.blocked_ms.store(now_ms, Ordering::Relaxed);
        TaskPoll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let reason = self
            .connection
            .close_requested()
            .unwrap_or(CloseReason::ClientGone);
        self.hub.shared.end_connection(self.connection.id, reason);
    }
}
