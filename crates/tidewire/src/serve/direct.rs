//! One stream on its bare socket: an HTTP/1.1 response of which the head is sent, continued in chunks.
//!
//! Each write is one chunk with everything that the client lacks. A socket may take only a part of it; what the chunk's
//! head promised must then follow before anything else. Of the promised bytes none are kept; they are gathered anew
//! when the socket takes more. By then the log may have dropped them, and a client that may skip them shall still get
//! whole events: for such a client the rest of the event that was cut is kept, and the chunk is filled up with a
//! comment.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use tidewire_core::subscription::{Batch, CloseReason, Poll, SlowClient};

use crate::live::{Live, SharedPlace};

/// Most bytes of one chunk. An event that is larger goes out in several; a client that has a part of it when the log
/// drops it is closed, also if it might skip.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// A chunk's end (RFC 9112 section 7.1).
const CRLF: &[u8] = b"\r\n";
/// The body's end.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What is to be done with a connection after its turn.
pub(super) enum Outcome {
    /// Nothing until it is woken or its socket is.
    Sleep,
    /// Another turn, behind the others.
    Again,
    /// It must go.
    Close(CloseReason),
}

/// Buffers that all connections of a reactor share.
#[derive(Default)]
pub(super) struct Scratch {
    batch: Batch,
    /// The batch as a chunk.
    chunk: Vec<u8>,
    /// Where the chunk's head ends.
    head_len: usize,
    /// The place that the batch was gathered from, if others may use it.
    place: Option<SharedPlace>,
}

impl Scratch {
    /// What was gathered is no longer all that there is.
    pub(super) fn forget(&mut self) {
        self.place = None;
    }

    /// Makes a chunk of the batch.
    fn frame(&mut self) {
        self.chunk.clear();
        let payload = self.batch.bytes();
        push_head(&mut self.chunk, payload.len());
        self.head_len = self.chunk.len();
        self.chunk.extend_from_slice(payload);
        self.chunk.extend_from_slice(CRLF);
    }
}

fn push_head(out: &mut Vec<u8>, len: usize) {
    // Writing to a vector can't fail.
    let _ = write!(out, "{len:x}\r\n");
}

/// A chunk whose head was begun and whose end was not sent yet.
struct Open {
    /// Bytes of payload that the head promises.
    len: u32,
    /// Bytes of the whole chunk that were sent.
    sent: u32,
    /// The rest of the event that was cut.
    cut: Box<[u8]>,
}

/// A stream and its socket.
pub(super) struct Direct {
    live: Live,
    stream: TcpStream,
    open: Option<Box<Open>>,
    /// Whether the socket may take bytes; false from when it did not until it says so.
    writable: bool,
}

impl Direct {
    pub(super) fn new(live: Live, stream: TcpStream) -> Self {
        Self {
            live,
            stream,
            open: None,
            writable: true,
        }
    }

