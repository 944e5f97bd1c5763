//! Events as entries of the stream.
//!
//! | field | |
//! |---|---|
//! | `topic` | once for each topic |
//! | `data` | the event's data |
//! | `event`, `id`, `retry` | its name, its publisher's id, its `retry:` in milliseconds; where there are such |
//! | `private` | `true` where only those get it whose own rights cover it |
//! | `batch` | with the first of several events that belong together: how many they are |
//! | `events` | instead of all others: more events of a batch, as bytes (`../packed.rs`) after their number |
//! | `end` | instead of all others: the topic that ends here |
//!
//! Any program may add entries with all but the last three.
//!
//! A batch is its first event, for which Redis makes a place, and the others, several in an entry: Redis' work for a batch is
//! that of a few entries, and so is that of reading it. The id of such an entry is the place of the last event in it; the
//! others have those before, one after the other. So whoever reads on from within finds the entry, and skips what they have.

use redis::{FromRedisValue, Value};
use tidewire_core::event::Event;
use tidewire_core::id::Offset;
use tidewire_core::limits::TOPICS_PER_EVENT_MAX;
use tidewire_core::topic::Topic;

use crate::broker::Publication;
use crate::broker::packed::{Reader, put_event};

/// Most events in an entry of several, and most bytes before its last one. A node asks for entries by number, so this bounds
/// what it is sent.
const PACK_BYTES_MAX: usize = 16 * 1024;
const PACK_EVENTS_MAX: usize = 256;
/// The one field of an entry of several events.
pub(super) const PACKED: &[u8] = b"events";

/// What an entry, or a part of one, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An event, the first of so many.
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

/// Several events as one entry.
pub(super) struct Pack {
    pub(super) events: usize,
    pub(super) bytes: Vec<u8>,
}

/// Puts events into as few entries as may be.
pub(super) fn pack(events: &[Publication]) -> Vec<Pack> {
    let is_full =
        |pack: &Pack| pack.events == PACK_EVENTS_MAX || pack.bytes.len() >= PACK_BYTES_MAX;
    let mut packs: Vec<Pack> = Vec::new();
    for event in events {
        if packs.last().is_none_or(is_full) {
            let mut bytes = Vec::with_capacity(PACK_BYTES_MAX / 4);
            // The number of events is not known yet.
            bytes.extend_from_slice(&[0; 4]);
            packs.push(Pack { events: 0, bytes });
        }
        if let Some(pack) = packs.last_mut() {
            put_event(&mut pack.bytes, event);
            pack.events += 1;
        }
    }
    for pack in &mut packs {
        pack.bytes[..4].copy_from_slice(&(pack.events as u32).to_le_bytes());
    }
    packs
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

/// The place of the first event in an entry, whose own place is that of the last.
pub(super) fn first_in(entry: &Value) -> Option<Offset> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let id = redis::from_redis_value_ref::<String>(parts.first()?).ok()?;
    let last = parse_offset(&id)?;
    let fields = redis::from_redis_value_ref::<Vec<Vec<u8>>>(parts.get(1)?).unwrap_or_default();
    match fields.as_slice() {
        [name, bytes] if name == PACKED => {
            let events = Reader(bytes).u32().unwrap_or(1);
            Some(back(last, u64::from(events).saturating_sub(1)).unwrap_or(last))
        }
        _ => Some(last),
    }
}

/// So many places before, in the same millisecond.
fn back(place: Offset, by: u64) -> Option<Offset> {
    let minor = place.minor.checked_sub(by)?;
    Some(Offset { minor, ..place })
}

fn unpack(bytes: &[u8], last: Offset, event_bytes_max: usize, out: &mut Vec<Entry>) {
    let before = out.len();
    let understood = try_unpack(bytes, last, event_bytes_max, out);
    if understood.is_none() {
        out.truncate(before);
        out.push(Entry {
            offset: last,
            what: What::Malformed("`events` are not what a hub writes".into()),
            bytes: bytes.len() + 64,
        });
    }
}

fn try_unpack(
    bytes: &[u8],
    last: Offset,
    event_bytes_max: usize,
    out: &mut Vec<Entry>,
) -> Option<()> {
    let mut reader = Reader(bytes);
    let count = u64::from(reader.u32()?);
    let first = back(last, count.checked_sub(1)?)?;
    for n in 0..count {
        let left = reader.0.len();
        let publication = reader.event()?;
        let bytes = left - reader.0.len() + 64;
        let what = match check(&publication, event_bytes_max) {
            Ok(()) => What::Event(publication, 1),
            Err(why) => What::Malformed(why),
        };
        let minor = first.minor + n;
        let offset = Offset { minor, ..last };
        out.push(Entry {
            offset,
            what,
            bytes,
        });
    }
    reader.0.is_empty().then_some(())
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

fn check(
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

    fn packed(id: &str, bytes: Vec<u8>) -> Read {
        let fields = vec![PACKED.to_vec(), bytes];
        parse_entries(Value::Array(vec![entry(id, fields)]), 100)
    }

    #[test]
    fn the_events_of_an_entry_have_the_places_up_to_its_own() {
        let events: Vec<_> = (0..1_000)
            .map(|n| Publication::new(["a", "b"], n.to_string()).expect("valid"))
            .collect();
        let packs = pack(&events);
        assert_eq!(packs.len(), 4, "256 in each");
        let mut read = Vec::new();
        for Pack { events, bytes } in packs {
            let last = read.len() + events + 6;
            let id = format!("5-{last}");
            let fields = vec![PACKED.to_vec(), bytes.clone()];
            let first = first_in(&entry(&id, fields)).expect("a place");
            assert_eq!(first.minor, read.len() as u64 + 7);
            let part = packed(&id, bytes);
            assert_eq!((part.entries.len(), part.count), (events, 1));
            read.extend(part.entries);
        }
        for ((n, event), entry) in events.into_iter().enumerate().zip(read) {
            let minor = n as u64 + 7;
            assert_eq!(entry.offset, Offset { major: 5, minor });
            assert_eq!(entry.what, What::Event(event, 1));
        }
        let large = Publication::new(["a"], "x".repeat(PACK_BYTES_MAX)).expect("valid");
        assert_eq!(pack(&[large.clone(), large.clone(), large]).len(), 3);
    }

    #[test]
    fn events_that_no_hub_wrote_are_left_out() {
        let event = |data: &str| Publication::new(["a"], data).expect("valid");
        let bytes = |events: &[Publication]| pack(events).remove(0).bytes;
        let good = bytes(&[event("1"), event("2")]);
        let is_bad = |id: &str, bytes: &[u8]| {
            let read = packed(id, bytes.to_vec());
            assert_eq!(read.entries.len(), 1);
            matches!(read.entries[0].what, What::Malformed(_))
        };
        assert!(is_bad("5-0", &good), "two events in one place");
        for len in 0..good.len() {
            assert!(is_bad("5-7", &good[..len]), "{len} bytes");
        }
        assert!(is_bad("5-7", &[&good[..], b"x"].concat()));
        let mut flagged = good;
        flagged[4] |= 0x80;
        assert!(is_bad("5-7", &flagged));
        // One that is too large leaves the others.
        let read = packed("5-7", bytes(&[event(&"x".repeat(101)), event("2")]));
        assert!(matches!(read.entries[0].what, What::Malformed(_)));
        assert_eq!(read.entries[1].what, What::Event(event("2"), 1));
    }
}
