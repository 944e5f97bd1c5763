//! Events as entries of the stream.
//!
//! | field | |
//! |---|---|
//! | `topic` | once for each topic |
//! | `data` | the event's data |
//! | `event`, `id`, `retry` | its name, its publisher's id, its `retry:` in milliseconds; where there are such |
//! | `private` | `true` where only those get it whose own rights cover it |
//! | `batch` | with the first of several events that belong together: how many they are |
//! | `events` | instead of all others: more events of a batch (`pack.rs`) |
//! | `end` | instead of all others: the topic that ends here |
//!
//! Any program may add entries with all but the last three.

use redis::{FromRedisValue, Value};
use tidewire_core::event::Event;
use tidewire_core::id::Offset;
use tidewire_core::limits::TOPICS_PER_EVENT_MAX;
use tidewire_core::topic::Topic;

use super::pack::{PACKED, unpack};
use crate::broker::Publication;

/// What an entry, or a part of one, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An event, the first of so many; 0 where it came in an entry with others, as all of a batch do but the first.
    Event(Publication, usize),
    /// The end of a topic.
    End(Topic),
    /// Nothing that could be understood: somebody else's, and why.
    Malformed(String),
}

/// One place in the order, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    pub(super) what: What,
    /// About what it takes up, in bytes.
    pub(super) bytes: usize,
}

/// What was read of the stream.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// In the order in which Redis has sent them; those of one of the stream's entries in theirs.
    pub(super) entries: Vec<Entry>,
    /// How many entries of the stream they are.
    pub(super) count: usize,
    /// The place of the one that was sent last.
    pub(super) end: Option<Offset>,
}

/// The fields of an event, the first of `batch`.
pub(super) fn fields(publication: &Publication, batch: usize) -> Vec<Vec<u8>> {
    let mut fields = Vec::with_capacity(4);
    let mut put = |name: &str, value: &str| {
        fields.push(name.as_bytes().to_vec());
        fields.push(value.as_bytes().to_vec());
    };
    let event = &publication.event;
    for topic in &publication.topics {
        put("topic", topic.as_str());
    }
    put("data", &event.data);
    if let Some(name) = &event.event {
        put("event", name);
    }
    if let Some(id) = &event.id {
        put("id", id);
    }
    if let Some(retry_ms) = event.retry_ms {
        put("retry", &retry_ms.to_string());
    }
    if event.private {
        put("private", "true");
    }
    if batch > 1 {
        put("batch", &batch.to_string());
    }
    fields
}

/// The fields of a topic's end.
pub(super) fn end_fields(topic: &Topic) -> Vec<Vec<u8>> {
    vec![b"end".to_vec(), topic.as_str().as_bytes().to_vec()]
}

