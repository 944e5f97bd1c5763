//! How events lie on the disk. All numbers are little-endian.
//!
//! ```text
//! segment   header | record | record | … | zeros, where room is reserved
//! header    magic 8 | version 4 | epoch 8 | base 8 | salt 8 | created_ms 8 | zeros 16 | crc 4          64 bytes
//! record    head | body | end mark
//! head      magic 4 | body length 4 | first offset 8 | offsets 8 | synced 8 | at_ms 8 | crc of body 4 | crc 4
//! body      batch | batch | …
//! batch     kind 1 | key? | events 4 | event | event | …                          (../packed.rs)
//! ```
//!
//! A record is what one write brought to the disk. `synced` is the newest offset that was safe when it was written: a
//! record before that can't be one that a crash has torn. Checksums begin with the segment's salt, so that no
//! publisher can write data that looks like a record.

use tidewire_core::id::Epoch;
use tidewire_core::topic::Topic;

use crate::broker::packed::{Reader, put_event, put_text};
use crate::broker::{IdempotencyKey, Publication};

/// What a segment begins with.
const SEGMENT_MAGIC: &[u8; 8] = b"TIDEWIRE";
/// The version of all that is described here.
pub(super) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 64;

const RECORD_MAGIC: [u8; 4] = [0xE7, b'T', b'W', 0xB1];
/// Bytes of a record's head.
pub(super) const HEAD_BYTES: usize = 48;
/// No byte of it is zero or one flipped bit away from that, so that a whole record is told from one that lacks its end.
const END_MARK: [u8; 4] = [0xA5, 0x5A, 0xC3, 0x3C];

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) epoch: Epoch,
    /// The first offset in this segment.
    pub(super) base: u64,
    pub(super) salt: u64,
    pub(super) created_ms: u64,
}

/// Why a segment's header can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Version(u32),
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(self.epoch.as_str().as_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.resize(HEADER_BYTES - 4, 0);
        out.extend_from_slice(&crc(0, &[&out]).to_le_bytes());
        out.try_into().expect("as long as it was made")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        let (content, sum) = bytes.split_at(HEADER_BYTES - 4);
        let mut read = Reader(bytes);
        let magic = read.take(8).ok_or(BadHeader::Damaged)?;
        let version = read.u32().ok_or(BadHeader::Damaged)?;
        if magic != SEGMENT_MAGIC || crc(0, &[content]).to_le_bytes() != *sum {
            return Err(BadHeader::Damaged);
        }
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let mut fields = || {
            let epoch = Epoch::parse(std::str::from_utf8(read.take(8)?).ok()?)?;
            Some(Self {
                epoch,
                base: read.u64()?,
                salt: read.u64()?,
                created_ms: read.u64()?,
            })
        };
        fields().ok_or(BadHeader::Damaged)
    }
}

/// What a record says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body_len: usize,
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) synced: u64,
    pub(super) at_ms: u64,
    body_crc: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8], salt: u64) -> Option<Self> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        let mut read = Reader(bytes);
        let magic = read.take(4)?;
        let head = Self {
            body_len: read.u32()? as usize,
            first: read.u64()?,
            count: read.u64()?,
            synced: read.u64()?,
            at_ms: read.u64()?,
            body_crc: read.u32()?,
        };
        let sum = read.u32()?;
        let good = magic == RECORD_MAGIC && crc(salt, &[&bytes[..HEAD_BYTES - 4]]) == sum;
        good.then_some(head)
    }

    /// Bytes of the whole record.
    pub(super) fn record_len(&self) -> usize {
        HEAD_BYTES + self.body_len + END_MARK.len()
    }

    /// The offset behind the record's last.
    pub(super) fn next(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// The body of the record at the start of `bytes`, if all of it is there as it was written.
    pub(super) fn body<'a>(&self, bytes: &'a [u8], salt: u64) -> Option<&'a [u8]> {
        let rest = bytes.get(HEAD_BYTES..self.record_len())?;
        let (body, end) = rest.split_at(self.body_len);
        (end == END_MARK && crc(salt, &[body]) == self.body_crc).then_some(body)
    }
}

/// Appends a record of these batches' bytes.
pub(super) fn write_record(
    out: &mut Vec<u8>,
    salt: u64,
    first: u64,
    count: u64,
    synced: u64,
    at_ms: u64,
    bodies: &[&[u8]],
) {
    let body_len: usize = bodies.iter().map(|body| body.len()).sum();
    let start = out.len();
    out.reserve(HEAD_BYTES + body_len + END_MARK.len());
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&(body_len as u32).to_le_bytes());
    for number in [first, count, synced, at_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&crc(salt, bodies).to_le_bytes());
    let sum = crc(salt, &[&out[start..]]);
    out.extend_from_slice(&sum.to_le_bytes());
    for body in bodies {
        out.extend_from_slice(body);
    }
    out.extend_from_slice(&END_MARK);
}

