//! Reading what is older than the node's log, a page at a time, beside the thread that writes.
//!
//! Nothing is kept open or in memory between two pages but where the last one ended, as clients read on from there.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tidewire_core::id::Offset;

use super::format::{Batch, HEAD_BYTES, HEADER_BYTES, Head, decode_body};
use super::scan::{base_of, read_header, segment_paths};
use crate::broker::Page;

/// Bytes of records after which a page ends. Bounds what a client that resumes holds, but for one record.
const PAGE_BYTES: usize = 512 * 1024;

/// The log in a folder, as those read it who resume from further back.
pub(super) struct History {
    folder: PathBuf,
    /// Where the page before has ended.
    ended: Mutex<Option<Place>>,
}

/// Where a record begins.
#[derive(Clone, Copy)]
struct Place {
    /// The first offset of its segment.
    base: u64,
    /// In bytes.
    at: u64,
    /// Its first offset.
    first: u64,
}

impl History {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            ended: Mutex::new(None),
        }
    }

    /// What is after an offset, up to `newest`: what is behind that may not be safe yet. Blocks.
    pub(super) fn page(&self, after: u64, newest: u64) -> io::Result<Page> {
        let paths = segment_paths(&self.folder)?;
        let oldest = paths.first().and_then(|path| base_of(path)).unwrap_or(1);
        let mut reading = Reading {
            after,
            newest,
            page: Page {
                until: Offset::counted(after),
                lost: Offset::counted(oldest.saturating_sub(1)),
                newest: Offset::counted(newest),
                ..Page::default()
            },
            bytes: 0,
            is_done: false,
        };
        let begins_later =
            |path: &PathBuf| base_of(path).is_some_and(|base| base > after.saturating_add(1));
        let from = paths.partition_point(|path| !begins_later(path));
        let mut next = None;
        for path in &paths[from.saturating_sub(1)..] {
            if next.is_some_and(|next| base_of(path) != Some(next)) {
                return Err(io::Error::other(
                    "events are missing or damaged on the disk",
                ));
            }
            let ended = self.ended.lock().filter(|place| {
                Some(place.base) == base_of(path) && place.first <= after.saturating_add(1)
            });
            let place = reading.segment(path, ended)?;
            *self.ended.lock() = Some(place);
            if reading.is_full() {
                break;
            }
            next = Some(place.first);
        }
        Ok(reading.page)
    }
}

struct Reading {
    after: u64,
    newest: u64,
    page: Page,
    bytes: usize,
    /// Everything that may be shown was read.
    is_done: bool,
}

impl Reading {
    /// Reads on in a segment, from a place in it or its beginning. Answers where it has ended.
    fn segment(&mut self, path: &Path, begin: Option<Place>) -> io::Result<Place> {
        let header = read_header(path).map_err(|fault| io::Error::other(fault.to_string()))?;
        let mut place = begin.unwrap_or(Place {
            base: header.base,
            at: HEADER_BYTES as u64,
            first: header.base,
        });
        let mut file = BufReader::with_capacity(64 * 1024, File::open(path)?);
        file.seek(SeekFrom::Start(place.at))?;
        let mut record = Vec::new();
        // The segment ends with room that is reserved, or with a record that is being written.
        while !self.is_full()
            && let Some(head) = read_head(&mut file, &mut record, header.salt)?
            && head.first == place.first
        {
            let rest = head.record_len() - HEAD_BYTES;
            if head.next() <= self.after.saturating_add(1) {
                file.seek_relative(i64::try_from(rest).map_err(io::Error::other)?)?;
            } else if head.first <= self.newest {
                record.resize(head.record_len(), 0);
                file.read_exact(&mut record[HEAD_BYTES..])?;
                let batches = head.body(&record, header.salt).and_then(decode_body);
                let batches = batches.ok_or_else(|| io::Error::other("a record is damaged"))?;
                self.take(batches, head.first);
                self.bytes += head.record_len();
            }
            if head.next() > self.newest {
                self.is_done = true;
                break;
            }
            place.at += head.record_len() as u64;
            place.first = head.next();
        }
        Ok(place)
    }

    fn is_full(&self) -> bool {
        self.is_done || self.bytes >= PAGE_BYTES
    }

    fn take(&mut self, batches: Vec<Batch>, first: u64) {
        let mut offset = first;
        for batch in batches {
            let next = offset + batch.offsets();
            match batch {
                Batch::Events(events, _) => {
                    let wanted = (self.after + 1)..=self.newest;
                    let places = (offset..).map(Offset::counted);
                    let events = places.zip(events);
                    let events = events.filter(|(place, _)| wanted.contains(&place.minor));
                    self.page.events.extend(events);
                }
                Batch::Lost(_) => self.page.lost = Offset::counted(next - 1),
                Batch::End(_) => {}
            }
            offset = next;
        }
        self.page.until = Offset::counted((offset - 1).min(self.newest));
    }
}

/// The head of the record that comes next, if there is one. Its bytes are left in `record`.
fn read_head(file: &mut impl Read, record: &mut Vec<u8>, salt: u64) -> io::Result<Option<Head>> {
    record.resize(HEAD_BYTES, 0);
    match file.read_exact(record) {
        Ok(()) => Ok(Head::read(record, salt)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
