//! What is said to each program, as bytes of HTTP/1.1.

use std::fmt::Write;
use std::net::SocketAddrV4;

use super::Kind;

/// The name of a topic.
fn name(topic: u32) -> String {
    format!("bench-{topic}")
}

fn names(topics: &[u32]) -> String {
    let names: Vec<String> = topics.iter().map(|&topic| name(topic)).collect();
    names.join(",")
}

/// A request for a stream.
pub(super) fn subscribe(
    kind: Kind,
    address: SocketAddrV4,
    topics: &[u32],
    position: Option<&str>,
) -> Vec<u8> {
    let (path, header) = match kind {
        Kind::DurableStreams => {
            let path = format!(
                "/{}?live=sse&offset={}",
                names(topics),
                position.unwrap_or("now")
            );
            (path, None)
        }
        Kind::Nchan if topics.len() > 1 => (format!("/many?topics={}", names(topics)), position),
        Kind::Nchan => (format!("/sub?topic={}", names(topics)), position),
        Kind::Tidewire | Kind::TidewireBody | Kind::Floor | Kind::AxumBroadcast => {
            (format!("/events?topics={}", names(topics)), position)
        }
    };
    let resume = header.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{resume}\r\n")
        .into_bytes()
}

/// A request that publishes.
pub(super) fn publish(kind: Kind, address: SocketAddrV4, topic: u32, data: &str) -> Vec<u8> {
    let path = match kind {
        Kind::DurableStreams => format!("/{}", name(topic)),
        Kind::Nchan => format!("/pub?topic={}", name(topic)),
        _ => format!("/events?topic={}", name(topic)),
    };
    post(address, &path, "text/plain", data)
}

/// A request that publishes many events as lines.
pub(super) fn batch<'a>(
    address: SocketAddrV4,
    events: impl Iterator<Item = (u32, &'a str)>,
) -> Vec<u8> {
    let mut lines = String::new();
    for (topic, data) in events {
        // Writing to a string does not fail.
        let _ = writeln!(lines, r#"{{"topic":"{}","data":{data}}}"#, name(topic));
    }
    post(address, "/events", "application/x-ndjson", &lines)
}

/// A request that makes a topic.
pub(super) fn create(address: SocketAddrV4, topic: u32) -> Vec<u8> {
    format!(
        "PUT /{} HTTP/1.1\r\nHost: {address}\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
        name(topic)
    )
    .into_bytes()
}

fn post(address: SocketAddrV4, path: &str, kind: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The position that a stream tells with or after event `number`, if it has come.
pub(super) fn position(kind: Kind, text: &str, number: u32) -> Option<String> {
    let marker = text.find(&format!("@{number:08x}"))?;
    if kind == Kind::DurableStreams {
        let rest = &text[marker..];
        let rest = &rest[rest.find("streamNextOffset\":\"")? + 19..];
        return Some(rest[..rest.find('"')?].to_owned());
    }
    // The id is a line of the event's block, before its data or after it.
    let end = marker + text[marker..].find("\n\n")?;
    let start = text[..marker].rfind("\n\n").map_or(0, |at| at + 2);
    let id = text[start..end]
        .lines()
        .find_map(|line| line.strip_prefix("id:"))?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_wherever_a_program_writes_it() {
        let cases = [
            (
                Kind::Tidewire,
                "retry: 1\n\r\n1F\r\ndata: @00000001\nid: ~a-1\n\n",
                "~a-1",
            ),
            (Kind::Nchan, ": hi\n\nid: 17:0\ndata: @00000001\n\n", "17:0"),
            (
                Kind::DurableStreams,
                "data:{\"streamNextOffset\":\"0_0\"}\n\nevent: data\ndata:@00000001\n\nevent: control\ndata:{\"streamNextOffset\":\"0_7\",",
                "0_7",
            ),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(position(kind, text, 1).as_deref(), Some(expected));
            assert_eq!(position(kind, text, 2), None);
        }
    }
}
