//! The broker of a single node that may forget: the node's log is all there is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tidewire_core::id::{NativeId, Offset};
use tidewire_core::log::Log;
use tidewire_core::topic::Topic;

use super::answers::{Answers, Begun};
use super::{
    BoxFuture, Broker, EventId, IdempotencyKey, Publication, StartError, Stored, Tail, check, id_of,
};
use crate::publish::PublishError;

/// Keeps events in the node's own log, and nowhere else.
pub struct MemoryBroker {
    tail: OnceLock<Tail>,
    answers: Mutex<Answers>,
}

impl MemoryBroker {
    /// A broker that remembers the answers to so many idempotency keys for so long.
    pub fn new(window: Duration, keys_max: usize) -> Self {
        Self {
            tail: OnceLock::new(),
            answers: Mutex::new(Answers::new(window, keys_max)),
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
        if let Begun::Stored(ids) = answers.begin(&key, batch.len(), now_ms)? {
            return Ok(Stored {
                ids,
                replayed: true,
            });
        }
        let committed = self.commit(batch, now_ms);
        match &committed {
            Ok(ids) => answers.finish(&key, ids.clone(), now_ms),
            Err(_) => answers.forget(&key),
        }
        committed.map(new)
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

fn append(log: &mut Log, publication: &Publication, now_ms: u64) -> EventId {
    let offset = Offset::counted(log.head().minor + 1);
    log.append(&publication.topics, &publication.event, offset, now_ms);
    id_of(publication, log.epoch(), offset)
}

impl Broker for MemoryBroker {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn start(&self, tail: Tail) -> BoxFuture<'_, Result<(), StartError>> {
        assert!(self.tail.set(tail).is_ok(), "a broker serves one hub");
        Box::pin(std::future::ready(Ok(())))
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
