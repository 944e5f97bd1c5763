//! Coalescing: how long readers may wait for news, so that what comes meanwhile is one write for each of them.
//!
//! A window belongs to a filter, as its readers are woken together. It begins with the first event that they lack, so
//! that no event waits longer than the window.

use crate::filter::{Filter, FilterKey};
use crate::log::Log;
use crate::pattern::Pattern;

/// Lets the readers of some topics wait. For one topic or pattern the first rule that covers it counts.
#[derive(Clone, Debug)]
pub struct CoalesceRule {
    /// The topics meant.
    pub pattern: Pattern,
    /// How long an event may wait, in milliseconds; 0 for not at all.
    pub window_ms: u32,
}

/// A filter whose subscriptions are to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The filter.
    pub filter: FilterKey,
    /// How long its readers may wait, in milliseconds; 0 for not at all.
    pub window_ms: u32,
}

impl Log {
    /// Sets the rules for filters that are acquired from now on.
    #[must_use]
    pub fn with_coalescing(mut self, rules: Vec<CoalesceRule>) -> Self {
        self.coalescing = rules;
        self
    }

    /// How long a filter's readers may wait: as short as for the most urgent of the names. A name that no rule covers
    /// doesn't wait, and neither does a filter without names.
    pub(crate) fn window_ms_of(&self, filter: &Filter) -> u32 {
        let window_ms = |covers: &dyn Fn(&Pattern) -> bool| {
            let rule = self.coalescing.iter().find(|rule| covers(&rule.pattern));
            rule.map_or(0, |rule| rule.window_ms)
        };
        let topics = filter.topics[1..].iter().map(|key| {
            let topic = self.topic(*key).name();
            window_ms(&|rule| rule.matches(topic))
        });
        let patterns = filter.patterns.iter().map(|key| {
            let pattern = &self.pattern(*key).pattern;
            window_ms(&|rule| rule.covers(pattern))
        });
        topics.chain(patterns).min().unwrap_or(0)
    }
}
