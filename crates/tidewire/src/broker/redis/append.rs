//! From batches to the arguments of the script that stores them, and from its answers to theirs.

use std::collections::HashMap;
use std::time::Duration;

use redis::{FromRedisValue, Value};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::Refused;
use tidewire_core::topic::Topic;

use super::entry::{end_fields, fields, parse_offset};
use super::pack::pack;
use crate::broker::{IdempotencyKey, Publication};
use crate::publish::PublishError;

/// A batch as the script takes it, and what is needed to understand the answer.
pub(super) struct Batch {
    /// After the script's own arguments.
    pub(super) arguments: Vec<Vec<u8>>,
    /// All arguments together.
    pub(super) bytes: usize,
    pub(super) events: usize,
    /// What Redis adds to the stream.
    pub(super) entries: usize,
    /// In the order of the arguments, each with the first event that has it.
    topics: Vec<(Topic, usize)>,
    ids: Vec<(String, usize)>,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) epoch: Epoch,
    /// Of the first entry; the others follow each other.
    pub(super) first: Offset,
    /// Whether it was stored by an earlier request.
    pub(super) replayed: bool,
}

impl Placed {
    /// Where the event is that comes so many after the first.
    pub(super) fn of(self, n: u64) -> Self {
        let minor = self.first.minor + n;
        Self {
            first: Offset {
                minor,
                ..self.first
            },
            ..self
        }
    }
}

/// The script's arguments, one after the other.
#[derive(Default)]
struct Arguments {
    list: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arguments {
    fn put(&mut self, argument: impl Into<Vec<u8>>) {
        let argument = argument.into();
        self.bytes += argument.len() + 16;
        self.list.push(argument);
    }

    fn put_number(&mut self, number: usize) {
        self.put(number.to_string());
    }

    fn put_list(&mut self, list: Vec<Vec<u8>>) {
        self.put_number(list.len());
        for argument in list {
            self.put(argument);
        }
    }
}

impl Batch {
    /// Events that are stored together. Own ids are remembered for `ids_kept`.
    pub(super) fn events(
        events: &[Publication],
        key: Option<&IdempotencyKey>,
        window: Duration,
        ids_kept: Duration,
    ) -> Result<Self, PublishError> {
        let (topics, ids) = names(events)?;
        let mut arguments = Arguments::default();
        arguments.put("e");
        match key {
            // The length keeps two publishers apart whose names and keys are one text together.
            Some(key) => arguments.put(format!(
                "{}:{}:{}",
                key.publisher.len(),
                key.publisher,
                key.key
            )),
            None => arguments.put(""),
        }
        arguments.put(key.map_or(&[][..], |key| &key.fingerprint));
        arguments.put(millis(window));
        arguments.put(millis(ids_kept));
        let bytes_of = |text: &str| text.as_bytes().to_vec();
        arguments.put_list(
            topics
                .iter()
                .map(|(topic, _)| bytes_of(topic.as_str()))
                .collect(),
        );
        arguments.put_list(ids.iter().map(|(id, _)| bytes_of(id)).collect());
        let (first, others) = events.split_first().ok_or(PublishError::NoTopic)?;
        arguments.put_list(fields(first, events.len()));
        let packs = pack(others);
        let entries = 1 + packs.len();
        arguments.put_number(packs.len());
        // Counted from the first event of the batch, which is 0.
        let mut last = 0;
        for pack in packs {
            last += pack.events;
            arguments.put_number(last);
            arguments.put(pack.bytes);
        }
        Ok(Self {
            arguments: arguments.list,
            bytes: arguments.bytes,
            events: events.len(),
            entries,
            topics,
            ids,
        })
    }

