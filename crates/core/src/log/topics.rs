//! What the log knows of one topic.

use super::{Chain, PatternKey, Patterns, Seq};

/// What the log knows of a topic, while it has an event or a reader.
#[derive(Debug)]
pub(crate) struct TopicState {
    /// `topic: {name}\n`, written before an event for those who asked for `fields=topic`; the name is read off it.
    line: Box<str>,
    pub(crate) chain: Chain,
    /// The patterns with readers that match, as of `patterns_version`.
    pub(super) patterns: Vec<PatternKey>,
    patterns_version: u64,
    /// The topic's final event, while that is held and nothing came after it.
    pub(crate) end: Option<Seq>,
    /// Readers that hold this topic beside filters: a connection's own topic.
    pub(super) holds: u32,
}

const LINE_START: &str = "topic: ";

/// What a topic costs beside its state and its name: a place in the table of names, the first piece of its chain, and
/// the allocator's rounding of each. Measured with a million topics.
const TOPIC_OVERHEAD_BYTES: usize = 200;

impl TopicState {
    pub(super) fn new(name: &str) -> Self {
        Self {
            line: format!("{LINE_START}{name}\n").into(),
            chain: Chain::default(),
            patterns: Vec::new(),
            patterns_version: 0,
            end: None,
            holds: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.line[LINE_START.len()..self.line.len() - 1]
    }

    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Sees to it that `patterns` is up to date.
    pub(super) fn refresh_patterns(&mut self, patterns: &Patterns) {
        if self.patterns_version != patterns.version() && !self.name().is_empty() {
            self.patterns_version = patterns.version();
            self.patterns = patterns.matching(self.name());
        }
    }

    /// About what the state of a topic without readers costs, in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + 2 * self.line.len() + TOPIC_OVERHEAD_BYTES
    }
}
