//! Where a subscription starts: live, in the past, or after the last event that the client has seen.

use crate::filter::FilterKey;
use crate::id::{NativeId, Offset, Tombstone, topic_hash};
use crate::log::{Chain, Kind, Log, Mark, PatternKey, Seq, TopicKey};
use crate::pattern::Pattern;
use crate::subscription::{GapReason, SlowClient, Subscription};

/// Where a client wants to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    #[default]
    Live,
    /// With the oldest event in history.
    Earliest,
    /// With the first event published at or after this time, in milliseconds since the Unix epoch.
    Since(u64),
    /// After the event with this id, as sent in `Last-Event-ID`.
    After(String),
}

/// What came of a wish to subscribe.
#[derive(Debug)]
pub enum Subscribed {
    /// The stream can begin.
    Stream {
        /// Its position, with a `gap` queued where events are missing.
        subscription: Subscription,
        /// The id of the place where it begins. Where `gap` is set it is not to be told in a header: a client that
        /// resumed from it, having lost the connection before the `gap` event came, would never learn of the gap.
        starts_after: NativeId,
        /// Set where the client will be told that events are missing.
        gap: Option<GapReason>,
        /// Where what is missing begins, if it is only that the log has it no more, or not yet: the broker's store may have it.
        /// What a rule of retention hides is missing for good.
        older_after: Option<Offset>,
    },
    /// The stream that the client wants to resume is over for good: HTTP 204.
    Over,
}

/// A place found in the log, and whether anything is missing before it.
#[derive(Default)]
struct Place {
    next: Seq,
    gap: Option<GapReason>,
    older_after: Option<Offset>,
}

impl Log {
    /// Starts to read through a filter that the caller holds.
    pub fn subscribe(
        &mut self,
        filter: FilterKey,
        start: &Start,
        slow_client: SlowClient,
        now_ms: u64,
    ) -> Subscribed {
        if *start != Start::Live {
            self.complete_patterns(filter);
        }
        let native = match start {
            Start::After(id) => NativeId::parse(id),
            _ => None,
        };
        if let Some(tombstone) = native.and_then(|id| id.tombstone)
            && self.is_over(filter, native, tombstone, now_ms)
        {
            return Subscribed::Over;
        }
        let head = self.store.next();
        let Place {
            next,
            gap,
            older_after,
        } = match start {
            Start::Live => Place {
                next: head,
                ..Place::default()
            },
            Start::Earliest => Place {
                next: self.history_start(filter, now_ms),
                ..Place::default()
            },
            Start::Since(at_ms) => self.place_since(filter, *at_ms, now_ms),
            Start::After(id) => self.place_after(filter, id, native, now_ms),
        };
        let next = self
            .last_end(filter, now_ms)
            .map_or(next, |end| next.min(end));
        let offset = self.offset_before(next);
        let starts_after = self.id_at(offset);
        let mut subscription = Subscription::new(filter, slow_client, next, offset, head);
        if let Some(reason) = gap {
            let from = if let Start::After(id) = start {
                Some(id.as_str())
            } else {
                None
            };
            subscription.push_control(|out| {
                self.write_gap(out, filter, starts_after, from, reason, now_ms);
            });
        }
        Subscribed::Stream {
            subscription,
            starts_after,
            gap,
            older_after,
        }
    }

    /// Whether a client with a tombstone id has nothing more to expect.
    fn is_over(
        &self,
        filter: FilterKey,
        id: Option<NativeId>,
        tombstone: Tombstone,
        now_ms: u64,
    ) -> bool {
        let Tombstone::End(hash) = tombstone else {
            return true;
        };
        let filter = self.filters.get(filter);
        let mut topics = filter.topics[1..]
            .iter()
            .map(|key| self.topic(*key).name())
            .peekable();
        let seen =
            |end: NativeId| id.is_some_and(|id| id.epoch == end.epoch && end.offset <= id.offset);
        filter.patterns.is_empty()
            && topics.peek().is_some()
            && topics.all(|topic| {
                topic_hash(topic) == hash || self.end_of(topic, now_ms).is_some_and(seen)
            })
    }

