//! Who gets in: everyone from this machine where nothing is configured, or anyone with the rights of anonymous.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Hub, Response, Stream};
use crate::{events_held, problem};

#[test]
fn an_open_hub_answers_this_machine_only() {
    let hub = Hub::spawn(&[], &[]);
    let refused = [
        (("Host", "example.com"), "foreign_host", "example.com"),
        (
            ("Host", "example.com:8080"),
            "foreign_host",
            "example.com:8080",
        ),
        (("Host", "127.0.0.1.nip.io"), "foreign_host", "nip.io"),
        (("Host", "localhost.evil.example"), "foreign_host", "evil"),
        (("Host", "192.168.1.7"), "foreign_host", "192.168.1.7"),
        (("Host", ""), "foreign_host", "auth.anonymous"),
        (
            ("X-Forwarded-For", "10.0.0.1"),
            "proxied",
            "x-forwarded-for",
        ),
        (
            ("X-Forwarded-Proto", "https"),
            "proxied",
            "x-forwarded-proto",
        ),
        (("Forwarded", "for=10.0.0.1"), "proxied", "forwarded"),
        (("Via", "1.1 proxy"), "proxied", "via"),
    ];
    for path in ["/events?topic=a", "/", "/api/v1/stats", "/nothing"] {
        for (header, code, detail) in refused {
            let document = problem(&hub.send("GET", path, &[header], b""), 403, code);
            let text = document["detail"].as_str().unwrap();
            assert!(
                text.contains(detail) && text.contains("auth.anonymous"),
                "{header:?}: {text}"
            );
        }
    }
    for (header, code, _) in refused {
        problem(
            &hub.send("POST", "/events?topic=a", &[header], b"x"),
            403,
            code,
        );
    }
    assert_eq!(events_held(&hub), 0);
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "[::1]:8080",
        "app.localhost",
    ] {
        assert_eq!(
            hub.send("GET", "/healthz", &[("Host", host)], b"").status,
            200,
            "{host}"
        );
    }
    let old = hub.exchange(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(old.status, 200, "{old:?}");
}

#[test]
fn a_hub_that_others_can_reach_does_not_start_without_rights() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["serve"])
        .env("TIDEWIRE_LISTEN", "0.0.0.0:0")
        .current_dir(tempfile::tempdir().unwrap().path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    for wanted in [
        "auth.anonymous",
        "0.0.0.0:0",
        "TIDEWIRE_LISTEN",
        "subscribe = [\"**\"]",
    ] {
        assert!(errors.contains(wanted), "{wanted}: {errors}");
    }
}

/// A hub whose clients may read `pub:…` and one user's topics, and publish to `in:…`.
fn limited() -> Hub {
    let env = [
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "pub:*,user:7"),
        ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "in:*,pub:*"),
    ];
    Hub::spawn(&[], &env)
}

