//! The broker of many nodes: one Redis Stream is the order of all, and every node follows it.
//!
//! ```text
//! append ─▶ queue ─▶ one script for all that waits: checks, XADD ─▶ the stream
//!                                                                      │ XREAD
//! answer ◀── once the node's log has it ◀── the node's log ◀── tail ◀──┘
//! ```
//!
//! | file | what lives there |
//! |---|---|
//! | `entry.rs`, `pack.rs` | events as entries of the stream; several as one |
//! | `append.rs`, `append.lua` | batches as the script takes them; the script |
//! | `queue.rs`, `commit.rs` | what waits; the calls that store it |
//! | `tail.rs`, `whole.rs` | following the stream; putting batches together |
//! | `check.rs` | noticing when the stream is not the one it was, or lacks what nobody has read; trimming it |
//! | `history.rs` | reading what is older |
//! | `outside.rs` | what other programs publish over Pub/Sub |
//!
//! Keys, each after the prefix: `log` is the stream, `epoch` its epoch, `end:{topic}` the place of a topic's end, `id:{id}`
//! that of a publisher's id, `key:{…}` what was answered to an idempotency key. The last three have a time to live.

mod append;
mod check;
mod commit;
mod entry;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub(super) mod fuzz;
mod history;
mod outside;
mod pack;
mod queue;
mod tail;
mod whole;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisResult;
use tidewire_core::id::{Epoch, NativeId, Offset, Tombstone, topic_hash};
use tidewire_core::topic::Topic;
use tokio::sync::{Notify, watch};

use self::append::{Batch, Placed};
use self::history::Portion;
use self::queue::{Queue, Work};
use super::{
    BoxFuture, Broker, Figures, IdempotencyKey, Page, Publication, StartError, Stored, Tail, id_of,
};
use crate::publish::PublishError;
use crate::redis::{Connection, Redis};

/// Settings of a [`RedisBroker`].
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// How long events are kept in the stream. Default: 24 hours.
    pub retention: Duration,
    /// How much memory the stream may take up in Redis, in bytes; looked at every ten seconds. Default: 1 GiB.
    pub bytes_max: u64,
    /// How long the answers to idempotency keys are remembered. Default: 5 minutes.
    pub idempotency_window: Duration,
    /// How long Redis may be silent until a publish is answered that its outcome is unknown. Default: 5 seconds.
    pub answer_timeout: Duration,
    /// How long storing is tried again while Redis can't be reached. Default: 2 seconds.
    pub retry_for: Duration,
    /// How many replicas must have an event before its publisher is answered. Default: 0.
    pub wait_replicas: usize,
    /// The largest event that is taken from the stream, in bytes. Default: 1 MiB.
    pub event_bytes_max: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(24),
            bytes_max: 1024 * 1024 * 1024,
            idempotency_window: Duration::from_mins(5),
            answer_timeout: Duration::from_secs(5),
            retry_for: Duration::from_secs(2),
            wait_replicas: 0,
            event_bytes_max: 1024 * 1024,
        }
    }
}

/// Keeps events in a stream of a Redis or Valkey that nodes share. See `docs/brokers.md`. It needs tokio.
pub struct RedisBroker {
    shared: Arc<Shared>,
}

/// What the broker's tasks share.
struct Shared {
    redis: Arc<Redis>,
    options: RedisOptions,
    stream: String,
    epoch_key: String,
    tail: OnceLock<Tail>,
    /// How long an event is in history, in milliseconds; known from the start on.
    ttl_ms: AtomicU64,
    queue: Queue,
    /// What events are stored over where somebody waits for replicas: that holds up all that follows on a connection.
    own: tokio::sync::Mutex<Option<Connection>>,
    /// How much is read at a time for those who resume from further back.
    pages: Mutex<Portion>,
    /// How far the node's log has followed.
    place: watch::Sender<(Epoch, Offset)>,
    /// Why events can't be stored or followed, where that is so.
    trouble: Mutex<Option<String>>,
    /// Somebody has seen that the history is another one.
    look_again: Notify,
    ending: watch::Sender<bool>,
    stored_all: watch::Sender<bool>,
    figures: Counters,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    stored_bytes: AtomicU64,
    lag_ms: AtomicU64,
    malformed: AtomicU64,
    interruptions: AtomicU64,
}

impl RedisBroker {
    /// A broker that keeps its events there.
    pub fn new(redis: Arc<Redis>, options: RedisOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                stream: redis.key("log"),
                epoch_key: redis.key("epoch"),
                redis,
                options,
                tail: OnceLock::new(),
                ttl_ms: AtomicU64::new(0),
                queue: Queue::default(),
                pages: Mutex::new(Portion::of_page()),
                own: tokio::sync::Mutex::default(),
                place: watch::channel((Epoch::from_random(0), Offset::ZERO)).0,
                trouble: Mutex::new(None),
                look_again: Notify::new(),
                ending: watch::channel(false).0,
                stored_all: watch::channel(false).0,
                figures: Counters::default(),
            }),
        }
    }
}

