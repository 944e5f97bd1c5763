//! The native door's `GET`: from a request to a stream.

use std::convert::Infallible;
use std::future::Ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::Frame;
use tidewire_core::dialect::Dialect;
use tidewire_core::event::Event;
use tidewire_core::filter::FilterSpec;
use tidewire_core::pattern::Pattern;
use tidewire_core::subscribe::Start;
use tidewire_core::topic::{Topic, TopicError};

use crate::clock::{Moment, now_ms};
use crate::connections::{ConnectionId, NoRoom};
use crate::duration::parse_duration;
use crate::hub::{Hub, Opened, Peer, USER_TOPIC};
use crate::problem::{Code, Problem};
use crate::query::Query;
use crate::rights::{ClientAddress, ExpiresAt, Rights, UserId, check_public, literals};
use crate::serve::Client;
use crate::stream::{
    Heartbeat, LAST_EVENT_ID, StreamOptions, come_back_later, event_stream_response,
};

/// Most bytes of padding that a client may ask for. Stops one request from being answered with megabytes.
pub const PADDING_BYTES_MAX: u32 = 64 * 1024;
/// Longest `Last-Event-ID` that is looked at; a longer one was never given out.
const LAST_EVENT_ID_BYTES_MAX: usize = 1_024;

/// What a query may say.
const PARAMETERS: [&str; 9] = [
    "topic",
    "topics",
    "since",
    "heartbeat",
    "padding",
    "checkpoint",
    "fields",
    "last_event_id",
    "lastEventId",
];

/// Answers `GET` requests with streams. Made by [`Hub::subscribe`]; fits `axum::routing::get` and any tower router.
#[derive(Clone)]
pub struct Subscribe {
    hub: Hub,
    /// What is read, where the request has no say.
    topics: Option<Vec<Topic>>,
    greeting: Option<Arc<Greeting>>,
    dialect: Option<&'static Dialect>,
    /// Joins whatever else is read, and needs no right.
    joining: Option<Topic>,
    preceding: Option<Preceding>,
}

/// Events that come before all others, and what a client has that lacks them.
#[derive(Clone)]
pub(crate) struct Preceding {
    pub(crate) events: Arc<[Event]>,
    pub(crate) from: Arc<str>,
}

/// What a stream begins with.
#[derive(Clone, Copy, Default)]
pub(crate) struct First<'a> {
    pub(crate) greeting: Option<&'a Greeting>,
    pub(crate) preceding: Option<&'a Preceding>,
}

/// Makes the first event of a stream.
pub(crate) type Greeting = dyn Fn(ConnectionId) -> Event + Send + Sync;

impl Hub {
    /// A handler for `GET` requests: topics, patterns and options come from the query, the position from
    /// `Last-Event-ID`.
    pub fn subscribe(&self) -> Subscribe {
        Subscribe {
            hub: self.clone(),
            topics: None,
            greeting: None,
            dialect: None,
            joining: None,
            preceding: None,
        }
    }

    /// As [`subscribe`](Self::subscribe), for a route that stands for these topics and no others: names in the query
    /// count for nothing, and nobody's own topic joins them. Rights do count.
    pub fn subscribe_to(&self, topics: impl IntoIterator<Item = Topic>) -> Subscribe {
        Subscribe {
            hub: self.clone(),
            topics: Some(topics.into_iter().collect()),
            ..self.subscribe()
        }
    }
}

impl<S> Handler<(), S> for Subscribe {
    type Future = Ready<Response>;

    fn call(self, request: Request, _: S) -> Self::Future {
        std::future::ready(self.answer(&request))
    }
}

impl<B> tower::Service<http::Request<B>> for Subscribe {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(self.answer(&request)))
    }
}

impl Subscribe {
    /// Each stream begins with this event, made for its connection. Its `id:` is the place where the stream starts, so that
    /// a client which has seen nothing else resumes there; an id of its own does not count. Where the stream starts with
    /// a `gap`, that is the id that the client came with, if any: it has not been told of the gap yet.
    #[must_use]
    pub fn greeting(
        mut self,
        greeting: impl Fn(ConnectionId) -> Event + Send + Sync + 'static,
    ) -> Self {
        self.greeting = Some(Arc::new(greeting));
        self
    }