#[test]
fn each_right_of_anonymous_is_enforced() {
    let hub = limited();
    let denied: [(&str, &str); 12] = [
        ("GET", "/events?topic=in:a"),
        ("GET", "/events?topic=pub:a&topic=x"),
        ("GET", "/events?topic=**"),
        ("GET", "/events?topic=pub:**"),
        ("GET", "/events?topic=user:*"),
        ("GET", "/events?topic=user:8"),
        ("GET", "/topics/in:a/events"),
        ("POST", "/topics/x/close"),
        ("GET", "/api/v1/stats"),
        ("GET", "/api/v1/topics"),
        ("GET", "/api/v1/connections"),
        ("DELETE", "/api/v1/connections/x"),
    ];
    for (method, path) in denied {
        let document = problem(&hub.request(method, path, None), 403, "not_allowed");
        assert!(
            document["detail"].as_str().unwrap().contains("no right to"),
            "{document}"
        );
    }
    let publishes: [Response; 4] = [
        hub.post_json(&json!({"topic": "x", "data": 1})),
        hub.post_json(&json!({"topics": ["in:a", "x"], "data": 1})),
        hub.post_json(&json!([{"topic": "in:a", "data": 1}, {"topic": "x", "data": 1}])),
        hub.send("POST", "/events?topic=in:a:b", &[], b"x"),
    ];
    for answer in &publishes {
        problem(answer, 403, "not_allowed");
    }
    assert_eq!(publishes[2].json()["index"], 1);
    let lines = "{\"topic\":\"pub:kept\",\"data\":1}\n{\"topic\":\"x\",\"data\":1}\n";
    let answer = hub.request("POST", "/events", Some(("application/x-ndjson", lines)));
    let document = problem(&answer, 403, "not_allowed");
    assert_eq!(
        (&document["line"], &document["count"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(crate::history(&hub, "pub:kept"), ["1"]);
}

#[test]
fn who_has_rights_uses_them_through_any_proxy() {
    let hub = limited();
    let proxied = [
        ("Host", "events.example.com"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Via", "1.1 proxy"),
    ];
    let mut named = hub.stream_with("/events?topic=pub:a&topic=user:7", &proxied);
    let mut pattern = hub.stream_with("/events?topic=pub:*", &proxied);
    let mut unnamed = hub.stream_with("/events", &proxied);
    let answer = hub.send("POST", "/events?topic=pub:a", &proxied, b"1");
    assert_eq!(answer.status, 200, "{answer:?}");
    for stream in [&mut named, &mut pattern, &mut unnamed] {
        assert_eq!(stream.event().data, "1");
    }
    assert_eq!(hub.request("POST", "/topics/in:a/close", None).status, 200);
}

#[test]
fn who_names_no_topic_gets_the_public_ones_that_may_be_read() {
    let env = [
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "pub:*,user:7"),
        ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "**,user:*"),
    ];
    let hub = Hub::spawn(&[], &env);
    let mut stream = hub.stream("/events");
    for topic in ["x", "user:7", "pub:a"] {
        assert_eq!(
            hub.post_json(&json!({"topic": topic, "data": topic}))
                .status,
            200,
            "{topic}"
        );
    }
    assert_eq!(stream.event().data, "pub:a");
    for rights in ["", "user:*"] {
        let hub = Hub::spawn(&[], &[("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", rights)]);
        problem(&hub.get("/events"), 403, "not_allowed");
    }
}

#[test]
fn an_administrator_has_no_other_right() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true")]);
    assert_eq!(events_held(&hub), 0);
    problem(&hub.get("/events?topic=a"), 403, "not_allowed");
    problem(
        &hub.post_json(&json!({"topic": "a", "data": 1})),
        403,
        "not_allowed",
    );
}

#[test]
fn pages_of_configured_origins_may_send_credentials_and_no_others_read() {
    let hub = Hub::spawn(
        &[],
        &[(
            "TIDEWIRE_CORS__ORIGINS",
            "https://a.example,https://b.example:8443",
        )],
    );
    for origin in ["https://a.example", "https://b.example:8443"] {
        let stream = hub.stream_with("/events?topic=a", &[("Origin", origin)]);
        assert_eq!(stream.header("access-control-allow-origin"), Some(origin));
        assert_eq!(
            stream.header("access-control-allow-credentials"),
            Some("true")
        );
        let refused = hub.send("GET", "/events?topic=", &[("Origin", origin)], b"");
        assert_eq!(
            refused.header("access-control-allow-origin"),
            Some(origin),
            "errors can be read too"
        );
    }
    let foreign = Stream::open(
        hub.port(),
        "/events?topic=a",
        &[("Origin", "https://c.example")],
    );
    assert_eq!(
        foreign.header("access-control-allow-origin"),
        None,
        "{}",
        foreign.head()
    );
    assert!(
        foreign
            .header("vary")
            .unwrap_or_default()
            .to_ascii_lowercase()
            .contains("origin"),
        "{}",
        foreign.head()
    );
    let headers = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "content-type,idempotency-key,last-event-id,authorization",
        ),
    ];
    let preflight = hub.send("OPTIONS", "/events", &headers, b"");
    assert_eq!(preflight.status, 200, "{preflight:?}");
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(
        preflight.header("access-control-allow-credentials"),
        Some("true")
    );
    let allowed = preflight
        .header("access-control-allow-headers")
        .unwrap()
        .to_ascii_lowercase();
    for name in [
        "content-type",
        "idempotency-key",
        "last-event-id",
        "authorization",
        "cache-control",
    ] {
        assert!(allowed.contains(name), "{name}: {allowed}");
    }
}
