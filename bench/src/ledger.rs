//! What was published, and whether each reader got all of it, once and in order.
//!
//! The server alone decides on the order of events that were published at the same time. So the first reader that sees
//! an event sets its place in its topic, and all others have to agree. Events of one publisher's connection must keep
//! their order. A reader that agrees costs one comparison; what deviates is noted apart.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

const NOWHERE: u32 = u32::MAX;

/// One published event.
struct Published {
    topic: u32,
    publisher: u32,
    sent_ns: u64,
    /// Its place in its topic, once a reader saw it.
    place: u32,
}

/// A topic as its readers see it.
#[derive(Default)]
struct TopicOrder {
    published: u32,
    readers: u32,
    /// By place.
    events: Vec<u32>,
    /// The last number seen of each publisher; few, so a list.
    last: Vec<(u32, u32)>,
}

/// A reader: some topics, and its place in each.
#[derive(Clone)]
struct Reader {
    first_place: u32,
    topics: u32,
}

/// What one reader's stream lacked or had too often.
#[derive(Clone, Copy, Default)]
struct Deviation {
    skipped: u32,
    late: u32,
}

/// What went wrong, over all readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Events that a reader never got.
    pub lost: u64,
    /// Events that a reader got more than once.
    pub doubled: u64,
    /// Events that came after a later one.
    pub reordered: u64,
    /// Numbers that were never published, or not to the reader's topic.
    pub foreign: u64,
}

impl Faults {
    /// Whether all is right.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The books of one run.
#[derive(Default)]
pub struct Ledger {
    events: Vec<Published>,
    topics: Vec<TopicOrder>,
    readers: Vec<Reader>,
    places: Vec<u32>,
    place_topics: Vec<u32>,
    deviations: HashMap<u32, Deviation>,
    /// Deliveries that there have to be in all.
    due: u64,
    foreign: u64,
    unordered: u64,
    delivered: u64,
    latency: Histogram,
}

impl Ledger {
    /// Notes a reader of some topics that is to get all but each topic's first `skipped` events; answers its index.
    pub fn add_reader(&mut self, topics: &[u32], skipped: u32) -> u32 {
        self.readers.push(Reader {
            first_place: self.places.len() as u32,
            topics: topics.len() as u32,
        });
        for &topic in topics {
            self.places.push(skipped);
            self.place_topics.push(topic);
            let order = self.topic(topic);
            order.readers += 1;
            let due = order.published.saturating_sub(skipped);
            self.due += u64::from(due);
        }
        self.readers.len() as u32 - 1
    }

    fn topic(&mut self, topic: u32) -> &mut TopicOrder {
        let index = topic as usize;
        if self.topics.len() <= index {
            self.topics.resize_with(index + 1, TopicOrder::default);
        }
        &mut self.topics[index]
    }

    /// Notes an event that is about to be published; answers its number.
    pub fn publish(&mut self, topic: u32, publisher: u32, now_ns: u64) -> u32 {
        let order = self.topic(topic);
        order.published += 1;
        let readers = order.readers;
        self.due += u64::from(readers);
        self.events.push(Published {
            topic,
            publisher,
            sent_ns: now_ns,
            place: NOWHERE,
        });
        self.events.len() as u32 - 1
    }

    /// Says that an event has its place although no reader may see it: it was published before they came.
    pub fn settle(&mut self, number: u32) {
        let event = &mut self.events[number as usize];
        if event.place == NOWHERE {
            let order = &mut self.topics[event.topic as usize];
            event.place = order.events.len() as u32;
            order.events.push(number);
        }
    }

    /// Notes that a reader got an event.
    pub fn deliver(&mut self, reader: u32, number: u32, now_ns: u64) {
        self.delivered += 1;
        let Some(slot) = self.slot(reader, number) else {
            self.foreign += 1;
            return;
        };
        let event = &mut self.events[number as usize];
        self.latency.add(now_ns.saturating_sub(event.sent_ns));
        let order = &mut self.topics[event.topic as usize];
        if event.place == NOWHERE {
            event.place = order.events.len() as u32;
            order.events.push(number);
            self.unordered += u64::from(!order.follows(event.publisher, number));
        }
        let expected = &mut self.places[slot];
        match event.place.cmp(expected) {
            Ordering::Equal => *expected += 1,
            Ordering::Greater => {
                let deviation = self.deviations.entry(reader).or_default();
                deviation.skipped += event.place - *expected;
                *expected = event.place + 1;
            }
            Ordering::Less => self.deviations.entry(reader).or_default().late += 1,
        }
    }

    /// Where a reader's place in an event's topic is kept.
    fn slot(&self, reader: u32, number: u32) -> Option<usize> {
        let topic = self.events.get(number as usize)?.topic;
        let Reader {
            first_place,
            topics,
        } = self.readers[reader as usize];
        let slots = first_place as usize..(first_place + topics) as usize;
        slots
            .into_iter()
            .find(|&slot| self.place_topics[slot] == topic)
    }

