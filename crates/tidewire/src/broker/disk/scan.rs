//! Reading the folder: which segments there are, what is in them, and what is wrong with them.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::format::{
    BadHeader, Batch, HEADER_BYTES, Head, Header, VERSION, decode_body, find_record,
};

const SUFFIX: &str = ".log";

/// The name of the segment that begins with this offset. Names sort as offsets do.
pub(super) fn segment_path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}{SUFFIX}"))
}

/// The segments of a folder, oldest first.
pub(super) fn segment_paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(SUFFIX));
        if number.is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit())) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Why a log can't be read.
#[derive(Debug)]
pub(super) enum Fault {
    Io(PathBuf, io::Error),
    /// Written by another version of the program.
    Version(PathBuf, u32),
    Damage(Damage),
}

/// Bytes that were written and are not what they were.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    pub(super) path: PathBuf,
    /// Where it begins, in bytes.
    pub(super) at: u64,
    pub(super) what: &'static str,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last record, and room that is reserved.
    Clean,
    /// With a write that was not finished: some bytes at its end were never written.
    Torn,
    /// With a write that was finished and is not what it was. It may have been seen.
    Damaged,
}

/// A segment that was read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// The offset behind its last.
    pub(super) next: u64,
    /// Where its last record ends, in bytes.
    pub(super) end: u64,
    /// The last byte behind that which is not zero, in bytes from the start.
    pub(super) used: u64,
    pub(super) tail: End,
    /// Of its newest record; 0 without any.
    pub(super) newest_ms: u64,
}

/// Reads a segment. The visitor is shown every batch with its first offset and its time.
///
/// `last` says that it is the newest one, the only one that may end with a write that was not finished.
pub(super) fn read_segment(
    path: &Path,
    last: bool,
    visit: &mut dyn FnMut(&Batch, u64, u64),
) -> Result<Segment, Fault> {
    let bytes = fs::read(path).map_err(|error| Fault::Io(path.to_owned(), error))?;
    read_bytes(path, &bytes, last, visit)
}

/// As [`read_segment`], of these bytes.
pub(super) fn read_bytes(
    path: &Path,
    bytes: &[u8],
    last: bool,
    visit: &mut dyn FnMut(&Batch, u64, u64),
) -> Result<Segment, Fault> {
    let damage = |at: usize, what| {
        Fault::Damage(Damage {
            path: path.to_owned(),
            at: at as u64,
            what,
        })
    };
    let header = Header::decode(bytes).map_err(|bad| fault_of(bad, path))?;
    if base_of(path) != Some(header.base) {
        return Err(damage(
            0,
            "its name is not the one that it was written under",
        ));
    }
    let used = used_len(bytes);
    let mut segment = Segment {
        path: path.to_owned(),
        header,
        next: header.base,
        end: HEADER_BYTES as u64,
        used: used as u64,
        tail: End::Clean,
        newest_ms: 0,
    };
    let mut at = HEADER_BYTES;
    while at < used {
        let head = Head::read(&bytes[at..], header.salt).filter(|head| head.first == segment.next);
        let batches = head
            .and_then(|head| head.body(&bytes[at..], header.salt))
            .and_then(decode_body)
            .filter(|batches| head.is_some_and(|head| fits(batches, &head)));
        let (Some(head), Some(batches)) = (head, batches) else {
            segment.tail = judge_tail(&bytes[at..used], head, &segment, last)
                .ok_or_else(|| damage(at, "a record is damaged, and later ones are not"))?;
            break;
        };
        let mut offset = head.first;
        for batch in &batches {
            visit(batch, offset, head.at_ms);
            offset += batch.offsets();
        }
        segment.next = head.next();
        segment.newest_ms = head.at_ms;
        at += head.record_len();
        segment.end = at as u64;
    }
    Ok(segment)
}

/// Whether the batches take as many offsets as their record says, and all of these are numbers.
fn fits(batches: &[Batch], head: &Head) -> bool {
    let mut offsets = batches.iter().map(Batch::offsets);
    let sum = offsets.try_fold(0_u64, u64::checked_add);
    sum == Some(head.count) && head.first.checked_add(head.count).is_some()
}

