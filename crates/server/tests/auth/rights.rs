//! Rights: what a token, a role and anonymous may do, and what nobody may do for somebody else.

use serde_json::{Value, json};

use crate::issuer::{Issuer, SECRET};
use crate::support::Hub;
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
