//! How long history is kept, and the memory of what no longer is.

use crate::id::{Offset, topic_hash_64};
use crate::limits::TRIM_TABLE_SLOTS;
use crate::pattern::Pattern;

/// How much history the log keeps.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Age at which an event leaves the log, in milliseconds.
    pub ttl_ms: u64,
    /// Memory that the log may use, in bytes: encoded events, their index and the state of topics without subscribers.
    pub memory_bytes: usize,
    /// Rules that give some topics a shorter history; for one topic the first that matches counts.
    pub rules: Vec<RetentionRule>,
}

impl Default for Retention {
    /// Ten minutes, 64 MiB, no rules.
    fn default() -> Self {
        Self {
            ttl_ms: 10 * 60 * 1_000,
            memory_bytes: 64 * 1024 * 1024,
            rules: Vec::new(),
        }
    }
}

/// A shorter history for the topics that match a pattern. It counts when a client subscribes or resumes, never
/// against one that is connected.
#[derive(Clone, Debug)]
pub struct RetentionRule {
    /// The topics meant.
    pub pattern: Pattern,
    /// Events older than this are no history, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Only so many of a topic's newest events are history.
    pub events_max: Option<usize>,
}

impl Retention {
    /// The rule for a topic.
    pub(crate) fn rule_for_topic(&self, topic: &str) -> Option<&RetentionRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(topic))
    }

    /// The rule for a whole pattern: only one that is sure to be meant for all of its topics.
    pub(crate) fn rule_for_pattern(&self, pattern: &Pattern) -> Option<&RetentionRule> {
        self.rules.iter().find(|rule| rule.pattern.covers(pattern))
    }
}

/// The newest stored event that was trimmed, of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) offset: Offset,
    pub(crate) at_ms: u64,
}

impl Mark {
    pub(crate) fn raise(&mut self, to: Self) {
        if to.offset > self.offset {
            *self = to;
        }
    }
}

/// Remembers, in a fixed size, up to where each topic was trimmed.
///
/// Topics whose hashes meet share a slot, so a mark may be too new: a resuming client is then told of a gap that
/// there was not. It is never too old: a lost event is never silent.
#[derive(Debug)]
pub(crate) struct TrimTable {
    slots: Box<[Mark]>,
    /// One mark for everything, as used by patterns.
    all: Mark,
}

impl TrimTable {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Mark::default(); TRIM_TABLE_SLOTS].into_boxed_slice(),
            all: Mark::default(),
        }
    }

    pub(crate) fn record(&mut self, topic: &str, mark: Mark) {
        self.slots[Self::slot(topic)].raise(mark);
        self.all.raise(mark);
    }

    /// Raises the mark of everything.
    pub(crate) fn raise_all(&mut self, mark: Mark) {
        for slot in &mut self.slots {
            slot.raise(mark);
        }
        self.all.raise(mark);
    }

    pub(crate) fn topic(&self, topic: &str) -> Mark {
        self.slots[Self::slot(topic)]
    }

    pub(crate) fn all(&self) -> Mark {
        self.all
    }

    fn slot(topic: &str) -> usize {
        topic_hash_64(topic) as usize % TRIM_TABLE_SLOTS
    }
}
