//! A client of one stream, over HTTP/1 or HTTP/2, plain or TLS, that takes as few bytes as it is told to and checks the framing.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tidewire::core::decode::{Decoded, Decoder};
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::WAIT_MAX;
use super::server::{Carrier, Server};
use super::tls::{self, Socket as Connection};

/// The kernel's buffer for what a client has not read, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As bodies end: with the last chunk, the end of the HTTP/2 stream, or the connection's where nothing else tells.
    Clean,
    /// Before that.
    CutShort,
}

/// One stream, as its client sees it.
pub struct Client {
    pub status: u16,
    pub headers: http::HeaderMap,
    /// Everything of the body so far.
    pub body: Vec<u8>,
    input: Input,
    decoder: Decoder,
    end: Option<End>,
}

enum Input {
    Http1(Http1),
    Http2(Handle, Incoming),
}

impl Client {
    /// Asks for `/events?…` in the way that the server's carrier needs.
    pub fn open(server: &Server, query: &str) -> Self {
        Self::resume(server, query, None)
    }

    /// As [`open`](Self::open), with a `Last-Event-ID`.
    pub fn resume(server: &Server, query: &str, id: Option<&str>) -> Self {
        Self::at(server, &format!("/events?{query}"), id)
    }

    /// As [`resume`](Self::resume), for another address.
    pub fn at(server: &Server, target: &str, id: Option<&str>) -> Self {
        let mut request = http::Request::get(target);
        request = request
            .header("host", "hub")
            .header("accept", "text/event-stream");
        if let Some(id) = id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Empty::new()).unwrap();
        if server.carrier.is_http2() {
            return Self::over_http2(server, request);
        }
        let version = if server.carrier == Carrier::Http10 {
            "1.0"
        } else {
            "1.1"
        };
        let mut text = format!("GET {} HTTP/{version}\r\n", request.uri());
        for (name, value) in request.headers() {
            text += &[name.as_str(), ": ", value.to_str().unwrap(), "\r\n"].concat();
        }
        let stream = connect(server.address);
        let mut input = if server.carrier == Carrier::TlsHttp1 {
            Http1::over(Connection::tls(stream))
        } else {
            Http1::new(stream)
        };
        input.send(&(text + "\r\n"));
        Self::over_http1(input)
    }

    /// Reads a response's head; the body is to come.
    pub fn over_http1(mut input: Http1) -> Self {
        let (status, headers) = input.read_head();
        Self::new(status, headers, Input::Http1(input))
    }

    fn over_http2(server: &Server, mut request: http::Request<Empty<Bytes>>) -> Self {
        let uri = format!("http://hub{}", request.uri());
        *request.uri_mut() = uri.parse().unwrap();
        let response = server.runtime.block_on(async {
            let stream = connect(server.address);
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let io = if server.carrier == Carrier::TlsHttp2 {
                let name = "hub".try_into().unwrap();
                let connector = TlsConnector::from(tls::client(b"h2"));
                let stream = connector.connect(name, stream).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                Either::Right(stream)
            } else {
                Either::Left(stream)
            };
            let io = TokioIo::new(io);
            let (mut sender, connection) =
                hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(RECEIVE_BUFFER_BYTES as u32)
                    .initial_connection_window_size(RECEIVE_BUFFER_BYTES as u32)
                    .handshake(io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        });
        let (parts, body) = response.into_parts();
        let handle = server.runtime.handle().clone();
        Self::new(
            parts.status.as_u16(),
            parts.headers,
            Input::Http2(handle, body),
        )
    }

    fn new(status: u16, headers: http::HeaderMap, input: Input) -> Self {
        Self {
            status,
            headers,
            body: Vec::new(),
            input,
            decoder: Decoder::new(4 * 1024 * 1024),
            end: None,
        }
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
    }

    /// Takes some bytes more; false at the end.
    pub fn read_some(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let bytes = match &mut self.input {
            Input::Http1(input) => input.read_body(),
            Input::Http2(handle, body) => handle.block_on(read_frame(body)),
        };
        match bytes {
            Ok(bytes) => {
                self.decoder.push(&bytes);
                self.body.extend_from_slice(&bytes);
            }
            Err(end) => self.end = Some(end),
        }
        self.end.is_none()
    }

    /// The next event of what has been taken already.
    pub fn ready_event(&mut self) -> Option<Decoded> {
        self.decoder.next_event().unwrap()
    }

    /// The next event, or `None` if the body ends before.
    pub fn next(&mut self) -> Option<Decoded> {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                return Some(event);
            }
            if !self.read_some() {
                return None;
            }
        }
    }

    /// The next event, which must come.
    pub fn event(&mut self) -> Decoded {
        self.next().unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&self.body[self.body.len().saturating_sub(300)..]);
            panic!(
                "an event should come, not the end ({:?}) after {text:?}",
                self.end
            )
        })
    }

    /// The data of the next event, which must be a `tick`.
    pub fn tick(&mut self) -> String {
        let event = self.event();
        assert_eq!(event.event, "tick", "{event:?}");
        event.data
    }

    /// Reads until a text has come.
    pub fn read_until(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(
                self.read_some(),
                "the end, and no {text:?}: {:?}",
                self.text()
            );
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn retry_ms(&self) -> Option<u64> {
        self.decoder.retry_ms()
    }

    pub fn last_event_id(&self) -> &str {
        self.decoder.last_event_id()
    }

    /// Reads on to the end: the events that still came, and how the body ended.
    pub fn finish(&mut self) -> (Vec<Decoded>, End) {
        let events = std::iter::from_fn(|| self.next()).collect();
        (
            events,
            self.end.expect("there is no next event at the end only"),
        )
    }

    /// The socket, to go on with another request.
    pub fn into_http1(self) -> Http1 {
        match self.input {
            Input::Http1(input) => input,
            Input::Http2(..) => panic!("this is HTTP/2"),
        }
    }
}

