//! Why an event was not published, and what an event must look like to be.

use std::fmt;

use tidewire_core::event::{Event, EventError};
use tidewire_core::limits::TOPICS_PER_EVENT_MAX;
use tidewire_core::log::Refused;
use tidewire_core::topic::{Topic, TopicError};

use crate::broker::Publication;
use crate::problem::{Code, Problem};

/// Why an event was not published. Nothing of it was stored or delivered, but for [`OutcomeUnknown`](Self::OutcomeUnknown).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// A topic is not valid.
    Topic(TopicError),
    /// The event is not valid.
    Event(EventError),
    /// There is no topic.
    NoTopic,
    /// More topics than an event may have.
    TooManyTopics(usize),
    /// Transient topics and stored ones don't go together in one publish.
    MixedTransient,
    /// A connection is closed as such, and not as a topic.
    NotClosable,
    /// The log's rules are in the way.
    Refused(Refused),
    /// Of a batch of several, this event is the one that can't be published.
    InBatch {
        /// Which one, counted from 0.
        index: usize,
        /// Why.
        error: Box<PublishError>,
    },
    /// The idempotency key was used for another request.
    KeyReused,
    /// A request with the same key is under way.
    KeyInFlight,
    /// No room to remember another key.
    KeysFull,
    /// The broker could not store it.
    NotStored(String),
    /// The broker has no room for it now.
    StorageFull(String),
    /// The broker fell silent after the write.
    OutcomeUnknown(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(error) => error.fmt(f),
            Self::Event(error) => error.fmt(f),
            Self::NoTopic => f.write_str("name a topic: `topic` or `topics` in a document, `?topic=` in an address"),
            Self::TooManyTopics(n) => {
                write!(f, "an event may go to {TOPICS_PER_EVENT_MAX} topics at most, not to {n}")
            }
            Self::MixedTransient => {
                f.write_str("a `connection:` topic is not stored; publish to it alone, one event and one topic at a time")
            }
            Self::NotClosable => f.write_str(
                "a `connection:` topic has no end; close the connection itself (DELETE /api/v1/connections/{id})",
            ),
            Self::Refused(refused) => refused.fmt(f),
            Self::InBatch { error, .. } => error.fmt(f),
            Self::KeyReused => f.write_str("this Idempotency-Key was used for another request; use a new key"),
            Self::KeyInFlight => f.write_str("a request with this Idempotency-Key is under way; repeat it a little later"),
            Self::KeysFull => f.write_str("no further Idempotency-Key can be remembered now; repeat the request later"),
            Self::NotStored(why) | Self::StorageFull(why) => write!(f, "the event was not stored: {why}"),
            Self::OutcomeUnknown(why) => {
                write!(f, "it is unknown whether the event was stored ({why}); repeat it with the same Idempotency-Key")
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<TopicError> for PublishError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl From<EventError> for PublishError {
    fn from(error: EventError) -> Self {
        Self::Event(error)
    }
}

impl PublishError {
    /// The error, with the place in a batch of so many events where there are several.
    pub(crate) fn at(self, index: usize, events: usize) -> Self {
        if events < 2 {
            return self;
        }
        let error = Box::new(self);
        Self::InBatch { index, error }
    }

    fn code(&self) -> Code {
        match self {
            Self::Topic(_) | Self::NotClosable => Code::BadTopic,
            Self::Event(EventError::TooLarge { .. }) => Code::EventTooLarge,
            Self::Event(_) => Code::BadEvent,
            Self::NoTopic => Code::TopicMissing,
            Self::TooManyTopics(_) => Code::TooManyTopics,
            Self::MixedTransient => Code::BadDocument,
            Self::Refused(Refused::TopicClosed(_)) => Code::TopicClosed,
            Self::Refused(Refused::IdTaken(_)) => Code::IdTaken,
            Self::InBatch { error, .. } => error.code(),
            Self::KeyReused => Code::KeyReused,
            Self::KeyInFlight => Code::KeyInFlight,
            Self::KeysFull => Code::KeysFull,
            Self::NotStored(_) => Code::NotStored,
            Self::StorageFull(_) => Code::StorageFull,
            Self::OutcomeUnknown(_) => Code::OutcomeUnknown,
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        if let PublishError::InBatch { index, error } = error {
            return Self::from(*error).with("index", index);
        }
        let problem = Self::new(error.code(), error.to_string());
        match error {
            PublishError::Topic(reason) => problem.with("reason", reason.code()),
            PublishError::Event(reason) => problem.with("reason", reason.code()),
            PublishError::KeysFull
            | PublishError::NotStored(_)
            | PublishError::StorageFull(_)
            | PublishError::OutcomeUnknown(_) => problem.retry_after_s(1 + fastrand::u32(0..4)),
            PublishError::KeyInFlight => problem.retry_after_s(1),
            _ => problem,
        }
    }
}

impl Publication {
    /// An event to one or more topics.
    ///
    /// # Errors
    /// If there is no topic, there are too many, or one is not valid.
    pub fn new(
        topics: impl IntoIterator<Item = impl AsRef<str>>,
        event: impl Into<Event>,
    ) -> Result<Self, PublishError> {
        let topics: Vec<Topic> = topics
            .into_iter()
            .map(|topic| Topic::new(topic.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            topics,
            event: event.into(),
        })
    }

    /// Whether the event may be published.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn validate(&self, event_bytes_max: usize) -> Result<(), PublishError> {
        match self.topics.len() {
            0 => return Err(PublishError::NoTopic),
            n if n > TOPICS_PER_EVENT_MAX => return Err(PublishError::TooManyTopics(n)),
            _ => {}
        }
        Ok(self.event.validate(event_bytes_max)?)
    }
}
