//! The JSON form of an event to publish: `{"topic"|"topics", "event"?, "data", "id"?, "retry"?, "private"?}`.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use tidewire::problem::{Code, Problem};
use tidewire::{Event, Publication, PublishError, Topic};
use tidewire_core::event::compact_json;

use super::body::parse_object;

/// What an event may look like, for error messages.
const SHAPE: &str = r#"an event is {"topic": "…", "data": …} with "topics", "event", "id", "retry" and "private" as options"#;
/// What to do about a field that is not one of an event's.
const RAW_HINT: &str = "to send JSON as it is, put it into \"data\", or POST it as another Content-Type, such as text/plain, with ?topic=…";

/// Most characters of a bad name that an answer repeats.
const NAME_CHARS_MAX: usize = 100;
/// Most characters of what serde says, which repeats names and texts of any length.
const ERROR_CHARS_MAX: usize = 300;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an event, which is a JSON object")]
struct Document<'a> {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    id: Option<String>,
    retry: Option<u64>,
    private: Option<bool>,
}

/// Tells `"data": null`, which is data, from no data.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one event. `topics` are those of the query: they count where the document names none.
pub(super) fn parse_one(json: &[u8], topics: &[&str]) -> Result<Publication, Problem> {
    let document: Document<'_> =
        parse_object(json).map_err(|error| not_a_document(&error, json))?;
    document.into_publication(topics)
}

/// What a JSON body holds.
pub(crate) enum Documents {
    One(Publication),
    Many(Vec<Publication>),
}

/// Reads a body: one event, or an array of them.
pub(crate) fn parse(json: &[u8], topics: &[&str], events_max: usize) -> Result<Documents, Problem> {
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        return parse_one(json, topics).map(Documents::One);
    }
    let raw: Vec<&RawValue> =
        serde_json::from_slice(json).map_err(|error| not_a_document(&error, json))?;
    if raw.len() > events_max {
        let detail = format!(
            "a batch may have {events_max} events (`limits.batch_events_max`), not {}; a stream of `application/x-ndjson` \
             may be of any length",
            raw.len()
        );
        return Err(Problem::new(Code::TooManyEvents, detail).with("max", events_max));
    }
    let each = raw.iter().enumerate().map(|(index, json)| {
        parse_one(json.get().as_bytes(), topics).map_err(|problem| problem.with("index", index))
    });
    each.collect::<Result<_, _>>().map(Documents::Many)
}

fn not_a_document(error: &serde_json::Error, json: &[u8]) -> Problem {
    // An error of meaning may come before one of syntax is reached.
    let syntax = match error.classify() {
        Category::Data => serde_json::from_slice::<IgnoredAny>(json).err(),
        _ => None,
    };
    if error.classify() == Category::Data && syntax.is_none() {
        let message = shortened(&error.to_string(), ERROR_CHARS_MAX);
        let hint = if message.starts_with("unknown field") {
            RAW_HINT
        } else {
            SHAPE
        };
        return Problem::new(Code::BadDocument, format!("{message}; {hint}"));
    }
    if std::str::from_utf8(json).is_err() {
        return Problem::new(
            Code::BadUtf8,
            "JSON is UTF-8 (RFC 8259 section 8.1), and this body is not",
        );
    }
    let error = syntax.as_ref().unwrap_or(error);
    Problem::new(Code::BadJson, format!("{error}; {SHAPE}"))
}

impl Document<'_> {
    fn into_publication(self, query_topics: &[&str]) -> Result<Publication, Problem> {
        let Some(data) = self.data else {
            return Err(Problem::new(
                Code::BadDocument,
                format!("\"data\" is missing; {SHAPE}"),
            ));
        };
        let topics = match (self.topic, self.topics) {
            (Some(_), Some(_)) => {
                return Err(Problem::new(
                    Code::BadDocument,
                    "give \"topic\" or \"topics\", not both",
                ));
            }
            (Some(topic), None) => vec![topic],
            (None, Some(topics)) => topics,
            (None, None) => query_topics.iter().map(|&topic| topic.to_owned()).collect(),
        };
        let event = Event {
            id: self.id,
            event: self.event,
            data: text_of(data)?,
            retry_ms: self.retry,
            private: self.private.unwrap_or(false),
        };
        publication(topics, event)
    }
}

/// An event and its topics, with the topic named in the error where one is not valid.
pub(super) fn publication(
    topics: impl IntoIterator<Item = impl AsRef<str>>,
    event: Event,
) -> Result<Publication, Problem> {
    let topic = |name: &str| {
        Topic::new(name).map_err(|error| {
            Problem::from(PublishError::Topic(error)).with("topic", shortened(name, NAME_CHARS_MAX))
        })
    };
    let topics: Vec<_> = topics
        .into_iter()
        .map(|name| topic(name.as_ref()))
        .collect::<Result<_, _>>()?;
    if topics.is_empty() {
        return Err(PublishError::NoTopic.into());
    }
    Ok(Publication { topics, event })
}

/// A text for people: a bad one may be megabytes long, and they need its beginning only.
fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A string is sent as the text that it is; anything else as compact JSON.
fn text_of(data: &RawValue) -> Result<String, Problem> {
    let raw = data.get();
    if raw.starts_with('"') {
        return serde_json::from_str(raw)
            .map_err(|error| Problem::new(Code::BadJson, format!("\"data\": {error}")));
    }
    let mut text = String::with_capacity(raw.len());
    compact_json(raw, &mut text);
    Ok(text)
}
