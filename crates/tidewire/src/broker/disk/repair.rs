//! What to do with a log that is damaged: say what is left of it, and make a log of that.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::format::{
    BadHeader, Batch, HEADER_BYTES, Head, Header, decode_body, find_record, write_record,
};
use super::scan::{base_of, segment_path, segment_paths};
use super::state;
use crate::broker::StartError;

/// Something that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the one that should be there.
    pub path: PathBuf,
    /// The first byte of the damage.
    pub at: u64,
    /// Damaged bytes.
    pub bytes: u64,
    /// The first of the events that are lost, and how many there are, where that is known.
    pub lost: Option<(u64, u64)>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (self.bytes, self.at) {
            (0, _) => write!(f, "{path}: missing")?,
            (bytes, at) => write!(f, "{path}: {bytes} damaged bytes from byte {at} on")?,
        }
        match self.lost {
            Some((first, 1)) => write!(f, "; lost is event {first}"),
            Some((first, count)) => write!(
                f,
                "; lost are {count} events, {first} to {}",
                first + count - 1
            ),
            None => {
                f.write_str("; how many events are lost can't be told: clients are told of a gap")
            }
        }
    }
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Copies of the files as they were before.
    pub copies: Vec<PathBuf>,
}

/// Why a log can't be repaired.
#[derive(Debug)]
pub enum RepairError {
    /// A hub has the folder, or it can't be locked.
    Locked(StartError),
    /// It was written by a version of the program with another format.
    Version(PathBuf, u32),
    /// A file can't be read or written.
    Io(PathBuf, io::Error),
    /// No file is left of which to tell what it was.
    NothingLeft,
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(error) => error.fmt(f),
            Self::Version(path, version) => {
                write!(f, "{} is of format {version}: repair it with the version of tidewire that wrote it", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NothingLeft => f.write_str(
                "no file's header can be read, so nothing can be told from another's data; move the folder away to begin anew",
            ),
        }
    }
}

impl std::error::Error for RepairError {}

/// A record that is whole, as it lies in its file.
struct Piece {
    range: std::ops::Range<usize>,
    head: Head,
}

/// What is left of a segment.
struct Rest {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Option<Header>,
    pieces: Vec<Piece>,
    base: u64,
    is_damaged: bool,
}

impl Rest {
    fn next(&self) -> u64 {
        self.pieces
            .last()
            .map_or(self.base, |piece| piece.head.next())
    }
}

/// Says what is wrong with the log in a folder; nothing if it can be started as it is.
///
/// # Errors
/// If the folder is in use or can't be read.
pub fn inspect(folder: &Path) -> Result<Vec<Finding>, RepairError> {
    let _lock = lock(folder)?;
    let rests = read(folder)?;
    Ok(findings(folder, &rests))
}

/// Makes a log of what is left in a folder. Files that it changes are copied first, to names that end in `.damaged`.
/// Clients that resume from before what is lost are told of a gap.
///
/// # Errors
/// If the folder is in use, or can't be read or written. What was there is still there then, if under another name.
pub fn repair(folder: &Path) -> Result<Repaired, RepairError> {
    let _lock = lock(folder)?;
    let rests = read(folder)?;
    let mut repaired = Repaired::default();
    if findings(folder, &rests).is_empty() {
        return Ok(repaired);
    }
    let template = rests
        .iter()
        .find_map(|rest| rest.header)
        .ok_or(RepairError::NothingLeft)?;
    let mut next = rests.first().map_or(1, |rest| rest.base);
    for (n, rest) in rests.iter().enumerate() {
        let end = rests.get(n + 1).map_or(rest.next(), |later| later.base);
        if rest.base > next {
            // A segment is missing: one that only says so takes its place.
            let header = Header {
                base: next,
                ..template
            };
            rebuild(folder, header, &[], &[], rest.base)?;
        }
        if rest.is_damaged || rest.next() < end {
            repaired.copies.push(copy(&rest.path)?);
            let header = Header {
                base: rest.base,
                ..rest.header.unwrap_or(template)
            };
            rebuild(
                folder,
                header,
                &rest.bytes,
                &rest.pieces,
                end.max(rest.next()),
            )?;
        }
        next = end.max(rest.next());
    }
    // What was cut off the end can't be counted, so the next run has to begin a new epoch.
    state::forget(folder).map_err(|error| RepairError::Io(folder.to_owned(), error))?;
    Ok(repaired)
}

fn lock(folder: &Path) -> Result<state::Lock, RepairError> {
    if !folder.is_dir() {
        let error = io::Error::new(io::ErrorKind::NotFound, "there is no such folder");
        return Err(RepairError::Io(folder.to_owned(), error));
    }
    state::lock(folder).map_err(RepairError::Locked)
}

