//! The model: every event ever published, as a plain list. It knows what is held only from how many events the log
//! says it holds; all else it works out by looking at the whole list.

use std::ops::Range;

use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{NativeId, Tombstone, topic_hash};
use tidewire_core::log::{Retention, RetentionRule};
use tidewire_core::pattern::Pattern;
use tidewire_core::topic::Topic;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stored,
    End,
    Transient,
}

/// An event as it was published.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// Empty for an event to everyone.
    pub(crate) topics: Vec<Topic>,
    pub(crate) id: Option<String>,
    pub(crate) own_id: bool,
    pub(crate) private: bool,
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) at_ms: u64,
    /// A transient event has that of the stored one before it.
    pub(crate) offset: u64,
}

/// Who reads: what it asked for, and the topic of its connection.
pub(crate) struct Reader<'a> {
    pub(crate) spec: &'a FilterSpec,
    pub(crate) own: &'a Topic,
}

impl Reader<'_> {
    pub(crate) fn asked_for(&self, topic: &Topic) -> bool {
        self.spec.topics.contains(topic)
            || self
                .spec
                .patterns
                .iter()
                .any(|pattern| pattern.matches(topic.as_str()))
    }

    /// Whether an event is in one of the topics that are read.
    pub(crate) fn reads(&self, record: &Record) -> bool {
        record.topics.is_empty()
            || record
                .topics
                .iter()
                .any(|topic| topic == self.own || self.asked_for(topic))
    }

    /// Whether an event is for this reader.
    pub(crate) fn matches(&self, record: &Record) -> bool {
        let (true, Some(private)) = (record.private, &self.spec.private) else {
            return self.reads(record);
        };
        let covered = |topic: &Topic| private.iter().any(|right| right.matches(topic.as_str()));
        record.topics.is_empty()
            || record
                .topics
                .iter()
                .any(|topic| topic == self.own || (self.asked_for(topic) && covered(topic)))
    }
}

pub(crate) struct Model {
    pub(crate) records: Vec<Record>,
    /// So many of the oldest are no longer held.
    pub(crate) trimmed: usize,
    pub(crate) retention: Retention,
}

impl Model {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            records: Vec::new(),
            trimmed: 0,
            retention,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn held(&self) -> &[Record] {
        &self.records[self.trimmed..]
    }

    /// The place right behind the stored event at an offset, or behind the last before that.
    pub(crate) fn place_after(&self, offset: u64) -> usize {
        let is_before = |r: &Record| r.kind != Kind::Transient && r.offset <= offset;
        self.records
            .iter()
            .rposition(is_before)
            .map_or(0, |at| at + 1)
    }

    /// The place of the first event with an offset beyond this one.
    pub(crate) fn place_beyond(&self, offset: u64) -> usize {
        self.records.partition_point(|r| r.offset <= offset)
    }

    /// Whether a stored event in a range is in a reader's topics. Nobody knows any more whether one that is lost was
    /// private.
    pub(crate) fn has_stored(&self, reader: &Reader, range: Range<usize>) -> bool {
        let mut records = self.records.get(range).unwrap_or_default().iter();
        records.any(|r| r.kind != Kind::Transient && reader.reads(r))
    }

    /// Where a topic's end is, while it is closed.
    pub(crate) fn end_of(&self, topic: &Topic, now_ms: u64) -> Option<usize> {
        let at = self
            .records
            .iter()
            .rposition(|r| r.kind != Kind::Transient && r.topics.contains(topic))?;
        let last = &self.records[at];
        let rule = self.rule(|pattern| pattern.matches(topic.as_str()));
        let is_history = last.at_ms + self.ttl_ms(rule) >= now_ms;
        (last.kind == Kind::End && at >= self.trimmed && is_history).then_some(at)
    }

    /// Where all topics of a reader are closed, the last of their ends.
    pub(crate) fn last_end(&self, spec: &FilterSpec, now_ms: u64) -> Option<usize> {
        if !spec.patterns.is_empty() {
            return None;
        }
        let ends = spec.topics.iter().map(|topic| self.end_of(topic, now_ms));
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Whether a stream with this last id is over for good.
    pub(crate) fn is_over(
        &self,
        spec: &FilterSpec,
        id: NativeId,
        epoch: &str,
        now_ms: u64,
    ) -> bool {
        let Some(Tombstone::End(hash)) = id.tombstone else {
            return id.tombstone.is_some();
        };
        let has_ended = |topic: &Topic| {
            let seen = |end: usize| {
                id.epoch.as_str() == epoch && self.records[end].offset <= id.offset.minor
            };
            topic_hash(topic.as_str()) == hash || self.end_of(topic, now_ms).is_some_and(seen)
        };
        spec.patterns.is_empty() && !spec.topics.is_empty() && spec.topics.iter().all(has_ended)
    }

    fn rule(&self, is_meant: impl Fn(&Pattern) -> bool) -> Option<&RetentionRule> {
        self.retention
            .rules
            .iter()
            .find(|rule| is_meant(&rule.pattern))
    }

    fn ttl_ms(&self, rule: Option<&RetentionRule>) -> u64 {
        let ttl_ms = rule.and_then(|rule| rule.ttl_ms).unwrap_or(u64::MAX);
        ttl_ms.min(self.retention.ttl_ms)
    }

    /// Where the history of a filter begins: the longest of its topics' and patterns'.
    pub(crate) fn history_start(&self, spec: &FilterSpec, now_ms: u64) -> usize {
        let by_age = |rule: Option<&RetentionRule>| {
            let horizon = now_ms.saturating_sub(self.ttl_ms(rule));
            let young = self.records.partition_point(|r| r.at_ms < horizon);
            young.max(self.trimmed)
        };
        let of_topic = |topic: &Topic| {
            let rule = self.rule(|pattern| pattern.matches(topic.as_str()));
            let newest = rule.and_then(|rule| rule.events_max);
            by_age(rule).max(newest.map_or(0, |newest| self.start_of_newest(topic, newest)))
        };
        let of_pattern = |pattern: &Pattern| by_age(self.rule(|rule| rule.covers(pattern)));
        let topics = spec.topics.iter().map(of_topic);
        let starts = topics.chain(spec.patterns.iter().map(of_pattern));
        starts.min().unwrap_or(self.trimmed)
    }

    /// Where the newest so many stored events of a topic begin.
    fn start_of_newest(&self, topic: &Topic, newest: usize) -> usize {
        let is_of = |r: &Record| r.kind != Kind::Transient && r.topics.contains(topic);
        let places = (self.trimmed..self.len()).filter(|at| is_of(&self.records[*at]));
        let places: Vec<_> = places.collect();
        match places.len().checked_sub(newest) {
            Some(skipped) if skipped > 0 => places.get(skipped).copied().unwrap_or(self.len()),
            _ => 0,
        }
    }
}
