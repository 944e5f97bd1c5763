//! Streams of JSON envelopes over a hub, for services that think in streams and clients rather than in topics.
//!
//! ```
//! use axum::extract::{Path, Request, State};
//! use axum::response::{IntoResponse, Response};
//! use axum::{Router, routing::get};
//! use serde_json::json;
//! use tidewire::{Broadcaster, Hub};
//!
//! async fn stream(State(all): State<Broadcaster>, Path(id): Path<String>, request: Request) -> Response {
//!     match all.route(&id) {
//!         Ok(route) => route.answer(&request),
//!         Err(error) => tidewire::problem::Problem::from(error).into_response(),
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder().build();
//! let broadcaster = Broadcaster::new(&hub, "shop")?;
//! let router: Router = Router::new()
//!     .route("/stream/{id}", get(stream))
//!     .with_state(broadcaster.clone());
//!
//! let mut client = broadcaster.subscribe("orders")?;
//! broadcaster.broadcast("orders", "order_created", "A new order", json!({"id": 7})).await?;
//! broadcaster.broadcast_to_all("closing", "We close at six", None).await?;
//!
//! assert_eq!(client.recv().await.map(|event| event.event_type), Some("order_created".into()));
//! assert_eq!(client.recv().await.map(|event| event.message), Some("We close at six".into()));
//! # Ok(())
//! # }
//! ```
//!
//! A stream is a topic: the stream `orders` of the broadcaster `shop` is the topic `shop:orders`. So whoever subscribes to
//! that topic by other means is a client of the stream too, and everything that holds for topics holds for streams: order,
//! history, `Last-Event-ID`, gaps, limits.

mod client;
mod envelope;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tidewire_core::filter::FilterSpec;
use tidewire_core::limits::TOPICS_PER_EVENT_MAX;
use tidewire_core::log::Refused;
use tidewire_core::subscribe::Start;
use tidewire_core::subscription::CloseReason;
use tidewire_core::topic::Topic;

pub use self::client::StreamClient;
pub use self::envelope::EventData;
use crate::broker::Publication;
use crate::connections::ConnectionId;
use crate::hub::{ConnectionInfo, Hub, Opened, describe};
use crate::problem::{Code, Problem};
use crate::publish::PublishError;
use crate::stream::{Heartbeat, StreamOptions};
use crate::subscribe::Subscribe;

/// Longest id of a stream, in bytes. Stops ids from being used as storage.
pub const STREAM_ID_BYTES_MAX: usize = 128;

/// Named streams of envelopes over a hub. Cheap to clone: all clones are the same. See the [module](self).
///
/// A stream is *active* while it has a client or somebody [keeps](Self::keep_active) it so. Clients are the open connections
/// of this node that name the stream's topic; subscribers to patterns are not counted.
#[derive(Clone)]
pub struct Broadcaster {
    hub: Hub,
    /// What the topics of all streams begin with: the namespace and a colon.
    prefix: Arc<str>,
    kept: Arc<Mutex<BTreeSet<String>>>,
}

/// Why a broadcaster did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// The id of a stream (or a namespace) has other characters than allowed, none or too many.
    BadStreamId,
    /// The event lacks its type or its message, whichever is named here.
    Missing(&'static str),
    /// The event could not be published.
    Publish(PublishError),
    /// There is no room for another client.
    Full,
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadStreamId => write!(
                f,
                "a stream's id is 1 to {STREAM_ID_BYTES_MAX} letters, digits and characters of `._:-`"
            ),
            Self::Missing(member) => write!(f, "an event needs a `{member}` that is not empty"),
            Self::Publish(error) => error.fmt(f),
            Self::Full => f.write_str("the hub has as many connections as it may; try again later"),
        }
    }
}

impl std::error::Error for BroadcastError {}

impl From<PublishError> for BroadcastError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<BroadcastError> for Problem {
    fn from(error: BroadcastError) -> Self {
        let code = match error {
            BroadcastError::BadStreamId => Code::BadTopic,
            BroadcastError::Missing(_) => Code::BadDocument,
            BroadcastError::Publish(error) => return error.into(),
            BroadcastError::Full => Code::AtCapacity,
        };
        Self::new(code, error.to_string())
    }
}

