//! One stream on its bare socket: an HTTP/1.1 response of which the head is sent, continued in chunks.
//!
//! Each write is one chunk with everything that the client lacks. A socket may take only a part of it; what the chunk's
//! head promised must then follow before anything else. Of the promised bytes none are kept; they are gathered anew
//! when the socket takes more. By then the log may have dropped them, and a client that may skip them shall still get
//! whole events: for such a client the rest of the event that was cut is kept, and the chunk is filled up with a
//! comment.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::ops::Range;

use mio::net::TcpStream;
use tidewire_core::subscription::{Batch, CloseReason, Poll, SlowClient};

use crate::clock::Moment;
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

    /// Makes what an open chunk lacks: of its head, of the event that was cut, of the rest and of its end. The rest is
    /// the batch, or a comment where the log no longer has that. Answers where the event's and the rest's bytes are.
    fn frame_rest(&mut self, open: &Open, gathered: bool) -> (Range<usize>, Range<usize>) {
        self.chunk.clear();
        push_head(&mut self.chunk, open.len as usize);
        let head_len = self.chunk.len();
        let sent = open.sent as usize;
        self.chunk.drain(..sent.min(head_len));
        let cut_at = self.chunk.len();
        self.chunk.extend_from_slice(&open.cut);
        let rest_at = self.chunk.len();
        if gathered {
            self.chunk.extend_from_slice(self.batch.bytes());
        } else {
            push_comment(&mut self.chunk, open.lacking());
        }
        let end = self.chunk.len();
        let crlf_sent = sent.saturating_sub(head_len + open.len as usize);
        self.chunk.extend_from_slice(&CRLF[crlf_sent..]);
        (cut_at..rest_at, rest_at..end)
    }
}

/// Bytes of a chunk's head.
fn head_len(len: usize) -> usize {
    let digits = len.checked_ilog(16).map_or(1, |log| log as usize + 1);
    digits + CRLF.len()
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
    /// Whether a control frame was cut. Its rest is with the subscription.
    control_cut: bool,
}

impl Open {
    /// Bytes of payload that were neither sent nor kept.
    fn lacking(&self) -> usize {
        let len = self.len as usize;
        let sent = (self.sent as usize).saturating_sub(head_len(len)).min(len);
        len - sent - self.cut.len()
    }
}

/// What a stream is written to: a socket that never blocks.
pub(super) trait Sink: Write {
    /// Says that nothing more will be written.
    fn shut_down(&mut self);
}