    pub(super) fn socket_is_writable(&mut self) {
        self.writable = true;
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends what the client lacks, up to one chunk.
    pub(super) fn serve(&mut self, now_ms: u64, scratch: &mut Scratch) -> Outcome {
        if let Some(reason) = self.live.connection().close_requested() {
            return Outcome::Close(reason);
        }
        if !self.writable {
            return Outcome::Sleep;
        }
        let served = if self.open.is_some() {
            self.finish_chunk(now_ms, scratch)
        } else {
            self.send_chunk(now_ms, scratch)
        };
        served.unwrap_or_else(|reason| Outcome::Close(reason))
    }

    fn send_chunk(&mut self, now_ms: u64, scratch: &mut Scratch) -> Result<Outcome, CloseReason> {
        self.live.heartbeat_if_due();
        let place = self.live.shared_place();
        if place.is_none() || place != scratch.place {
            scratch.place = None;
            match self.live.gather(CHUNK_BYTES_MAX, &mut scratch.batch) {
                Poll::Idle => return Ok(Outcome::Sleep),
                Poll::Close(reason) => return Err(reason),
                Poll::Data => {}
            }
            scratch.frame();
            scratch.place = place.filter(|_| !scratch.batch.has_new_gap());
        }
        let (n, complete) = self.write(&scratch.chunk, now_ms)?;
        if complete {
            self.live.sent(&scratch.batch, scratch.batch.bytes().len());
            let again = scratch.batch.is_full() || scratch.batch.has_end();
            return Ok(if again {
                Outcome::Again
            } else {
                Outcome::Sleep
            });
        }
        if n > 0 {
            self.open_chunk(n, scratch);
        }
        Ok(Outcome::Sleep)
    }

    /// Remembers a chunk of which only `n` bytes went out.
    fn open_chunk(&mut self, n: usize, scratch: &Scratch) {
        let payload = scratch.batch.bytes();
        let sent = n.saturating_sub(scratch.head_len).min(payload.len());
        let was_within = self.live.subscription().is_within_event();
        let begun = |start| sent > start || (was_within && start == 0);
        let may_skip = self.live.subscription().slow_client() == SlowClient::Skip;
        let cut = match scratch.batch.event_at(sent) {
            Some(event) if may_skip && begun(event.start) => sent..event.end,
            _ => sent..sent,
        };
        self.live.sent(&scratch.batch, cut.end);
        self.open = Some(Box::new(Open {
            len: payload.len() as u32,
            sent: n as u32,
            cut: payload[cut].into(),
        }));
    }

    /// Sends what an open chunk still lacks.
    fn finish_chunk(&mut self, now_ms: u64, scratch: &mut Scratch) -> Result<Outcome, CloseReason> {
        let Some(mut open) = self.open.take() else {
            return Ok(Outcome::Again);
        };
        scratch.place = None;
        scratch.chunk.clear();
        push_head(&mut scratch.chunk, open.len as usize);
        let head_len = scratch.chunk.len();
        let sent = open.sent as usize;
        let payload_sent = sent.saturating_sub(head_len).min(open.len as usize);
        let lacking = open.len as usize - payload_sent;
        let gathered = self.gather_exactly(lacking - open.cut.len(), scratch)?;
        // What the whole chunk has behind the bytes that were sent.
        scratch.chunk.drain(..sent.min(head_len));
        let before_cut = scratch.chunk.len();
        scratch.chunk.extend_from_slice(&open.cut);
        let before_rest = scratch.chunk.len();
        match gathered {
            true => scratch.chunk.extend_from_slice(scratch.batch.bytes()),
            false => push_comment(&mut scratch.chunk, lacking - open.cut.len()),
        }
        let before_crlf = scratch.chunk.len();
        let crlf_sent = sent.saturating_sub(head_len + open.len as usize);
        scratch.chunk.extend_from_slice(&CRLF[crlf_sent..]);
        let (n, complete) = self.write(&scratch.chunk, now_ms)?;
        open.sent += n as u32;
        let cut_sent = n.clamp(before_cut, before_rest) - before_cut;
        open.cut = open.cut[cut_sent..].into();
        let rest_sent = n.clamp(before_rest, before_crlf) - before_rest;
        if gathered && rest_sent > 0 {
            self.live.sent(&scratch.batch, rest_sent);
        }
        if complete {
            return Ok(Outcome::Again);
        }
        if !gathered && rest_sent > 0 {
            // A comment that was begun is ended as one.
            let left = before_crlf - before_rest - rest_sent;
            open.cut = scratch.chunk[before_crlf - left..before_crlf].into();
        }
        self.open = Some(open);
        Ok(Outcome::Sleep)
    }

    /// Gathers exactly so many bytes, as they were gathered when the chunk was begun. False if the log no longer has
    /// them; the position is then between two events.
    fn gather_exactly(&mut self, len: usize, scratch: &mut Scratch) -> Result<bool, CloseReason> {
        if len == 0 {
            scratch.batch = Batch::default();
            return Ok(true);
        }
        let had_control = self.live.subscription().has_pending();
        match self.live.gather(len, &mut scratch.batch) {
            Poll::Close(reason) => Err(reason),
            Poll::Data if scratch.batch.bytes().len() == len => Ok(true),
            // A control frame that was begun can't be ended by something else.
            _ if had_control => Err(CloseReason::Lagged),
            _ => Ok(false),
        }
    }

    /// Writes what the socket takes: how many bytes, and whether that is all.
    fn write(&mut self, bytes: &[u8], now_ms: u64) -> Result<(usize, bool), CloseReason> {
        let n = write(&mut self.stream, bytes)?;
        self.writable = n == bytes.len();
        self.live.note_write(n, self.writable, now_ms);
        Ok((n, self.writable))
    }

    /// Ends the stream: with its last words if it is between two chunks, else by breaking it off.
    pub(super) fn close(self, reason: CloseReason, scratch: &mut Scratch) {
        let Self {
            live,
            mut stream,
            open,
            ..
        } = self;
        let cut_short = open.is_some() || live.subscription().is_within_event();
        let last_words = live.end(reason).unwrap_or_default();
        if cut_short || reason == CloseReason::ClientGone {
            return;
        }
        scratch.place = None;
        scratch.chunk.clear();
        if !last_words.is_empty() {
            push_head(&mut scratch.chunk, last_words.len());
            scratch.chunk.extend_from_slice(&last_words);
            scratch.chunk.extend_from_slice(CRLF);
        }
        scratch.chunk.extend_from_slice(LAST_CHUNK);
        // Best effort: a client that takes no more does not hear them.
        if write(&mut stream, &scratch.chunk).is_ok() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

/// A comment of exactly so many bytes, as a line of its own.
fn push_comment(out: &mut Vec<u8>, len: usize) {
    if let Some(spaces) = len.checked_sub(2) {
        out.push(b':');
        out.resize(out.len() + spaces, b' ');
    }
    out.resize(out.len() + len.min(1), b'\n');
}

/// Writes what the socket takes; 0 if that is nothing now.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, CloseReason> {
    loop {
        match stream.write(bytes) {
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(CloseReason::ClientGone),
        }
    }
}
