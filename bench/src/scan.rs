//! From the bytes of one socket to the numbers of the events in them.
//!
//! A scanner keeps a few bytes of state and no buffer, so 19,000 connections cost next to nothing. It follows HTTP/1.1
//! chunks, as a server may break an event off anywhere and go on in the next chunk or the next read.

use memchr::memchr;

use crate::stamp::{DIGITS, MARK, number, value};

/// Why a stream can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The answer is not `200`.
    Status,
    /// A chunk is not framed as one.
    Chunk,
    /// The last chunk came: the server ended the stream.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Plain,
    ChunkSize,
    /// Chunk extensions, and the end of the line.
    ChunkLine,
    ChunkData,
    ChunkEnd,
}

/// What is looked for in a head, and how much of it the last bytes matched.
const STATUS: &[u8] = b"http/1.1 200";
const CHUNKED: &[u8] = b"chunked";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Where one connection stands.
#[derive(Clone, Debug)]
pub struct Scanner {
    phase: Phase,
    /// Bytes of the head, up to the status.
    status: u8,
    chunked: u8,
    end: u8,
    /// 0 outside a marker, else one more than the digits read.
    marker: u8,
    number: u32,
    /// Bytes left of the chunk.
    left: u32,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            phase: Phase::Head,
            status: 0,
            chunked: 0,
            end: 0,
            marker: 0,
            number: 0,
            left: 0,
        }
    }
}

impl Scanner {
    /// Whether the head was read: the server has taken the subscription.
    pub fn is_open(&self) -> bool {
        self.phase != Phase::Head
    }

    /// Reads on, and calls `found` with each event's number.
    ///
    /// # Errors
    /// If the answer is no stream, or the stream is over.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(u32)) -> Result<(), Broken> {
        while let [first, rest @ ..] = bytes {
            match self.phase {
                Phase::Head => self.head(*first)?,
                Phase::ChunkSize => self.chunk_size(*first)?,
                Phase::ChunkLine => self.chunk_line(*first)?,
                Phase::ChunkEnd => self.chunk_end(*first)?,
                Phase::Plain => {
                    self.payload(bytes, found);
                    return Ok(());
                }
                Phase::ChunkData => {
                    let length = bytes.len().min(self.left as usize);
                    self.payload(&bytes[..length], found);
                    self.left -= length as u32;
                    if self.left == 0 {
                        self.phase = Phase::ChunkEnd;
                    }
                    bytes = &bytes[length..];
                    continue;
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    fn head(&mut self, byte: u8) -> Result<(), Broken> {
        let lower = byte.to_ascii_lowercase();
        if usize::from(self.status) < STATUS.len() {
            if lower != STATUS[usize::from(self.status)] {
                return Err(Broken::Status);
            }
            self.status += 1;
        }
        if usize::from(self.chunked) < CHUNKED.len() {
            self.chunked = advance(CHUNKED, self.chunked, lower);
        }
        self.end = advance(HEAD_END, self.end, byte);
        if usize::from(self.end) == HEAD_END.len() {
            self.phase = if usize::from(self.chunked) == CHUNKED.len() {
                Phase::ChunkSize
            } else {
                Phase::Plain
            };
        }
        Ok(())
    }

    fn chunk_size(&mut self, byte: u8) -> Result<(), Broken> {
        match value(byte.to_ascii_lowercase()) {
            Some(digit) if self.left >> 28 == 0 => self.left = self.left << 4 | digit,
            Some(_) => return Err(Broken::Chunk),
            None => {
                self.phase = Phase::ChunkLine;
                self.chunk_line(byte)?;
            }
        }
        Ok(())
    }

    fn chunk_line(&mut self, byte: u8) -> Result<(), Broken> {
        if byte == b'\n' {
            if self.left == 0 {
                return Err(Broken::Ended);
            }
            self.phase = Phase::ChunkData;
        }
        Ok(())
    }

    fn chunk_end(&mut self, byte: u8) -> Result<(), Broken> {
        match byte {
            b'\r' => Ok(()),
            b'\n' => {
                self.phase = Phase::ChunkSize;
                Ok(())
            }
            _ => Err(Broken::Chunk),
        }
    }

    /// Finds markers in a piece of the stream itself.
    fn payload(&mut self, mut bytes: &[u8], found: &mut impl FnMut(u32)) {
        while self.marker > 0 {
            let [first, rest @ ..] = bytes else { return };
            self.digit(*first, found);
            bytes = rest;
        }
        while let Some(at) = memchr(MARK, bytes) {
            let rest = &bytes[at + 1..];
            if let Some(digits) = rest.get(..DIGITS) {
                if let Some(number) = number(digits) {
                    found(number);
                }
                bytes = &rest[DIGITS..];
            } else {
                self.marker = 1;
                self.number = 0;
                for &byte in rest {
                    if self.marker > 0 {
                        self.digit(byte, found);
                    }
                }
                return;
            }
        }
    }

    fn digit(&mut self, byte: u8, found: &mut impl FnMut(u32)) {
        let Some(digit) = value(byte) else {
            self.marker = 0;
            return;
        };
        self.number = self.number << 4 | digit;
        self.marker += 1;
        if usize::from(self.marker) > DIGITS {
            self.marker = 0;
            found(self.number);
            self.number = 0;
        }
    }
}

/// How many bytes of `text` the input's end matches after one more byte. Right for texts that repeat no longer
/// beginning of theirs than their first bytes, as the ones above.
fn advance(text: &[u8], matched: u8, byte: u8) -> u8 {
    if byte == text[usize::from(matched)] {
        matched + 1
    } else {
        u8::from(byte == text[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::data;

    fn chunk(text: &str) -> String {
        format!("{:X}\r\n{text}\r\n", text.len())
    }

    fn stream() -> String {
        let event = |n| format!("data: {}\nid: ~x-{n}\n\n", data(n, 100));
        let events = [1, 2, 3].map(event).concat();
        let (first, second) = events.split_at(14); // within the first marker
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: \r\r\n\r\n{}{}{}",
            chunk("retry: 3000\n"),
            chunk(first),
            chunk(second)
        )
    }

    fn numbers(pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u32>, Broken> {
        let (mut scanner, mut found) = (Scanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(&piece, &mut |n| found.push(n))?;
        }
        Ok(found)
    }

    #[test]
    fn events_are_found_wherever_reads_and_chunks_break_them_off() {
        let stream = stream().into_bytes();
        for size in 1..=stream.len() {
            let pieces = stream.chunks(size).map(<[u8]>::to_vec);
            assert_eq!(numbers(pieces), Ok(vec![1, 2, 3]), "in pieces of {size}");
        }
    }

    #[test]
    fn a_stream_without_chunks_is_read_to_its_end() {
        let text = format!("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", data(7, 100));
        assert_eq!(numbers([text.into_bytes()].into_iter()), Ok(vec![7]));
    }

    #[test]
    fn a_refusal_and_an_end_are_told() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec();
        assert_eq!(numbers([refused].into_iter()), Err(Broken::Status));
        let ended = format!("{}0\r\n\r\n", stream()).into_bytes();
        assert_eq!(numbers([ended].into_iter()), Err(Broken::Ended));
    }
}
