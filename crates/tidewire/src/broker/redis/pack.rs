//! Batches: several events as one entry.
//!
//! A batch is its first event, for which Redis makes a place, and the others, several in an entry: Redis' work for a batch is
//! that of a few entries, and so is that of reading it. The id of such an entry is the place of the last event in it; the
//! others have those before, one after the other. So whoever reads on from within finds the entry, and skips what they have.

use redis::Value;
use tidewire_core::id::Offset;

use super::entry::{Entry, What, check, parse_offset};
use crate::broker::Publication;
use crate::broker::packed::{Reader, put_event};

/// Most events in an entry of several, and most bytes before its last one. A node asks for entries by number, so this bounds
/// what it is sent.
const PACK_BYTES_MAX: usize = 16 * 1024;
const PACK_EVENTS_MAX: usize = 256;
/// The one field of such an entry: the number of the events, and their bytes (`../packed.rs`).
pub(super) const PACKED: &[u8] = b"events";

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

/// Reads the events of an entry with this place.
pub(super) fn unpack(bytes: &[u8], last: Offset, event_bytes_max: usize, out: &mut Vec<Entry>) {
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
            Ok(()) => What::Event(publication, 0),
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

#[cfg(test)]
mod tests {
    use super::super::entry::{Read, parse_entries};
    use super::*;

    fn entry(id: &str, fields: Vec<Vec<u8>>) -> Value {
        let fields = fields.into_iter().map(Value::BulkString).collect();
        Value::Array(vec![Value::BulkString(id.into()), Value::Array(fields)])
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
            assert_eq!(entry.what, What::Event(event, 0));
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
        assert_eq!(read.entries[1].what, What::Event(event("2"), 0));
    }
}