    /// Each stream begins with these events, after the greeting: what the application knows that a client lacks which has
    /// the event with the id `from`. They have ids of their own. Until it has them, `from` is what the client resumes from.
    #[must_use]
    pub fn preceded_by(mut self, events: Vec<Event>, from: impl Into<String>) -> Self {
        self.preceding = Some(Preceding {
            events: events.into(),
            from: from.into().into(),
        });
        self
    }

    /// What the hub itself says on these streams (`gap`, `end`, `closed`, `replaced`) is said in this form.
    #[must_use]
    pub fn dialect(mut self, dialect: &'static Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// This topic is read too. No right to it is asked for: whoever answers the request has seen to that.
    #[must_use]
    pub fn joining(mut self, topic: Topic) -> Self {
        self.joining = Some(topic);
        self
    }

    /// Answers one request, for handlers of an application's own that look at it first.
    pub fn answer<B>(&self, request: &http::Request<B>) -> Response {
        self.respond(request)
            .unwrap_or_else(IntoResponse::into_response)
    }

    /// As [`answer`](Self::answer), for those who give errors a form of their own.
    ///
    /// # Errors
    /// If the request is not understood or not allowed, or there is no room.
    pub fn respond<B>(&self, request: &http::Request<B>) -> Result<Response, Problem> {
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        query.check_names(&PARAMETERS)?;
        let filter = self.filter(&query, request.extensions())?;
        let start = start(&query, request.headers(), now_ms())?;
        let options = options(&query)?;
        if request.method() == Method::HEAD {
            // The head alone is no reason to open a connection, and to evict another one for it.
            return Ok(event_stream_response(Body::new(NoBody)));
        }
        let peer = peer(request.extensions());
        let client = request.extensions().get::<Client>();
        if let Some(client) = client {
            client.serves(&self.hub);
        }
        let handover = client.and_then(|client| client.handover(request.version()));
        let first = First {
            greeting: self.greeting.as_deref(),
            preceding: self.preceding.as_ref(),
        };
        match self.hub.open_for(&filter, &start, options, peer, first) {
            Opened::Stream(stream) => Ok(stream.with_handover(handover).into_response()),
            Opened::Over => Ok(StatusCode::NO_CONTENT.into_response()),
            Opened::Full(no_room) => {
                let problem = no_room_for(no_room).retry_after_s(fastrand::u32(30..=60));
                or_come_back_later(request.headers(), problem)
            }
        }
    }

    fn filter(
        &self,
        query: &Query<'_>,
        extensions: &http::Extensions,
    ) -> Result<FilterSpec, Problem> {
        let mut spec = FilterSpec {
            topic_lines: topic_lines(query)?,
            dialect: self.dialect,
            ..FilterSpec::default()
        };
        let rights = extensions.get::<Arc<Rights>>();
        if let Some(topics) = &self.topics {
            spec.topics.clone_from(topics);
            if let Some(rights) = rights {
                rights.check(&spec)?;
            }
            return Ok(self.with_own(spec, rights, None));
        }
        let own = own_topic(extensions)?;
        let listed = query.all("topics").flat_map(|list| list.split(','));
        let listed = listed.map(|name| name.trim_matches(' '));
        let names = query
            .all("topic")
            .chain(listed.filter(|name| !name.is_empty()));
        for name in names {
            let pattern = Pattern::new(name).map_err(|error| bad_topic(name, &error))?;
            if pattern.is_literal() {
                spec.topics
                    .push(Topic::new(name).map_err(|error| bad_topic(name, &error))?);
            } else {
                spec.patterns.push(pattern);
            }
        }
        spec.topics.sort();
        spec.topics.dedup();
        self.check_number_of_names(&spec)?;
        let names_nothing = spec.topics.is_empty() && spec.patterns.is_empty();
        // It joins below, and whoever names it needs no right to what is theirs.
        spec.topics.retain(|topic| Some(topic) != own.as_ref());
        match rights {
            Some(rights) => rights.check(&spec)?,
            None if own.is_some() => check_public(&spec)?,
            None => {}
        }
        if names_nothing {
            let everything = Pattern::new("**").map_err(|error| bad_topic("**", &error))?;
            spec.patterns = match rights {
                Some(rights) if !rights.may_read_all_of(&everything) => rights.public(),
                _ => vec![everything],
            };
        }
        if spec.topics.is_empty() && spec.patterns.is_empty() && own.is_none() {
            let detail =
                "no right to subscribe to any public topic; name the topics that you may read";
            return Err(rights.map_or_else(
                || Problem::new(Code::NotAllowed, detail),
                |rights| rights.refuse(detail),
            ));
        }
        Ok(self.with_own(spec, rights, own))
    }

    /// Adds what needs no right, and says which private events are read.
    fn with_own(
        &self,
        mut spec: FilterSpec,
        rights: Option<&Arc<Rights>>,
        user: Option<Topic>,
    ) -> FilterSpec {
        let is_known = rights.is_some() || user.is_some();
        let own: Vec<_> = user.into_iter().chain(self.joining.clone()).collect();
        spec.private = is_known.then(|| {
            let mut private = rights.map_or_else(Vec::new, |rights| rights.private_of(&spec));
            private.extend(literals(&own));
            private
        });
        spec.topics.extend(own);
        spec
    }

    fn check_number_of_names(&self, spec: &FilterSpec) -> Result<(), Problem> {
        let settings = &self.hub.shared.settings;
        let checks = [
            (
                "topics",
                spec.topics.len(),
                settings.topics_per_subscription_max,
            ),
            (
                "patterns",
                spec.patterns.len(),
                settings.patterns_per_subscription_max,
            ),
        ];
        for (what, n, max) in checks {
            if n > max {
                let detail = format!(
                    "a subscription may name {max} {what} at most, not {n}; a pattern such as `order:*` reaches many topics"
                );
                return Err(Problem::new(Code::TooManyTopics, detail).with("max", max));
            }
        }
        Ok(())
    }
}

fn no_room_for(what: NoRoom) -> Problem {
    let (code, whose) = match what {
        NoRoom::Hub => (Code::AtCapacity, "the hub"),
        NoRoom::Address => (Code::TooManyConnections, "this address"),
        NoRoom::User => (Code::TooManyConnections, "this user"),
    };
    Problem::new(
        code,
        format!("{whose} has as many connections as it may; close one, or try again later"),
    )
}

/// A body for `HEAD`: nothing, and no length, as a stream has none (RFC 9110 section 8.6).
struct NoBody;

impl http_body::Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

/// The topic of the user whom the application found.
fn own_topic(extensions: &http::Extensions) -> Result<Option<Topic>, Problem> {
    let Some(UserId(user)) = extensions.get::<UserId>() else {
        return Ok(None);
    };
    let name = format!("{USER_TOPIC}{user}");
    let topic = Topic::new(&name).map_err(|error| bad_topic(&name, &error))?;
    Ok(Some(topic))
}

fn bad_topic(name: &str, error: &TopicError) -> Problem {
    // A name may be megabytes long; the reader needs no more than its beginning.
    let shown: String = name.chars().take(100).collect();
    Problem::new(Code::BadTopic, error.to_string())
        .with("topic", shown)
        .with("reason", error.code())
}

fn topic_lines(query: &Query<'_>) -> Result<bool, Problem> {
    match query.get("fields") {
        None | Some("") => Ok(false),
        Some("topic") => Ok(true),
        Some(other) => Err(bad_parameter("fields", other, "`topic`")),
    }
}

fn bad_parameter(name: &str, value: &str, allowed: &str) -> Problem {
    let shown: String = value.chars().take(100).collect();
    Problem::new(
        Code::BadParameter,
        format!("`{name}={shown}` is not understood; allowed: {allowed}"),
    )
    .with("parameter", name)
}

fn options(query: &Query<'_>) -> Result<StreamOptions, Problem> {
    let heartbeat = match query.get("heartbeat") {
        None | Some("comment") => Heartbeat::Comment,
        Some("event") => Heartbeat::Event,
        Some("off") => Heartbeat::Off,
        Some(other) => {
            return Err(bad_parameter(
                "heartbeat",
                other,
                "`comment`, `event`, `off`",
            ));
        }
    };
    let checkpoint = match query.get("checkpoint") {
        None | Some("off") => false,
        Some("on") => true,
        Some(other) => return Err(bad_parameter("checkpoint", other, "`on`, `off`")),
    };
    let padding_bytes = match query.get("padding") {
        None => 0,
        Some(text) => match text.parse() {
            Ok(bytes) if bytes <= PADDING_BYTES_MAX => bytes,
            _ => {
                return Err(bad_parameter(
                    "padding",
                    text,
                    &format!("a number of bytes up to {PADDING_BYTES_MAX}"),
                ));
            }
        },
    };
    Ok(StreamOptions {
        heartbeat,
        padding_bytes,
        checkpoint,
    })
}

/// Where to start. A header beats the query, as a browser reconnects with the address it began with; and an id beats
/// `since` for the same reason.
fn start(query: &Query<'_>, headers: &HeaderMap, now_ms: u64) -> Result<Start, Problem> {
    let header = headers
        .get(LAST_EVENT_ID)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let in_query = || {
        query
            .get("last_event_id")
            .or(query.get("lastEventId"))
            .map(str::to_owned)
    };
    let id = header
        .filter(|id| !id.is_empty())
        .or_else(|| in_query().filter(|id| !id.is_empty()));
    let start = match id {
        Some(id) => Start::After(id),
        None => parse_since(query.get("since"), now_ms),
    };
    match &start {
        Start::After(id) if id.len() > LAST_EVENT_ID_BYTES_MAX => Err(Problem::new(
            Code::BadParameter,
            format!("a last event id has {LAST_EVENT_ID_BYTES_MAX} bytes at most"),
        )),
        _ => Ok(start),
    }
}

/// Reads `since=earliest`, `since=5m` or `since=<id>`.
pub fn parse_since(since: Option<&str>, now_ms: u64) -> Start {
    match since {
        None | Some("") => Start::Live,
        Some("earliest") => Start::Earliest,
        Some(text) => match parse_duration(text) {
            Some(ago) => Start::Since(
                now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            ),
            None => Start::After(text.to_owned()),
        },
    }
}

fn peer(extensions: &http::Extensions) -> Peer {
    let expires = extensions.get::<ExpiresAt>().map(|ExpiresAt(at_ms)| {
        // The wall clock says when that is, and may be set; what is left of the time does not change by that.
        Moment::now().after_ms(at_ms.saturating_sub(now_ms()))
    });
    let client = extensions.get::<Client>();
    let info = || {
        extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0)
    };
    let known = extensions.get::<ClientAddress>();
    let remote = known
        .map(|ClientAddress(address)| *address)
        .or_else(|| client.map(Client::remote))
        .or_else(info);
    let signals = client.and_then(Client::signals);
    let user = extensions.get::<UserId>();
    Peer {
        remote,
        signals,
        user: user.map(|UserId(user)| user.as_str().into()),
        expires,
    }
}

/// The answer to a request that can't be served for the time being: a client that gives up for ever on any status but
/// 200 is told to come back, which takes a `retry:`.
///
/// # Errors
/// The problem, for all others.
pub fn or_come_back_later(headers: &HeaderMap, problem: Problem) -> Result<Response, Problem> {
    let accepts = headers.get_all(header::ACCEPT).into_iter();
    let is_stream = accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"));
    if is_stream {
        let mut response = come_back_later();
        // For layers that keep an account of what is refused.
        response.extensions_mut().insert(problem);
        Ok(response)
    } else {
        Err(problem)
    }
}
