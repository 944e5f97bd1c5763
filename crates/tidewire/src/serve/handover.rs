//! How a stream's socket leaves hyper.
//!
//! hyper reads the request, the router runs, and hyper writes the response's head and the body's first frame. When the
//! body is asked for its second frame it [`offer`](Handover::offer)s the stream instead. The connection's task sees the
//! offer, waits until everything that hyper has is written, and then takes the socket out of hyper and the stream out
//! of the offer.
//!
//! Middleware may have changed the body: compressed it, say. So the bytes that went to the socket are watched from the
//! first frame on, and unless they are a plain chunked response with exactly that frame, the offer is given back and
//! the stream goes on as a body.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use crate::live::Live;

/// A head that is longer than this is not looked for, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where the body of a stream and the task of its connection meet. One per connection.
#[derive(Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    /// Whether there is a stream that may leave: what is written is looked at only then.
    is_under_way: AtomicBool,
    /// The connection's task.
    task: OnceLock<Waker>,
}

#[derive(Default)]
enum State {
    /// There is no stream, or it stays in hyper.
    #[default]
    None,
    /// The first frame is on its way; so far these bytes were written to the socket.
    Begun(Wire),
    /// The stream can be had once everything is written.
    Offered(Box<Offer>),
    /// The offer was declined; the body has not taken it back yet.
    Declined(Box<Live>),
}

struct Offer {
    live: Live,
    waker: Waker,
    wire: Wire,
}

/// What went to the socket since the first frame.
struct Wire {
    frame: Vec<u8>,
    written: Vec<u8>,
    /// Whether hyper kept nothing back. hyper may have flushed before the offer, and does not again.
    flushed: bool,
}

impl State {
    fn wire(&mut self) -> Option<&mut Wire> {
        match self {
            Self::Begun(wire) => Some(wire),
            Self::Offered(offer) => Some(&mut offer.wire),
            Self::None | Self::Declined(_) => None,
        }
    }
}

impl Handover {
    /// The body hands its first frame over.
    pub(crate) fn begin(&self, frame: &[u8]) {
        *self.state.lock() = State::Begun(Wire {
            frame: frame.to_vec(),
            written: Vec::new(),
            flushed: false,
        });
        self.is_under_way.store(true, Ordering::Release);
    }

    fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Acquire)
    }

    /// The body offers the stream; the waker is for when the offer is declined. It is at once where middleware reads
    /// the body in a task of its own: hyper does not know of such an offer, and that task would never end.
    pub(crate) fn offer(&self, live: Live, waker: &Waker) {
        let task = self.task.get();
        let from_hyper = task.is_some_and(|task| task.will_wake(waker));
        let mut state = self.state.lock();
        *state = match std::mem::take(&mut *state) {
            State::Begun(wire) if from_hyper => State::Offered(Box::new(Offer {
                live,
                waker: waker.clone(),
                wire,
            })),
            _ => {
                waker.wake_by_ref();
                State::Declined(Box::new(live))
            }
        };
    }

    /// The body asks whether its offer was declined.
    pub(crate) fn take_back(&self) -> Option<Live> {
        let mut state = self.state.lock();
        match std::mem::take(&mut *state) {
            State::Declined(live) => {
                self.is_under_way.store(false, Ordering::Release);
                Some(*live)
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// The task that asks hyper, which asks the body.
    pub(super) fn carried_by(&self, task: Waker) {
        let _ = self.task.set(task);
    }

    /// These bytes were written to the socket.
    pub(super) fn note_written(&self, bytes: &[u8]) {
        if self.is_under_way()
            && let Some(wire) = self.state.lock().wire()
        {
            wire.flushed = false;
            // More than head and frame: it can't be what is hoped for, and need not be kept.
            let room = (HEAD_BYTES_MAX + wire.frame.len()).saturating_sub(wire.written.len());
            wire.written
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Everything that hyper had was written.
    pub(super) fn note_flushed(&self) {
        if self.is_under_way()
            && let Some(wire) = self.state.lock().wire()
        {
            wire.flushed = true;
        }
    }

    /// The connection's task takes the stream, if it is offered, written, and unchanged.
    pub(super) fn accept(&self) -> Option<Live> {
        if !self.is_under_way() {
            return None;
        }
        let mut state = self.state.lock();
        match std::mem::take(&mut *state) {
            State::Offered(offer) if offer.wire.flushed => {
                if is_plain_chunked(&offer.wire.written, &offer.wire.frame) {
                    return Some(offer.live);
                }
                *state = State::Declined(Box::new(offer.live));
                offer.waker.wake();
            }
            other => *state = other,
        }
        None
    }
}

/// Whether bytes are the head of a chunked HTTP/1.1 response without content coding, and one chunk that is the frame.
fn is_plain_chunked(written: &[u8], frame: &[u8]) -> bool {
    let Some(head_len) = memchr::memmem::find(written, b"\r\n\r\n") else {
        return false;
    };
    let Ok(head) = std::str::from_utf8(&written[..head_len]) else {
        return false;
    };
    let mut lines = head.split("\r\n");
    let is_ok = lines
        .next()
        .is_some_and(|status| status.starts_with("HTTP/1.1 200"));
    let (mut chunked, mut coded) = (false, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        coded |= name.eq_ignore_ascii_case("content-encoding");
        chunked |= name.eq_ignore_ascii_case("transfer-encoding")
            && value.trim().eq_ignore_ascii_case("chunked");
    }
    is_ok && chunked && !coded && is_chunk(&written[head_len + 4..], frame)
}

/// Whether bytes are exactly one chunk (RFC 9112 section 7.1) with the given data.
fn is_chunk(bytes: &[u8], data: &[u8]) -> bool {
    let Some(size_len) = memchr::memmem::find(bytes, b"\r\n") else {
        return false;
    };
    let size = std::str::from_utf8(&bytes[..size_len])
        .ok()
        .and_then(|size| usize::from_str_radix(size, 16).ok());
    size == Some(data.len())
        && bytes[size_len + 2..]
            .strip_prefix(data)
            .is_some_and(|rest| rest == b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unchanged_first_frame_lets_the_socket_go() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n:abc\n\r\n";
        assert!(is_plain_chunked(plain.as_bytes(), b":abc\n"));
        let changed = [
            plain.replace("chunked", "gzip, chunked"),
            plain.replace("content-type: text/event-stream", "content-encoding: br"),
            plain.replace("1.1 200", "1.0 200"),
            plain.replace("1.1 200", "1.1 206"),
            plain.replace("abc", "abd"),
            plain.replace("5\r\n", "6\r\n"),
            plain.replace(":abc\n\r\n", ":abc\n\r\n0\r\n\r\n"),
            plain.replace(":abc\n\r\n", ":abc\n"),
            plain.replace("Transfer-Encoding: chunked", "Content-Length: 5"),
            format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{plain}"),
            String::new(),
        ];
        for bytes in changed {
            assert!(!is_plain_chunked(bytes.as_bytes(), b":abc\n"), "{bytes:?}");
        }
    }
}