async fn read_frame(body: &mut Incoming) -> Result<Bytes, End> {
    let frame = tokio::time::timeout(WAIT_MAX, body.frame()).await;
    match frame.expect("more of the body comes in time") {
        Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
        Some(Err(_)) => Err(End::CutShort),
        None => Err(End::Clean),
    }
}

/// A connection that keeps few bytes which its client has not read.
pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
}

/// How the end of an HTTP/1 body is told.
#[derive(Clone, Copy)]
enum Framing {
    Chunked,
    Length(usize),
    ToTheEnd,
}

/// An HTTP/1 connection.
pub struct Http1 {
    pub stream: Connection,
    /// Bytes that were read and not yet looked at.
    pub ahead: Vec<u8>,
    framing: Framing,
}

impl Http1 {
    pub fn new(stream: TcpStream) -> Self {
        Self::over(Connection::Plain(stream))
    }

    pub fn over(stream: Connection) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            framing: Framing::ToTheEnd,
        }
    }

    /// Sends a request's head.
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Says that no more requests will come.
    pub fn half_close(&mut self) {
        self.stream.half_close();
    }

    pub fn read_head(&mut self) -> (u16, http::HeaderMap) {
        let len = loop {
            if let Some(at) = memchr::memmem::find(&self.ahead, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection ended before the head: {:?}",
                self.ahead
            );
        };
        let head: Vec<u8> = self.ahead.drain(..len).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let pairs = lines.map(|line| line.split_once(':').expect("a header has a colon"));
        let headers: http::HeaderMap = pairs
            .map(|(name, value)| {
                let name: http::HeaderName = name.parse().unwrap();
                Ok::<_, Infallible>((name, value.trim().parse::<http::HeaderValue>().unwrap()))
            })
            .collect::<Result<_, _>>()
            .unwrap();
        let length = headers
            .get("content-length")
            .map(|n| n.to_str().unwrap().parse().unwrap());
        self.framing = match length {
            Some(n) => Framing::Length(n),
            None if headers.contains_key("transfer-encoding") => Framing::Chunked,
            None => Framing::ToTheEnd,
        };
        (status, headers)
    }

    /// A whole answer with a length.
    pub fn read_answer(&mut self) -> (u16, String) {
        let (status, _) = self.read_head();
        let Framing::Length(n) = self.framing else {
            panic!("no length")
        };
        while self.ahead.len() < n {
            assert!(self.fill(), "the answer is cut short");
        }
        let body = self.ahead.drain(..n).collect();
        (status, String::from_utf8(body).unwrap())
    }

    /// Reads a few bytes; false at the end.
    pub fn fill(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        match self.stream.read(&mut bytes) {
            Ok(n) => {
                self.ahead.extend_from_slice(&bytes[..n]);
                n > 0
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                ) =>
            {
                false
            }
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// What there is of the body, or how it ended.
    fn read_body(&mut self) -> Result<Bytes, End> {
        let left = match self.framing {
            Framing::Chunked => return self.read_chunk(),
            Framing::Length(0) => return Err(End::Clean),
            Framing::Length(n) => Some(n),
            Framing::ToTheEnd => None,
        };
        if self.ahead.is_empty() && !self.fill() {
            return Err(left.map_or(End::Clean, |_| End::CutShort));
        }
        let len = left.unwrap_or(usize::MAX).min(self.ahead.len());
        if let Some(n) = left {
            self.framing = Framing::Length(n - len);
        }
        Ok(self.ahead.drain(..len).collect::<Vec<_>>().into())
    }

    /// One whole chunk, to the letter of RFC 9112 section 7.1. Of one that was cut short, what came.
    fn read_chunk(&mut self) -> Result<Bytes, End> {
        let (head_len, len) = loop {
            if let Some(at) = memchr::memmem::find(&self.ahead, b"\r\n") {
                let head = std::str::from_utf8(&self.ahead[..at]).unwrap();
                let len = usize::from_str_radix(head, 16);
                break (
                    at + 2,
                    len.unwrap_or_else(|_| panic!("no chunk's head: {head:?}")),
                );
            }
            assert!(self.ahead.len() < 10, "no chunk's head: {:?}", self.ahead);
            if !self.fill() {
                return Err(End::CutShort);
            }
        };
        while self.ahead.len() < head_len + len + 2 {
            if !self.fill() {
                // The client's code sees what came of the chunk before it sees the end.
                let mut came = self.ahead.split_off(head_len.min(self.ahead.len()));
                came.truncate(len);
                self.ahead.clear();
                return if came.is_empty() {
                    Err(End::CutShort)
                } else {
                    Ok(came.into())
                };
            }
        }
        let chunk: Vec<u8> = self.ahead.drain(..head_len + len + 2).collect();
        assert_eq!(
            &chunk[head_len + len..],
            b"\r\n",
            "a chunk ends where its head says"
        );
        if len == 0 {
            return Err(End::Clean);
        }
        Ok(chunk[head_len..head_len + len].to_vec().into())
    }
}
