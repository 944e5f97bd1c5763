//! The response type: a stream of events as an HTTP body, for any server.
//!
//! The body has no task, channel or buffer of its own. When the server asks for more, it reads on from its position;
//! when there is nothing, it leaves its waker with the connection and sleeps. On this crate's own server the socket of a
//! plain HTTP/1.1 stream leaves hyper after the first bytes and is carried on by a reactor: the body then only makes
//! the offer.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll as TaskPoll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use http_body::Frame as HttpFrame;
use tidewire_core::encode;
use tidewire_core::event::Event;
use tidewire_core::id::NativeId;
use tidewire_core::subscription::{Batch, Poll, Subscription};

use crate::clock::Moment;
use crate::connections::{Connection, ConnectionId};
use crate::hub::Hub;
use crate::live::{Live, far_retry_ms, jittered};
use crate::older::{Frame, Older};
use crate::serve::Handover;
use crate::subscribe::First;

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
    pub padding_bytes: u32,
    /// Whether the position is told at the start and with each heartbeat, in blocks of an id alone.
    pub checkpoint: bool,
}

/// A stream that was opened. Answer with it.
pub struct EventStream {
    body: StreamBody,
    connection: ConnectionId,
    resume_id: Option<String>,
}

/// Where a stream begins.
pub(crate) struct Beginning {
    pub(crate) subscription: Subscription,
    /// What comes before that, where the log has it no more.
    pub(crate) older: Option<Older>,
    /// The position to tell, unless the client is to be told of a gap first.
    pub(crate) checkpoint: Option<NativeId>,
    /// The id with which a client that has seen nothing yet shall come back.
    pub(crate) resume_id: Option<String>,
}

impl EventStream {
    pub(crate) fn new(
        hub: Hub,
        connection: Arc<Connection>,
        beginning: Beginning,
        options: StreamOptions,
        first: First<'_>,
    ) -> Self {
        let Beginning {
            subscription,
            mut older,
            checkpoint,
            resume_id,
        } = beginning;
        let retry_ms = jittered(hub.shared.settings.retry_ms);
        let id = connection.id;
        // From here on the connection ends with it, also where the application's greeting panics.
        let mut live = Live::new(hub, connection, subscription, options);
        let greeting = first.greeting.map(|greeting| greeting(id));
        let begin = |out: &mut Vec<u8>| {
            encode::padding(out, options.padding_bytes as usize);
            encode::retry_line(out, retry_ms);
            if let Some(greeting) = &greeting {
                write_greeting(out, greeting, resume_id.as_deref());
            }
            for event in first
                .preceding
                .iter()
                .flat_map(|preceding| &*preceding.events)
            {
                write_event(out, event, event.id.as_deref());
            }
            if let Some(position) = checkpoint.filter(|_| options.checkpoint) {
                encode::checkpoint(out, position.to_string().as_bytes());
            }
        };
        if let Some(older) = &mut older {
            let mut head = Vec::new();
            begin(&mut head);
            older.begin_with(head);
        } else {
            // Ahead of a gap, which the subscription may have queued: these are lines of no block of their own.
            live.push_control_first(begin);
        }
        Self {
            body: StreamBody {
                live: Some(live),
                older: older.map(Box::new),
                handover: None,
                begun: false,
                has_all: false,
            },
            connection: id,
            resume_id,
        }
    }

    /// Lets the server take the socket over.
    pub(crate) fn with_handover(mut self, handover: Option<Arc<Handover>>) -> Self {
        // Reactors know the log alone.
        self.body.handover = handover.filter(|_| self.body.older.is_none());
        self
    }

    /// The connection's id.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The stream itself, for other carriers than a body.
    pub(crate) fn into_live(self) -> Live {
        self.body.live.expect("a new stream has not ended")
    }
}

fn write_greeting(out: &mut Vec<u8>, greeting: &Event, resume_id: Option<&str>) {
    // It may be what the client said, and that may be anything.
    let id = resume_id.filter(|id| !id.contains(char::is_control));
    write_event(out, greeting, id);
}

fn write_event(out: &mut Vec<u8>, event: &Event, id: Option<&str>) {
    if let Err(error) = event.validate(usize::MAX) {
        tracing::error!(%error, "a stream can't begin with this event");
        return;
    }
    let name = event.event.as_deref();
    encode::encode(
        out,
        id.map(str::as_bytes),
        name,
        event.retry_ms,
        &event.data,
    );
}