impl Shared {
    fn tail(&self) -> &Tail {
        self.tail
            .get()
            .expect("a broker is started before it is used")
    }

    fn epoch(&self) -> Epoch {
        self.place.borrow().0
    }

    fn note_commit(&self) {
        self.figures.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn note_stored_all(&self) {
        self.stored_all.send_replace(true);
    }

    /// Stores so many events, and waits until the node's log has them.
    async fn store(&self, work: Work, events: usize) -> Result<Placed, PublishError> {
        let answered = self.queue.push(work)?;
        let placed = answered
            .await
            .unwrap_or_else(|_| Err(PublishError::OutcomeUnknown("the hub has ended".into())))?;
        let last = Offset {
            minor: placed.first.minor + events as u64 - 1,
            ..placed.first
        };
        let mut place = self.place.subscribe();
        let arrived = place.wait_for(|(epoch, at)| *epoch != placed.epoch || *at >= last);
        // It is stored, whatever becomes of the wait: a node that can't follow must not say that it is not.
        let arrived = tokio::time::timeout(self.options.answer_timeout, arrived).await;
        match arrived.map(|place| place.map(|place| place.0)) {
            Ok(Ok(epoch)) if epoch != placed.epoch => Err(PublishError::OutcomeUnknown(
                "Redis has lost events since it was stored".into(),
            )),
            _ => Ok(placed),
        }
    }

    /// What events are stored over.
    async fn connection(&self) -> RedisResult<Connection> {
        if self.options.wait_replicas == 0 {
            return self.redis.connection().await;
        }
        let mut own = self.own.lock().await;
        if let Some(connection) = own.as_ref().filter(|connection| connection.is_alive()) {
            return Ok(connection.clone());
        }
        Ok(own.insert(self.redis.dedicated().await?).clone())
    }

    fn batch(
        &self,
        events: &[Publication],
        key: Option<&IdempotencyKey>,
    ) -> Result<Batch, PublishError> {
        let ids_kept = Duration::from_millis(self.ttl_ms.load(Ordering::Relaxed));
        Batch::events(events, key, self.options.idempotency_window, ids_kept)
    }

    /// How long a topic's end is in history.
    fn end_kept(&self, topic: &Topic) -> Duration {
        let kept_ms = self.tail().write(|log| log.ttl_ms_of(topic.as_str()));
        Duration::from_millis(kept_ms)
    }
}

impl Broker for RedisBroker {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn start(&self, tail: Tail) -> BoxFuture<'_, Result<(), StartError>> {
        assert!(
            self.shared.tail.set(tail).is_ok(),
            "a broker serves one hub"
        );
        Box::pin(async {
            let follower = tail::begin(&self.shared).await?;
            tokio::spawn(follower.run());
            tokio::spawn(commit::run(self.shared.clone()));
            outside::follow(&self.shared);
            Ok(())
        })
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Publication],
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'a, Result<Stored, PublishError>> {
        let shared = self.shared.clone();
        let work = match (batch, &key) {
            ([one], None) if one.event.id.is_none() => Ok(Work::Plain(one.clone())),
            _ => shared.batch(batch, key.as_ref()).map(Work::Batch),
        };
        Box::pin(async move {
            let placed = shared.store(work?, batch.len()).await?;
            let place = |(n, publication)| {
                let offset = Offset {
                    minor: placed.first.minor + n as u64,
                    ..placed.first
                };
                id_of(publication, placed.epoch, offset)
            };
            Ok(Stored {
                ids: batch.iter().enumerate().map(place).collect(),
                replayed: placed.replayed,
            })
        })
    }

    fn close_topic(&self, topic: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>> {
        Box::pin(async move {
            let batch = Batch::end(&topic, self.shared.end_kept(&topic));
            let placed = self.shared.store(Work::Batch(batch), 1).await?;
            let id = NativeId::new(placed.epoch, placed.first);
            Ok(id.with_tombstone(Tombstone::End(topic_hash(topic.as_str()))))
        })
    }

    fn older(&self, after: Offset) -> Option<BoxFuture<'static, Result<Page, String>>> {
        let shared = self.shared.clone();
        Some(Box::pin(async move { shared.page(after).await }))
    }

    fn ready(&self) -> Result<(), String> {
        self.shared.trouble.lock().clone().map_or(Ok(()), Err)
    }

    fn figures(&self) -> Figures {
        let figures = &self.shared.figures;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            commits: read(&figures.commits),
            stored_bytes: read(&figures.stored_bytes),
            lag_ms: read(&figures.lag_ms),
            malformed: read(&figures.malformed),
            interruptions: read(&figures.interruptions),
            ..Figures::default()
        }
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.shared.queue.end();
            let mut stored = self.shared.stored_all.subscribe();
            let longest = self.shared.options.answer_timeout + self.shared.options.retry_for;
            let _ = tokio::time::timeout(longest, stored.wait_for(|all| *all)).await;
            self.shared.ending.send_replace(true);
        })
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.shared.queue.end();
        self.shared.ending.send_replace(true);
    }
}
