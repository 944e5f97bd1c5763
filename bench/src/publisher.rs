//! One connection that publishes: a request at a time, each answered before the next.

use std::io;

use memchr::memmem;
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A keep-alive connection.
pub struct Publisher {
    socket: OwnedFd,
    /// What is left to be sent.
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    busy: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not yet.
    Pending,
    /// With this status.
    Status(u16),
}

impl Publisher {
    /// Publishes over a socket that is connected, or about to be.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            request: Vec::new(),
            sent: 0,
            answer: Vec::new(),
            busy: false,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether the socket did not take all of the request.
    pub fn wants_to_send(&self) -> bool {
        self.sent < self.request.len()
    }

    /// Begins a request.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn start(&mut self, request: Vec<u8>) -> io::Result<()> {
        self.request = request;
        self.sent = 0;
        self.busy = true;
        self.answer.clear();
        self.send_on()
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn send_on(&mut self) -> io::Result<()> {
        while self.wants_to_send() {
            match send(
                &self.socket,
                &self.request[self.sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(bytes) => self.sent += bytes,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what there is of the answer.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Answer> {
        match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((bytes, _)) => self.answer.extend_from_slice(&buffer[..bytes]),
            Err(rustix::io::Errno::AGAIN) => return Ok(Answer::Pending),
            Err(error) => return Err(error.into()),
        }
        let answer = status_of_whole(&self.answer);
        if answer != Answer::Pending {
            self.busy = false;
        }
        Ok(answer)
    }
}

/// The status, once the whole answer is there.
fn status_of_whole(answer: &[u8]) -> Answer {
    let Some(head_end) = memmem::find(answer, b"\r\n\r\n") else {
        return Answer::Pending;
    };
    let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
    let body = &answer[head_end + 4..];
    let status = head
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let whole = if let Some(length) = field("content-length:") {
        body.len() >= length.trim().parse().unwrap_or(0)
    } else if field("transfer-encoding:").is_some() {
        body.ends_with(b"0\r\n\r\n")
    } else {
        true
    };
    if whole {
        Answer::Status(status)
    } else {
        Answer::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        let cases: [(&str, Answer); 5] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Answer::Pending),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1",
                Answer::Pending,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n12",
                Answer::Status(200),
            ),
            (
                "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
                Answer::Status(204),
            ),
            (
                "HTTP/1.1 202 Ok\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                Answer::Status(202),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(status_of_whole(text.as_bytes()), expected, "{text:?}");
        }
    }
}
