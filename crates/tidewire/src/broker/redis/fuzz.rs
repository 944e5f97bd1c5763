//! A fuzz target: what a node makes of entries that anybody may have added. Not for applications, and it may change at any
//! time.

use redis::Value;
use tidewire_core::id::Offset;

use super::entry::{Entry, What, check, fields, parse_entries};
use super::pack::{PACKED, first_in, pack};

const EVENT_BYTES_MAX: usize = 256;
const PLACE: Offset = Offset {
    major: 5,
    minor: 70,
};

/// Bytes as the fields of an entry, parted by NUL, and as the one field of an entry of several events.
pub fn entries(data: &[u8]) {
    let named: Vec<Vec<u8>> = data.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let is_several = named.first().is_some_and(|name| name == PACKED);
    if !is_several && let [entry] = read(named).as_slice() {
        assert_eq!(entry.offset, PLACE);
        if let What::Event(publication, batch) = &entry.what {
            check(publication, EVENT_BYTES_MAX).expect("what is taken is good");
            let again = read(fields(publication, (*batch).max(1)));
            // To be the first of none or of one is the same.
            let What::Event(same, _) = &again[0].what else {
                panic!("{again:?} is what was taken before");
            };
            assert_eq!(same, publication);
        }
    }
    several(data);
}

fn several(data: &[u8]) {
    let value = value(vec![PACKED.to_vec(), data.to_vec()]);
    let first = first_in(&value).expect("it has a place");
    let read = parse_entries(Value::Array(vec![value]), EVENT_BYTES_MAX).entries;
    let last = read.last().expect("something is in that place");
    assert_eq!(last.offset, PLACE);
    for pair in read.windows(2) {
        assert_eq!(pair[0].offset.minor + 1, pair[1].offset.minor);
    }
    let mut taken = Vec::new();
    for entry in &read {
        if let What::Event(publication, _) = &entry.what {
            check(publication, EVENT_BYTES_MAX).expect("what is taken is good");
            taken.push(publication.clone());
        }
    }
    if taken.len() == read.len() {
        assert_eq!(
            read[0].offset, first,
            "those who read on from within find it"
        );
        if let [packed] = pack(&taken).as_slice() {
            assert_eq!(packed.bytes, data, "there is one spelling");
        }
    }
}

fn value(fields: Vec<Vec<u8>>) -> Value {
    let id = format!("{}-{}", PLACE.major, PLACE.minor);
    let fields = fields.into_iter().map(Value::BulkString).collect();
    Value::Array(vec![Value::BulkString(id.into()), Value::Array(fields)])
}

fn read(fields: Vec<Vec<u8>>) -> Vec<Entry> {
    parse_entries(Value::Array(vec![value(fields)]), EVENT_BYTES_MAX).entries
}