    /// Where all topics of a filter have ended, the last of the ends: also a client that starts later is told.
    fn last_end(&self, filter: FilterKey, now_ms: u64) -> Option<Seq> {
        let filter = self.filters.get(filter);
        if !filter.patterns.is_empty() {
            return None;
        }
        let ends = filter.topics[1..].iter().map(|key| {
            let topic = self.topic(*key);
            topic.end.filter(|_| self.is_closed(topic.name(), now_ms))
        });
        ends.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn place_since(&self, filter: FilterKey, at_ms: u64, now_ms: u64) -> Place {
        let wanted = self.store.partition_point(|entry| entry.at_ms < at_ms);
        let lost = self.newest_lost(filter, |mark| mark.at_ms >= at_ms);
        let before = Offset {
            major: at_ms.saturating_sub(1),
            minor: u64::MAX,
        };
        let lost = lost.then_some(before);
        self.place_in_history(filter, wanted, lost, now_ms)
    }

    fn place_after(
        &self,
        filter: FilterKey,
        id: &str,
        native: Option<NativeId>,
        now_ms: u64,
    ) -> Place {
        let mut ahead = None;
        let known = match native {
            Some(id) if id.epoch == self.epoch() && id.offset <= self.head() => Some(id.offset),
            Some(id) if id.epoch == self.epoch() => {
                // Another node may have it already: the broker's store knows.
                ahead = Some(id.offset);
                None
            }
            Some(_) => None,
            None => self
                .own_id(id)
                .and_then(|seq| self.store.get(seq))
                .map(|entry| entry.offset),
        };
        let Some(offset) = known else {
            return Place {
                next: self.history_start(filter, now_ms),
                gap: Some(GapReason::UnknownId),
                older_after: ahead,
            };
        };
        let wanted = self.store.partition_point(|entry| entry.offset <= offset);
        let lost = self.newest_lost(filter, |mark| mark.offset > offset);
        let lost = lost.then_some(offset);
        self.place_in_history(filter, wanted, lost, now_ms)
    }

    /// A place, moved on to where the filter's history begins; what lies between is a gap if the filter matches it. `lost`
    /// is where events are missing that the log has no more.
    fn place_in_history(
        &self,
        filter: FilterKey,
        wanted: Seq,
        lost: Option<Offset>,
        now_ms: u64,
    ) -> Place {
        let start = self.history_start(filter, now_ms);
        let hidden = wanted < start && self.has_stored_between(filter, wanted, start);
        Place {
            next: wanted.max(start),
            gap: (lost.is_some() || hidden).then_some(GapReason::Expired),
            older_after: lost.filter(|_| !hidden && !self.has_rules(filter)),
        }
    }

    /// Whether a rule shortens the history of any of a filter's topics or patterns.
    fn has_rules(&self, filter: FilterKey) -> bool {
        let filter = self.filters.get(filter);
        let mut topics = filter.topics[1..].iter();
        let mut patterns = filter.patterns.iter();
        let retention = self.retention();
        topics.any(|key| retention.rule_for_topic(self.topic(*key).name()).is_some())
            || patterns.any(|key| {
                retention
                    .rule_for_pattern(self.pattern_text(*key))
                    .is_some()
            })
    }

    /// Whether the log still has every event that was stored after a place.
    pub fn holds_all_after(&self, offset: Offset) -> bool {
        self.trim_mark_of_all().offset <= offset
    }

    /// Whether any of the filter's marks of what was trimmed satisfies a condition.
    fn newest_lost(&self, filter: FilterKey, is_missed: impl Fn(Mark) -> bool) -> bool {
        let filter = self.filters.get(filter);
        let mut topics = filter.topics[1..].iter();
        // A mark that was never set is at time 0, which a client may ask for.
        let is_missed = |mark: Mark| mark.offset > Offset::ZERO && is_missed(mark);
        (!filter.patterns.is_empty() && is_missed(self.trim_mark_of_all()))
            || topics.any(|key| is_missed(self.trim_mark(self.topic(*key).name())))
    }

    /// Where the history of a filter begins: that of its topic or pattern with the longest one.
    fn history_start(&self, filter: FilterKey, now_ms: u64) -> Seq {
        let filter = self.filters.get(filter);
        let topics = filter.topics[1..]
            .iter()
            .map(|key| self.history_start_of_topic(*key, now_ms));
        let patterns = filter
            .patterns
            .iter()
            .map(|key| self.history_start_of_pattern(*key, now_ms));
        topics.chain(patterns).min().unwrap_or(self.store.base())
    }

    pub(crate) fn history_start_of_topic(&self, key: TopicKey, now_ms: u64) -> Seq {
        let topic = self.topic(key);
        let rule = self.retention().rule_for_topic(topic.name());
        let newest = rule.and_then(|rule| rule.events_max);
        let by_count = newest.and_then(|newest| self.start_by_count(&topic.chain, newest));
        let by_count = by_count.unwrap_or(self.store.base());
        by_count.max(self.start_by_age(rule.and_then(|rule| rule.ttl_ms), now_ms))
    }

    /// Where a chain's newest so many stored events begin; `None` if it has no more than those.
    fn start_by_count(&self, chain: &Chain, newest: usize) -> Option<Seq> {
        let is_stored = |seq: &&Seq| {
            let entry = self.store.get(**seq);
            entry.is_some_and(|entry| entry.kind != Kind::Transient)
        };
        let mut stored = chain.seqs.iter().rev().filter(is_stored);
        let start = match newest.checked_sub(1) {
            Some(older) => *stored.nth(older)?,
            None => self.store.next(),
        };
        stored.next().map(|_| start)
    }

    /// A rule for a pattern is about each of its topics, so only its age can be applied to the whole.
    fn history_start_of_pattern(&self, key: PatternKey, now_ms: u64) -> Seq {
        let rule = self.retention().rule_for_pattern(self.pattern_text(key));
        self.start_by_age(rule.and_then(|rule| rule.ttl_ms), now_ms)
    }

    fn start_by_age(&self, rule_ttl_ms: Option<u64>, now_ms: u64) -> Seq {
        let ttl_ms = rule_ttl_ms.unwrap_or(u64::MAX).min(self.retention().ttl_ms);
        let horizon = now_ms.saturating_sub(ttl_ms);
        self.store.partition_point(|entry| entry.at_ms < horizon)
    }

    fn has_stored_between(&self, filter: FilterKey, from: Seq, to: Seq) -> bool {
        let filter = self.filters.get(filter);
        let topics = filter.topics[1..].iter().map(|key| &self.topic(*key).chain);
        let patterns = filter.patterns.iter().map(|key| &self.pattern(*key).chain);
        topics.chain(patterns).any(|chain| {
            let seqs = chain
                .seqs
                .iter()
                .skip(chain.lower_bound(from))
                .take_while(|seq| **seq < to);
            seqs.into_iter().any(|seq| {
                self.store
                    .get(*seq)
                    .is_some_and(|entry| entry.kind != Kind::Transient)
            })
        })
    }

    fn pattern_text(&self, key: PatternKey) -> &Pattern {
        &self.pattern(key).pattern
    }
}
