//! One HTTP/1.1 request over plain TCP, and its answer.
//!
//! [`request`] is what most tests need. [`exchange`] sends any bytes at all, for requests that no client library would make.

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The status line and the header lines, as received.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// The value of a header, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// Sends a request on a connection of its own and reads the answer. `content` is a content type and a body.
pub(crate) fn request(
    port: u16,
    method: &str,
    path: &str,
    content: Option<(&str, &str)>,
) -> Result<Response> {
    let (content_type, body) = content.unwrap_or_default();
    let headers = [("Content-Type", content_type)];
    let headers = if content.is_some() { &headers[..] } else { &[] };
    exchange(
        port,
        &request_bytes(port, method, path, headers, body.as_bytes()),
    )
}

/// A whole request as bytes. With a `Content-Length` where there is a body or a content type.
pub(crate) fn request_bytes(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = head(port, method, path, headers);
    if !body.is_empty() || headers.iter().any(|(name, _)| *name == "Content-Type") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The beginning of a request, without the blank line that ends its head. A `Host` among the headers replaces the right one.
pub(crate) fn head(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n").into_bytes();
    let mut add = |name: &str, value: &str| {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    };
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        add("Host", &format!("127.0.0.1:{port}"));
    }
    for (name, value) in headers {
        add(name, value);
    }
    bytes
}

/// A connection to the hub whose reads don't wait for ever.
pub(crate) fn connect(port: u16) -> Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), super::WAIT_MAX)?;
    stream.set_read_timeout(Some(super::WAIT_MAX))?;
    stream.set_write_timeout(Some(super::WAIT_MAX))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection from one of the many addresses of this machine.
pub(crate) fn connect_from(last_byte: u8, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let local = SocketAddr::from(([127, 0, 0, last_byte], 0));
    socket
        .bind(&local.into())
        .expect("an address of this machine");
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&server.into()).expect("somebody listens");
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(super::WAIT_MAX))
        .expect("a time");
    stream
}

/// Sends any bytes on a connection of its own and reads the answer.
pub(crate) fn exchange(port: u16, bytes: &[u8]) -> Result<Response> {
    let mut stream = connect(port)?;
    stream.write_all(bytes)?;
    read_answer(stream)
}

/// Reads an answer to the end of the connection.
pub(crate) fn read_answer(mut stream: TcpStream) -> Result<Response> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {}", answer.escape_ascii())))
}

/// The status and the headers of a head without its last blank line.
pub(super) fn parse_head(head: &[u8]) -> Option<Response> {
    let head = String::from_utf8(head.to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response {
        status,
        head,
        body: String::new(),
    })
}

fn parse(answer: &[u8]) -> Option<Response> {
    let head_len = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let mut response = parse_head(&answer[..head_len])?;
    let body = &answer[head_len + 4..];
    let chunked = response
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let body = if chunked && !body.is_empty() {
        dechunk(body)?
    } else {
        body.to_vec()
    };
    response.body = String::from_utf8(body).ok()?;
    Some(response)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_len = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line_len]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let start = line_len + 2;
        body.extend_from_slice(rest.get(start..start + size)?);
        rest = rest.get(start + size + 2..)?;
    }
}
