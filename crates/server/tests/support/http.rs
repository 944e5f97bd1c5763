//! One HTTP/1.1 request over plain TCP, and its answer.

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

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
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), super::WAIT_MAX)?;
    stream.set_read_timeout(Some(super::WAIT_MAX))?;
    let (content_headers, body) = content.map_or_else(Default::default, |(content_type, body)| {
        let length = body.len();
        (
            format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n"),
            body,
        )
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{content_headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {}", answer.escape_ascii())))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let head_len = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..head_len].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut response = Response {
        status,
        head,
        body: String::new(),
    };
    let body = &answer[head_len + 4..];
    let chunked = response
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let body = if chunked {
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
