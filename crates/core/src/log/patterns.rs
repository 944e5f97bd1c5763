//! The patterns that have readers, and which of them match a topic.
//!
//! A pattern is found by its literal prefix, so that a new topic costs as many look-ups as there are different
//! lengths of prefix, whatever the number of patterns.

use std::collections::{BTreeMap, HashMap};

use slab::Slab;

use super::Chain;
use super::store::Seq;
use crate::limits::UNUSED_PATTERN_KEPT_MS;
use crate::pattern::Pattern;

/// A pattern's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PatternKey(pub(crate) u32);

/// What the log knows of a pattern, while it has readers and a little longer.
#[derive(Debug)]
pub(crate) struct PatternState {
    pub(crate) pattern: Pattern,
    pub(crate) chain: Chain,
    /// The chain is complete from here on. It is extended backwards when a reader asks for older events.
    pub(crate) complete_from: Seq,
    unused_since_ms: Option<u64>,
}

/// All patterns.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    states: Slab<PatternState>,
    by_text: HashMap<Box<str>, PatternKey>,
    by_prefix: HashMap<Box<str>, Vec<PatternKey>>,
    /// How many prefixes there are of each length.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Changes with every pattern that comes or goes.
    version: u64,
}

impl Patterns {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: PatternKey) -> &PatternState {
        &self.states[key.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, key: PatternKey) -> &mut PatternState {
        &mut self.states[key.0 as usize]
    }

    /// As [`get_mut`](Self::get_mut), for a key that may be out of date.
    pub(crate) fn find_mut(&mut self, key: PatternKey) -> Option<&mut PatternState> {
        self.states.get_mut(key.0 as usize)
    }

    /// The patterns that match a topic.
    pub(crate) fn matching(&self, topic: &str) -> Vec<PatternKey> {
        let mut matching = Vec::new();
        for &length in self
            .prefix_lengths
            .keys()
            .take_while(|&&length| length <= topic.len())
        {
            let Some(prefix) = topic.get(..length) else {
                continue;
            };
            let candidates = self.by_prefix.get(prefix).map_or(&[][..], Vec::as_slice);
            matching.extend(
                candidates
                    .iter()
                    .filter(|key| self.get(**key).pattern.matches(topic)),
            );
        }
        matching
    }

    /// The pattern's key; `next` is the sequence number that the next event gets.
    pub(crate) fn key_of(&mut self, pattern: &Pattern, next: Seq) -> PatternKey {
        if let Some(&key) = self.by_text.get(pattern.as_str()) {
            return key;
        }
        let state = PatternState {
            pattern: pattern.clone(),
            chain: Chain::default(),
            complete_from: next,
            unused_since_ms: None,
        };
        let key = PatternKey(self.states.insert(state) as u32);
        let prefix = pattern.literal_prefix();
        self.by_text.insert(pattern.as_str().into(), key);
        let keys = self.by_prefix.entry(prefix.into()).or_default();
        if keys.is_empty() {
            *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
        }
        keys.push(key);
        self.version += 1;
        key
    }

    /// Forgets patterns that had no readers for a while. Answers by how many bytes the index shrank.
    pub(crate) fn expire(&mut self, now_ms: u64) -> usize {
        let mut unused = Vec::new();
        for (key, state) in &mut self.states {
            if !state.chain.filters.is_empty() {
                state.unused_since_ms = None;
            } else if now_ms.saturating_sub(*state.unused_since_ms.get_or_insert(now_ms))
                >= UNUSED_PATTERN_KEPT_MS
            {
                unused.push(PatternKey(key as u32));
            }
        }
        unused.into_iter().map(|key| self.remove(key)).sum()
    }

    fn remove(&mut self, key: PatternKey) -> usize {
        let state = self.states.remove(key.0 as usize);
        let prefix = state.pattern.literal_prefix();
        self.by_text.remove(state.pattern.as_str());
        if let Some(keys) = self.by_prefix.get_mut(prefix) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_prefix.remove(prefix);
                if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&prefix.len());
                    }
                }
            }
        }
        self.version += 1;
        state.chain.seqs.len() * size_of::<Seq>()
    }
}
