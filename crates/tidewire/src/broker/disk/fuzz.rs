//! Fuzz targets: what recovery makes of bytes that nobody wrote. Not for applications, and it may change at any time.

use std::path::Path;

use tidewire_core::id::Epoch;

use super::format::{Batch, Header, decode_body, find_record, write_record};
use super::scan::{End, read_bytes, segment_path};

const SALT: u64 = 7;
/// Of one piece of a segment, as its length is one byte.
const PIECE_BYTES_UNIT: usize = 16;

/// Any bytes as a header, as records and as the body of one.
pub fn records(data: &[u8]) {
    let _ = Header::decode(data);
    if let Some((at, head)) = find_record(data, SALT) {
        assert!(at + head.record_len() <= data.len());
    }
    if let Some(batches) = decode_body(data) {
        let encoded: Vec<u8> = batches.iter().flat_map(Batch::encode).collect();
        assert_eq!(decode_body(&encoded).as_ref(), Some(&batches));
    }
}

/// A segment of pieces. Each has a byte that says what it is and one for its length: bytes as they come, or the body of
/// a record with good checksums, so that the target gets behind them.
pub fn segment(data: &[u8]) {
    let Some((start, mut rest)) = data.split_first_chunk::<8>() else {
        return;
    };
    let header = Header {
        epoch: Epoch::from_random(1),
        base: u64::from_le_bytes(*start),
        salt: SALT,
        created_ms: 0,
    };
    let mut bytes = header.encode().to_vec();
    let mut next = header.base;
    while let [kind, length, following @ ..] = rest {
        let (piece, after) =
            following.split_at(following.len().min(usize::from(*length) * PIECE_BYTES_UNIT));
        rest = after;
        let batches = decode_body(piece).unwrap_or_default();
        let count = batches
            .iter()
            .fold(0_u64, |sum, batch| sum.wrapping_add(batch.offsets()));
        match kind % 3 {
            0 => bytes.extend_from_slice(piece),
            1 => write_record(&mut bytes, SALT, next, count, header.base, 1, &[piece]),
            _ => write_record(&mut bytes, SALT, next, count, next, 2, &[piece]),
        }
        next = next.wrapping_add(count);
    }
    let path = segment_path(Path::new(""), header.base);
    for last in [false, true] {
        let mut seen = header.base;
        let read = read_bytes(&path, &bytes, last, &mut |batch, offset, _| {
            assert_eq!(offset, seen, "nothing is skipped or read twice");
            seen += batch.offsets();
        });
        if let Ok(segment) = read {
            assert_eq!(segment.next, seen);
            assert!(
                segment.end <= segment.used.max(segment.end) && segment.end as usize <= bytes.len()
            );
            assert!(
                last || segment.tail == End::Clean,
                "only the newest may end badly"
            );
        }
    }
}
