//! A decoder for event streams, to the letter of WHATWG HTML section 9.2.6 ("Interpreting an event stream").
//!
//! It takes bytes in any chunks and gives events. `tidewire watch`, the relay from another hub and the tests read
//! streams through it. One decoder is for one response: a client that reconnects makes a new one, and keeps the last
//! id itself.
//!
//! Lines are cut as bytes, and only values are decoded as UTF-8. That gives the same text as decoding the stream first,
//! as the standard puts it: line ends, colons and spaces are ASCII, and those never are within a character.
//!
//! Time is linear in the bytes pushed. Memory is bounded by `event_bytes_max` (for name and data, as a publisher's
//! limit counts them) and [`FIELDS_BYTES_MAX`] (for what a hub adds), plus the chunks that were pushed and not yet read.

use std::error::Error;
use std::fmt;
use std::mem;

use memchr::{memchr, memchr2};

use crate::limits::FIELDS_BYTES_MAX;

/// What a line has besides its value: the longest field name that is known, a colon and a space.
const LINE_OVERHEAD_BYTES: usize = 16;

/// The byte order mark, which is no part of a stream that begins with it.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// An event as a client gets it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The last event id as of this event: an event without an id has that of an event before it.
    pub id: String,
    /// The event's name, `message` if it has none.
    pub event: String,
    /// The data, its lines joined by LF.
    pub data: String,
    /// The values of the event's `topic:` lines, which Tidewire sends to those who ask for them.
    pub topics: Vec<String>,
}

/// Bytes in, events out: [`push`](Self::push) what arrived, then call [`next_event`](Self::next_event) until it has no
/// more.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    /// Pushed bytes. Those before `line_start` are done with; those before `searched` have no line end.
    buffer: Vec<u8>,
    line_start: usize,
    searched: usize,
    /// The last line ended in CR: an LF that comes next belongs to it.
    after_cr: bool,
    /// No line was read yet: the next may begin with a byte order mark.
    at_stream_start: bool,
    /// The beginning of the current line was thrown away, since it is a comment.
    in_comment: bool,
    block: Block,
    last_event_id: String,
    retry_ms: Option<u64>,
    comments: u64,
    failed: Option<DecodeError>,
}

/// The standard's buffers. All but the id are emptied by a blank line.
#[derive(Debug, Default)]
struct Block {
    id: String,
    event: String,
    data: String,
    topics: Vec<String>,
    topics_bytes: usize,
}

impl Decoder {
    /// A decoder for one response, which fails on events whose name and data have more than `event_bytes_max` bytes.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            buffer: Vec::new(),
            line_start: 0,
            searched: 0,
            after_cr: false,
            at_stream_start: true,
            in_comment: false,
            block: Block::default(),
            last_event_id: String::new(),
            retry_ms: None,
            comments: 0,
            failed: None,
        }
    }

    /// Adds bytes of the stream, cut anywhere. A decoder that failed ignores them.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        // Moving what is left only when it is the smaller part keeps this linear, however late events are read.
        if self.line_start >= self.buffer.len() - self.line_start {
            self.buffer.drain(..self.line_start);
            self.searched -= self.line_start;
            self.line_start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event in what was pushed, or `None` if more bytes are needed for it. At the end of the stream an
    /// event that is not whole is to be dropped, as the standard says.
    ///
    /// # Errors
    /// [`DecodeError`] if an event or a line is larger than allowed. The decoder is of no more use then: it gives the
    /// same error again.
    pub fn next_event(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.read_lines();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.block = Block::default();
        }
        result
    }

    /// The last event id of the stream, empty at first: what a client sends as `Last-Event-ID` when it reconnects. An
    /// id counts from the end of its block on.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The reconnection time that the server asked for last, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// How many comment lines there were: a server's sign of life.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Reads lines up to the end of an event.
    fn read_lines(&mut self) -> Result<Option<Decoded>, DecodeError> {
        loop {
            if self.after_cr && self.line_start < self.buffer.len() {
                self.after_cr = false;
                self.line_start += usize::from(self.buffer[self.line_start] == b'\n');
                self.searched = self.line_start;
            }
            let Some(found) = memchr2(b'\r', b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                return self.keep_partial_line().map(|()| None);
            };
            let (start, end) = (self.line_start, self.searched + found);
            self.after_cr = self.buffer[end] == b'\r';
            self.line_start = end + 1;
            self.searched = end + 1;
            if self.take_line(start, end)? {
                return Ok(Some(self.dispatch()));
            }
        }
    }

    /// Throws away a comment so far, and fails on any other line that is too long to be worth waiting for its end.
    fn keep_partial_line(&mut self) -> Result<(), DecodeError> {
        let partial = &self.buffer[self.line_start..];
        if self.in_comment || partial.starts_with(b":") {
            self.in_comment = true;
            self.at_stream_start = false;
            self.line_start = self.buffer.len();
            return Ok(());
        }
        let bytes_max = self.event_bytes_max.max(FIELDS_BYTES_MAX);
        if partial.len() > bytes_max.saturating_add(LINE_OVERHEAD_BYTES) {
            return Err(DecodeError::LineTooLong { bytes_max });
        }
        Ok(())
    }

    /// Takes in the line at `buffer[start..end]`; whether it ends an event.
    fn take_line(&mut self, start: usize, end: usize) -> Result<bool, DecodeError> {
        let mut line = &self.buffer[start..end];
        if mem::take(&mut self.at_stream_start) {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        if mem::take(&mut self.in_comment) || line.starts_with(b":") {
            self.comments += 1;
            return Ok(false);
        }
        if line.is_empty() {
            return Ok(self.end_block());
        }
        let (field, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.block.push_data(value, self.event_bytes_max)?,
            b"event" => self.block.set_event(value, self.event_bytes_max)?,
            b"id" => self.block.set_id(value)?,
            b"topic" => self.block.push_topic(value)?,
            b"retry" => self.retry_ms = parse_retry(value).or(self.retry_ms),
            _ => {}
        }
        Ok(false)
    }

    /// Ends a block at its blank line; whether there is an event in it. A block without data is none, but its id counts.
    fn end_block(&mut self) -> bool {
        if self.last_event_id != self.block.id {
            self.last_event_id.clone_from(&self.block.id);
        }
        if self.block.data.is_empty() {
            self.block.event.clear();
            self.block.topics.clear();
            self.block.topics_bytes = 0;
            return false;
        }
        true
    }

    fn dispatch(&mut self) -> Decoded {
        let mut data = mem::take(&mut self.block.data);
        data.pop(); // The LF that the last `data:` line added.
        let mut event = mem::take(&mut self.block.event);
        if event.is_empty() {
            event.push_str("message");
        }
        self.block.topics_bytes = 0;
        Decoded {
            id: self.last_event_id.clone(),
            event,
            data,
            topics: mem::take(&mut self.block.topics),
        }
    }
}

