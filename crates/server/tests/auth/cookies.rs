//! Cookies and the query as places of a token: what a browser can send, and what a foreign page must not use.

use std::process::Command;

use serde_json::json;

use crate::issuer::{Issuer, SECRET};
use crate::support::{Hub, Stream};
use crate::{code, publish, refused};

fn hub() -> Hub {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__COOKIE", "session"),
            ("TIDEWIRE_AUTH__QUERY_TOKEN", "true"),
            ("TIDEWIRE_CORS__ORIGINS", "https://app.example"),
        ],
    )
}

#[test]
fn a_cookie_acts_for_pages_of_this_site_and_of_configured_ones() {
    let hub = hub();
    let cookie = format!(
        "theme=dark; session={}; x=y",
        Issuer::with_secret().publisher()
    );
    let own = format!("http://127.0.0.1:{}", hub.port());
    for (header, status) in [
        (("Origin", own.as_str()), 200),
        (("Origin", "https://app.example"), 200),
        (("Sec-Fetch-Site", "same-origin"), 200),
        (("Origin", "https://evil.example"), 403),
        (("Origin", "https://app.example.evil.example"), 403),
        (("Origin", "http://app.example"), 403),
        (("Origin", "null"), 403),
        (("Sec-Fetch-Site", "cross-site"), 403),
        (("Sec-Fetch-Site", "same-site"), 403),
        (("X-Nothing", "x"), 403),
    ] {
        let answer = publish(&hub, "orders", &[("Cookie", &cookie), header]);
        assert_eq!(answer.status, status, "{header:?}: {answer:?}");
        if status == 403 {
            assert_eq!(code(&answer), "foreign_origin");
        }
    }
    let two = [
        ("Cookie", cookie.as_str()),
        ("Origin", own.as_str()),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(publish(&hub, "orders", &two).status, 403);
    // A header is never sent by a browser on its own.
    let token = format!("Bearer {}", Issuer::with_secret().publisher());
    let headers = [
        ("Authorization", token.as_str()),
        ("Origin", "https://evil.example"),
    ];
    assert_eq!(publish(&hub, "orders", &headers).status, 200);
}

/// A stream changes something too: it used to let a foreign page take a user's connection.
#[test]
fn a_foreign_page_opens_no_stream_with_a_cookie() {
    let hub = hub();
    let rights = json!({ "subscribe": ["connection:ann:*"] });
    let token = Issuer::with_secret().token(&json!({ "sub": "ann", "tidewire": rights }));
    let cookie = format!("session={token}");
    let own = format!("http://127.0.0.1:{}", hub.port());
    for (header, status) in [
        (("X-Nothing", "x"), 200),
        (("Origin", own.as_str()), 200),
        (("Origin", "https://app.example"), 200),
        (("Sec-Fetch-Site", "same-origin"), 200),
        (("Origin", "https://evil.example"), 403),
        (("Sec-Fetch-Site", "cross-site"), 403),
    ] {
        for path in ["/sse/connect/ann:1", "/events?topic=user:ann"] {
            let stream = Stream::open(hub.port(), path, &[("Cookie", &cookie), header]);
            assert_eq!(stream.status(), status, "{path} {header:?}");
        }
    }
    let written = hub.output();
    let refused = written.lines().find(|line| line.contains("foreign_origin"));
    assert!(
        refused.is_some_and(|line| line.contains("user ann")),
        "{written}"
    );
}

#[test]
fn a_cookie_reads_a_stream() {
    let hub = hub();
    let cookie = format!(
        "session={}",
        Issuer::with_secret().token(&json!({ "sub": "42" }))
    );
    let mut stream = hub.stream_with("/events?topic=user:42", &[("Cookie", &cookie)]);
    let key = Issuer::with_secret().token(&json!({ "tidewire": { "publish": ["user:42"] } }));
    let path = "/events?topic=user:42";
    let answer = hub.send(
        "POST",
        path,
        &[("Authorization", &crate::bearer(&key))],
        b"hello",
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stream.event().data, "hello");
}

#[test]
fn the_query_counts_where_it_is_switched_on_and_is_never_logged() {
    let hub = hub();
    let token = Issuer::with_secret().publisher();
    let path = format!("/events?topic=orders&access_token={token}");
    assert_eq!(hub.send("POST", &path, &[], b"x").status, 200);
    let forged = format!("/events?topic=orders&access_token={token}x");
    assert_eq!(
        refused(&hub.send("POST", &forged, &[], b"x")).0,
        "signature"
    );
    let output = hub.output();
    assert!(!output.contains(&token[..40]), "{output}");

    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let without = Hub::spawn(&[], &[("TIDEWIRE_AUTH__ISSUERS", &issuers)]);
    let (_, detail) = refused(&without.send("POST", &path, &[], b"x"));
    assert!(detail.contains("auth.query_token"), "{detail}");
}

/// HTTP/2 names the host in `:authority`, and pages of the hub's own site used to be taken for foreign ones.
#[test]
fn a_cookie_acts_over_http2_too() {
    let hub = hub();
    let own = format!("http://127.0.0.1:{}", hub.port());
    let cookie = format!("Cookie: session={}", Issuer::with_secret().publisher());
    for (origin, status) in [(own.as_str(), "404"), ("http://evil.example", "403")] {
        let output = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
            ])
            .args(["--http2-prior-knowledge", "-H", &cookie, "-X", "POST"])
            .args(["-H", &format!("Origin: {origin}")])
            .arg(format!("{own}/nothing"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("2 {status}"), "{origin}");
    }
}
