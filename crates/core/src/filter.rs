//! Filters: what subscriptions read. Equal filters are interned, so that a connection costs a key, and a topic knows
//! the filters that contain it rather than the connections.

use std::collections::HashMap;

use slab::Slab;

use crate::coalesce::Touched;
use crate::dialect::Dialect;
use crate::log::{EVERYONE, Log, PatternKey, TopicKey};
use crate::pattern::Pattern;
use crate::topic::Topic;

/// A filter's place in the log's table. Valid while it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterKey(u32);

impl FilterKey {
    /// The place as an index: small, and used again once the filter is released.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a client asked to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Topics by name.
    pub topics: Vec<Topic>,
    /// Topics by pattern.
    pub patterns: Vec<Pattern>,
    /// Topics whose private events are read too, as far as the filter reads them; `None` for all that it reads.
    pub private: Option<Vec<Pattern>>,
    /// Whether each event is preceded by a `topic:` line for every matching topic.
    pub topic_lines: bool,
    /// How the hub says what no publisher has said; `None` for its own form.
    pub dialect: Option<&'static Dialect>,
}

/// A spec in terms of the log's tables, sorted and without repetition: what makes two filters equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    /// Always has [`EVERYONE`] in front.
    pub(crate) topics: Box<[TopicKey]>,
    pub(crate) patterns: Box<[PatternKey]>,
    pub(crate) private: Option<Box<[Pattern]>>,
    pub(crate) topic_lines: bool,
    pub(crate) dialect: Option<&'static Dialect>,
}

#[derive(Debug)]
struct Interned {
    filter: Filter,
    /// Subscriptions that hold the filter.
    holds: u32,
    /// How long its readers may wait for news, in milliseconds.
    window_ms: u32,
    /// The round in which the filter was last reported as touched.
    round: u64,
}

/// All filters in use.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    interned: Slab<Interned>,
    keys: HashMap<Filter, FilterKey>,
    round: u64,
}

impl Filters {
    pub(crate) fn len(&self) -> usize {
        self.interned.len()
    }

    pub(crate) fn get(&self, key: FilterKey) -> &Filter {
        &self.interned[key.index()].filter
    }

    /// How many subscriptions hold a filter.
    pub(crate) fn holds(&self, key: FilterKey) -> u32 {
        self.interned[key.index()].holds
    }

    /// Starts a round of [`report`](Self::report).
    pub(crate) fn start_round(&mut self) {
        self.round += 1;
    }

    /// Adds those of the filters that were not reported in this round yet.
    pub(crate) fn report(&mut self, keys: &[FilterKey], urgent: bool, out: &mut Vec<Touched>) {
        for &filter in keys {
            let interned = &mut self.interned[filter.index()];
            if interned.round != self.round {
                interned.round = self.round;
                let window_ms = if urgent { 0 } else { interned.window_ms };
                out.push(Touched { filter, window_ms });
            }
        }
    }
}

impl FilterSpec {
    /// Whether an event of these topics is read.
    pub fn matches<'a>(&self, topics: impl IntoIterator<Item = &'a str>, private: bool) -> bool {
        let mut topics = topics.into_iter();
        topics.any(|name| self.reads(name) && (!private || self.reads_private(name)))
    }

    /// Whether a topic is read.
    pub fn reads(&self, name: &str) -> bool {
        self.topics.iter().any(|topic| topic.as_str() == name)
            || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    fn reads_private(&self, name: &str) -> bool {
        let private = self.private.as_ref();
        private.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name)))
    }
}

impl Log {
    /// Holds the filter for a spec; to be given back with [`release_filter`](Self::release_filter).
    pub fn acquire_filter(&mut self, spec: &FilterSpec) -> FilterKey {
        let mut topics = vec![EVERYONE];
        topics.extend(
            spec.topics
                .iter()
                .map(|topic| self.topic_key(topic.as_str())),
        );
        topics.sort_unstable();
        topics.dedup();
        let mut patterns: Vec<_> = spec
            .patterns
            .iter()
            .map(|pattern| self.pattern_key(pattern))
            .collect();
        patterns.sort_unstable();
        patterns.dedup();
        let private = spec.private.clone().map(|mut patterns| {
            patterns.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
            patterns.dedup();
            patterns.into_boxed_slice()
        });
        let filter = Filter {
            topics: topics.into(),
            patterns: patterns.into(),
            private,
            topic_lines: spec.topic_lines,
            dialect: spec.dialect,
        };

        if let Some(&key) = self.filters.keys.get(&filter) {
            self.filters.interned[key.index()].holds += 1;
            return key;
        }
        let key = FilterKey(self.filters.interned.insert(Interned {
            window_ms: self.window_ms_of(&filter),
            filter: filter.clone(),
            holds: 1,
            round: 0,
        }) as u32);
        for &topic in &filter.topics {
            let filters = &mut self.topic_mut(topic).chain.filters;
            filters.push(key);
            if filters.len() == 1 {
                self.note_first_reader(topic);
            }
        }
        for &pattern in &filter.patterns {
            self.pattern_mut(pattern).chain.filters.push(key);
        }
        self.filters.keys.insert(filter, key);
        key
    }

