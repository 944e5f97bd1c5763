//! The one thread that writes: it takes all that waits, checks it, writes it, makes it safe, shows it, and answers.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_core::id::{NativeId, Offset};
use tidewire_core::log::Log;
use tokio::sync::oneshot;

use super::format::Batch;
use super::queue::{Done, Job, Queue, Woken, answer};
use super::writer::{WriteError, Writer};
use super::{DiskOptions, Fsync, start, state};
use crate::broker::{StartError, Tail, check, id_of};
use crate::clock::now_ms;
use crate::publish::PublishError;

/// How often what is too old is looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Reads the folder, says so, and commits until it is told to end.
pub(super) fn run(
    folder: &Path,
    options: &DiskOptions,
    queue: &Arc<Queue>,
    tail: Tail,
    started: oneshot::Sender<Result<(), StartError>>,
) {
    let opened = start::open(folder, options, &tail, &queue.answers);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    {
        let mut figures = queue.figures.lock();
        figures.tail_bytes_cut = opened.tail_bytes_cut;
        figures.stored_bytes = opened.writer.bytes();
    }
    let mut committer = Committer {
        queue: queue.clone(),
        tail,
        writer: opened.writer,
        fsync: options.fsync,
        is_full: false,
    };
    let _ = started.send(Ok(()));
    let failed = committer.serve().is_err();
    if !failed && let Err(error) = state::write(folder, options.fsync, true) {
        tracing::warn!(%error, "can't note that the hub has ended in good order");
    }
    drop(committer);
    // Before anyone is told: the next hub may start at once.
    drop(opened.lock);
    queue.end();
}

/// The disk has failed, and everyone was told.
struct Failed;

struct Committer {
    queue: Arc<Queue>,
    tail: Tail,
    writer: Writer,
    fsync: Fsync,
    is_full: bool,
}

impl Committer {
    fn serve(&mut self) -> Result<(), Failed> {
        let mut expire_at = Instant::now() + EXPIRE_EVERY;
        let mut sync_at = None;
        loop {
            let woken = self.queue.wait(sync_at.unwrap_or(expire_at).min(expire_at));
            if let Woken::Group(group) = woken {
                self.commit(group)?;
            } else if let Woken::Stop = woken {
                return self.sync();
            }
            let now = Instant::now();
            if sync_at.is_some_and(|at| now >= at) {
                self.sync()?;
                sync_at = None;
            }
            if let Fsync::Interval(every) = self.fsync
                && sync_at.is_none()
                && self.writer.is_dirty()
            {
                sync_at = Some(now + every);
            }
            if now >= expire_at {
                self.expire()?;
                expire_at = now + EXPIRE_EVERY;
            }
        }
    }

    fn sync(&mut self) -> Result<(), Failed> {
        if !self.writer.is_dirty() {
            return Ok(());
        }
        self.writer.sync().map_err(|error| self.fail(&error))
    }

    fn expire(&mut self) -> Result<(), Failed> {
        match self.writer.expire(now_ms()) {
            // Then there is no room for a new segment, and the old one does.
            Ok(()) | Err(WriteError::Full(_)) => {}
            Err(WriteError::Failed(error)) => return Err(self.fail(&error)),
        }
        self.queue.figures.lock().stored_bytes = self.writer.bytes();
        Ok(())
    }

    fn commit(&mut self, group: Vec<Job>) -> Result<(), Failed> {
        let at_ms = self.writer.time(now_ms());
        let group = self.check(group, at_ms);
        if group.is_empty() {
            return Ok(());
        }
        let (first, end) = (self.writer.next(), self.writer.end());
        let bodies: Vec<_> = group.iter().map(|job| job.work.bytes.as_slice()).collect();
        let offsets = group.iter().map(|job| job.work.batch.offsets()).sum();
        match self.writer.write(&bodies, offsets, at_ms) {
            Ok(()) => self.note_room(),
            Err(WriteError::Full(error)) => {
                self.refuse_full(group, &error);
                return Ok(());
            }
            Err(WriteError::Failed(error)) => return Err(self.fail_with(group, &error)),
        }
        if self.fsync == Fsync::Always
            && let Err(error) = self.writer.sync()
        {
            self.writer.take_back(end);
            return Err(self.fail_with(group, &error));
        }
        {
            let mut figures = self.queue.figures.lock();
            figures.commits += 1;
            figures.stored_bytes = self.writer.bytes();
        }
        self.show(group, first, at_ms);
        Ok(())
    }

