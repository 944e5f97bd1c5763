//! What waits for the committer, and what publishers share with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tidewire_core::id::NativeId;
use tokio::sync::oneshot;

use super::format::Batch;
use crate::broker::answers::{Answers, Begun};
use crate::broker::{EventId, Figures, IdempotencyKey};
use crate::clock::now_ms;
use crate::publish::PublishError;

/// Most bytes that wait for the disk. Stops publishers who are faster than it from filling the memory.
const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes that are committed together. Stops one write from delaying the answers to those in it for long.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A disk that is silent for longer makes the hub say that it is not ready.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A batch to store, as it is and as it will lie on the disk.
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) bytes: Vec<u8>,
}

impl Work {
    pub(super) fn new(batch: Batch) -> Self {
        let bytes = batch.encode();
        Self { batch, bytes }
    }
}

/// What comes of a batch that is stored.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) ids: Arc<[EventId]>,
    /// Of a topic's end.
    pub(super) end: Option<NativeId>,
}

pub(super) type Answer = Result<Done, PublishError>;

/// A batch and who waits for it.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What publishers and the committer share.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
    pub(super) answers: Mutex<Answers>,
    pub(super) figures: Mutex<Figures>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Why nothing can be stored any more, for good.
    failed: Option<String>,
    /// Since when the committer is at work on what it took.
    busy_since: Option<Instant>,
    stop: bool,
    /// Whether the committer has ended.
    is_over: bool,
    ended: Option<oneshot::Sender<()>>,
}

impl Queue {
    pub(super) fn new(answers: Answers) -> Self {
        Self {
            waiting: Mutex::default(),
            news: Condvar::new(),
            answers: Mutex::new(answers),
            figures: Mutex::default(),
        }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), PublishError> {
        let mut waiting = self.waiting.lock();
        let bytes = job.work.bytes.len();
        let refused = if let Some(why) = &waiting.failed {
            Some(why.clone())
        } else if waiting.stop {
            Some("the hub is ending".to_owned())
        } else if waiting.bytes > 0 && waiting.bytes + bytes > PENDING_BYTES_MAX {
            Some("the disk does not keep up with the publishers".to_owned())
        } else {
            None
        };
        if let Some(why) = refused {
            drop(waiting);
            if let Some(key) = &job.key {
                self.forget(key);
            }
            return Err(PublishError::NotStored(why));
        }
        waiting.bytes += bytes;
        waiting.jobs.push_back(job);
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    pub(super) fn begin(&self, key: &IdempotencyKey, events: usize) -> Result<Begun, PublishError> {
        self.answers.lock().begin(key, events, now_ms())
    }

    pub(super) fn forget(&self, key: &IdempotencyKey) {
        self.answers.lock().forget(key);
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        let waiting = self.waiting.lock();
        if let Some(why) = &waiting.failed {
            return Err(why.clone());
        }
        match waiting.busy_since.map(|since| since.elapsed()) {
            Some(busy) if busy > SILENCE_MAX => {
                Err(format!("the disk has been silent for {} s", busy.as_secs()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        *self.figures.lock()
    }

    /// Asks the committer to end; `None` if it was asked before.
    pub(super) fn stop(&self) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.waiting.lock();
        if std::mem::replace(&mut waiting.stop, true) || waiting.is_over {
            return None;
        }
        let (ended, ending) = oneshot::channel();
        waiting.ended = Some(ended);
        drop(waiting);
        self.news.notify_one();
        Some(ending)
    }

    /// Waits until there is something to do, or until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Woken {
        let mut waiting = self.waiting.lock();
        waiting.busy_since = None;
        while waiting.jobs.is_empty() && !waiting.stop {
            if self.news.wait_until(&mut waiting, deadline).timed_out() {
                return Woken::Idle;
            }
        }
        if waiting.jobs.is_empty() {
            return Woken::Stop;
        }
        waiting.busy_since = Some(Instant::now());
        Woken::Group(take_group(&mut waiting))
    }

    pub(super) fn give_back(&self, jobs: Vec<Job>) {
        let mut waiting = self.waiting.lock();
        for job in jobs.into_iter().rev() {
            waiting.bytes += job.work.bytes.len();
            waiting.jobs.push_front(job);
        }
    }

    pub(super) fn fail(&self, why: &str) {
        let mut waiting = self.waiting.lock();
        waiting.failed = Some(why.to_owned());
        let jobs: Vec<_> = waiting.jobs.drain(..).collect();
        waiting.bytes = 0;
        drop(waiting);
        for job in jobs {
            self.refuse(job, PublishError::NotStored(why.to_owned()));
        }
    }

    /// Tells who asked for it that the committer has ended.
    pub(super) fn end(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_over = true;
        if let Some(ended) = waiting.ended.take() {
            let _ = ended.send(());
        }
    }

    /// Answers that a batch is not stored, and lets its key go.
    pub(super) fn refuse(&self, job: Job, error: PublishError) {
        if let Some(key) = &job.key {
            self.forget(key);
        }
        answer(job, Err(error));
    }
}

/// Why the committer is awake.
pub(super) enum Woken {
    Group(Vec<Job>),
    Idle,
    Stop,
}

fn take_group(waiting: &mut Waiting) -> Vec<Job> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while let Some(job) = waiting.jobs.front() {
        let len = job.work.bytes.len();
        if !group.is_empty() && bytes + len > GROUP_BYTES_MAX {
            break;
        }
        bytes += len;
        group.extend(waiting.jobs.pop_front());
    }
    waiting.bytes -= bytes;
    group
}

/// Whoever waited may be gone.
pub(super) fn answer(job: Job, result: Answer) {
    let _ = job.answer.send(result);
}