    /// The end of a topic, which stays in history for `kept`.
    pub(super) fn end(topic: &Topic, kept: Duration) -> Self {
        let mut arguments = Arguments::default();
        arguments.put("c");
        arguments.put(topic.as_str());
        arguments.put(millis(kept));
        arguments.put_list(end_fields(topic));
        Self {
            arguments: arguments.list,
            bytes: arguments.bytes,
            events: 1,
            entries: 1,
            topics: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Reads what the script says of this batch.
    pub(super) fn understand(&self, answer: Value, epoch: Epoch) -> Result<Placed, PublishError> {
        let strange = || PublishError::OutcomeUnknown("Redis gave an answer that is none".into());
        let Value::Array(answer) = answer else {
            return Err(strange());
        };
        let mut answer = answer.into_iter();
        let mut next = || answer.next().unwrap_or_default();
        let kind = String::from_redis_value(next()).map_err(|_| strange())?;
        match kind.as_str() {
            "s" | "r" => {
                let id = String::from_redis_value(next()).map_err(|_| strange())?;
                Ok(Placed {
                    epoch,
                    first: parse_offset(&id).ok_or_else(strange)?,
                    replayed: kind == "r",
                })
            }
            "k" => Err(PublishError::KeyReused),
            "f" => Err(PublishError::NotStored(
                "Redis refuses: the stream has hardly any ids left".into(),
            )),
            "x" => {
                let closed = Vec::<usize>::from_redis_value(next()).map_err(|_| strange())?;
                let taken = Vec::<usize>::from_redis_value(next()).map_err(|_| strange())?;
                Err(self.refusal(&closed, &taken).unwrap_or_else(strange))
            }
            _ => Err(strange()),
        }
    }

    /// The refusal of the first event that is in the way.
    fn refusal(&self, closed: &[usize], taken: &[usize]) -> Option<PublishError> {
        let closed = closed.iter().filter_map(|n| {
            let (topic, event) = self.topics.get(n.checked_sub(1)?)?;
            Some((*event, Refused::TopicClosed(topic.clone())))
        });
        let taken = taken.iter().filter_map(|n| {
            let (id, event) = self.ids.get(n.checked_sub(1)?)?;
            Some((*event, Refused::IdTaken(id.clone())))
        });
        let (event, refused) = closed.chain(taken).min_by_key(|(event, _)| *event)?;
        Some(PublishError::from(refused).at(event, self.events))
    }
}

type Names<T> = Vec<(T, usize)>;

/// The distinct topics and the own ids of a batch.
fn names(events: &[Publication]) -> Result<(Names<Topic>, Names<String>), PublishError> {
    let mut topics = HashMap::new();
    let mut ids = HashMap::new();
    for (n, Publication { topics: of, event }) in events.iter().enumerate() {
        for topic in of {
            if !topics.contains_key(topic) {
                topics.insert(topic.clone(), n);
            }
        }
        if let Some(id) = &event.id
            && ids.insert(id.clone(), n).is_some()
        {
            let twice = PublishError::from(Refused::IdTaken(id.clone()));
            return Err(twice.at(n, events.len()));
        }
    }
    Ok((topics.into_iter().collect(), ids.into_iter().collect()))
}

/// In milliseconds; at least one, as Redis takes no time to live of zero.
fn millis(duration: Duration) -> String {
    const MILLIS_MAX: u64 = 1 << 50;
    let ms = u64::try_from(duration.as_millis()).map_or(MILLIS_MAX, |ms| ms.clamp(1, MILLIS_MAX));
    ms.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    fn batch(events: &[Publication]) -> Batch {
        let long = Duration::from_secs(9);
        Batch::events(events, None, long, long).expect("valid")
    }

    #[test]
    fn the_first_event_in_the_way_is_named() {
        let event = |topic: &str, id: Option<&str>| {
            let event = Event {
                id: id.map(str::to_owned),
                ..Event::text("x")
            };
            Publication::new([topic], event).expect("valid")
        };
        let batch = batch(&[event("a", None), event("b", Some("i")), event("c", None)]);
        let place = |name: &str| {
            let at = batch
                .topics
                .iter()
                .position(|(topic, _)| topic.as_str() == name);
            i64::try_from(at.expect("there")).expect("small") + 1
        };
        let answer = |closed: &[i64], taken: &[i64]| {
            let list = |of: &[i64]| Value::Array(of.iter().copied().map(Value::Int).collect());
            Value::Array(vec![
                Value::BulkString(b"x".to_vec()),
                list(closed),
                list(taken),
            ])
        };
        let epoch = Epoch::from_random(1);
        let index = |answer| match batch.understand(answer, epoch) {
            Err(PublishError::InBatch { index, .. }) => index,
            other => panic!("{other:?}"),
        };
        assert_eq!(index(answer(&[place("c"), place("a")], &[1])), 0);
        assert_eq!(index(answer(&[place("c")], &[1])), 1);
        assert_eq!(index(answer(&[place("c")], &[])), 2);
        assert!(matches!(
            batch.understand(Value::Nil, epoch),
            Err(PublishError::OutcomeUnknown(_))
        ));
    }
}
