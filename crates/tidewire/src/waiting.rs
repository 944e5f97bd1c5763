//! Filters whose readers wait for more events before they are woken.

use std::collections::{BTreeSet, HashMap};

use tidewire_core::filter::FilterKey;

use crate::clock::Moment;

/// Each filter at most once, by the moment at which its readers have waited long enough.
#[derive(Default)]
pub(crate) struct Waiting {
    by_moment: BTreeSet<(Moment, FilterKey)>,
    until: HashMap<FilterKey, Moment>,
}

impl Waiting {
    /// Lets a filter's readers wait, unless they do already. The key may stand for another filter than it did when it
    /// was added: then the shorter wait counts, so that nobody waits longer than they may.
    pub(crate) fn add(&mut self, filter: FilterKey, until: Moment) {
        let present = self.until.get(&filter).copied();
        if present.is_some_and(|present| present <= until) {
            return;
        }
        if let Some(later) = self.until.insert(filter, until) {
            self.by_moment.remove(&(later, filter));
        }
        self.by_moment.insert((until, filter));
    }

    /// When the next ones have waited long enough.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.by_moment.first().map(|(until, _)| *until)
    }

    /// Takes those that have waited long enough.
    pub(crate) fn take_due(&mut self, now: Moment, out: &mut Vec<FilterKey>) {
        while let Some(&(until, filter)) = self.by_moment.first()
            && until <= now
        {
            self.by_moment.pop_first();
            self.until.remove(&filter);
            out.push(filter);
        }
    }
}