impl Block {
    fn push_data(&mut self, value: &[u8], event_bytes_max: usize) -> Result<(), DecodeError> {
        self.data.push_str(&String::from_utf8_lossy(value));
        self.data.push('\n');
        self.check_event_size(event_bytes_max)
    }

    fn set_event(&mut self, value: &[u8], event_bytes_max: usize) -> Result<(), DecodeError> {
        self.event.clear();
        self.event.push_str(&String::from_utf8_lossy(value));
        self.check_event_size(event_bytes_max)
    }

    fn check_event_size(&self, bytes_max: usize) -> Result<(), DecodeError> {
        // The last LF of the data is no part of the event.
        let bytes = self.event.len() + self.data.len().saturating_sub(1);
        if bytes > bytes_max {
            return Err(DecodeError::EventTooLarge { bytes_max });
        }
        Ok(())
    }

    fn set_id(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        if memchr(0, value).is_some() {
            return Ok(());
        }
        self.id.clear();
        self.id.push_str(&String::from_utf8_lossy(value));
        self.check_fields_size()
    }

    fn push_topic(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let topic = String::from_utf8_lossy(value).into_owned();
        self.topics_bytes += topic.len() + size_of::<String>();
        self.topics.push(topic);
        self.check_fields_size()
    }

    fn check_fields_size(&self) -> Result<(), DecodeError> {
        if self.id.len() + self.topics_bytes > FIELDS_BYTES_MAX {
            return Err(DecodeError::FieldsTooLarge);
        }
        Ok(())
    }
}

/// A `retry:` value, if it is of ASCII digits only. One too large for a number is the largest number.
fn parse_retry(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = value.iter().map(|digit| u64::from(digit - b'0'));
    Some(digits.fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(digit)
    }))
}

/// Why a stream was not read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// An event's name and data are larger than `event_bytes_max`.
    EventTooLarge {
        /// How large they may be, in bytes.
        bytes_max: usize,
    },
    /// A line is longer than any value that would be taken.
    LineTooLong {
        /// How long its value may be, in bytes.
        bytes_max: usize,
    },
    /// The id and the topics of a block are larger than [`FIELDS_BYTES_MAX`].
    FieldsTooLarge,
}

impl DecodeError {
    /// A stable name for this kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::EventTooLarge { .. } => "event_too_large",
            Self::LineTooLong { .. } => "line_too_long",
            Self::FieldsTooLarge => "fields_too_large",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventTooLarge { bytes_max } => {
                write!(
                    f,
                    "the stream has an event that is larger than `event_bytes_max`, {bytes_max} bytes"
                )
            }
            Self::LineTooLong { bytes_max } => write!(
                f,
                "the stream has a line that is longer than {bytes_max} bytes"
            ),
            Self::FieldsTooLarge => {
                write!(
                    f,
                    "the stream has an event whose id and topics are larger than {FIELDS_BYTES_MAX} bytes"
                )
            }
        }
    }
}

impl Error for DecodeError {}

/// What can't be seen from outside but in time and memory; the rules of the standard are tested in `tests/decode.rs`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_without_a_line_end_are_searched_once() {
        let mut decoder = Decoder::new(1_000);
        for read in [b":\ndata: ".as_slice(), b"aaaa", b"bbbb"] {
            decoder.push(read);
            assert_eq!(decoder.next_event(), Ok(None));
            decoder.push(b"cc");
            assert_eq!(decoder.buffer.len() - decoder.searched, 2);
        }
    }

    #[test]
    fn unread_bytes_are_moved_only_once_as_many_were_read() {
        let mut decoder = Decoder::new(1_000);
        decoder.push(&b"data\n\n".repeat(10));
        for events in 1..=5 {
            assert!(decoder.next_event().is_ok_and(|event| event.is_some()));
            assert_eq!(decoder.line_start, events * 6);
            decoder.push(b"");
        }
        assert_eq!((decoder.line_start, decoder.buffer.len()), (0, 30));
    }

    #[test]
    fn a_comment_is_not_kept() {
        let mut decoder = Decoder::new(1_000);
        for chunk in [b":x".as_slice(), &[b'x'; 100], &[b'x'; 100]] {
            decoder.push(chunk);
            assert_eq!(decoder.next_event(), Ok(None));
            decoder.push(b"");
            assert!(decoder.buffer.is_empty());
        }
    }
}
