//! A subscription over plain TCP: its head, its bytes and its events, with no client library in between.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidewire_core::decode::{Decoded, Decoder};

use super::{Response, WAIT_MAX, http};

/// Larger than any event of a test.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An answer that is read as it comes. Who doesn't ask for events doesn't read.
pub(crate) struct Stream {
    socket: TcpStream,
    answer: Response,
    body: Body,
    decoder: Decoder,
    /// The body so far.
    text: String,
}

impl Stream {
    /// Sends a `GET` with these headers and reads the head of the answer, whatever its status.
    pub(crate) fn open(port: u16, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = http::head(port, "GET", path, headers);
        request.extend_from_slice(b"\r\n");
        let mut socket = http::connect(port).unwrap_or_else(|error| panic!("{path}: {error}"));
        socket
            .write_all(&request)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let (head, rest) = read_head(&mut socket, path);
        let answer = http::parse_head(&head)
            .unwrap_or_else(|| panic!("{path}: no HTTP head: {}", head.escape_ascii()));
        let chunked = answer.header("transfer-encoding") == Some("chunked");
        let mut stream = Self {
            socket,
            answer,
            body: Body::new(chunked),
            decoder: Decoder::new(EVENT_BYTES_MAX),
            text: String::new(),
        };
        stream.take(&rest);
        stream
    }

    pub(crate) fn status(&self) -> u16 {
        self.answer.status
    }

    pub(crate) fn head(&self) -> &str {
        &self.answer.head
    }

    /// The value of a response header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.answer.header(name)
    }

    /// The connection's id.
    pub(crate) fn connection(&self) -> String {
        self.header("tidewire-connection")
            .unwrap_or_else(|| panic!("no connection id: {}", self.head()))
            .to_owned()
    }

    /// The body so far, as received.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The reconnection time that the hub asked for last.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.decoder.retry_ms()
    }

    /// The last id that a client would come back with.
    pub(crate) fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// The next event, or `None` where the stream ended in good order.
    pub(crate) fn next(&mut self) -> Option<Decoded> {
        self.read_until("an event", |stream| {
            let next = stream.decoder.next_event();
            let next = next.unwrap_or_else(|error| panic!("{error}: {}", stream.text));
            if next.is_none() && stream.body.ended {
                return Some(None);
            }
            next.map(Some)
        })
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> Decoded {
        self.next()
            .unwrap_or_else(|| panic!("the stream ended: {}", self.text))
    }

    /// The data of the next events.
    pub(crate) fn data(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.event().data).collect()
    }

    /// Reads until the body so far has this text.
    pub(crate) fn wait_for_text(&mut self, wanted: &str) {
        self.read_until(wanted, |stream| {
            assert!(
                !stream.body.ended || stream.text.contains(wanted),
                "ended without {wanted:?}: {:?}",
                stream.text
            );
            stream.text.contains(wanted).then_some(())
        });
    }

    /// Reads to the end of the stream, which has to come in good order; returns the events on the way.
    pub(crate) fn rest(&mut self) -> Vec<Decoded> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn read_until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT_MAX;
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(result) = done(self) {
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "not within {WAIT_MAX:?}: {what}\n{}",
                self.text
            );
            let wait = left.max(Duration::from_millis(1));
            self.socket
                .set_read_timeout(Some(wait))
                .expect("a read time-out can be set");
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    assert!(!self.body.chunked, "cut off before {what}\n{}", self.text);
                    self.body.ended = true;
                }
                Ok(len) => self.take(&buffer[..len]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error} before {what}\n{}", self.text),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let data = self.body.take(bytes);
        self.decoder.push(&data);
        self.text.push_str(&String::from_utf8_lossy(&data));
    }
}

/// Reads up to the end of the head; returns it without its blank line, and what came behind it.
fn read_head(socket: &mut TcpStream, path: &str) -> (Vec<u8>, Vec<u8>) {
    let mut read = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = read.split_off(at + 4);
            read.truncate(at);
            return (read, rest);
        }
        match socket.read(&mut buffer) {
            Ok(len @ 1..) => read.extend_from_slice(&buffer[..len]),
            other => panic!("{path}: no head ({other:?}): {}", read.escape_ascii()),
        }
    }
}

/// Takes the chunks off a body (RFC 9112 section 7.1).
struct Body {
    chunked: bool,
    ended: bool,
    /// Bytes that are not decoded yet.
    wire: Vec<u8>,
}

impl Body {
    fn new(chunked: bool) -> Self {
        Self {
            chunked,
            ended: false,
            wire: Vec::new(),
        }
    }

    /// The data in what arrived, whole chunks only.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.chunked {
            return bytes.to_vec();
        }
        self.wire.extend_from_slice(bytes);
        let mut data = Vec::new();
        while !self.ended
            && let Some(line) = self.wire.windows(2).position(|bytes| bytes == b"\r\n")
        {
            let size = std::str::from_utf8(&self.wire[..line])
                .ok()
                .and_then(|size| usize::from_str_radix(size, 16).ok())
                .expect("a chunk begins with its size");
            let end = line + 2 + size + 2;
            if self.wire.len() < end {
                break;
            }
            data.extend_from_slice(&self.wire[line + 2..end - 2]);
            self.wire.drain(..end);
            self.ended = size == 0;
        }
        data
    }
}