fn read(folder: &Path) -> Result<Vec<Rest>, RepairError> {
    let paths = segment_paths(folder).map_err(|error| RepairError::Io(folder.to_owned(), error))?;
    let mut rests = Vec::new();
    for (n, path) in paths.iter().enumerate() {
        let bytes = fs::read(path).map_err(|error| RepairError::Io(path.clone(), error))?;
        let header = match Header::decode(&bytes) {
            Ok(header) => Some(header),
            Err(BadHeader::Version(version)) => {
                return Err(RepairError::Version(path.clone(), version));
            }
            Err(BadHeader::Damaged) => None,
        };
        let is_empty = bytes.iter().skip(HEADER_BYTES).all(|byte| *byte == 0);
        if header.is_none() && is_empty && n + 1 == paths.len() {
            break;
        }
        rests.push(rest(path, bytes, header));
    }
    Ok(rests)
}

/// Without its header a segment's salt is gone, and with it the way to tell its records from their data.
fn rest(path: &Path, bytes: Vec<u8>, header: Option<Header>) -> Rest {
    let base = base_of(path).unwrap_or(1);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut is_damaged = header.is_none_or(|header| header.base != base);
    if let Some(header) = header.filter(|_| !is_damaged) {
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let mut at = HEADER_BYTES;
        let mut next = base;
        while let Some((skipped, head)) = bytes
            .get(at..used)
            .and_then(|rest| find_record(rest, header.salt))
        {
            let start = at + skipped;
            at = start + 1;
            let body = head.body(&bytes[start..], header.salt);
            if head.first < next || body.and_then(decode_body).is_none() {
                continue;
            }
            is_damaged |= skipped > 0 || head.first > next;
            next = head.next();
            at = start + head.record_len();
            pieces.push(Piece {
                range: start..at,
                head,
            });
        }
        is_damaged |= at < used;
    }
    Rest {
        path: path.to_owned(),
        bytes,
        header,
        pieces,
        base,
        is_damaged,
    }
}

fn findings(folder: &Path, rests: &[Rest]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut next = rests.first().map_or(1, |rest| rest.base);
    for (n, rest) in rests.iter().enumerate() {
        if rest.base > next {
            findings.push(Finding {
                path: segment_path(folder, next),
                at: 0,
                bytes: 0,
                lost: Some((next, rest.base - next)),
            });
        }
        let used = rest.bytes.len()
            - rest
                .bytes
                .iter()
                .rev()
                .take_while(|byte| **byte == 0)
                .count();
        let mut at = if rest.header.is_some() {
            HEADER_BYTES
        } else {
            0
        };
        next = rest.base;
        for piece in &rest.pieces {
            if piece.range.start > at || piece.head.first > next {
                findings.push(Finding {
                    path: rest.path.clone(),
                    at: at as u64,
                    bytes: (piece.range.start - at) as u64,
                    lost: Some((next, piece.head.first - next)),
                });
            }
            at = piece.range.end;
            next = piece.head.next();
        }
        let later = rests.get(n + 1).map(|later| later.base);
        if at < used || later.is_some_and(|later| later > next && rest.is_damaged) {
            findings.push(Finding {
                path: rest.path.clone(),
                at: at as u64,
                bytes: used.saturating_sub(at).max(1) as u64,
                lost: later.map(|later| (next, later - next)),
            });
            next = later.unwrap_or(next);
        }
    }
    findings
}

fn copy(path: &Path) -> Result<PathBuf, RepairError> {
    let mut copy = path.with_extension("log.damaged");
    let mut n = 1;
    while copy.exists() {
        copy = path.with_extension(format!("log.damaged-{n}"));
        n += 1;
    }
    fs::copy(path, &copy)
        .and_then(|_| fs::File::open(&copy)?.sync_all())
        .map_err(|error| RepairError::Io(copy.clone(), error))?;
    Ok(copy)
}

/// Writes a segment anew with the records that are left of it; what is lost, up to the offset `end`, is noted as lost.
fn rebuild(
    folder: &Path,
    header: Header,
    bytes: &[u8],
    pieces: &[Piece],
    end: u64,
) -> Result<(), RepairError> {
    let path = segment_path(folder, header.base);
    let mut out = header.encode().to_vec();
    let mut next = header.base;
    let mut at_ms = header.created_ms;
    let lost = |out: &mut Vec<u8>, next: u64, end: u64, at_ms: u64| {
        if end > next {
            let body = Batch::Lost(end - next).encode();
            write_record(
                out,
                header.salt,
                next,
                end - next,
                next - 1,
                at_ms,
                &[&body],
            );
        }
    };
    for piece in pieces {
        lost(&mut out, next, piece.head.first, at_ms);
        out.extend_from_slice(&bytes[piece.range.clone()]);
        next = piece.head.next();
        at_ms = piece.head.at_ms;
    }
    lost(&mut out, next, end, at_ms);
    let new = path.with_extension("new");
    let written = fs::write(&new, &out)
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| fs::File::open(folder)?.sync_all());
    written.map_err(|error| RepairError::Io(path, error))
}
