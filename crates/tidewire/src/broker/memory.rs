//! The broker of a single node that may forget: the node's log is all there is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tidewire_core::id::{NativeId, Offset};
use tidewire_core::log::{Log, Refused};
use tidewire_core::topic::Topic;

use super::{BoxFuture, Broker, EventId, IdempotencyKey, Publication, Stored, Tail};
use crate::publish::PublishError;

/// Keeps events in the node's own log, and nowhere else.
pub struct MemoryBroker {
    tail: OnceLock<Tail>,
    answers: Mutex<Answers>,
}

impl MemoryBroker {
    /// A broker that remembers the answers to so many idempotency keys for so long.
    pub fn new(window: Duration, keys_max: usize) -> Self {
        let answers = Answers {
            window_ms: window.as_millis() as u64,
            keys_max,
            ids: 0,
            by_key: HashMap::new(),
            by_age: VecDeque::new(),
        };
        Self {
            tail: OnceLock::new(),
            answers: Mutex::new(answers),
        }
    }

    fn tail(&self) -> &Tail {
        self.tail
            .get()
            .expect("a broker is started before it is used")
    }

    fn append_now(
        &self,
        batch: &[Publication],
        key: Option<IdempotencyKey>,
    ) -> Result<Stored, PublishError> {
        let now_ms = self.tail().now_ms();
        let new = |ids| Stored {
            ids,
            replayed: false,
        };
        let Some(key) = key else {
            return self.commit(batch, now_ms).map(new);
        };
        // Held while the log is written, so that two requests with one key cannot both find it unused.
        let mut answers = self.answers.lock();
        if let Some(ids) = answers.find(&key, now_ms)? {
            return Ok(Stored {
                ids,
                replayed: true,
            });
        }
        answers.check_room(batch.len())?;
        let ids = self.commit(batch, now_ms)?;
        answers.remember(key, ids.clone(), now_ms);
        Ok(new(ids))
    }

    fn commit(&self, batch: &[Publication], now_ms: u64) -> Result<Arc<[EventId]>, PublishError> {
        self.tail().write(|log| {
            log.expire(now_ms);
            check(log, batch, now_ms)?;
            Ok(batch
                .iter()
                .map(|publication| append(log, publication, now_ms))
                .collect())
        })
    }
}

/// Whether the log takes the whole batch. What the log can't know is which ids the batch itself has twice.
fn check(log: &Log, batch: &[Publication], now_ms: u64) -> Result<(), PublishError> {
    let mut ids = HashSet::new();
    for (index, publication) in batch.iter().enumerate() {
        let Publication { topics, event } = publication;
        let result = match &event.id {
            Some(id) if !ids.insert(id) => Err(Refused::IdTaken(id.clone())),
            _ => log.check(topics, event, now_ms),
        };
        result.map_err(|refused| PublishError::from(refused).at(index, batch.len()))?;
    }
    Ok(())
}

fn append(log: &mut Log, publication: &Publication, now_ms: u64) -> EventId {
    let offset = Offset::counted(log.head().minor + 1);
    log.append(&publication.topics, &publication.event, offset, now_ms);
    match &publication.event.id {
        Some(id) => EventId::Own(id.as_str().into()),
        None => EventId::Native(log.id_at(offset)),
    }
}

impl Broker for MemoryBroker {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn start(&self, tail: Tail) {
        assert!(self.tail.set(tail).is_ok(), "a broker serves one hub");
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Publication],
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'a, Result<Stored, PublishError>> {
        Box::pin(std::future::ready(self.append_now(batch, key)))
    }

    fn close_topic(&self, topic: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>> {
        let now_ms = self.tail().now_ms();
        let id = self.tail().write(|log| {
            log.end_of(topic.as_str(), now_ms).unwrap_or_else(|| {
                let offset = Offset::counted(log.head().minor + 1);
                log.append_end(&topic, offset, now_ms)
            })
        });
        Box::pin(std::future::ready(Ok(id)))
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Ids that all remembered answers may have together. Stops large batches with keys from filling the memory.
const REMEMBERED_IDS_MAX: usize = 1_000_000;

/// The answers given to idempotency keys, for as long as they count.
struct Answers {
    window_ms: u64,
    keys_max: usize,
    /// Ids in all remembered answers.
    ids: usize,
    by_key: HashMap<(String, String), Answer>,
    by_age: VecDeque<(u64, (String, String))>,
}

struct Answer {
    fingerprint: [u8; 32],
    ids: Arc<[EventId]>,
}

impl Answers {
    fn find(
        &mut self,
        key: &IdempotencyKey,
        now_ms: u64,
    ) -> Result<Option<Arc<[EventId]>>, PublishError> {
        while self
            .by_age
            .front()
            .is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= self.window_ms)
        {
            if let Some(answer) = self
                .by_age
                .pop_front()
                .and_then(|(_, name)| self.by_key.remove(&name))
            {
                self.ids -= answer.ids.len();
            }
        }
        match self.by_key.get(&(key.publisher.clone(), key.key.clone())) {
            Some(answer) if answer.fingerprint != key.fingerprint => Err(PublishError::KeyReused),
            answer => Ok(answer.map(|answer| answer.ids.clone())),
        }
    }

    /// A key that is dropped before its time would let an event be published twice, so a new one is refused instead.
    fn check_room(&self, ids: usize) -> Result<(), PublishError> {
        let full = self.by_key.len() >= self.keys_max || self.ids + ids > REMEMBERED_IDS_MAX;
        if full {
            Err(PublishError::KeysFull)
        } else {
            Ok(())
        }
    }

    fn remember(&mut self, key: IdempotencyKey, ids: Arc<[EventId]>, now_ms: u64) {
        let name = (key.publisher, key.key);
        self.ids += ids.len();
        self.by_age.push_back((now_ms, name.clone()));
        self.by_key.insert(
            name,
            Answer {
                fingerprint: key.fingerprint,
                ids,
            },
        );
    }
}
