//! What was answered to idempotency keys, and which of them are under way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{EventId, IdempotencyKey};
use crate::publish::PublishError;

/// Ids that all remembered answers may have together. Stops large batches with keys from filling the memory.
const REMEMBERED_IDS_MAX: usize = 1_000_000;

/// A publisher and its key.
type Name = (String, String);

/// The answers given to idempotency keys, for as long as they count.
pub(super) struct Answers {
    window_ms: u64,
    keys_max: usize,
    /// Ids in all answers, also in those to come.
    ids: usize,
    by_key: HashMap<Name, Answer>,
    by_age: VecDeque<(u64, Name)>,
}

struct Answer {
    fingerprint: [u8; 32],
    ids: Ids,
}

enum Ids {
    /// Of a request that is under way, so many.
    Awaited(usize),
    Stored(Arc<[EventId]>),
}

/// What a key says about a request.
pub(super) enum Begun {
    /// It is new, and under way from now on.
    New,
    /// It was stored, and its events got these ids.
    Stored(Arc<[EventId]>),
}

impl Answers {
    pub(super) fn new(window: Duration, keys_max: usize) -> Self {
        Self {
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            keys_max,
            ids: 0,
            by_key: HashMap::new(),
            by_age: VecDeque::new(),
        }
    }

    /// Begins a request of so many events. To be followed by [`finish`](Self::finish) or [`forget`](Self::forget).
    ///
    /// A key that is dropped before its time would let an event be published twice, so where there is no room a new
    /// one is refused.
    pub(super) fn begin(
        &mut self,
        key: &IdempotencyKey,
        events: usize,
        now_ms: u64,
    ) -> Result<Begun, PublishError> {
        self.expire(now_ms);
        let name = name_of(key);
        match self.by_key.get(&name) {
            Some(answer) if answer.fingerprint != key.fingerprint => {
                return Err(PublishError::KeyReused);
            }
            Some(answer) => {
                return match &answer.ids {
                    Ids::Awaited(_) => Err(PublishError::KeyInFlight),
                    Ids::Stored(ids) => Ok(Begun::Stored(ids.clone())),
                };
            }
            None => {}
        }
        if self.by_key.len() >= self.keys_max || self.ids + events > REMEMBERED_IDS_MAX {
            return Err(PublishError::KeysFull);
        }
        self.insert(name, key.fingerprint, Ids::Awaited(events));
        Ok(Begun::New)
    }

    /// The events of a request are stored.
    pub(super) fn finish(&mut self, key: &IdempotencyKey, ids: Arc<[EventId]>, now_ms: u64) {
        self.forget(key);
        let name = name_of(key);
        self.by_age.push_back((now_ms, name.clone()));
        self.insert(name, key.fingerprint, Ids::Stored(ids));
    }

    /// A request came to nothing: its key is free again.
    pub(super) fn forget(&mut self, key: &IdempotencyKey) {
        self.remove(&name_of(key));
    }

    fn insert(&mut self, name: Name, fingerprint: [u8; 32], ids: Ids) {
        self.ids += ids.len();
        self.by_key.insert(name, Answer { fingerprint, ids });
    }

    fn remove(&mut self, name: &Name) {
        if let Some(answer) = self.by_key.remove(name) {
            self.ids -= answer.ids.len();
        }
    }

    fn expire(&mut self, now_ms: u64) {
        let window_ms = self.window_ms;
        let is_over = |at_ms: u64| now_ms.saturating_sub(at_ms) >= window_ms;
        while let Some((_, name)) = self.by_age.pop_front_if(|(at_ms, _)| is_over(*at_ms)) {
            self.remove(&name);
        }
    }
}

impl Ids {
    fn len(&self) -> usize {
        match self {
            Self::Awaited(events) => *events,
            Self::Stored(ids) => ids.len(),
        }
    }
}

fn name_of(key: &IdempotencyKey) -> Name {
    (key.publisher.clone(), key.key.clone())
}