    /// How many deliveries there were.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Deliveries that are still to come.
    pub fn outstanding(&self) -> u64 {
        self.due.saturating_sub(self.delivered)
    }

    /// Latencies of deliveries.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Forgets the latencies so far: those of a warm-up.
    pub fn forget_latency(&mut self) {
        self.latency = Histogram::default();
    }

    /// What went wrong so far. Called at the end: what has not come by then is lost.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults {
            foreign: self.foreign,
            reordered: self.unordered,
            ..Faults::default()
        };
        for (index, reader) in self.readers.iter().enumerate() {
            let slots = reader.first_place as usize..(reader.first_place + reader.topics) as usize;
            for slot in slots {
                let published = self.topics[self.place_topics[slot] as usize].published;
                faults.lost += u64::from(published.saturating_sub(self.places[slot]));
            }
            if let Some(deviation) = self.deviations.get(&(index as u32)) {
                // A late event that fills a hole was reordered; one that fills none came twice.
                let reordered = deviation.late.min(deviation.skipped);
                faults.reordered += u64::from(reordered);
                faults.doubled += u64::from(deviation.late - reordered);
                faults.lost += u64::from(deviation.skipped - reordered);
            }
        }
        faults
    }
}

impl TopicOrder {
    /// Whether an event is later than all that its publisher published before.
    fn follows(&mut self, publisher: u32, number: u32) -> bool {
        match self.last.iter_mut().find(|(of, _)| *of == publisher) {
            Some((_, last)) if *last > number => false,
            Some((_, last)) => {
                *last = number;
                true
            }
            None => {
                self.last.push((publisher, number));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two readers of three events; the second gets `seen`.
    fn faults_of(seen: &[u32]) -> Faults {
        let mut ledger = Ledger::default();
        let readers = [ledger.add_reader(&[0], 0), ledger.add_reader(&[0], 0)];
        for n in 0..3 {
            assert_eq!(ledger.publish(0, 0, 0), n);
        }
        assert_eq!(ledger.outstanding(), 6);
        for n in 0..3 {
            ledger.deliver(readers[0], n, 1);
        }
        for &n in seen {
            ledger.deliver(readers[1], n, 1);
        }
        ledger.faults()
    }

    #[test]
    fn each_fault_has_its_name() {
        let none = Faults::default();
        assert_eq!(faults_of(&[0, 1, 2]), none);
        assert_eq!(faults_of(&[0, 2]), Faults { lost: 1, ..none });
        assert_eq!(faults_of(&[0, 1]), Faults { lost: 1, ..none });
        assert_eq!(faults_of(&[]), Faults { lost: 3, ..none });
        assert_eq!(faults_of(&[0, 1, 1, 2]), Faults { doubled: 1, ..none });
        assert_eq!(
            faults_of(&[0, 2, 1]),
            Faults {
                reordered: 1,
                ..none
            }
        );
        assert_eq!(faults_of(&[0, 1, 2, 9]), Faults { foreign: 1, ..none });
    }

    #[test]
    fn one_publishers_events_keep_their_order() {
        let mut ledger = Ledger::default();
        let reader = ledger.add_reader(&[0], 0);
        for publisher in [0, 1, 0] {
            ledger.publish(0, publisher, 0);
        }
        for n in [1, 2, 0] {
            ledger.deliver(reader, n, 1);
        }
        assert_eq!(ledger.faults().reordered, 1);
    }

    #[test]
    fn a_reader_of_several_topics_has_a_place_in_each() {
        let mut ledger = Ledger::default();
        let reader = ledger.add_reader(&[0, 2], 0);
        for topic in [2, 1, 0, 2] {
            ledger.publish(topic, topic, 0);
        }
        for n in [2, 0, 3] {
            ledger.deliver(reader, n, 1);
        }
        assert!(ledger.faults().is_none() && ledger.outstanding() == 0);
        ledger.deliver(reader, 1, 1);
        assert_eq!(ledger.faults().foreign, 1);
    }

    #[test]
    fn a_reader_that_resumes_lacks_only_what_it_has_seen() {
        let mut ledger = Ledger::default();
        let seen = ledger.publish(0, 0, 0);
        ledger.settle(seen);
        let missed = ledger.publish(0, 0, 0);
        let reader = ledger.add_reader(&[0], 1);
        assert_eq!(ledger.outstanding(), 1);
        ledger.deliver(reader, missed, 1);
        assert!(ledger.faults().is_none());
        ledger.deliver(reader, seen, 1);
        assert_eq!(ledger.faults().doubled, 1);
    }
}
