//! Taking up a history that outlived the process, before anyone reads.

use super::retention::TrimTable;
use super::{Log, Mark};
use crate::id::{Epoch, Offset};
use crate::topic::Topic;

impl Log {
    /// Makes an empty log the continuation of a history whose events up to `lost`, the newest of them published at
    /// `lost_ms` or before, are not there any more.
    pub fn restore(&mut self, epoch: Epoch, lost: Offset, lost_ms: u64) {
        debug_assert_eq!(
            self.stats().events,
            0,
            "a log is restored before it is used"
        );
        self.epoch = epoch;
        self.skip_lost(lost, lost_ms);
    }

    /// Gives up all that is held and goes on in another history, as the broker's store has lost this one. Whoever was
    /// connected has to be closed: their ids are unknown from now on, and a `gap` tells them so.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        while self.store.len() > 0 {
            self.pop();
        }
        self.epoch = epoch;
        self.head = Offset::ZERO;
        self.tail = Offset::ZERO;
        self.trimmed = TrimTable::new();
    }

    /// How long an event is kept at most, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        self.retention.ttl_ms
    }

    /// How much memory the log may use, in bytes.
    pub fn memory_bytes_max(&self) -> usize {
        self.retention.memory_bytes
    }

    /// How long an event of a topic is kept at most, in milliseconds: a rule may make it less.
    pub fn ttl_ms_of(&self, topic: &str) -> u64 {
        let rule = self.retention.rule_for_topic(topic);
        let ttl_ms = rule.and_then(|rule| rule.ttl_ms).unwrap_or(u64::MAX);
        ttl_ms.min(self.retention.ttl_ms)
    }

    /// Takes note that every event up to `lost` that is not held is gone, of whatever topics they were: whoever resumes
    /// from before is told of a gap.
    pub fn skip_lost(&mut self, lost: Offset, lost_ms: u64) {
        self.head = self.head.max(lost);
        if self.store.len() == 0 {
            self.tail = self.head;
        }
        self.trimmed.raise_all(Mark {
            offset: lost,
            at_ms: lost_ms,
        });
    }

    /// Takes note that events are missing right before what comes next, or somewhere before the head: whoever resumes from
    /// the head or before is told of a gap.
    pub fn note_missed(&mut self) {
        // The event that has this place, if there is to be one, comes after what is missing.
        let minor = self.head.minor.saturating_add(1);
        let offset = Offset { minor, ..self.head };
        self.trimmed.raise_all(Mark {
            offset,
            at_ms: self.last_ms,
        });
    }

    /// Takes note of an event that is too old to be held, as if it had been appended and trimmed.
    pub fn skip(&mut self, topics: &[Topic], offset: Offset, at_ms: u64) {
        debug_assert!(offset > self.head, "a broker's offsets only grow");
        self.head = offset;
        self.tail = offset;
        self.last_ms = self.last_ms.max(at_ms);
        for topic in topics {
            self.trimmed.record(topic.as_str(), Mark { offset, at_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Retention;
    use super::*;
    use crate::filter::FilterSpec;
    use crate::subscribe::{Start, Subscribed};
    use crate::subscription::{GapReason, SlowClient};

    fn gap(log: &mut Log, topic: &str, after: u64) -> Option<GapReason> {
        let key = log.acquire_filter(&FilterSpec {
            topics: vec![Topic::new(topic).expect("a topic")],
            ..FilterSpec::default()
        });
        let id = log.id_at(Offset::counted(after)).to_string();
        match log.subscribe(key, &Start::After(id), SlowClient::Close, 1_000) {
            Subscribed::Stream { gap, .. } => gap,
            Subscribed::Over => panic!("over"),
        }
    }

    #[test]
    fn what_was_before_is_a_gap_and_what_is_quiet_is_not() {
        let epoch = Epoch::from_random(1);
        let mut log = Log::new(Epoch::from_random(2), Retention::default());
        log.restore(epoch, Offset::counted(10), 500);
        let busy = [Topic::new("busy").expect("a topic")];
        log.skip(&busy, Offset::counted(11), 600);
        log.append(&busy, &"x".into(), Offset::counted(12), 700);
        assert_eq!(log.epoch(), epoch);
        assert_eq!(log.head(), Offset::counted(12));
        assert_eq!(gap(&mut log, "quiet", 9), Some(GapReason::Expired));
        assert_eq!(gap(&mut log, "quiet", 10), None);
        assert_eq!(gap(&mut log, "busy", 10), Some(GapReason::Expired));
        assert_eq!(gap(&mut log, "busy", 11), None);
        assert_eq!(gap(&mut log, "quiet", 13), Some(GapReason::UnknownId));
    }

    #[test]
    fn who_is_at_the_head_when_events_were_missed_is_told() {
        let mut log = Log::new(Epoch::from_random(1), Retention::default());
        let topic = [Topic::new("a").expect("a topic")];
        log.append(&topic, &"before".into(), Offset::counted(1), 500);
        log.note_missed();
        assert_eq!(gap(&mut log, "a", 1), Some(GapReason::Expired));
        assert_eq!(gap(&mut log, "b", 1), Some(GapReason::Expired));
        log.append(&topic, &"after".into(), Offset::counted(2), 600);
        assert_eq!(gap(&mut log, "a", 1), Some(GapReason::Expired));
        assert_eq!(gap(&mut log, "a", 2), None);
    }

    #[test]
    fn a_new_epoch_knows_nothing_of_the_old_one() {
        let mut log = Log::new(Epoch::from_random(1), Retention::default());
        let topic = [Topic::new("a").expect("a topic")];
        log.append(&topic, &"old".into(), Offset::counted(1), 500);
        log.append_end(&topic[0], Offset::counted(2), 500);
        let old = log.id_at(Offset::counted(1)).to_string();
        log.begin_epoch(Epoch::from_random(2));
        assert_eq!(log.stats().events, 0);
        assert!(!log.is_closed("a", 600));
        // The new history may begin anywhere, also before where the old one was.
        log.append(&topic, &"new".into(), Offset::counted(1), 600);
        let key = log.acquire_filter(&FilterSpec {
            topics: topic.to_vec(),
            ..FilterSpec::default()
        });
        match log.subscribe(key, &Start::After(old), SlowClient::Close, 700) {
            Subscribed::Stream { gap, .. } => assert_eq!(gap, Some(GapReason::UnknownId)),
            Subscribed::Over => panic!("over"),
        }
        assert_eq!(gap(&mut log, "a", 1), None);
    }
}
