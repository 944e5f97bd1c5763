//! Appending records to segments, starting new ones and giving old ones back.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidewire_core::id::Epoch;

use super::format::{HEADER_BYTES, Header, write_record};
use super::scan::segment_path;
use super::storage::{Storage, StorageFile, is_full};

/// How much room is reserved at a time, in bytes.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// Largest segment, in bytes: what is given back at a time.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Into how many segments the log is divided at least, by size and by age.
const SEGMENTS_MIN: u64 = 8;

/// Why a write failed.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There was no room; nothing was written, and a later write may succeed.
    Full(io::Error),
    /// It is unknown what is on the disk. Nothing more must be written.
    Failed(io::Error),
}

impl WriteError {
    fn from_write(error: io::Error) -> Self {
        if is_full(&error) {
            Self::Full(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) age_ms: u64,
    pub(super) bytes_max: u64,
}

/// A segment that is written no more.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) newest_ms: u64,
}

/// The segment that is written to.
struct Active {
    file: Box<dyn StorageFile>,
    path: PathBuf,
    salt: u64,
    base: u64,
    created_ms: u64,
    /// Where the next record goes, in bytes.
    end: u64,
    reserved: u64,
}

/// The writing end of the log.
pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    keep: Keep,
    epoch: Epoch,
    old: VecDeque<Old>,
    active: Active,
    /// The next offset.
    next: u64,
    /// The offset behind the newest one that is safe.
    safe: u64,
    newest_ms: u64,
    record: Vec<u8>,
}

/// Where to go on writing.
pub(super) struct Place {
    pub(super) header: Header,
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) newest_ms: u64,
}

impl Writer {
    /// Goes on in an existing segment, which is cut to its whole records.
    pub(super) fn resume(
        storage: Arc<dyn Storage>,
        folder: PathBuf,
        keep: Keep,
        old: VecDeque<Old>,
        place: &Place,
    ) -> io::Result<Self> {
        let path = segment_path(&folder, place.header.base);
        let mut file = storage.open(&path)?;
        file.set_len(place.end)?;
        // Also what a run before has written and not synced.
        file.sync()?;
        let active = Active {
            file,
            path,
            salt: place.header.salt,
            base: place.header.base,
            created_ms: place.header.created_ms,
            end: place.end,
            reserved: place.end,
        };
        Ok(Self {
            storage,
            folder,
            keep,
            epoch: place.header.epoch,
            old,
            active,
            next: place.next,
            safe: place.next,
            newest_ms: place.newest_ms,
            record: Vec::new(),
        })
    }

    /// Begins a log, or a new epoch of one.
    pub(super) fn begin(
        storage: Arc<dyn Storage>,
        folder: PathBuf,
        keep: Keep,
        old: VecDeque<Old>,
        header: Header,
    ) -> io::Result<Self> {
        let active = create(&*storage, &folder, header)?;
        Ok(Self {
            storage,
            folder,
            keep,
            epoch: header.epoch,
            old,
            active,
            next: header.base,
            safe: header.base,
            newest_ms: header.created_ms,
            record: Vec::new(),
        })
    }

