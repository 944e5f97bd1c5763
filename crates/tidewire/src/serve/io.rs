//! A socket as hyper sees it: the first bytes may have been read already, and hyper's own empty answers to unreadable
//! heads leave with a body that says what was wrong.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::Handover;
use crate::problem::{Code, Problem};

/// A TLS connection, where there is such a thing.
#[cfg(feature = "tls")]
pub(super) type Encrypted = Box<tokio_rustls::server::TlsStream<TcpStream>>;
#[cfg(not(feature = "tls"))]
pub(super) type Encrypted = tokio::io::Empty;

/// What a connection's bytes go through.
pub(super) type Socket = Either<TcpStream, Encrypted>;

/// What is copied to be written in one piece, in bytes: for an event of a few hundred, one `send` costs the kernel less
/// than a `writev` of a chunk's three parts.
const SMALL_BYTES: usize = 1_024;

/// The socket of one connection.
pub(super) struct Io {
    stream: Socket,
    /// Bytes that were read to find out the protocol.
    read_ahead: Bytes,
    /// Whether a request has reached the router: from then on bytes are none of our business.
    served: Arc<AtomicBool>,
    /// Sees what is written, to know when a stream can leave.
    handover: Option<Arc<Handover>>,
    /// An answer of ours that replaces one of hyper's.
    instead: Bytes,
}

impl Io {
    pub(super) fn new(
        stream: Socket,
        read_ahead: Bytes,
        served: Arc<AtomicBool>,
        handover: Option<Arc<Handover>>,
    ) -> Self {
        Self {
            stream,
            read_ahead,
            served,
            handover,
            instead: Bytes::new(),
        }
    }

    pub(super) fn into_stream(self) -> Socket {
        self.stream
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let n = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            self.instead.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

/// A whole answer with a problem as its body, for when there is no hyper to write it.
pub(super) fn answer(code: Code, detail: &str) -> Bytes {
    let body = format!("{}\n", Problem::new(code, detail).to_json());
    let status = code.status();
    let head = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    Bytes::from(head + &body)
}

/// Our answer in place of the empty one that hyper writes to a head it can't read.
fn answer_in_place_of(hypers: &[u8]) -> Option<Bytes> {
    let status = hypers.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    match status {
        b"400" => Some(answer(Code::BadHead, "the request's head is no valid HTTP")),
        b"414" => Some(answer(
            Code::UriTooLong,
            "the address is too long; name fewer topics, or use a pattern",
        )),
        b"431" => Some(answer(
            Code::HeadTooLarge,
            "the request line and headers are larger than `limits.head_bytes_max`; name fewer topics, or use a pattern",
        )),
        _ => None,
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.read_ahead.len().min(buf.remaining());
        buf.put_slice(&self.read_ahead.split_to(n));
        // Together with what has arrived since: a first read of a few bytes would make hyper double its buffer, and
        // keep it so for as long as the connection lives.
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if n > 0 { Poll::Ready(Ok(())) } else { read }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.served.load(Ordering::Relaxed)
            && let Some(instead) = answer_in_place_of(buf)
        {
            self.instead = instead;
            self.served.store(true, Ordering::Relaxed);
            // hyper's answer has no body, and is written at once.
            return Poll::Ready(Ok(buf.len()));
        }
        std::task::ready!(self.poll_instead(cx))?;
        let n = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if let Some(handover) = &self.handover {
            handover.note_written(&buf[..n]);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.served.load(Ordering::Relaxed) {
            let first = bufs
                .iter()
                .find(|buf| !buf.is_empty())
                .map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total <= SMALL_BYTES {
            let mut together = [0; SMALL_BYTES];
            let mut rest = &mut together[..];
            for buf in bufs {
                let (place, behind) = rest.split_at_mut(buf.len());
                place.copy_from_slice(buf);
                rest = behind;
            }
            return self.poll_write(cx, &together[..total]);
        }
        std::task::ready!(self.poll_instead(cx))?;
        let n = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        if let Some(handover) = &self.handover {
            let mut left = n;
            for buf in bufs {
                let taken = left.min(buf.len());
                handover.note_written(&buf[..taken]);
                left -= taken;
            }
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_instead(cx))?;
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if let Some(handover) = &self.handover {
            handover.note_flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn read(io: &mut Io) -> String {
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buf))
            .await
            .expect("the connection is open");
        String::from_utf8_lossy(buf.filled()).into_owned()
    }

    /// Idle connections once kept a read buffer of twice the size: hyper's first read gave it a few bytes only.
    #[tokio::test]
    async fn what_was_read_ahead_comes_together_with_what_arrived_since() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b" HTTP/1.1\r\n").await.unwrap();
        server.readable().await.unwrap();

        let mut io = Io::new(
            Either::Left(server),
            Bytes::from("GET /"),
            Arc::default(),
            None,
        );
        assert_eq!(read(&mut io).await, "GET / HTTP/1.1\r\n");

        // Where nothing has arrived, it doesn't wait for more.
        io.read_ahead = Bytes::from("more");
        assert_eq!(read(&mut io).await, "more");
        client.write_all(b"the rest").await.unwrap();
        assert_eq!(read(&mut io).await, "the rest");
    }
}
