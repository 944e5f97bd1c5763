//! Requests of which two servers in a row may see different ends (RFC 9112 section 11.2), straight to the hub and through
//! nginx: what one takes for a body is a request to nobody.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use serde_json::Value;

use crate::server::Nginx;
use crate::support::{Hub, http};

const KEY: &str = "tw_the-key-of-somebody-who-may-publish-everything";
/// `sha256:` of it.
const KEY_HASH: &str = "sha256:3470d18d76f6314dd02e45bf664a0981a68d3db93520c1799534a55e4b7b7e54";
/// Anyone may publish here, so that it is no right which stops the hidden request.
const HIDDEN: &str = "open:hidden";
/// For the rest of an answer. Reached only where a server waits for more of the body, as it may.
const SILENCE: Duration = Duration::from_millis(300);

fn hub() -> Hub {
    let key = format!(r#"[{{name = "ci", hash = "{KEY_HASH}", publish = ["**"]}}]"#);
    let settings = [
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
        ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "open:**"),
        ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
        ("TIDEWIRE_AUTH__KEYS", &key),
    ];
    Hub::spawn(&[], &settings)
}

/// The request that is hidden: whole, or such that it would swallow what comes next on the connection.
fn hidden() -> [String; 2] {
    let to = |length: usize| {
        format!(
            "POST /events?topic={HIDDEN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\nx"
        )
    };
    [to(1), to(150)]
}

