//! Rights: what a token, a role and anonymous may do, and what nobody may do for somebody else.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::issuer::{Issuer, SECRET};
use crate::support::{Hub, WAIT_MAX, http};
use crate::{bearer, code};

fn hub() -> Hub {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "public:*"),
            (
                "TIDEWIRE_AUTH__ROLES",
                "[{name = 'support', subscribe = ['ticket:**'], publish = ['ticket:{user}:*']}, {name = 'boss', admin = true}]",
            ),
        ],
    )
}

#[test]
fn who_may_do_what() {
    let hub = hub();
    let token = |claims: &Value| Issuer::with_secret().token(claims);
    let nobody = None;
    let alice = Some(token(&json!({ "sub": "alice" })));
    let support = Some(token(
        &json!({ "sub": "bob", "roles": ["support", "unknown"] }),
    ));
    let boss = Some(token(&json!({ "sub": "eve", "roles": "boss" })));
    let star = Some(token(&json!({ "sub": "**" })));
    let own = Some(token(
        &json!({ "sub": "x", "tidewire": { "subscribe": ["user:*"], "publish": ["**"] } }),
    ));
    let read = |topic: &str| ("HEAD", format!("/events?topic={topic}"));
    let write = |topic: &str| ("POST", format!("/events?topic={topic}"));
    let history = |topic: &str| ("GET", format!("/topics/{topic}/events"));
    let admin = || ("GET", "/api/v1/stats".to_owned());
    for (who, (method, path), status) in [
        (&nobody, read("public:a"), 200),
        (&nobody, read("ticket:a"), 401),
        (&nobody, read("user:alice"), 401),
        (&nobody, history("ticket:a"), 401),
        (&nobody, write("public:a"), 401),
        (&nobody, admin(), 401),
        (&alice, read("public:a"), 200),
        (&alice, read("user:alice"), 200),
        (&alice, read("notification:alice"), 200),
        (&alice, read("user:bob"), 403),
        (&alice, read("user:*"), 403),
        (&alice, read("**"), 403),
        (&alice, history("user:alice"), 200),
        (&alice, history("user:bob"), 403),
        (&alice, write("public:a"), 403),
        (&alice, admin(), 403),
        (&support, read("ticket:a:b"), 200),
        (&support, read("ticket:**"), 200),
        (&support, write("ticket:bob:1"), 200),
        (&support, write("ticket:alice:1"), 403),
        (&boss, admin(), 200),
        (&boss, read("ticket:a"), 403),
        (&star, read("user:alice"), 401),
        (&star, read("user:**"), 401),
        (&own, read("user:*"), 200),
        (&own, read("user:alice"), 200),
        (&own, write("anything"), 200),
        (&own, write("user:alice"), 403),
        (&own, read("connection:1"), 403),
    ] {
        let header = who.as_deref().map(bearer);
        let headers: Vec<_> = header
            .iter()
            .map(|value| ("Authorization", value.as_str()))
            .collect();
        let answer = hub.send(
            method,
            &path,
            &headers,
            if method == "POST" { b"x" } else { b"" },
        );
        assert_eq!(answer.status, status, "{who:?} {method} {path}: {answer:?}");
        if method != "HEAD" && status >= 400 {
            let expected = if status == 401 {
                "missing_credential"
            } else {
                "not_allowed"
            };
            assert_eq!(code(&answer), expected, "{method} {path}");
        }
    }
}

#[test]
fn a_stream_ends_with_its_token() {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__LEEWAY", "1s"),
        ],
    );
    let token = |seconds| {
        let claims = json!({ "sub": "42", "exp": crate::issuer::now_s() + seconds });
        bearer(&Issuer::with_secret().token(&claims))
    };
    let short = token(1);
    let mut ends = hub.stream_with("/events?topic=user:42", &[("Authorization", &short)]);
    let mut stays = hub.stream_with("/events?topic=user:42", &[("Authorization", &token(3_600))]);
    assert!(ends.rest().is_empty(), "{}", ends.text());
    let again = hub.send(
        "GET",
        "/events?topic=user:42",
        &[("Authorization", &short)],
        b"",
    );
    assert_eq!(crate::refused(&again).0, "expired");
    let publisher = Issuer::with_secret().token(&json!({ "tidewire": { "publish": ["user:42"] } }));
    let answer = hub.send(
        "POST",
        "/events?topic=user:42",
        &[("Authorization", &bearer(&publisher))],
        b"x",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stays.event().data, "x");
}

