//! What one poll of a subscription gathers: bytes to write, and what they are, so that it is known what went out when
//! only some of them did.

use crate::id::Offset;
use crate::log::{Log, Seq, TopicKey};

/// What one poll gathered. Made to be used again, also by other subscriptions.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// Of these bytes so many are the control frames, at `control_at`.
    pub(crate) control_len: usize,
    pub(crate) control_at: usize,
    /// Where each event ends, and the position behind it.
    pub(crate) ends: Vec<(usize, Seq, Offset)>,
    /// Bytes of the last event that did not fit.
    pub(crate) cut: Option<(Seq, usize)>,
    pub(crate) cursors: Vec<Cursor>,
    pub(crate) gap: bool,
    pub(crate) end: bool,
    /// Whether more was to be had than there was room for.
    pub(crate) full: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) chain: ChainKey,
    pub(crate) index: usize,
    /// The sequence number at `index`.
    pub(crate) seq: Seq,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ChainKey {
    Topic(TopicKey),
    Pattern(crate::log::PatternKey),
}

impl Batch {
    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the event begins and ends that has the byte at `n`, if it ends in the batch.
    pub fn event_at(&self, n: usize) -> Option<std::ops::Range<usize>> {
        let index = self.ends.partition_point(|&(end, ..)| end <= n);
        let mut start = index.checked_sub(1).map_or(0, |before| self.ends[before].0);
        if self.control_len > 0 && self.control_at == start {
            start += self.control_len;
        }
        let end = self.ends.get(index)?.0;
        (start..end).contains(&n).then_some(start..end)
    }

    /// How many bytes come before an event that did not fit whole.
    pub fn whole_len(&self) -> usize {
        let events = self.ends.last().map_or(0, |&(end, ..)| end);
        if self.cut.is_some() {
            events
        } else {
            self.bytes.len()
        }
    }

    /// Whether there was more than there was room for.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether the final event of a topic is in the batch: a subscription may have ended with it.
    pub fn has_end(&self) -> bool {
        self.end
    }

    /// Whether this poll found that the client had lost events, and told it so. One that was not told yet of an earlier
    /// loss is told of both at once.
    pub fn has_new_gap(&self) -> bool {
        self.gap
    }

    pub(crate) fn clear(&mut self) {
        self.gap = false;
        self.end = false;
        self.full = false;
        self.bytes.clear();
        self.ends.clear();
        self.cut = None;
        self.control_len = 0;
        self.control_at = 0;
    }

    /// Moves the cursors that stand at `seq` to their next event.
    pub(crate) fn advance_past(&mut self, log: &Log, seq: Seq) {
        self.cursors.retain_mut(|cursor| {
            if cursor.seq != seq {
                return true;
            }
            cursor.index += 1;
            match log.chain(cursor.chain).seqs.get(cursor.index) {
                Some(&next) => {
                    cursor.seq = next;
                    true
                }
                None => false,
            }
        });
    }
}