    /// Whether an event that is private reaches the readers of a filter, one of which has the topic `own`.
    pub(crate) fn may_be_read(
        &self,
        key: FilterKey,
        own: Option<TopicKey>,
        topics: &[TopicKey],
    ) -> bool {
        let filter = self.filters.get(key);
        let Some(private) = &filter.private else {
            return true;
        };
        let reads = |topic: &TopicKey, name: &str| {
            let patterns = &filter.patterns;
            filter.topics.binary_search(topic).is_ok()
                || patterns
                    .iter()
                    .any(|key| self.pattern(*key).pattern.matches(name))
        };
        topics.iter().any(|topic| {
            let name = self.topic(*topic).name();
            let covered =
                || private.iter().any(|pattern| pattern.matches(name)) && reads(topic, name);
            *topic == EVERYONE || Some(*topic) == own || covered()
        })
    }

    /// The names of a filter's topics and patterns; `None` where the key is out of date.
    pub fn filter_names(&self, key: FilterKey) -> Option<(Vec<String>, Vec<String>)> {
        let filter = &self.filters.interned.get(key.index())?.filter;
        let topics = filter.topics[1..]
            .iter()
            .map(|key| self.topic(*key).name().to_owned());
        let patterns = filter
            .patterns
            .iter()
            .map(|key| self.pattern(*key).pattern.as_str().to_owned());
        Some((topics.collect(), patterns.collect()))
    }

    /// Gives a filter back. The last one to do so frees it, and the state of topics that had no other use.
    pub fn release_filter(&mut self, key: FilterKey) {
        let interned = &mut self.filters.interned[key.index()];
        interned.holds -= 1;
        if interned.holds > 0 {
            return;
        }
        let filter = self.filters.interned.remove(key.index()).filter;
        self.filters.keys.remove(&filter);
        let forget = |filters: &mut Vec<FilterKey>| {
            if let Some(at) = filters.iter().position(|other| *other == key) {
                filters.swap_remove(at);
            }
        };
        for &pattern in &filter.patterns {
            forget(&mut self.pattern_mut(pattern).chain.filters);
        }
        for &topic in &filter.topics {
            let filters = &mut self.topic_mut(topic).chain.filters;
            forget(filters);
            if filters.is_empty() {
                self.note_last_reader(topic);
            }
            self.free_if_unused(topic);
        }
    }

    /// Takes the filters that got an event since the last call, each once. Their subscriptions are to be polled.
    pub fn take_touched(&mut self, out: &mut Vec<Touched>) {
        self.filters.start_round();
        let mut topics = std::mem::take(&mut self.touched_topics);
        // Nobody waits for the end of a topic; so these come first, as a filter is reported once.
        let has_ended = |key: &TopicKey| {
            self.topics
                .get(key.0 as usize)
                .is_some_and(|t| t.end.is_some())
        };
        topics.sort_by_key(|key| !has_ended(key));
        for key in topics {
            if let Some(state) = self.topics.get_mut(key.0 as usize) {
                state.chain.touched = false;
                let urgent = state.end.is_some();
                self.filters.report(&state.chain.filters, urgent, out);
            }
        }
        for key in std::mem::take(&mut self.touched_patterns) {
            if let Some(state) = self.patterns.find_mut(key) {
                state.chain.touched = false;
                self.filters.report(&state.chain.filters, false, out);
            }
        }
    }

    /// Whether [`take_touched`](Self::take_touched) has something to give.
    pub fn has_touched(&self) -> bool {
        !self.touched_topics.is_empty() || !self.touched_patterns.is_empty()
    }
}
