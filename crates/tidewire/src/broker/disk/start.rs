//! From a folder to a log in memory: what is there, what a crash has left, where to go on.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::Log;

use super::format::{Batch, Header};
use super::scan::{End, Fault, Segment, finished_paths, read_folder, read_header, read_segment};
use super::state::{self, Before};
use super::writer::{Keep, Old, Place, Writer};
use super::{DiskOptions, committer};
use crate::broker::answers::{Answers, Begun};
use crate::broker::{EventId, StartError, Tail, id_of};
use crate::clock::now_ms;

/// A log that was read and is ready to be written to.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) lock: state::Lock,
    pub(super) tail_bytes_cut: u64,
}

/// Reads the folder into the node's log and the answers to keys.
pub(super) fn open(
    folder: &Path,
    options: &DiskOptions,
    tail: &Tail,
    answers: &Mutex<Answers>,
) -> Result<Opened, StartError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        StartError::new(format!("the log in {} {what}: {error}", folder.display()))
    };
    fs::create_dir_all(folder).map_err(|error| failed("can't be made", &error))?;
    let lock = state::lock(folder)?;
    let now_ms = now_ms();
    let begun = survey(folder).map_err(|fault| refuse(folder, &fault))?;
    let epoch = match &begun {
        Some((newest, _)) if keeps_epoch(folder, newest) => newest.header.epoch,
        _ => Epoch::from_random(fastrand::u64(..)),
    };
    let mut segments = Vec::new();
    if let Some((_, oldest)) = &begun {
        tail.try_write(|log| restore(log, epoch, oldest));
        let fill = &mut |batch: &Batch, first: u64, at_ms: u64| {
            tail.try_write(|log| take(log, batch, first, at_ms, now_ms));
            remember(answers, options, batch, first, epoch, at_ms, now_ms);
        };
        segments = read_folder(folder, fill).map_err(|fault| refuse(folder, &fault))?;
    } else {
        tail.try_write(|log| log.restore(epoch, Offset::ZERO, 0));
    }
    tail.try_write(|log| log.expire(now_ms));
    let tail_bytes_cut = segments.last().map_or(0, report_tail);
    let unwritable = |error| failed("can't be written to", &error);
    if begun.is_some_and(|(newest, _)| newest.header.epoch != epoch) {
        // Until the new epoch is on the disk: what it is for may be cut off before.
        state::forget(folder).map_err(unwritable)?;
    }
    let writer = writer(folder, options, segments, epoch, now_ms).map_err(unwritable)?;
    state::write(folder, options.fsync, false).map_err(unwritable)?;
    tracing::info!(
        folder = %folder.display(),
        epoch = %epoch,
        next = writer.next(),
        bytes = writer.bytes(),
        "the log is open"
    );
    Ok(Opened {
        writer,
        lock,
        tail_bytes_cut,
    })
}

/// The newest segment, read, and the header of the oldest; `None` for an empty folder.
fn survey(folder: &Path) -> Result<Option<(Segment, Header)>, Fault> {
    let paths = finished_paths(folder)?;
    let (Some(oldest), Some(newest)) = (paths.first(), paths.last()) else {
        return Ok(None);
    };
    let oldest = read_header(oldest)?;
    let newest = read_segment(newest, true, &mut |_, _, _| {})?;
    Ok(Some((newest, oldest)))
}

/// Whether everything that clients may have seen is there.
fn keeps_epoch(folder: &Path, newest: &Segment) -> bool {
    let before = state::before(folder);
    match before {
        Before::Safe => {}
        Before::Unknown => tracing::warn!(
            "the log's folder does not say how the last run ended, so events may be missing; clients are told of a gap"
        ),
        Before::MayHaveLost => tracing::warn!(
            "the machine went down before the newest events were safe; clients are told of a gap"
        ),
    }
    before == Before::Safe && newest.tail != End::Damaged
}

fn restore(log: &mut Log, epoch: Epoch, oldest: &Header) {
    let lost = Offset::counted(oldest.base - 1);
    log.restore(
        epoch,
        lost,
        if oldest.base > 1 {
            oldest.created_ms
        } else {
            0
        },
    );
}

/// Puts a stored batch into the node's log, or what it leaves there if it is too old for it.
fn take(log: &mut Log, batch: &Batch, first: u64, at_ms: u64, now_ms: u64) {
    let is_history = at_ms.saturating_add(log.ttl_ms()) >= now_ms;
    match batch {
        Batch::Events(events, _) if !is_history => {
            for (publication, offset) in events.iter().zip(first..) {
                log.skip(&publication.topics, Offset::counted(offset), at_ms);
            }
        }
        Batch::End(topic) if !is_history => {
            log.skip(std::slice::from_ref(topic), Offset::counted(first), at_ms);
        }
        batch => drop(committer::append(log, batch, first, at_ms)),
    }
}