    /// Leaves out what can't be stored, with its answer. What depends on another batch of the group waits for the next.
    fn check(&self, group: Vec<Job>, now_ms: u64) -> Vec<Job> {
        let mut good: Vec<Job> = Vec::new();
        let mut refused = Vec::new();
        let mut later = Vec::new();
        let mut touched = Touched::default();
        let checked = self.tail.try_write(|log| {
            log.expire(now_ms);
            for job in group {
                if !later.is_empty() || touched.concerns(&job.work.batch) {
                    later.push(job);
                    continue;
                }
                match check_batch(log, &job.work.batch, now_ms) {
                    Ok(None) => {
                        touched.add(&job.work.batch);
                        good.push(job);
                    }
                    Ok(Some(end)) => refused.push((job, Ok(end))),
                    Err(error) => refused.push((job, Err(error))),
                }
            }
        });
        for (job, result) in refused {
            match result {
                Ok(end) => answer(job, Ok(done_with(end))),
                Err(error) => self.queue.refuse(job, error),
            }
        }
        self.queue.give_back(later);
        // Without a hub nobody waits any more.
        checked.map(|()| good).unwrap_or_default()
    }

    /// Shows the events of a group that is stored, then answers.
    fn show(&self, group: Vec<Job>, first: u64, at_ms: u64) {
        let mut offset = first;
        for job in group {
            let at = offset;
            offset += job.work.batch.offsets();
            let Some(done) = self
                .tail
                .try_write(|log| append(log, &job.work.batch, at, at_ms))
            else {
                return;
            };
            if let Some(key) = &job.key {
                self.queue
                    .answers
                    .lock()
                    .finish(key, done.ids.clone(), at_ms);
            }
            answer(job, Ok(done));
        }
    }

    fn note_room(&mut self) {
        if std::mem::take(&mut self.is_full) {
            tracing::info!("the disk has room again; events are stored");
        }
    }

    fn refuse_full(&mut self, group: Vec<Job>, error: &std::io::Error) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::error!(%error, "the disk is full; events are refused until there is room");
        }
        self.queue.figures.lock().refused_full += group.len() as u64;
        for job in group {
            let why = "the hub's disk is full; it takes events again as soon as there is room";
            self.queue
                .refuse(job, PublishError::StorageFull(why.into()));
        }
    }

    /// Ends all storing. A second try could succeed without anything being on the disk, so there is none.
    fn fail(&self, error: &std::io::Error) -> Failed {
        let why = format!("the disk has failed ({error}); restart the hub once it works");
        tracing::error!(%error, "the disk has failed; no event is stored until the hub is restarted");
        self.queue.fail(&why);
        Failed
    }

    /// The same while a group was being written. Its keys stay taken: nobody knows whether it is stored.
    fn fail_with(&self, group: Vec<Job>, error: &std::io::Error) -> Failed {
        let failed = self.fail(error);
        for job in group {
            answer(
                job,
                Err(PublishError::OutcomeUnknown(format!(
                    "the disk has failed: {error}"
                ))),
            );
        }
        failed
    }
}

/// What a group has done so far that a later batch of it may depend on.
#[derive(Default)]
struct Touched {
    ids: HashSet<String>,
    ended: HashSet<String>,
}

impl Touched {
    fn concerns(&self, batch: &Batch) -> bool {
        match batch {
            Batch::Events(events, _) => events.iter().any(|event| {
                event
                    .event
                    .id
                    .as_ref()
                    .is_some_and(|id| self.ids.contains(id))
                    || event
                        .topics
                        .iter()
                        .any(|topic| self.ended.contains(topic.as_str()))
            }),
            Batch::End(topic) => self.ended.contains(topic.as_str()),
            Batch::Lost(_) => false,
        }
    }

    fn add(&mut self, batch: &Batch) {
        match batch {
            Batch::Events(events, _) => {
                self.ids
                    .extend(events.iter().filter_map(|event| event.event.id.clone()));
            }
            Batch::End(topic) => {
                self.ended.insert(topic.as_str().to_owned());
            }
            Batch::Lost(_) => {}
        }
    }
}

/// Whether the log takes a batch; the id of the present end where a topic is closed already.
fn check_batch(log: &Log, batch: &Batch, now_ms: u64) -> Result<Option<NativeId>, PublishError> {
    match batch {
        Batch::Events(events, _) => check(log, events, now_ms).map(|()| None),
        Batch::End(topic) => Ok(log.end_of(topic.as_str(), now_ms)),
        Batch::Lost(_) => Ok(None),
    }
}

fn done_with(end: NativeId) -> Done {
    Done {
        ids: Arc::default(),
        end: Some(end),
    }
}

/// Puts a stored batch into the node's log.
pub(super) fn append(log: &mut Log, batch: &Batch, first: u64, at_ms: u64) -> Done {
    match batch {
        Batch::Events(events, _) => {
            let epoch = log.epoch();
            let append = |(publication, offset): (&crate::Publication, u64)| {
                let offset = Offset::counted(offset);
                log.append(&publication.topics, &publication.event, offset, at_ms);
                id_of(publication, epoch, offset)
            };
            Done {
                ids: events.iter().zip(first..).map(append).collect(),
                end: None,
            }
        }
        Batch::End(topic) => done_with(log.append_end(topic, Offset::counted(first), at_ms)),
        Batch::Lost(count) => {
            log.skip_lost(Offset::counted(first + count - 1), at_ms);
            Done {
                ids: Arc::default(),
                end: None,
            }
        }
    }
}