impl Sink for TcpStream {
    fn shut_down(&mut self) {
        // Where that fails, the socket is gone already.
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// A stream and its socket.
pub(super) struct Direct<S = TcpStream> {
    live: Live,
    stream: S,
    open: Option<Box<Open>>,
    /// Whether the socket may take bytes; false from when it did not until it says so.
    writable: bool,
    /// Whether the body's end was written.
    ended: bool,
}

impl<S: Sink> Direct<S> {
    pub(super) fn new(live: Live, stream: S) -> Self {
        Self {
            live,
            stream,
            open: None,
            writable: true,
            ended: false,
        }
    }

    pub(super) fn socket_is_writable(&mut self) {
        self.writable = true;
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Sends what the client lacks, up to one chunk.
    pub(super) fn serve(&mut self, now: Moment, scratch: &mut Scratch) -> Outcome {
        let close = match self.open {
            // What the chunk's head promised comes first.
            Some(_) => self.live.break_off_now(),
            None => self.live.close_now(),
        };
        if let Some(reason) = close {
            return self.end_body(reason, now);
        }
        if !self.writable {
            return Outcome::Sleep;
        }
        let served = match self.open.take() {
            Some(open) => self.finish_chunk(open, now, scratch),
            None => self.send_chunk(now, scratch),
        };
        served.unwrap_or_else(Outcome::Close)
    }

    /// Writes the body's end, if the socket takes it, or says at once that it is over.
    fn end_body(&mut self, reason: CloseReason, now: Moment) -> Outcome {
        if self.live.break_off_now().is_none() {
            match write(&mut self.stream, LAST_CHUNK) {
                Ok(0) => {
                    self.writable = false;
                    self.live.note_write(0, false, now);
                    return Outcome::Sleep;
                }
                // So few bytes are taken as one.
                Ok(_) => self.ended = true,
                Err(gone) => return Outcome::Close(gone),
            }
        }
        Outcome::Close(reason)
    }

    fn send_chunk(&mut self, now: Moment, scratch: &mut Scratch) -> Result<Outcome, CloseReason> {
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
        let (n, complete) = self.write(&scratch.chunk, now)?;
        if complete {
            self.live.sent(&scratch.batch, scratch.batch.bytes().len());
            // One that is to be closed may have all by now.
            let again = scratch.batch.is_full()
                || scratch.batch.has_end()
                || self.live.connection().close_requested().is_some();
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
        let (cut, control_cut) = self.move_on(sent, &scratch.batch);
        self.open = Some(Box::new(Open {
            len: payload.len() as u32,
            sent: n as u32,
            cut,
            control_cut,
        }));
    }

    /// Moves the position on by the bytes of the batch that were sent, and behind the event that was cut. Answers the
    /// rest of that, and whether it was a control frame that was cut.
    fn move_on(&mut self, sent: usize, batch: &Batch) -> (Box<[u8]>, bool) {
        let was_within = self.live.subscription().is_within_event();
        let begun = |start| sent > start || (was_within && start == 0);
        let may_skip = self.live.subscription().slow_client() == SlowClient::Skip;
        let cut = match batch.event_at(sent) {
            Some(event) if may_skip && begun(event.start) => sent..event.end,
            _ => sent..sent,
        };
        self.live.sent(batch, cut.end);
        // What was begun, is no event and is not whole.
        let subscription = self.live.subscription();
        let control_cut = sent > 0
            && batch.event_at(sent).is_none()
            && subscription.has_pending()
            && !subscription.is_within_event();
        (batch.bytes()[cut].into(), control_cut)
    }

    /// Sends what an open chunk still lacks.
    fn finish_chunk(
        &mut self,
        mut open: Box<Open>,
        now: Moment,
        scratch: &mut Scratch,
    ) -> Result<Outcome, CloseReason> {
        scratch.place = None;
        let lacking = open.lacking();
        let gathered = match self.gather_exactly(lacking, open.control_cut, scratch) {
            Ok(gathered) => gathered,
            Err(reason) => {
                // The chunk stays open, so that nothing is written into it that was not promised.
                self.open = Some(open);
                return Err(reason);
            }
        };
        let (cut, rest) = scratch.frame_rest(&open, gathered);
        let (n, complete) = self.write(&scratch.chunk, now)?;
        if complete {
            if gathered {
                self.live.sent(&scratch.batch, lacking);
            }
            return Ok(Outcome::Again);
        }
        open.sent += n as u32;
        let rest_sent = n.clamp(rest.start, rest.end) - rest.start;
        open.cut = if n < cut.end {
            scratch.chunk[n.max(cut.start)..cut.end].into()
        } else if gathered {
            let (cut, control_cut) = self.move_on(rest_sent, &scratch.batch);
            open.control_cut = control_cut || (open.control_cut && rest_sent == 0);
            cut
        } else if rest_sent > 0 {
            // A comment that was begun is ended as one.
            scratch.chunk[n.min(rest.end)..rest.end].into()
        } else {
            Box::default()
        };
        self.open = Some(open);
        Ok(Outcome::Sleep)
    }

    /// Gathers exactly so many bytes, as they were gathered when the chunk was begun. False if the log no longer has
    /// them; the position is then between two events.
    fn gather_exactly(
        &mut self,
        len: usize,
        control_cut: bool,
        scratch: &mut Scratch,
    ) -> Result<bool, CloseReason> {
        if len == 0 {
            scratch.batch = Batch::default();
            return Ok(true);
        }
        match self.live.gather(len, &mut scratch.batch) {
            Poll::Close(reason) => Err(reason),
            Poll::Data if scratch.batch.bytes().len() == len => Ok(true),
            // It can't be ended by something else.
            _ if control_cut => Err(CloseReason::Lagged),
            _ => Ok(false),
        }
    }

    /// Writes what the socket takes: how many bytes, and whether that is all.
    fn write(&mut self, bytes: &[u8], now: Moment) -> Result<(usize, bool), CloseReason> {
        let n = write(&mut self.stream, bytes)?;
        self.writable = n == bytes.len();
        self.live.note_write(n, self.writable, now);
        Ok((n, self.writable))
    }

    /// Ends the stream: with its last words if it is between two chunks, else by breaking it off.
    pub(super) fn close(self, reason: CloseReason, scratch: &mut Scratch) {
        let Self {
            live,
            mut stream,
            open,
            ended,
            ..
        } = self;
        let cut_short = open.is_some() || live.subscription().is_within_event();
        let last_words = live.end(reason).unwrap_or_default();
        if cut_short || reason == CloseReason::ClientGone {
            return;
        }
        if ended {
            stream.shut_down();
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
            stream.shut_down();
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
fn write(stream: &mut impl Write, bytes: &[u8]) -> Result<usize, CloseReason> {
    loop {
        match stream.write(bytes) {
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(CloseReason::ClientGone),
        }
    }
}