/// Where in `bytes` the next record begins that is whole; its place and head.
pub(super) fn find_record(bytes: &[u8], salt: u64) -> Option<(usize, Head)> {
    memchr::memmem::find_iter(bytes, &RECORD_MAGIC).find_map(|at| {
        let head = Head::read(&bytes[at..], salt)?;
        head.body(&bytes[at..], salt)?;
        Some((at, head))
    })
}

const KIND_EVENTS: u8 = 1;
const KIND_EVENTS_WITH_KEY: u8 = 2;
const KIND_END: u8 = 3;
const KIND_LOST: u8 = 4;

/// What is stored as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    Events(Vec<Publication>, Option<IdempotencyKey>),
    /// The final event of a topic.
    End(Topic),
    /// So many events were here once; put in their place by a repair.
    Lost(u64),
}

impl Batch {
    /// How many offsets it takes.
    pub(super) fn offsets(&self) -> u64 {
        match self {
            Self::Events(events, _) => events.len() as u64,
            Self::End(_) => 1,
            Self::Lost(count) => *count,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Events(events, key) => encode_events(&mut out, events, key.as_ref()),
            Self::End(topic) => {
                out.push(KIND_END);
                put_text(&mut out, topic.as_str());
            }
            Self::Lost(count) => {
                out.push(KIND_LOST);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        out
    }
}

fn encode_events(out: &mut Vec<u8>, events: &[Publication], key: Option<&IdempotencyKey>) {
    let data: usize = events.iter().map(|e| e.event.data.len() + 64).sum();
    out.reserve(data);
    match key {
        None => out.push(KIND_EVENTS),
        Some(key) => {
            out.push(KIND_EVENTS_WITH_KEY);
            put_text(out, &key.publisher);
            put_text(out, &key.key);
            out.extend_from_slice(&key.fingerprint);
        }
    }
    out.extend_from_slice(&(events.len() as u32).to_le_bytes());
    for event in events {
        put_event(out, event);
    }
}

/// The batches of a record's body; `None` if it is none of ours.
pub(super) fn decode_body(body: &[u8]) -> Option<Vec<Batch>> {
    let mut read = Reader(body);
    let mut batches = Vec::new();
    while !read.0.is_empty() {
        batches.push(read.batch()?);
    }
    Some(batches)
}

impl Reader<'_> {
    fn batch(&mut self) -> Option<Batch> {
        let key = match self.u8()? {
            KIND_EVENTS => None,
            KIND_EVENTS_WITH_KEY => Some(IdempotencyKey {
                publisher: self.text()?,
                key: self.text()?,
                fingerprint: self.take(32)?.try_into().ok()?,
            }),
            KIND_END => return Some(Batch::End(self.topic()?)),
            KIND_LOST => return Some(Batch::Lost(self.u64()?)),
            _ => return None,
        };
        let count = self.u32()?;
        let events = (0..count).map(|_| self.event()).collect::<Option<_>>()?;
        Some(Batch::Events(events, key))
    }
}

/// The checksum of the parts one after the other.
fn crc(salt: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use tidewire_core::event::Event;

    use super::*;

    fn batches() -> Vec<Batch> {
        let topic = |name: &str| Topic::new(name).expect("a topic");
        let rich = Event::text("a\nb")
            .with_id("x")
            .named("n")
            .with_retry_ms(7)
            .private();
        let key = IdempotencyKey {
            publisher: "p".into(),
            key: "k".into(),
            fingerprint: [7; 32],
        };
        let publication = |event: Event| Publication {
            topics: vec![topic("a"), topic("b:é")],
            event,
        };
        vec![
            Batch::Events(
                vec![publication(rich), publication(Event::text(""))],
                Some(key),
            ),
            Batch::End(topic("a")),
            Batch::Lost(1 << 40),
            Batch::Events(vec![publication(Event::text("x").with_id("y"))], None),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_no_flipped_bit_passes() {
        let bodies: Vec<_> = batches().iter().map(Batch::encode).collect();
        let bodies: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
        let mut record = Vec::new();
        write_record(&mut record, 9, 5, 6, 4, 1_000, &bodies);
        let read = |bytes: &[u8]| {
            Head::read(bytes, 9).and_then(|head| head.body(bytes, 9).map(decode_body))
        };
        assert_eq!(read(&record), Some(Some(batches())));
        assert_eq!(Head::read(&record, 8), None, "another log's record");
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&flipped), None, "bit {bit}");
        }
        for len in 0..record.len() {
            assert_eq!(read(&record[..len]), None, "{len} bytes");
        }
        let mut late = b"noise".to_vec();
        late.extend_from_slice(&record[..60]);
        late.extend_from_slice(&record);
        let found = find_record(&late, 9).map(|(at, head)| (at, head.first));
        assert_eq!(found, Some((65, 5)));
    }

    #[test]
    fn a_header_says_its_version_and_shows_damage() {
        let header = Header {
            epoch: Epoch::from_random(77),
            base: 3,
            salt: 5,
            created_ms: 9,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Header::decode(&flipped),
                Err(BadHeader::Damaged),
                "bit {bit}"
            );
        }
        let mut newer = bytes;
        newer[8] = 2;
        let sum = crc(0, &[&newer[..60]]);
        newer[60..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(BadHeader::Version(2)));
    }
}
