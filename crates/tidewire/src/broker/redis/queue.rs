//! What waits to be stored.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::append::{Batch, Placed};
use crate::publish::PublishError;

/// Most bytes that wait. Stops publishers who are faster than Redis from filling the memory.
const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes and entries that are stored with one call, unless one batch has more. Redis does nothing else meanwhile.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
const GROUP_ENTRIES_MAX: usize = 400;

pub(super) type Answer = Result<Placed, PublishError>;

/// A batch and who waits for it.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    is_over: bool,
}

impl Queue {
    pub(super) fn push(&self, batch: Batch) -> Result<oneshot::Receiver<Answer>, PublishError> {
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            return Err(PublishError::NotStored("the hub is ending".into()));
        }
        if waiting.bytes > 0 && waiting.bytes + batch.bytes > PENDING_BYTES_MAX {
            return Err(PublishError::NotStored(
                "Redis does not keep up with the publishers".into(),
            ));
        }
        let (answer, answered) = oneshot::channel();
        waiting.bytes += batch.bytes;
        waiting.jobs.push_back(Job { batch, answer });
        drop(waiting);
        self.news.notify_one();
        Ok(answered)
    }

    /// What is stored with the next call; `None` once the queue is over and empty.
    pub(super) async fn next_group(&self) -> Option<Vec<Job>> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if !waiting.jobs.is_empty() {
                    return Some(take_group(&mut waiting));
                }
                if waiting.is_over {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    /// Takes nothing more.
    pub(super) fn end(&self) {
        self.waiting.lock().is_over = true;
        self.news.notify_one();
    }
}

fn take_group(waiting: &mut Waiting) -> Vec<Job> {
    let mut group = Vec::new();
    let (mut bytes, mut entries) = (0, 0);
    while let Some(Job { batch, .. }) = waiting.jobs.front() {
        let is_full =
            bytes + batch.bytes > GROUP_BYTES_MAX || entries + batch.entries > GROUP_ENTRIES_MAX;
        if !group.is_empty() && is_full {
            break;
        }
        bytes += batch.bytes;
        entries += batch.entries;
        group.extend(waiting.jobs.pop_front());
    }
    waiting.bytes -= bytes;
    group
}