/// The type of a stream of events (WHATWG HTML section 9.2).
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A response that is a stream of events: its type, and what keeps caches and proxies from holding it back.
pub fn event_stream_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
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

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        let mut response = event_stream_response(Body::new(self.body));
        let headers = response.headers_mut();
        // A publisher's own id may be text that no header can hold; then there is none.
        if let Some(id) = self
            .resume_id
            .and_then(|id| HeaderValue::from_str(&id).ok())
        {
            headers.insert(LAST_EVENT_ID, id);
        }
        let connection = HeaderValue::from_str(&self.connection.to_string());
        headers.insert(
            CONNECTION_HEADER,
            connection.expect("a UUID is visible ASCII"),
        );
        response
    }
}

struct StreamBody {
    /// Gone when the stream is over, or somebody else's.
    live: Option<Live>,
    /// What comes before the log, while there is more of it.
    older: Option<Box<Older>>,
    handover: Option<Arc<Handover>>,
    /// Whether bytes were handed over.
    begun: bool,
    /// Whether the last look found all that there was. Then there is more only if somebody says so: what comes
    /// while a frame is written waits for its wake-up, and joins what comes until then.
    has_all: bool,
}

/// A stream that ended within an event. As an error it makes the server break the connection off, where a clean end
/// would make some clients take the half event for a whole one.
#[derive(Debug)]
struct CutShort;

impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream had to end within an event")
    }
}

impl std::error::Error for CutShort {}

impl StreamBody {
    /// Offers the stream to the server's reactors once the first bytes are on their way. True while it is theirs, or
    /// may become so.
    fn offered(&mut self, cx: &Context<'_>) -> bool {
        let Some(handover) = &self.handover else {
            return false;
        };
        if let Some(live) = self.live.take() {
            handover.offer(live, cx.waker());
            return true;
        }
        self.live = handover.take_back();
        if self.live.is_some() {
            self.handover = None;
        }
        self.live.is_none()
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> TaskPoll<Option<Result<HttpFrame<Bytes>, CutShort>>> {
        let this = self.get_mut();
        if this.begun && this.offered(cx) {
            return TaskPoll::Pending;
        }
        let Some(live) = &mut this.live else {
            return TaskPoll::Ready(None);
        };
        let connection = live.connection().clone();
        // Before anything is looked at, so that news which comes in between is not missed.
        let told = connection.look(cx.waker());
        if this.has_all && !told {
            return TaskPoll::Pending;
        }
        if let Some(older) = &mut this.older
            && connection.close_requested().is_none()
        {
            match std::task::ready!(older.poll(cx, live)) {
                Frame::Bytes(bytes) => {
                    connection.note_active(Moment::now(), true);
                    return TaskPoll::Ready(Some(Ok(HttpFrame::data(bytes.into()))));
                }
                Frame::Log(place) => {
                    this.older = None;
                    live.read_on_after(place);
                }
            }
        }
        live.heartbeat_if_due();
        // Shared by all streams of a thread: a connection without news owns no buffer.
        thread_local!(static BATCH: RefCell<Batch> = RefCell::default());
        // What precedes the log is left out where the stream is to be closed, and what follows then too.
        let close = match &this.older {
            Some(_) => connection.close_requested(),
            None => live.close_now(),
        };
        let poll = |live: &mut Live, batch: &mut Batch| match close {
            Some(reason) => Poll::Close(reason),
            None => live.gather(FRAME_BYTES, batch),
        };
        let frame = BATCH.with_borrow_mut(|batch| match poll(live, batch) {
            Poll::Idle => None,
            Poll::Close(reason) => Some(Err(reason)),
            Poll::Data => {
                let bytes = Bytes::copy_from_slice(batch.bytes());
                live.sent(batch, bytes.len());
                this.has_all =
                    !batch.is_full() && !batch.has_end() && connection.close_requested().is_none();
                Some(Ok(bytes))
            }
        });
        let bytes = match frame {
            None => return TaskPoll::Pending,
            Some(Ok(bytes)) => bytes,
            Some(Err(reason)) => {
                let cut_short = live.subscription().is_within_event();
                let last_words = this.live.take().and_then(|live| live.end(reason));
                // hyper 1.12 does not look at its own state again when a body that has no last chunk ends in the
                // second of two polls of one turn; the connection would stay open for ever.
                cx.waker().wake_by_ref();
                return TaskPoll::Ready(match last_words {
                    _ if cut_short => Some(Err(CutShort)),
                    Some(bytes) => Some(Ok(HttpFrame::data(bytes.into()))),
                    None => None,
                });
            }
        };
        // Until the server comes back for more, this is what it is busy with.
        connection.note_active(Moment::now(), true);
        if !std::mem::replace(&mut this.begun, true)
            && let Some(handover) = &this.handover
        {
            handover.begin(&bytes);
        }
        TaskPoll::Ready(Some(Ok(HttpFrame::data(bytes))))
    }
}