impl Broadcaster {
    /// Streams in a namespace of their own: stream `a` of namespace `shop` is the topic `shop:a`. Broadcasters of one hub and
    /// namespace have the same streams; what each [keeps active](Self::keep_active) is its own.
    ///
    /// # Errors
    /// If the namespace is not 1 to 128 letters, digits and characters of `._-`.
    pub fn new(hub: &Hub, namespace: &str) -> Result<Self, BroadcastError> {
        if !is_stream_id(namespace) || namespace.contains(':') {
            return Err(BroadcastError::BadStreamId);
        }
        let prefix: Arc<str> = format!("{namespace}:").into();
        hub.shared.write_log(|log| log.add_namespace(&prefix));
        Ok(Self {
            hub: hub.clone(),
            prefix,
            kept: Arc::default(),
        })
    }

    /// The topic of a stream.
    ///
    /// # Errors
    /// If the id is not valid.
    pub fn topic(&self, stream_id: &str) -> Result<Topic, BroadcastError> {
        if !is_stream_id(stream_id) {
            return Err(BroadcastError::BadStreamId);
        }
        Topic::new(&format!("{}{stream_id}", self.prefix)).map_err(|_| BroadcastError::BadStreamId)
    }

    /// The handler of a route that is this stream: every client is greeted with an envelope of type `connection`, and what
    /// the hub itself says (a `gap`, an end) comes as an envelope too.
    ///
    /// # Errors
    /// If the id is not valid.
    pub fn route(&self, stream_id: &str) -> Result<Subscribe, BroadcastError> {
        let topic = self.topic(stream_id)?;
        let stream_id = stream_id.to_owned();
        let subscribe = self.hub.subscribe_to([topic]);
        Ok(subscribe
            .dialect(&envelope::ENVELOPES)
            .greeting(move |client| {
                tracing::debug!(%client, stream = stream_id, "client connected");
                envelope::greeting(&stream_id, client)
            }))
    }

    /// A client within this process, from the next event on.
    ///
    /// # Errors
    /// If the id is not valid, or there is no room.
    pub fn subscribe(&self, stream_id: &str) -> Result<StreamClient, BroadcastError> {
        let filter = FilterSpec {
            topics: vec![self.topic(stream_id)?],
            dialect: Some(&envelope::ENVELOPES),
            ..FilterSpec::default()
        };
        let options = StreamOptions {
            heartbeat: Heartbeat::Off,
            ..StreamOptions::default()
        };
        match self.hub.open(&filter, &Start::Live, options) {
            Opened::Stream(stream) => {
                let id = stream.connection();
                let live = stream.into_live();
                Ok(StreamClient::new(id, stream_id.to_owned(), live))
            }
            Opened::Full(_) | Opened::Over => Err(BroadcastError::Full),
        }
    }

    /// Closes a client, in this process or elsewhere: it gets an envelope of type `closed`, and does not come back by
    /// itself. False if these streams have no such client.
    pub fn unsubscribe(&self, client: ConnectionId) -> bool {
        let shared = &self.hub.shared;
        let Some(connection) = shared.connections.find(client) else {
            return false;
        };
        let names = shared.read_log(|log| log.filter_names(connection.filter));
        let is_ours = |topic: &String| topic.starts_with(&*self.prefix);
        let ours = names.is_some_and(|(topics, _)| topics.iter().any(is_ours));
        if ours {
            connection.request_close(CloseReason::Closed);
        }
        ours
    }

    /// Sends an event to a stream, active or not: the next who resumes finds it in the history. Answers what was sent.
    ///
    /// # Errors
    /// If the id is not valid, type or message are empty, or the event could not be published.
    pub async fn broadcast(
        &self,
        stream_id: &str,
        event_type: &str,
        message: &str,
        data: impl Into<Option<Value>>,
    ) -> Result<EventData, BroadcastError> {
        let topic = self.topic(stream_id)?;
        check(event_type, message)?;
        let envelope = EventData::new(Some(stream_id), event_type, message, data.into());
        let event = envelope.to_event();
        let topics = vec![topic];
        self.hub
            .publish_all(&[Publication { topics, event }], None)
            .await?;
        tracing::debug!(
            stream = stream_id,
            event_type,
            id = envelope.id,
            "broadcast"
        );
        Ok(envelope)
    }

    /// Sends one event to all active streams. A client gets it once, however many of them it reads, in an envelope without
    /// `stream_id`. With no stream active nothing is stored. Streams whose topic was closed are left out.
    ///
    /// An event has 128 topics at most, so with more streams it is published once for each 128 of them, all or none; each
    /// time it is the same envelope.
    ///
    /// # Errors
    /// If type or message are empty, or the event could not be published.
    pub async fn broadcast_to_all(
        &self,
        event_type: &str,
        message: &str,
        data: impl Into<Option<Value>>,
    ) -> Result<EventData, BroadcastError> {
        let active = self.active_streams();
        self.broadcast_to_each(active.keys(), event_type, message, data)
            .await
    }