/// An id of the stream.
pub(super) fn parse_offset(id: &str) -> Option<Offset> {
    let (major, minor) = id.split_once('-')?;
    Some(Offset {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// A place as an id of the stream.
pub(super) fn id_text(offset: Offset) -> String {
    format!("{}-{}", offset.major, offset.minor)
}

/// Reads the entries of one stream, as `XRANGE` and `XREAD` answer them.
pub(super) fn parse_entries(value: Value, event_bytes_max: usize) -> Read {
    let mut read = Read::default();
    let Value::Array(list) = value else {
        return read;
    };
    read.entries.reserve(list.len());
    for entry in list {
        if let Some(at) = parse_entry(entry, event_bytes_max, &mut read.entries) {
            read.count += 1;
            read.end = Some(at);
        }
    }
    read
}

fn parse_entry(entry: Value, event_bytes_max: usize, out: &mut Vec<Entry>) -> Option<Offset> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id = String::from_redis_value(parts.next()?).ok()?;
    let offset = parse_offset(&id)?;
    // Nil for an entry that was deleted meanwhile.
    let fields = Vec::<Vec<u8>>::from_redis_value(parts.next()?).unwrap_or_default();
    if let [name, bytes] = fields.as_slice()
        && name == PACKED
    {
        unpack(bytes, offset, event_bytes_max, out);
        return Some(offset);
    }
    let bytes = fields.iter().map(Vec::len).sum::<usize>() + 64;
    out.push(Entry {
        offset,
        what: understand(fields, event_bytes_max),
        bytes,
    });
    Some(offset)
}

/// The answer of `XREAD` from one stream: its entries; none where it timed out.
pub(super) fn entries_of_read(value: Value) -> Value {
    match value {
        Value::Map(mut streams) => streams.pop().map_or(Value::Nil, |(_, entries)| entries),
        Value::Array(mut streams) => match streams.pop() {
            Some(Value::Array(mut pair)) => pair.pop().unwrap_or_default(),
            _ => Value::Nil,
        },
        _ => Value::Nil,
    }
}

fn understand(fields: Vec<Vec<u8>>, event_bytes_max: usize) -> What {
    try_understand(fields, event_bytes_max).unwrap_or_else(What::Malformed)
}

fn try_understand(fields: Vec<Vec<u8>>, event_bytes_max: usize) -> Result<What, String> {
    let mut topics = Vec::new();
    let mut event = Event::default();
    let mut data = None;
    let mut batch = 1;
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let text = String::from_utf8(value).map_err(|_| "not UTF-8".to_owned())?;
        match name.as_slice() {
            b"topic" => topics.push(topic(&text)?),
            b"data" => data = Some(text),
            b"event" => event.event = Some(text),
            b"id" => event.id = Some(text),
            b"retry" => {
                event.retry_ms = Some(
                    text.parse()
                        .map_err(|_| "`retry` is no number".to_owned())?,
                );
            }
            // What can't be understood must not reach more people than it was meant for.
            b"private" => {
                event.private = text
                    .parse()
                    .map_err(|_| "`private` is neither `true` nor `false`".to_owned())?;
            }
            b"batch" => {
                batch = text
                    .parse()
                    .map_err(|_| "`batch` is no number".to_owned())?;
            }
            b"end" => return Ok(What::End(topic(&text)?)),
            // Somebody may keep more there than the hub needs.
            _ => {}
        }
    }
    event.data = data.ok_or("no `data`")?;
    let publication = Publication { topics, event };
    check(&publication, event_bytes_max)?;
    Ok(What::Event(publication, batch))
}

pub(super) fn check(
    Publication { topics, event }: &Publication,
    event_bytes_max: usize,
) -> Result<(), String> {
    if topics.is_empty() || topics.len() > TOPICS_PER_EVENT_MAX {
        return Err(format!("{} topics", topics.len()));
    }
    event
        .validate(event_bytes_max)
        .map_err(|error| error.to_string())
}

fn topic(name: &str) -> Result<Topic, String> {
    Topic::new(name).map_err(|error| format!("topic: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, fields: Vec<Vec<u8>>) -> Value {
        let fields = fields.into_iter().map(Value::BulkString).collect();
        Value::Array(vec![Value::BulkString(id.into()), Value::Array(fields)])
    }

    fn read(fields: Vec<Vec<u8>>) -> What {
        let mut read = parse_entries(Value::Array(vec![entry("5-7", fields)]), 100);
        let entry = read.entries.pop().expect("one");
        assert_eq!(entry.offset, Offset { major: 5, minor: 7 });
        entry.what
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        let rich = Event::text("l1\nl2")
            .named("n")
            .with_id("own")
            .with_retry_ms(9)
            .private();
        for (topics, event) in [(vec!["a"], Event::text("")), (vec!["a", "b"], rich)] {
            let publication = Publication::new(topics, event).expect("valid");
            assert_eq!(
                read(fields(&publication, 3)),
                What::Event(publication.clone(), 3)
            );
        }
        let topic = Topic::new("a").expect("a topic");
        assert_eq!(read(end_fields(&topic)), What::End(topic));
    }

    #[test]
    fn what_somebody_else_wrote_is_understood_or_said_not_to_be() {
        let fields = |text: &str| {
            let words = text.split(' ').map(|word| word.as_bytes().to_vec());
            words.collect::<Vec<_>>()
        };
        let plain = Publication::new(["a"], "x").expect("valid");
        assert_eq!(read(fields("by me topic a data x")), What::Event(plain, 1));
        for bad in [
            "data x",
            "topic a",
            "topic a* data x",
            "topic a data x retry soon",
            "topic a data x private yes",
            "topic a data x id ~1",
            "topic a",
        ] {
            assert!(matches!(read(fields(bad)), What::Malformed(_)), "{bad}");
        }
        let long = format!("topic a data {}", "x".repeat(101));
        assert!(matches!(read(fields(&long)), What::Malformed(_)));
        let binary = vec![
            b"topic".to_vec(),
            b"a".to_vec(),
            b"data".to_vec(),
            vec![0xff],
        ];
        assert!(matches!(read(binary), What::Malformed(_)));
    }
}
