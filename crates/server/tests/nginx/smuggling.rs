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
const LF_ENDS_CHUNKS: &str = "chunk: LF as the only end";
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

/// The head of a request that anyone may send, but for what says where its body ends.
const HEAD: &str =
    "POST /events?topic=open:front HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";

/// A request, by the name of the trick.
type Attack = (&'static str, String);

/// Requests with another hidden in them.
fn attacks(hidden: &str) -> Vec<Attack> {
    [
        lengths(hidden),
        both(hidden),
        codings(hidden),
        chunks(hidden),
    ]
    .concat()
}

/// `Content-Length` that may be read in two ways, or is not looked at.
fn lengths(hidden: &str) -> Vec<Attack> {
    let length = hidden.len();
    let odd = |value: &str| format!("{HEAD}Content-Length: {value}\r\n\r\nx{hidden}");
    let whole = |head: &str| format!("{head}Content-Length: {length}\r\n\r\n{hidden}");
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    let refused = "POST /events?topic=closed HTTP/1.1\r\nHost: localhost\r\n";
    let h2c = format!(
        "{HEAD}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    );
    vec![
        (
            "CL.CL",
            odd(&format!("1\r\nContent-Length: {}", 1 + length)),
        ),
        ("CL with a list", odd(&format!("1, {}", 1 + length))),
        ("CL with a sign", odd("+1")),
        ("CL in hexadecimal", odd("0x1")),
        ("CL beyond 64 bits", odd("18446744073709551617")),
        ("CL below zero", odd("-1")),
        ("a body of GET", whole(get)),
        ("a body that is refused", whole(refused)),
        (
            "a body after Expect",
            whole(&format!("{HEAD}Expect: 100-continue\r\n")),
        ),
        ("a body after h2c", whole(&h2c)),
    ]
}

/// `Content-Length` and `Transfer-Encoding`, of which one counts.
fn both(hidden: &str) -> Vec<Attack> {
    let body = format!("0\r\n\r\n{hidden}");
    let length = body.len();
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let te = "Transfer-Encoding: chunked";
    let old = HEAD.replace("1.1", "1.0");
    vec![
        (
            "CL.TE",
            format!("{HEAD}Content-Length: {length}\r\n{te}\r\n\r\n{body}"),
        ),
        (
            "TE.CL",
            format!("{HEAD}{te}\r\nContent-Length: 4\r\n\r\n{chunk}"),
        ),
        (
            "TE.CL, for who takes CL",
            format!("{HEAD}{te}\r\nContent-Length: {length}\r\n\r\n{body}"),
        ),
        (
            "HTTP/1.0 with TE",
            format!(
                "{old}{te}\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n\r\n{body}"
            ),
        ),
        (
            "bare LF ends the head",
            format!("{HEAD}Content-Length: {length}\n{te}\n\n{body}"),
        ),
    ]
}

/// Codings that one server takes for `chunked` and another does not.
fn codings(hidden: &str) -> Vec<Attack> {
    let body = format!("0\r\n\r\n{hidden}");
    let length = body.len();
    let lines = [
        ("TE: not chunked", "Transfer-Encoding: xchunked"),
        ("TE: space before the colon", "Transfer-Encoding : chunked"),
        (
            "TE: twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "TE: chunked is not last",
            "Transfer-Encoding: chunked, identity",
        ),
        ("TE: two codings", "Transfer-Encoding: identity, chunked"),
        ("TE: vertical tab", "Transfer-Encoding:\u{b}chunked"),
        ("TE: NUL", "Transfer-Encoding: chunked\0"),
        ("TE: CR within", "X: y\rTransfer-Encoding: chunked"),
        ("TE: LF within", "X: y\nTransfer-Encoding: chunked"),
        ("TE: quoted", "Transfer-Encoding: \"chunked\""),
        ("TE: underscore", "Transfer_Encoding: chunked"),
        (
            "TE: a nameless header before",
            ": x\r\nTransfer-Encoding: chunked",
        ),
        ("TE: folded", "Transfer-Encoding:\r\n chunked"),
        (
            "TE: folded into another",
            "X: a\r\n Transfer-Encoding: chunked",
        ),
    ];
    let attack = |(name, te)| {
        (
            name,
            format!("{HEAD}{te}\r\nContent-Length: {length}\r\n\r\n{body}"),
        )
    };
    lines.map(attack).to_vec()
}

/// Chunks of which the size or the end is unclear.
fn chunks(hidden: &str) -> Vec<Attack> {
    let last = format!("0\r\n\r\n{hidden}");
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let bodies = [
        (
            "chunk: oversized",
            format!("10000000000000001\r\nx\r\n{last}"),
        ),
        ("chunk: prefix", format!("0x1\r\nx\r\n{chunk}")),
        ("chunk: sign", format!("+1\r\nx\r\n{chunk}")),
        ("chunk: no size", format!("\r\nx\r\n{chunk}")),
        ("chunk: no digits", format!(";a\r\nx\r\n{chunk}")),
        (
            "chunk: LF in an extension",
            format!("1;a\n{chunk}x\r\n0\r\n\r\n"),
        ),
        ("chunk: longer than its size", format!("1\r\nxx{last}")),
        (
            "chunk: two bytes instead of its end",
            format!("1\r\nxXX{last}"),
        ),
        (LF_ENDS_CHUNKS, format!("1\nx\n0\n\n{hidden}")),
        (
            "chunk: a large extension",
            format!("1;{}\r\nx\r\n{chunk}", "e".repeat(70_000)),
        ),
        (
            "chunk: headers behind it",
            format!("1\r\nx\r\n0\r\nContent-Length: {}\r\n\r\n", hidden.len()),
        ),
    ];
    bodies
        .map(|(name, body)| {
            (
                name,
                format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}"),
            )
        })
        .to_vec()
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
    assert_nothing_is_hidden(&hub, nginx.port(), &[LF_ENDS_CHUNKS]);
}
