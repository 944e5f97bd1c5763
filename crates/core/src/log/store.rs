//! Where the log's bytes and entries lie: two queues cut into blocks, so that trimming gives memory back in pieces
//! and growth never copies what is there.

use std::collections::VecDeque;

use super::TopicKey;
use crate::id::Offset;
use crate::limits::SEGMENT_BYTES;

/// Entries per block.
const BLOCK: usize = 1_024;

/// A local sequence number: the place of an entry in this node's log. Counts from 1 and never repeats.
pub(crate) type Seq = u64;

/// The topics that an event was published to; nearly always one.
#[derive(Debug)]
pub(crate) enum Topics {
    One(TopicKey),
    Many(Box<[TopicKey]>),
}

impl Topics {
    pub(crate) fn as_slice(&self) -> &[TopicKey] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

/// What kind of event an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Stored and replayed.
    Stored,
    /// Stored, with an id that the publisher chose.
    StoredWithOwnId,
    /// The final event of its topic; stored.
    End,
    /// Delivered to whoever is connected, without an id, never replayed.
    Transient,
}

/// One event in the log: where its bytes are and what it takes to filter it.
#[derive(Debug)]
pub(crate) struct Entry {
    segment: u32,
    start: u32,
    len: u32,
    pub(crate) kind: Kind,
    /// Whether only those get it whose filter says so.
    pub(crate) private: bool,
    /// Milliseconds since the Unix epoch, never less than the entry's before.
    pub(crate) at_ms: u64,
    /// The broker's offset; for a transient entry that of the stored one before it.
    pub(crate) offset: Offset,
    pub(crate) topics: Topics,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    entries: u32,
}

/// The entries and their encoded bytes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Store {
    blocks: VecDeque<VecDeque<Entry>>,
    /// The sequence number of the oldest entry held, or of the next one where none is.
    base: Seq,
    len: usize,
    segments: VecDeque<Segment>,
    first_segment: u32,
    spare: Option<Vec<u8>>,
    bytes: usize,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            base: 1,
            ..Self::default()
        }
    }

    /// The oldest sequence number held.
    pub(crate) fn base(&self) -> Seq {
        self.base
    }

    /// The sequence number that the next entry gets.
    pub(crate) fn next(&self) -> Seq {
        self.base + self.len as Seq
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Encoded bytes and entries held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.len * size_of::<Entry>()
    }

    pub(crate) fn get(&self, seq: Seq) -> Option<&Entry> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        let first = self.blocks.front()?.len();
        if index < first {
            return self.blocks[0].get(index);
        }
        let index = index - first;
        self.blocks.get(1 + index / BLOCK)?.get(index % BLOCK)
    }

    pub(crate) fn oldest(&self) -> Option<&Entry> {
        self.blocks.front()?.front()
    }

    /// The first sequence number whose entry does not satisfy `before`, which must hold for a prefix of the log.
    pub(crate) fn partition_point(&self, before: impl Fn(&Entry) -> bool) -> Seq {
        let (mut low, mut high) = (self.base, self.next());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(crate) fn bytes_of(&self, entry: &Entry) -> &[u8] {
        let segment = &self.segments[entry.segment.wrapping_sub(self.first_segment) as usize];
        &segment.bytes[entry.start as usize..(entry.start + entry.len) as usize]
    }

    /// Appends an entry whose bytes `encode` writes; `size_hint` is about how many those are.
    pub(crate) fn push(
        &mut self,
        (kind, private): (Kind, bool),
        at_ms: u64,
        offset: Offset,
        topics: Topics,
        size_hint: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Seq {
        let seq = self.next();
        self.make_room(size_hint);
        let segment_no = self
            .first_segment
            .wrapping_add(self.segments.len() as u32 - 1);
        let segment = self
            .segments
            .back_mut()
            .expect("make_room leaves a segment");
        let start = segment.bytes.len();
        encode(&mut segment.bytes);
        segment.entries += 1;
        let len = segment.bytes.len() - start;
        self.bytes += len;
        if self
            .blocks
            .back()
            .is_none_or(|block| block.len() == block.capacity())
        {
            // Only the oldest block is ever shorter than BLOCK: it loses entries at its front.
            self.blocks.push_back(VecDeque::with_capacity(BLOCK));
        }
        let entry = Entry {
            segment: segment_no,
            start: start as u32,
            len: len as u32,
            kind,
            private,
            at_ms,
            offset,
            topics,
        };
        self.blocks
            .back_mut()
            .expect("just pushed")
            .push_back(entry);
        self.len += 1;
        seq
    }

    fn make_room(&mut self, size_hint: usize) {
        let fits = |s: &Segment| s.bytes.len() + size_hint <= s.bytes.capacity();
        if !self.segments.back().is_some_and(fits) {
            let mut bytes = self.spare.take().unwrap_or_default();
            bytes.reserve(size_hint.max(SEGMENT_BYTES));
            self.segments.push_back(Segment { bytes, entries: 0 });
        }
    }

    /// Takes the oldest entry out.
    pub(crate) fn pop(&mut self) -> Option<(Seq, Entry)> {
        let block = self.blocks.front_mut()?;
        let entry = block.pop_front()?;
        if block.is_empty() {
            self.blocks.pop_front();
        }
        let seq = self.base;
        self.base += 1;
        self.len -= 1;
        self.bytes -= entry.len as usize;
        let segment = self
            .segments
            .front_mut()
            .expect("a held entry has its segment");
        segment.entries -= 1;
        if segment.entries == 0 {
            self.drop_segment();
        }
        Some((seq, entry))
    }

    fn drop_segment(&mut self) {
        if let Some(mut segment) = self.segments.pop_front() {
            self.first_segment = self.first_segment.wrapping_add(1);
            if segment.bytes.capacity() <= 2 * SEGMENT_BYTES {
                segment.bytes.clear();
                self.spare = Some(segment.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain queue: every entry that is held reads back, whatever was pushed and popped before.
        #[test]
        fn behaves_like_a_queue(steps in prop::collection::vec((any::<bool>(), 0usize..70_000), 1..200)) {
            let mut store = Store::new();
            let mut model: VecDeque<(Seq, usize, u8)> = VecDeque::new();
            for (push, size) in steps {
                if push {
                    for i in 0..40u8 {
                        let size = size / (1 + usize::from(i) * 40);
                        let topics = Topics::One(TopicKey(0));
                        let offset = Offset::counted(store.next());
                        let seq = store.push((Kind::Stored, false), 0, offset, topics, size / 2, |b| b.extend(vec![i; size]));
                        model.push_back((seq, size, i));
                    }
                } else {
                    for _ in 0..size % 100 {
                        prop_assert_eq!(store.pop().map(|(seq, _)| seq), model.pop_front().map(|(seq, ..)| seq));
                    }
                }
                prop_assert_eq!(store.len(), model.len());
                prop_assert_eq!(store.bytes, model.iter().map(|(_, size, _)| size).sum::<usize>());
                for &(seq, size, byte) in model.iter().step_by(17) {
                    let entry = store.get(seq).expect("held");
                    prop_assert_eq!(entry.offset.minor, seq);
                    prop_assert!(store.bytes_of(entry).iter().all(|&b| b == byte));
                    prop_assert_eq!(store.bytes_of(entry).len(), size);
                    prop_assert_eq!(store.partition_point(|e| e.offset.minor < seq), seq);
                }
                prop_assert!(store.get(store.next()).is_none());
                prop_assert!(store.base() == 0 || store.get(store.base() - 1).is_none());
            }
        }
    }
}