/// Two publishers with the same key used to get each other's answers, and the second one's event was lost.
#[test]
fn an_idempotency_key_is_its_publishers_own() {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__QUERY_TOKEN", "true"),
        ],
    );
    let token = |user: &str, issued: u64| {
        let rights = json!({ "publish": ["orders"] });
        Issuer::with_secret().token(&json!({ "sub": user, "iat": issued, "tidewire": rights }))
    };
    let publish = |token: &str| {
        let path = format!("/events?topic=orders&access_token={token}");
        let answer = hub.send("POST", &path, &[("Idempotency-Key", "1")], b"x");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].clone()
    };
    let first = publish(&token("42", 1));
    assert_ne!(publish(&token("43", 1)), first);
    assert_eq!(publish(&token("42", 2)), first, "with a newer token");
}

/// They used to share the topic `user:`.
#[test]
fn an_empty_name_is_nobodys() {
    let hub = hub();
    let token = Issuer::with_secret().token(&json!({ "sub": "" }));
    let headers = [("Authorization", bearer(&token))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let answer = hub.send("HEAD", "/events?topic=user:", &headers, b"");
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// Whoever may publish nothing used to make the hub hold any number of bodies.
#[test]
fn who_may_publish_nothing_is_refused_before_the_body() {
    let hub = hub();
    for path in [
        "/events?topic=a",
        "/api/v1/notifications",
        "/sse/broadcast",
        "/metrics",
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n"
        );
        // Nothing follows, and still there is an answer.
        assert_eq!(hub.exchange(head.as_bytes()).status, 401, "{path}");
    }
}

#[test]
fn history_names_no_topics_that_may_not_be_read() {
    let hub = hub();
    let rights = json!({ "publish": ["**", "user:*"], "subscribe": ["**", "user:*"] });
    let all = bearer(&Issuer::with_secret().token(&json!({ "tidewire": rights })));
    let document =
        json!({ "topics": ["public:a", "order:hidden", "user:9"], "data": 1 }).to_string();
    let headers = [
        ("Authorization", all.as_str()),
        ("Content-Type", "application/json"),
    ];
    assert_eq!(
        hub.send("POST", "/events", &headers, document.as_bytes())
            .status,
        200
    );
    let topics = |headers: &[(&str, &str)]| {
        let answer = hub.send("GET", "/topics/public:a/events", headers, b"");
        assert_eq!(
            answer.header("cache-control"),
            Some("no-store"),
            "{answer:?}"
        );
        answer.json()["events"][0]["topics"].clone()
    };
    assert_eq!(topics(&[]), json!(["public:a"]));
    assert_eq!(topics(&headers[..1]).as_array().unwrap().len(), 3);
}

/// A stream of lines used to go on for as long as lines came.
#[test]
fn a_stream_of_lines_ends_with_its_token() {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__LEEWAY", "0s"),
        ],
    );
    let claims = json!({ "exp": crate::issuer::now_s() + 2, "tidewire": { "publish": ["a"] } });
    let token = bearer(&Issuer::with_secret().token(&claims));
    let headers = [
        ("Authorization", token.as_str()),
        ("Content-Type", "application/x-ndjson"),
        ("Transfer-Encoding", "chunked"),
    ];
    let mut socket = http::connect(hub.port()).unwrap();
    let mut head = http::head(hub.port(), "POST", "/events", &headers);
    head.extend_from_slice(b"\r\n");
    socket.write_all(&head).unwrap();
    let mut line = || {
        let line = "{\"topic\":\"a\",\"data\":1}\n";
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        socket.write_all(chunk.as_bytes()).unwrap();
    };
    line();
    let deadline = Instant::now() + WAIT_MAX;
    while crate::publish_as(&hub, "a", token.strip_prefix("Bearer ").unwrap()).status != 401 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    line();
    let answer = http::read_answer(socket).unwrap();
    assert_eq!(crate::refused(&answer).0, "expired");
    assert_eq!(
        (
            answer.json()["count"].clone(),
            answer.json()["line"].clone()
        ),
        (json!(1), json!(2))
    );
}

#[test]
fn tokens_that_are_nobodys_have_nothing_in_common() {
    let hub = hub();
    let publish = |at: u64| {
        let claims = json!({ "iat": at, "tidewire": { "publish": ["a"] } });
        let token = bearer(&Issuer::with_secret().token(&claims));
        let headers = [("Authorization", token.as_str()), ("Idempotency-Key", "k")];
        let answer = hub.send("POST", "/events?topic=a", &headers, b"x");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].clone()
    };
    let first = publish(1);
    assert_eq!(publish(1), first);
    assert_ne!(publish(2), first);
}
