//! Event ids: what stands behind `id:` on the wire and in `Last-Event-ID`.
//!
//! An id of the hub's own making is `~{epoch}-{offset}`, for example `~k3f09x2m-1042`. Clients treat it as opaque.
//! The leading `~` is the whole rule by which native ids are told from publishers' ids, which may not begin with it.
//! The last id of a stream that is over carries a [`Tombstone`] (`~k3f09x2m-1042-closed`), so that a reconnect
//! with it can be refused for good without anything remembered on the server.

use std::fmt;

/// The first byte of every native id.
pub const NATIVE_ID_PREFIX: char = '~';

/// Crockford's base 32, lower case.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const EPOCH_CHARS: usize = 8;

/// One unbroken life of a history: it changes when history was lost, so that ids of a former life are known as stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_CHARS]);

impl Epoch {
    /// Makes an epoch of 40 of the given random bits.
    pub fn from_random(mut bits: u64) -> Self {
        let mut chars = [0; EPOCH_CHARS];
        for c in &mut chars {
            *c = BASE32[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(chars)
    }

    /// Reads the eight characters.
    pub fn parse(text: &str) -> Option<Self> {
        let chars: [u8; EPOCH_CHARS] = text.as_bytes().try_into().ok()?;
        chars
            .iter()
            .all(|c| BASE32.contains(c))
            .then_some(Self(chars))
    }

    /// The eight characters as they stand in ids.
    ///
    /// # Panics
    /// Never: an epoch is made of ASCII only.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is made of base-32 characters")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

/// A place in the broker's order. Ordered; the same on every node.
///
/// Brokers that count use `minor` alone; those whose store has two-part ids (Redis Streams) use both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// The high part; zero where the broker simply counts.
    pub major: u64,
    /// The low part.
    pub minor: u64,
}

impl Offset {
    /// Before every event.
    pub const ZERO: Self = Self { major: 0, minor: 0 };

    /// The offset of a broker that simply counts.
    pub const fn counted(minor: u64) -> Self {
        Self { major: 0, minor }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            None => Some(Self::counted(parse_decimal(text)?)),
            Some((major, minor)) => {
                let major = parse_decimal(major)?;
                (major > 0).then_some(Self {
                    major,
                    minor: parse_decimal(minor)?,
                })
            }
        }
    }
}

/// Canonical decimals only, so that each id has one spelling.
fn parse_decimal(text: &str) -> Option<u64> {
    let canonical =
        text == "0" || (text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Says in the id itself that the stream which ended with it shall not be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tombstone {
    /// A topic's end; carries [`topic_hash`] of that topic.
    End(u32),
    /// The connection was closed on request.
    Closed,
    /// Another connection with the same id took over.
    Replaced,
}

/// A native id, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NativeId {
    /// The history that the id belongs to.
    pub epoch: Epoch,
    /// The place in it.
    pub offset: Offset,
    /// Set on the last id of a stream that is over.
    pub tombstone: Option<Tombstone>,
}

impl NativeId {
    /// The id of a plain position.
    pub const fn new(epoch: Epoch, offset: Offset) -> Self {
        Self {
            epoch,
            offset,
            tombstone: None,
        }
    }

    /// The same position, marked as the end of a stream.
    #[must_use]
    pub const fn with_tombstone(self, tombstone: Tombstone) -> Self {
        Self {
            tombstone: Some(tombstone),
            ..self
        }
    }

    /// Reads an id; `None` for anything that this hub never writes.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(NATIVE_ID_PREFIX)?;
        let mut parts = rest.splitn(3, '-');
        let epoch = Epoch::parse(parts.next()?)?;
        let offset = Offset::parse(parts.next()?)?;
        let tombstone = match parts.next() {
            None => None,
            Some("closed") => Some(Tombstone::Closed),
            Some("replaced") => Some(Tombstone::Replaced),
            Some(end) => {
                let hash = end.strip_prefix("end.").filter(|h| h.len() == 8)?;
                let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
                if !hash.bytes().all(lower_hex) {
                    return None;
                }
                Some(Tombstone::End(u32::from_str_radix(hash, 16).ok()?))
            }
        };
        Some(Self {
            epoch,
            offset,
            tombstone,
        })
    }

    /// Appends the id's text. The hot path of publishing: no formatting machinery.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        out.push(NATIVE_ID_PREFIX as u8);
        out.extend_from_slice(&self.epoch.0);
        out.push(b'-');
        if self.offset.major > 0 {
            out.extend_from_slice(digits.format(self.offset.major).as_bytes());
            out.push(b'.');
        }
        out.extend_from_slice(digits.format(self.offset.minor).as_bytes());
        match self.tombstone {
            None => {}
            Some(Tombstone::Closed) => out.extend_from_slice(b"-closed"),
            Some(Tombstone::Replaced) => out.extend_from_slice(b"-replaced"),
            Some(Tombstone::End(hash)) => {
                out.extend_from_slice(format!("-end.{hash:08x}").as_bytes());
            }
        }
    }
}

impl fmt::Display for NativeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(32);
        self.write(&mut text);
        f.write_str(std::str::from_utf8(&text).expect("a native id is ASCII"))
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv). The same on every node and in every release, as it is part of tombstone ids.
pub fn topic_hash_64(topic: &str) -> u64 {
    topic.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The 32 bits of [`topic_hash_64`] that a topic's tombstone carries.
pub fn topic_hash(topic: &str) -> u32 {
    let hash = topic_hash_64(topic);
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Epoch {
        Epoch::from_random(0x0123_4567_89ab_cdef)
    }

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        for offset in [
            Offset::ZERO,
            Offset::counted(u64::MAX),
            Offset {
                major: 1_700_000_000_000,
                minor: 7,
            },
        ] {
            let plain = NativeId::new(epoch(), offset);
            for id in [
                plain,
                plain.with_tombstone(Tombstone::Closed),
                plain.with_tombstone(Tombstone::Replaced),
                plain.with_tombstone(Tombstone::End(topic_hash("orders"))),
                plain.with_tombstone(Tombstone::End(0)),
            ] {
                assert_eq!(NativeId::parse(&id.to_string()), Some(id), "{id}");
            }
        }
    }

    #[test]
    fn what_the_hub_never_writes_is_not_native() {
        let e = epoch();
        let bad = [
            String::new(),
            "~".into(),
            "42".into(),
            format!("{e}-1"),
            format!("~{e}"),
            format!("~{e}-"),
            format!("~{e}-01"),
            format!("~{e}-+1"),
            format!("~{e}-0.1"),
            format!("~{e}-1.01"),
            format!("~{e}-18446744073709551616"),
            format!("~{e}-1-end"),
            format!("~{e}-1-end.0000000G"),
            format!("~{e}-1-end.+0000000"),
            format!("~{e}-1-gone"),
            format!("~{e}-1-closed-closed"),
            "~uppercase-1".into(),
            "~KKKKKKKK-1".into(),
        ];
        for id in bad {
            assert_eq!(NativeId::parse(&id), None, "{id}");
        }
    }
}
