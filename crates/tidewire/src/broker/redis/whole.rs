//! Batches are shown whole: what has come of one waits for the rest.

use super::entry::{Entry, What};

/// Bytes of a batch that is not whole yet, beyond which it is shown in parts. Stops what somebody else wrote from filling the
/// memory.
const BEGUN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events that are put into the log under one lock, so that readers come in between.
const LOCKED_MAX: usize = 256;

/// The first events of a batch whose others have not come yet.
#[derive(Debug, Default)]
pub(super) struct Begun {
    entries: Vec<Entry>,
    /// How many belong to it.
    wanted: usize,
    bytes: usize,
}

impl Begun {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What can be shown now, in order: whole batches. Nothing new says that nothing follows: a batch is added at once.
    pub(super) fn add(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut whole = Vec::with_capacity(entries.len());
        if entries.is_empty() {
            self.end(&mut whole);
        }
        for entry in entries {
            // What belongs to a batch follows it at once. Anything else says that somebody else wrote its beginning.
            let follows = matches!(entry.what, What::Event(_, 0) | What::Malformed(_));
            if !follows {
                self.end(&mut whole);
            }
            if let What::Event(_, batch @ 2..) = entry.what {
                self.wanted = batch;
            }
            if self.wanted == 0 {
                whole.push(entry);
                continue;
            }
            self.bytes += entry.bytes;
            self.entries.push(entry);
            if self.entries.len() >= self.wanted || self.bytes > BEGUN_BYTES_MAX {
                self.end(&mut whole);
            }
        }
        whole
    }

    fn end(&mut self, whole: &mut Vec<Entry>) {
        whole.append(&mut self.entries);
        (self.wanted, self.bytes) = (0, 0);
    }
}

/// Up to where entries go into the log together: a portion, and what belongs to the batches in it.
pub(super) fn end_of_portion(entries: &[Entry], from: usize) -> usize {
    let mut until = from;
    while until < entries.len() && until - from < LOCKED_MAX {
        let batch = match entries[until].what {
            What::Event(_, batch) => batch.max(1),
            _ => 1,
        };
        until = until.saturating_add(batch);
    }
    until.min(entries.len())
}

#[cfg(test)]
mod tests {
    use tidewire_core::id::Offset;

    use super::*;
    use crate::broker::Publication;

    fn entry(minor: u64, batch: usize) -> Entry {
        let event = Publication::new(["a"], "x").expect("valid");
        Entry {
            offset: Offset { major: 1, minor },
            what: What::Event(event, batch),
            bytes: 1,
        }
    }

    /// The places of what can be shown, of entries with these numbers.
    fn add(begun: &mut Begun, from: u64, batches: &[usize]) -> Vec<u64> {
        let entries = (from..).zip(batches).map(|(n, batch)| entry(n, *batch));
        let whole = begun.add(entries.collect());
        whole.iter().map(|entry| entry.offset.minor).collect()
    }

    #[test]
    fn a_batch_waits_for_its_rest() {
        let mut begun = Begun::default();
        assert_eq!(add(&mut begun, 0, &[1, 4, 0]), [0]);
        assert_eq!(add(&mut begun, 3, &[0]), [0; 0]);
        assert!(!begun.is_empty());
        assert_eq!(add(&mut begun, 4, &[0, 1, 2]), [1, 2, 3, 4, 5]);
        assert_eq!(add(&mut begun, 7, &[0]), [6, 7]);
        assert!(begun.is_empty());
    }

    #[test]
    fn what_only_says_that_it_is_a_batch_holds_nothing_up() {
        let mut begun = Begun::default();
        assert_eq!(add(&mut begun, 0, &[usize::MAX, 1]), [0, 1]);
        assert_eq!(add(&mut begun, 2, &[9, 3, 0, 0]), [2, 3, 4, 5]);
        assert_eq!(add(&mut begun, 6, &[9, 0]), [0; 0]);
        assert_eq!(add(&mut begun, 8, &[]), [6, 7], "nothing follows");
        // The rest of a batch whose beginning is gone.
        assert_eq!(add(&mut begun, 8, &[0, 0, 1]), [8, 9, 10]);
        let mut large = entry(11, 3);
        large.bytes = BEGUN_BYTES_MAX + 1;
        assert_eq!(begun.add(vec![large]).len(), 1);
    }

    #[test]
    fn a_portion_ends_between_batches() {
        let mut entries: Vec<_> = (0..LOCKED_MAX as u64 - 1).map(|n| entry(n, 1)).collect();
        entries.push(entry(255, 3));
        entries.extend([entry(256, 0), entry(257, 0), entry(258, 1)]);
        assert_eq!(end_of_portion(&entries, 0), LOCKED_MAX + 2);
        assert_eq!(end_of_portion(&entries, LOCKED_MAX + 2), entries.len());
    }
}