    /// As [`broadcast_to_all`](Self::broadcast_to_all), to these streams and to no others that have become active meanwhile.
    ///
    /// # Errors
    /// If an id is not valid, type or message are empty, or the event could not be published.
    pub async fn broadcast_to_each(
        &self,
        stream_ids: impl IntoIterator<Item = impl AsRef<str>>,
        event_type: &str,
        message: &str,
        data: impl Into<Option<Value>>,
    ) -> Result<EventData, BroadcastError> {
        check(event_type, message)?;
        let envelope = EventData::new(None, event_type, message, data.into());
        let topics: Vec<_> = stream_ids
            .into_iter()
            .map(|id| self.topic(id.as_ref()))
            .collect::<Result<_, _>>()?;
        let streams = topics.len();
        self.publish_to_open(topics, &envelope).await?;
        tracing::debug!(streams, event_type, id = envelope.id, "broadcast to all");
        Ok(envelope)
    }

    /// Publishes to those of the topics that are not closed.
    async fn publish_to_open(
        &self,
        mut topics: Vec<Topic>,
        envelope: &EventData,
    ) -> Result<(), PublishError> {
        loop {
            let publication = |topics: &[Topic]| Publication {
                topics: topics.to_vec(),
                event: envelope.to_event(),
            };
            let batch: Vec<_> = topics
                .chunks(TOPICS_PER_EVENT_MAX)
                .map(publication)
                .collect();
            match self.hub.publish_all(&batch, None).await {
                Ok(_) => return Ok(()),
                Err(error) => match closed_topic(&error) {
                    Some(closed) => topics.retain(|topic| topic != closed),
                    None => return Err(error),
                },
            }
        }
    }

    /// From now on the stream is active also without clients.
    ///
    /// # Errors
    /// If the id is not valid.
    pub fn keep_active(&self, stream_id: &str) -> Result<(), BroadcastError> {
        self.topic(stream_id)?;
        self.kept.lock().insert(stream_id.to_owned());
        Ok(())
    }

    /// From now on the stream is active only while it has clients.
    pub fn release(&self, stream_id: &str) {
        self.kept.lock().remove(stream_id);
    }

    /// The active streams, each with its number of clients.
    pub fn active_streams(&self) -> BTreeMap<String, usize> {
        let kept = self.kept.lock().clone();
        let mut active: BTreeMap<_, _> = kept.into_iter().map(|id| (id, 0)).collect();
        self.hub.shared.read_log(|log| {
            let read = log.read_in(&self.prefix).into_iter();
            // Others may name topics that are no stream's.
            let streams = read.filter(|(id, _)| is_stream_id(id));
            active.extend(streams.map(|(id, clients)| (id.to_owned(), clients)));
        });
        active
    }

    /// The clients of a stream.
    pub fn stream_clients(&self, stream_id: &str) -> Vec<ConnectionInfo> {
        let Ok(topic) = self.topic(stream_id) else {
            return Vec::new();
        };
        let shared = &self.hub.shared;
        let mut clients = Vec::new();
        shared.read_log(|log| {
            let filters = log.filters_of(topic.as_str());
            shared.connections.of_filters(filters, &mut clients);
            let described = clients.iter().filter_map(|client| describe(log, client));
            described.collect()
        })
    }

    /// How many clients all streams have, each counted once.
    pub fn total_clients(&self) -> usize {
        let shared = &self.hub.shared;
        shared.read_log(|log| log.subscribers_in(&self.prefix))
    }

    /// How many streams are active.
    pub fn stream_count(&self) -> usize {
        self.active_streams().len()
    }

    /// Whether a stream has a client or is kept active.
    pub fn is_stream_active(&self, stream_id: &str) -> bool {
        let has_clients = |topic: Topic| self.hub.subscribers(topic.as_str()) > 0;
        self.kept.lock().contains(stream_id) || self.topic(stream_id).is_ok_and(has_clients)
    }
}

fn check(event_type: &str, message: &str) -> Result<(), BroadcastError> {
    match (event_type, message) {
        ("", _) => Err(BroadcastError::Missing("type")),
        (_, "") => Err(BroadcastError::Missing("message")),
        _ => Ok(()),
    }
}

fn is_stream_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=STREAM_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// The closed topic for which a batch was refused.
fn closed_topic(error: &PublishError) -> Option<&Topic> {
    match error {
        PublishError::InBatch { error, .. } => closed_topic(error),
        PublishError::Refused(Refused::TopicClosed(topic)) => Some(topic),
        _ => None,
    }
}
