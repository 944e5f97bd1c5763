//! What waits to be stored.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::append::{Batch, Placed};
use crate::broker::Publication;
use crate::publish::PublishError;

/// Most bytes that wait. Stops publishers who are faster than Redis from filling the memory.
const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes and entries that are stored with one call, unless one batch has more. Redis does nothing else meanwhile.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
const GROUP_ENTRIES_MAX: usize = 400;

pub(super) type Answer = Result<Placed, PublishError>;

/// What is to be stored.
pub(super) enum Work {
    /// One event with neither a key nor an id of its own. Those that wait one after the other are stored together, as if they were a
    /// batch: what costs Redis and every node is the entries.
    Plain(Publication),
    Batch(Batch),
}

impl Work {
    /// About how much it takes up, in bytes, and how many entries it is.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Plain(Publication { topics, event }) => {
                let topics: usize = topics.iter().map(|topic| topic.as_str().len() + 32).sum();
                let name = event.event.as_ref().map_or(0, String::len);
                (topics + name + event.data.len() + 128, 1)
            }
            Self::Batch(batch) => (batch.bytes, batch.entries),
        }
    }
}

/// Something to store, and who waits for it.
pub(super) struct Job {
    pub(super) work: Work,
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
    pub(super) fn push(&self, work: Work) -> Result<oneshot::Receiver<Answer>, PublishError> {
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            return Err(PublishError::NotStored("the hub is ending".into()));
        }
        let (bytes, _) = work.size();
        if waiting.bytes > 0 && waiting.bytes + bytes > PENDING_BYTES_MAX {
            return Err(PublishError::NotStored(
                "Redis does not keep up with the publishers".into(),
            ));
        }
        let (answer, answered) = oneshot::channel();
        waiting.bytes += bytes;
        waiting.jobs.push_back(Job { work, answer });
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
    while let Some(Job { work, .. }) = waiting.jobs.front() {
        let (more_bytes, more_entries) = work.size();
        let is_full =
            bytes + more_bytes > GROUP_BYTES_MAX || entries + more_entries > GROUP_ENTRIES_MAX;
        if !group.is_empty() && is_full {
            break;
        }
        bytes += more_bytes;
        entries += more_entries;
        group.extend(waiting.jobs.pop_front());
    }
    waiting.bytes -= bytes;
    group
}