/// Requests with another hidden in them, by the name of the trick.
fn attacks(hidden: &str) -> Vec<(&'static str, String)> {
    let head =
        "POST /events?topic=open:front HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
    let after_last_chunk = format!("0\r\n\r\n{hidden}");
    let length = after_last_chunk.len();
    let in_chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let mut attacks = vec![
        (
            "CL.TE",
            format!(
                "{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{after_last_chunk}"
            ),
        ),
        (
            "TE.CL",
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{in_chunk}"),
        ),
        (
            "CL.TE, the other order",
            format!(
                "{head}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{after_last_chunk}"
            ),
        ),
        (
            "CL.CL",
            format!(
                "{head}Content-Length: 1\r\nContent-Length: {}\r\n\r\nx{hidden}",
                1 + hidden.len()
            ),
        ),
        (
            "CL with a list",
            format!(
                "{head}Content-Length: 1, {}\r\n\r\nx{hidden}",
                1 + hidden.len()
            ),
        ),
        (
            "CL with a sign",
            format!("{head}Content-Length: +1\r\n\r\nx{hidden}"),
        ),
        (
            "CL in hexadecimal",
            format!("{head}Content-Length: 0x1\r\n\r\nx{hidden}"),
        ),
        (
            "CL beyond 64 bits",
            format!("{head}Content-Length: 18446744073709551617\r\n\r\nx{hidden}"),
        ),
        (
            "CL below zero",
            format!("{head}Content-Length: -1\r\n\r\n{hidden}"),
        ),
        (
            "a body of GET",
            format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "a body that is refused",
            format!(
                "POST /events?topic=closed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "a body after Expect",
            format!(
                "{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "folding",
            format!(
                "{head}X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{after_last_chunk}"
            ),
        ),
        (
            "a folded TE",
            format!(
                "{head}Transfer-Encoding:\r\n chunked\r\nContent-Length: {length}\r\n\r\n{after_last_chunk}"
            ),
        ),
        (
            "HTTP/1.0 with TE",
            format!(
                "{}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n\r\n{after_last_chunk}",
                head.replace("1.1", "1.0")
            ),
        ),
        (
            "bare LF ends the head",
            format!(
                "{head}Content-Length: {length}\nTransfer-Encoding: chunked\n\n{after_last_chunk}"
            ),
        ),
        (
            "trailers as headers",
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: {}\r\nX: y\r\n\r\n",
                hidden.len()
            ),
        ),
        (
            "h2c",
            format!(
                "{head}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
    ];
    // Codings that one server takes for `chunked` and another does not.
    for (name, te) in [
        ("TE.TE: not chunked", "Transfer-Encoding: xchunked"),
        (
            "TE.TE: space before the colon",
            "Transfer-Encoding : chunked",
        ),
        (
            "TE.TE: twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "TE.TE: chunked is not last",
            "Transfer-Encoding: chunked, identity",
        ),
        ("TE.TE: two codings", "Transfer-Encoding: identity, chunked"),
        ("TE.TE: vertical tab", "Transfer-Encoding:\u{b}chunked"),
        ("TE.TE: NUL", "Transfer-Encoding: chunked\0"),
        ("TE.TE: CR within", "X: y\rTransfer-Encoding: chunked"),
        ("TE.TE: LF within", "X: y\nTransfer-Encoding: chunked"),
        ("TE.TE: quoted", "Transfer-Encoding: \"chunked\""),
        ("TE.TE: underscore", "Transfer_Encoding: chunked"),
        (
            "TE.TE: empty name before",
            ": x\r\nTransfer-Encoding: chunked",
        ),
    ] {
        attacks.push((
            name,
            format!("{head}{te}\r\nContent-Length: {length}\r\n\r\n{after_last_chunk}"),
        ));
    }
    // Chunks of which the size or the end is unclear.
    for (name, chunks) in [
        (
            "chunk: oversized",
            format!("10000000000000001\r\nx\r\n{after_last_chunk}"),
        ),
        ("chunk: prefix", format!("0x1\r\nx\r\n{in_chunk}")),
        ("chunk: sign", format!("+1\r\nx\r\n{in_chunk}")),
        ("chunk: no size", format!("\r\nx\r\n{in_chunk}")),
        ("chunk: no digits", format!(";a\r\nx\r\n{in_chunk}")),
        (
            "chunk: LF in an extension",
            format!("1;a\n{in_chunk}x\r\n0\r\n\r\n"),
        ),
        (
            "chunk: longer than its size",
            format!("1\r\nxx0\r\n\r\n{hidden}"),
        ),
        (
            "chunk: two bytes instead of its end",
            format!("1\r\nxXX0\r\n\r\n{hidden}"),
        ),
        ("chunk: LF as the only end", format!("1\nx\n0\n\n{hidden}")),
        (
            "chunk: a large extension",
            format!("1;{}\r\nx\r\n{in_chunk}", "e".repeat(70_000)),
        ),
    ] {
        attacks.push((
            name,
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"),
        ));
    }
    attacks
}

/// Sends it all and reads what comes back until the other side ends or is silent.
fn attack(port: u16, bytes: &str) -> String {
    let mut stream = http::connect(port).unwrap();
    // A server may hang up before it has read all.
    let _ = stream.write_all(bytes.as_bytes());
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset
            ),
            "{error}"
        ),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The data of all events of a topic.
fn events(hub: &Hub, topic: &str) -> Vec<Value> {
    let path = format!("/topics/{}/events?limit=1000", topic.replace(':', "%3A"));
    let answer = hub.get(&path);
    if answer.status == 404 {
        return Vec::new();
    }
    let events = answer.json()["events"].as_array().unwrap().clone();
    events
        .into_iter()
        .map(|event| event["data"].clone())
        .collect()
}

/// Somebody else publishes, with rights that the attacker lacks.
fn publish_as_somebody(port: u16, data: &str) {
    let headers = [
        ("Authorization", &*format!("Bearer {KEY}")),
        ("Content-Type", "text/plain"),
    ];
    let request = http::request_bytes(
        port,
        "POST",
        "/events?topic=theirs",
        &headers,
        data.as_bytes(),
    );
    let answer = http::exchange(port, &request).unwrap();
    assert_eq!(answer.status, 200, "{data}: {answer:?}");
}

/// Sends each, and sees to it that the hub has served no request that the server at this port has not seen and answered
/// as one of the attacker's own.
fn assert_nothing_is_hidden(hub: &Hub, port: u16, in_the_open: &[&str]) {
    let mut published = Vec::new();
    let mut known = 0;
    for hidden in hidden() {
        for (name, bytes) in attacks(&hidden) {
            let answer = attack(port, &bytes);
            assert!(!answer.starts_with("HTTP/1.1 101"), "{name}: {answer}");
            // On a connection that the attack may have used as well, where nginx keeps it.
            published.push(format!("after {name}"));
            publish_as_somebody(port, &published[published.len() - 1]);
            let more_answers = answer.matches("HTTP/1.1 ").count().saturating_sub(1);
            known += if in_the_open.contains(&name) {
                more_answers
            } else {
                0
            };
            let seen = events(hub, HIDDEN);
            assert!(
                seen.len() <= known,
                "{name}: {answer}\nthe hidden request was served: {seen:?}"
            );
        }
    }
    let theirs: Vec<_> = published.into_iter().map(Value::from).collect();
    assert_eq!(events(hub, "theirs"), theirs, "each was served once");
    for data in events(hub, "open:front") {
        assert!(!data.to_string().contains(KEY), "{data}");
    }
}

#[test]
fn a_request_within_a_request_is_never_served() {
    let hub = hub();
    assert_nothing_is_hidden(&hub, hub.port(), &[]);
}

#[test]
fn nor_is_it_behind_nginx() {
    let hub = hub();
    let nginx = Nginx::spawn(&hub, "");
    // An end of line to nginx, which sees two requests there and sends the hub two.
    assert_nothing_is_hidden(&hub, nginx.port(), &["chunk: LF as the only end"]);
}
