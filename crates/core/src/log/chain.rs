//! A chain: the sequence numbers of the events of one topic or pattern, so that reading through a filter never
//! scans the log.

use std::collections::VecDeque;

use super::store::{Kind, Seq};
use crate::filter::FilterKey;

/// The events of one topic or pattern that are held, oldest first, and who reads them.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) seqs: VecDeque<Seq>,
    /// The newest stored event that was trimmed off this chain; 0 for none.
    trimmed: Seq,
    /// The newest transient event that was trimmed off this chain; 0 for none.
    trimmed_transient: Seq,
    /// The filters that contain this chain.
    pub(crate) filters: Vec<FilterKey>,
    /// Whether the chain stands in the log's list of touched chains already.
    pub(crate) touched: bool,
}

impl Chain {
    /// Whether an event of this chain at or after `next` was trimmed. Transient events before `live_from` don't count:
    /// they were not meant for this reader.
    pub(crate) fn lost_since(&self, next: Seq, live_from: Seq) -> bool {
        self.trimmed >= next || self.trimmed_transient >= next.max(live_from)
    }

    /// Appends an event. Answers by how many bytes the index grew.
    pub(crate) fn push(&mut self, seq: Seq) -> usize {
        self.seqs.push_back(seq);
        size_of::<Seq>()
    }

    /// Adds older events. Answers by how many bytes the index grew.
    pub(crate) fn prepend(&mut self, older: &[Seq]) -> usize {
        for &seq in older.iter().rev() {
            self.seqs.push_front(seq);
        }
        size_of_val(older)
    }

    /// Notes that there is news for the readers; true if that was not noted yet.
    pub(crate) fn touch(&mut self) -> bool {
        !self.filters.is_empty() && !std::mem::replace(&mut self.touched, true)
    }

    /// The index of the first event at or after `seq`. Readers are mostly near the end, so the search starts there.
    pub(crate) fn lower_bound(&self, seq: Seq) -> usize {
        let len = self.seqs.len();
        let mut step = 1;
        while step <= len && self.seqs[len - step] >= seq {
            step *= 2;
        }
        // What lies at `low - 1` is smaller than `seq`; what lies at `high` is not.
        let (mut low, mut high) = (len.saturating_sub(step), len - step / 2);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.seqs[middle] < seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Drops the log's oldest event, if the chain has it. Answers by how many bytes the index shrank.
    pub(crate) fn trim(&mut self, seq: Seq, kind: Kind) -> usize {
        if self.seqs.front() != Some(&seq) {
            return 0;
        }
        self.seqs.pop_front();
        match kind {
            Kind::Transient => self.trimmed_transient = seq,
            Kind::Stored | Kind::StoredWithOwnId | Kind::End => self.trimmed = seq,
        }
        // A topic that was busy once shall not keep its peak for ever.
        if self.seqs.capacity() > 64 && self.seqs.len() < self.seqs.capacity() / 8 {
            self.seqs.shrink_to(self.seqs.capacity() / 4);
        }
        size_of::<Seq>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lower_bound_finds_the_first_at_or_after(gaps in prop::collection::vec(1u64..5, 0..300), wanted in 0u64..1_500) {
            let seqs: VecDeque<Seq> =
                gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let expected = seqs.iter().take_while(|&&seq| seq < wanted).count();
            let chain = Chain { seqs, ..Chain::default() };
            prop_assert_eq!(chain.lower_bound(wanted), expected);
        }
    }
}