    /// The offset that the next event gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether something was written that is not safe yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.safe < self.next
    }

    /// A time for the next record: never less than that of the one before.
    pub(super) fn time(&self, now_ms: u64) -> u64 {
        self.newest_ms.max(now_ms)
    }

    /// What the log takes up, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.old.iter().map(|old| old.bytes).sum::<u64>() + self.active.reserved
    }

    /// Writes these batches as one record. They are not safe before [`sync`](Self::sync).
    pub(super) fn write(
        &mut self,
        bodies: &[&[u8]],
        offsets: u64,
        at_ms: u64,
    ) -> Result<(), WriteError> {
        let body: usize = bodies.iter().map(|body| body.len()).sum();
        let about = (body + 64) as u64;
        let segment_bytes = self.segment_bytes();
        if self.next > self.active.base && self.active.end + about > segment_bytes {
            self.roll(at_ms)?;
        }
        self.record.clear();
        let active = &mut self.active;
        let safe = self.safe - 1;
        write_record(
            &mut self.record,
            active.salt,
            self.next,
            offsets,
            safe,
            at_ms,
            bodies,
        );
        let end = active.end + self.record.len() as u64;
        if end > active.reserved {
            // A little at a time where a lot would not fit.
            let ahead = (active.end + RESERVE_BYTES).min(segment_bytes);
            let reserve = [ahead.max(end), end];
            let reserved = reserve
                .iter()
                .find_map(|end| active.file.reserve(*end).ok().map(|()| *end));
            match reserved {
                Some(reserved) => active.reserved = reserved,
                None => active.file.reserve(end).map_err(WriteError::from_write)?,
            }
        }
        if let Err(error) = active.file.write_at(&self.record, active.end) {
            let error = WriteError::from_write(error);
            // Nothing half-written may stay where the next record goes.
            if let Err(error) = active.file.set_len(active.end) {
                return Err(WriteError::Failed(error));
            }
            active.reserved = active.end;
            return Err(error);
        }
        active.end = end;
        self.next += offsets;
        self.newest_ms = at_ms;
        // A large one shall not keep its memory for ever.
        if self.record.capacity() > RESERVE_BYTES as usize {
            self.record = Vec::new();
        }
        Ok(())
    }

    /// Makes all that was written safe. After an error it is unknown what is.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.active.file.sync()?;
        self.safe = self.next;
        Ok(())
    }

    /// Takes a record back that could not be made safe, so that a process which starts after this one does not find it
    /// in the system's memory and take it for stored. Best effort: the disk has failed already.
    pub(super) fn take_back(&mut self, end: u64) {
        let _ = self.active.file.set_len(end);
    }

    /// Where the newest record ends, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.active.end
    }

    /// Begins a new segment.
    fn roll(&mut self, now_ms: u64) -> Result<(), WriteError> {
        if self.is_dirty() {
            self.sync().map_err(WriteError::Failed)?;
        }
        self.drop_beyond(self.keep.bytes_max.saturating_sub(self.segment_bytes()));
        let header = Header {
            epoch: self.epoch,
            base: self.next,
            salt: fastrand::u64(..),
            created_ms: now_ms,
        };
        let new = create(&*self.storage, &self.folder, header).map_err(WriteError::from_write)?;
        let mut done = std::mem::replace(&mut self.active, new);
        // Room that was reserved and not used. If it can't be given back it is wasted, and nothing else.
        if done.file.set_len(done.end).is_ok() {
            done.reserved = done.end;
        }
        self.old.push_back(Old {
            path: done.path,
            bytes: done.reserved,
            newest_ms: self.newest_ms,
        });
        Ok(())
    }

    /// Gives back what is too old, or too much. To be called now and then.
    pub(super) fn expire(&mut self, now_ms: u64) -> Result<(), WriteError> {
        let written = self.next > self.active.base;
        let age_ms = |since_ms: u64| now_ms.saturating_sub(since_ms);
        let slice_ms = (self.keep.age_ms / SEGMENTS_MIN).max(1);
        if written && age_ms(self.active.created_ms) >= slice_ms {
            self.roll(now_ms)?;
        }
        let keep_ms = self.keep.age_ms;
        let is_over = |old: &Old| age_ms(old.newest_ms) > keep_ms;
        while self.old.front().is_some_and(is_over) && self.drop_oldest() {}
        self.drop_beyond(self.keep.bytes_max);
        Ok(())
    }

    fn drop_beyond(&mut self, bytes_max: u64) {
        while self.bytes() > bytes_max && self.drop_oldest() {}
    }

    /// False if there is none, or if it can't be removed now. Then no younger one may be either: a log without its middle
    /// is refused at the next start.
    fn drop_oldest(&mut self) -> bool {
        let Some(old) = self.old.front() else {
            return false;
        };
        let removed = self
            .storage
            .remove(&old.path)
            .and_then(|()| self.storage.sync_folder(&self.folder));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %old.path.display(), %error, "an old segment can't be removed");
            return false;
        }
        self.old.pop_front();
        true
    }

    fn segment_bytes(&self) -> u64 {
        (self.keep.bytes_max / SEGMENTS_MIN).clamp(HEADER_BYTES as u64, SEGMENT_BYTES_MAX)
    }
}

/// Makes a segment that is safe but for its records.
fn create(storage: &dyn Storage, folder: &std::path::Path, header: Header) -> io::Result<Active> {
    let path = segment_path(folder, header.base);
    let prepare = || {
        let mut file = storage.open(&path)?;
        file.set_len(0)?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        storage.sync_folder(folder)?;
        Ok(file)
    };
    let file = prepare().inspect_err(|_: &io::Error| {
        let _ = storage.remove(&path);
    })?;
    Ok(Active {
        file,
        path,
        salt: header.salt,
        base: header.base,
        created_ms: header.created_ms,
        end: HEADER_BYTES as u64,
        reserved: HEADER_BYTES as u64,
    })
}