/// What lies behind the last whole record: `None` if more than a crash can have left there.
fn judge_tail(rest: &[u8], head: Option<Head>, segment: &Segment, last: bool) -> Option<End> {
    let mut from = 1;
    while let Some((at, later)) = rest
        .get(from..)
        .and_then(|rest| find_record(rest, segment.header.salt))
    {
        // Written after what is bad here had been made safe.
        if later.first > segment.next && later.synced >= segment.next {
            return None;
        }
        from += at + 1;
    }
    if !last {
        return None;
    }
    // A record ends with bytes that are not zero.
    let whole = head.map_or(super::format::HEAD_BYTES, |head| head.record_len());
    Some(if rest.len() < whole {
        End::Torn
    } else {
        End::Damaged
    })
}

/// The length without the zeros at the end.
fn used_len(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    bytes.len() - zeros
}

/// Reads a segment's header.
pub(super) fn read_header(path: &Path) -> Result<Header, Fault> {
    let mut bytes = [0; HEADER_BYTES];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Fault::Io(path.to_owned(), error))?;
    Header::decode(&bytes).map_err(|bad| fault_of(bad, path))
}

fn fault_of(bad: BadHeader, path: &Path) -> Fault {
    match bad {
        BadHeader::Version(version) => Fault::Version(path.to_owned(), version),
        BadHeader::Damaged => Fault::Damage(Damage {
            path: path.to_owned(),
            at: 0,
            what: "its header is damaged",
        }),
    }
}

/// Reads all segments of a folder, oldest first, and checks that none is missing.
pub(super) fn read_folder(
    folder: &Path,
    visit: &mut dyn FnMut(&Batch, u64, u64),
) -> Result<Vec<Segment>, Fault> {
    let paths = finished_paths(folder)?;
    let mut segments: Vec<Segment> = Vec::new();
    for (n, path) in paths.iter().enumerate() {
        let last = n + 1 == paths.len();
        let base = base_of(path);
        if let Some(before) = segments.last()
            && base != Some(before.next)
        {
            return Err(Fault::Damage(Damage {
                path: path.clone(),
                at: 0,
                what: "events between it and the segment before are missing",
            }));
        }
        let segment = read_segment(path, last, visit)?;
        segments.push(segment);
    }
    Ok(segments)
}

/// The offset in a segment's name.
pub(super) fn base_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// The segments of a folder, without a newest one that a crash has left without so much as a header.
pub(super) fn finished_paths(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let mut paths = segment_paths(folder).map_err(|error| Fault::Io(folder.to_owned(), error))?;
    if let Some(path) = paths.last() {
        let bytes = fs::read(path).map_err(|error| Fault::Io(path.clone(), error))?;
        if used_len(&bytes) < HEADER_BYTES && Header::decode(&bytes) == Err(BadHeader::Damaged) {
            paths.pop();
        }
    }
    Ok(paths)
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}, at byte {}",
            self.path.display(),
            self.what,
            self.at
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Version(path, version) => write!(
                f,
                "{} is of format {version}, and this program reads format {VERSION}: \
                 run the version of tidewire that wrote it, or set broker.path to another folder",
                path.display()
            ),
            Self::Damage(damage) => damage.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::write_record;
    use super::*;
    use tidewire_core::id::Epoch;

    /// Found by fuzzing: the sum of what two batches say overflowed, and so did the offset behind them.
    #[test]
    fn a_record_of_more_offsets_than_there_are_numbers_is_damaged() {
        for (base, lost) in [(0, vec![u64::MAX, 2]), (2, vec![u64::MAX - 1])] {
            let header = Header {
                epoch: Epoch::from_random(1),
                base,
                salt: 7,
                created_ms: 0,
            };
            let bodies: Vec<_> = lost.iter().map(|n| Batch::Lost(*n).encode()).collect();
            let bodies: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
            let count = lost.iter().fold(0_u64, |sum, n| sum.wrapping_add(*n));
            let mut bytes = header.encode().to_vec();
            write_record(&mut bytes, header.salt, base, count, base, 1, &bodies);
            let path = segment_path(Path::new(""), base);
            let segment = read_bytes(&path, &bytes, true, &mut |_, _, _| panic!("none is good"));
            assert_eq!(segment.map(|segment| segment.tail).unwrap(), End::Damaged);
        }
    }
}