fn remember(
    answers: &Mutex<Answers>,
    options: &DiskOptions,
    batch: &Batch,
    first: u64,
    epoch: Epoch,
    at_ms: u64,
    now_ms: u64,
) {
    let Batch::Events(events, Some(key)) = batch else {
        return;
    };
    if u128::from(now_ms.saturating_sub(at_ms)) >= options.idempotency_window.as_millis() {
        return;
    }
    let mut answers = answers.lock();
    // One that was used again after its time is begun anew; one for which there is no room can't be helped.
    if let Ok(Begun::New) = answers.begin(key, events.len(), at_ms) {
        let ids: Vec<EventId> = events
            .iter()
            .zip(first..)
            .map(|(publication, offset)| id_of(publication, epoch, Offset::counted(offset)))
            .collect();
        answers.finish(key, ids.into(), at_ms);
    }
}

/// Says what is cut off the end; how many bytes.
fn report_tail(newest: &Segment) -> u64 {
    let bytes = newest.used.saturating_sub(newest.end);
    match newest.tail {
        End::Clean => return 0,
        End::Torn => tracing::warn!(
            file = %newest.path.display(), at = newest.end, bytes,
            "the last write was cut by a crash; it was not answered, and is cut off"
        ),
        End::Damaged => tracing::error!(
            file = %newest.path.display(), at = newest.end, bytes,
            "the last write is damaged and cut off; clients are told of a gap"
        ),
    }
    bytes
}

fn writer(
    folder: &Path,
    options: &DiskOptions,
    mut segments: Vec<Segment>,
    epoch: Epoch,
    now_ms: u64,
) -> std::io::Result<Writer> {
    let keep = Keep {
        age_ms: u64::try_from(options.retention.as_millis()).unwrap_or(u64::MAX),
        bytes_max: options.bytes_max,
    };
    let newest = segments.pop();
    let mut old: VecDeque<Old> = segments.iter().map(old).collect();
    let storage = options.storage.clone();
    let folder: PathBuf = folder.to_owned();
    let Some(newest) = newest else {
        let header = header(epoch, 1, now_ms);
        return Writer::begin(storage, folder, keep, old, header);
    };
    let place = Place {
        header: newest.header,
        next: newest.next,
        end: newest.end,
        newest_ms: newest.newest_ms.max(newest.header.created_ms),
    };
    if newest.tail == End::Damaged {
        keep_copy(&newest);
    }
    if newest.header.epoch == epoch {
        return Writer::resume(storage, folder, keep, old, &place);
    }
    // A new epoch begins with a segment of its own. One that has no event yet is written anew.
    if newest.next > newest.header.base {
        let mut file = storage.open(&newest.path)?;
        file.set_len(newest.end)?;
        file.sync()?;
        old.push_back(self::old(&newest));
    }
    Writer::begin(
        storage,
        folder,
        keep,
        old,
        header(epoch, newest.next, place.newest_ms.max(now_ms)),
    )
}

/// What is cut off although it may have been answered is kept beside the log, if there is room.
fn keep_copy(newest: &Segment) {
    let copy = newest.path.with_extension(format!("cut-{}", newest.end));
    let copied = fs::read(&newest.path).and_then(|bytes| {
        let cut = bytes.get(newest.end as usize..newest.used as usize);
        fs::write(&copy, cut.unwrap_or_default())
    });
    match copied {
        Ok(()) => tracing::warn!(copy = %copy.display(), "what was cut off is kept"),
        Err(error) => tracing::warn!(%error, "what is cut off can't be kept"),
    }
}

fn header(epoch: Epoch, base: u64, created_ms: u64) -> Header {
    Header {
        epoch,
        base,
        salt: fastrand::u64(..),
        created_ms,
    }
}

fn old(segment: &Segment) -> Old {
    Old {
        path: segment.path.clone(),
        bytes: segment.end,
        newest_ms: segment.newest_ms,
    }
}

fn refuse(folder: &Path, fault: &Fault) -> StartError {
    let hint = match fault {
        Fault::Damage(_) => format!(
            "\n  Nothing was changed. To see what is left, and to go on with it, run: tidewire repair {}",
            folder.display()
        ),
        Fault::Io(..) | Fault::Version(..) => String::new(),
    };
    StartError::new(format!(
        "the log in {} can't be read: {fault}{hint}",
        folder.display()
    ))
}
