//! The broker of a single node that must not forget: an append-only log in a folder.
//!
//! ```text
//! append ─ encode, wait ─▶ queue ─▶ committer thread: check, write, sync, show, answer
//!                                   one record and one sync for everything that waits
//! ```
//!
//! | file | what lives there |
//! |---|---|
//! | `format.rs` | records and headers as bytes |
//! | `scan.rs` | reading segments, and telling a write that a crash has cut from damage |
//! | `writer.rs` | appending, new segments, retention |
//! | `queue.rs` | what waits for the disk |
//! | `committer.rs` | the thread that commits |
//! | `history.rs` | reading what is older than the node's log |
//! | `start.rs` | from a folder to a log in memory |
//! | `state.rs` | the lock, and what a run leaves to the next one |
//! | `repair.rs` | what to do with damage |
//! | `storage.rs` | the calls to the system, for tests to let fail |
//!
//! The disk holds more than the node's log in memory, from which clients are served. Who resumes from before that is sent what
//! the disk has.

mod committer;
mod format;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub(super) mod fuzz;
mod history;
mod queue;
mod repair;
mod scan;
mod start;
mod state;
mod storage;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidewire_core::id::{NativeId, Offset};
use tidewire_core::topic::Topic;
use tokio::sync::oneshot;

use self::format::Batch;
use self::history::History;
use self::queue::{Done, Job, Queue, Work};
pub use self::repair::{Finding, RepairError, Repaired, inspect, repair};
use self::storage::FileSystem;
pub use self::storage::{Storage, StorageFile};
use super::answers::{Answers, Begun};
use super::{
    BoxFuture, Broker, Figures, IdempotencyKey, Page, Publication, StartError, Stored, Tail,
};
use crate::publish::PublishError;

/// Largest batch as it lies on the disk, in bytes. A record's length has 32 bits.
const BATCH_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// When what is written is made safe against the loss of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before a publish is answered. All that wait share one.
    Always,
    /// So often. A crash of the process loses nothing; one of the machine may lose what was answered since the last
    /// time, and clients are then told of a gap.
    Interval(Duration),
}

/// Settings of a [`DiskBroker`].
#[derive(Clone)]
pub struct DiskOptions {
    /// When what is written is made safe. Default: always.
    pub fsync: Fsync,
    /// How long events are kept on the disk. Default: 24 hours.
    pub retention: Duration,
    /// How much is kept on the disk, in bytes. Default: 1 GiB.
    pub bytes_max: u64,
    /// How long the answers to idempotency keys are remembered. Default: 5 minutes.
    pub idempotency_window: Duration,
    /// How many of them. Default: 100,000.
    pub idempotency_keys_max: usize,
    /// How long the disk may be silent until a publish is answered that its outcome is unknown. Default: 30 seconds.
    pub answer_timeout: Duration,
    /// The disk. Default: the system's.
    pub storage: Arc<dyn Storage>,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            fsync: Fsync::Always,
            retention: Duration::from_hours(24),
            bytes_max: 1024 * 1024 * 1024,
            idempotency_window: Duration::from_mins(5),
            idempotency_keys_max: 100_000,
            answer_timeout: Duration::from_secs(30),
            storage: Arc::new(FileSystem),
        }
    }
}

/// Keeps events in a folder of this machine, over any end of the process. See `docs/brokers.md`.
///
/// It needs tokio's timer where it is published to.
pub struct DiskBroker {
    folder: PathBuf,
    options: DiskOptions,
    queue: Arc<Queue>,
    history: Arc<History>,
    tail: OnceLock<Tail>,
}

impl DiskBroker {
    /// A broker that keeps its files in this folder, which is made if it is not there.
    pub fn new(folder: impl Into<PathBuf>, options: DiskOptions) -> Self {
        let answers = Answers::new(options.idempotency_window, options.idempotency_keys_max);
        let folder = folder.into();
        Self {
            history: Arc::new(History::new(folder.clone())),
            tail: OnceLock::new(),
            folder,
            queue: Arc::new(Queue::new(answers)),
            options,
        }
    }

    /// Hands a batch to the committer, and waits for what comes of it.
    async fn commit(&self, work: Work, key: Option<IdempotencyKey>) -> Result<Done, PublishError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { work, key, answer };
        self.queue.push(job)?;
        match tokio::time::timeout(self.options.answer_timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(PublishError::OutcomeUnknown("the hub has ended".into())),
            Err(_) => Err(PublishError::OutcomeUnknown(format!(
                "the disk has been silent for {} s",
                self.options.answer_timeout.as_secs()
            ))),
        }
    }
}

impl Broker for DiskBroker {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn start(&self, tail: Tail) -> BoxFuture<'_, Result<(), StartError>> {
        let (folder, options, queue) = (
            self.folder.clone(),
            self.options.clone(),
            self.queue.clone(),
        );
        assert!(
            self.tail.set(tail.clone()).is_ok(),
            "a broker serves one hub"
        );
        let (started, starting) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("tidewire-disk".into())
            .spawn(move || committer::run(&folder, &options, &queue, tail, started));
        Box::pin(async move {
            thread.map_err(|error| StartError::new(format!("can't start a thread: {error}")))?;
            starting
                .await
                .unwrap_or_else(|_| Err(StartError::new("the disk's thread has failed")))
        })
    }

    fn append<'a>(
        &'a self,
        batch: &'a [Publication],
        key: Option<IdempotencyKey>,
    ) -> BoxFuture<'a, Result<Stored, PublishError>> {
        Box::pin(async move {
            if let Some(key) = &key {
                let begun = self.queue.begin(key, batch.len())?;
                if let Begun::Stored(ids) = begun {
                    return Ok(Stored {
                        ids,
                        replayed: true,
                    });
                }
            }
            let events = Batch::Events(batch.to_vec(), key.clone());
            let work = Work::new(events);
            if work.bytes.len() > BATCH_BYTES_MAX {
                if let Some(key) = &key {
                    self.queue.forget(key);
                }
                return Err(PublishError::NotStored(
                    "the batch is larger than 1 GiB".into(),
                ));
            }
            let done = self.commit(work, key).await?;
            Ok(Stored {
                ids: done.ids,
                replayed: false,
            })
        })
    }

    fn close_topic(&self, topic: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>> {
        Box::pin(async move {
            let done = self.commit(Work::new(Batch::End(topic)), None).await?;
            done.end
                .ok_or_else(|| PublishError::OutcomeUnknown("the topic's end has no id".into()))
        })
    }

    fn older(&self, after: Offset) -> Option<BoxFuture<'static, Result<Page, String>>> {
        let (history, tail) = (self.history.clone(), self.tail.get()?.clone());
        Some(Box::pin(async move {
            let newest = tail.try_write(|log| log.head()).unwrap_or_default();
            let read = move || history.page(after.minor, newest.minor);
            let page = tokio::task::spawn_blocking(read).await;
            let page = page.map_err(|error| error.to_string())?;
            page.map_err(|error| format!("the log on the disk: {error}"))
        }))
    }

    fn ready(&self) -> Result<(), String> {
        self.queue.ready()
    }

    fn figures(&self) -> Figures {
        self.queue.figures()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        let ended = self.queue.stop();
        Box::pin(async move {
            if let Some(ended) = ended {
                // An error says that it has ended already.
                let _ = ended.await;
            }
        })
    }
}

impl Drop for DiskBroker {
    fn drop(&mut self) {
        drop(self.queue.stop());
    }
}
