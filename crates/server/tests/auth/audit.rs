//! The audit log: what of refusals and of administration stands in it, and what does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bearer;
use crate::issuer::{Issuer, SECRET, now_s};
use crate::support::{Hub, WAIT_MAX};

fn hub(settings: &[(&str, &str)]) -> Hub {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let mut all = vec![
        ("TIDEWIRE_AUTH__ISSUERS", issuers.as_str()),
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "public:*"),
        ("TIDEWIRE_AUTH__QUERY_TOKEN", "true"),
        ("TIDEWIRE_LOG__FORMAT", "json"),
    ];
    all.extend(settings);
    Hub::spawn(&[], &all)
}

/// The entries so far.
fn entries(hub: &Hub) -> Vec<Value> {
    let output = hub.output();
    let lines = output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["target"] == "audit")
        .map(|line| line["fields"].clone())
        .collect()
}

/// Waits until there are so many.
fn wait_for(hub: &Hub, n: usize) -> Vec<Value> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let entries = entries(hub);
        if entries.len() >= n {
            return entries;
        }
        assert!(Instant::now() < deadline, "{entries:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn refusals_and_administration_are_written_down_without_secrets() {
    let hub = hub(&[]);
    let token = |claims: &Value| Issuer::with_secret().token(claims);
    let admin = token(&json!({ "sub": "root", "tidewire": { "admin": true } }));
    let expired = token(&json!({ "sub": "ann", "exp": now_s() - 600 }));
    let alice = token(&json!({ "sub": "alice" }));
    let get = |path: &str, credential: &str| {
        let value = bearer(credential);
        hub.send("GET", path, &[("Authorization", &value)], b"")
            .status
    };
    assert_eq!(hub.get("/events?topic=secret-topic").status, 401);
    assert_eq!(get("/events?topic=a", &expired), 401);
    assert_eq!(get("/events?topic=orders", &alice), 403);
    assert_eq!(
        hub.get(&format!("/api/v1/stats?access_token={alice}"))
            .status,
        403
    );
    let stream = hub.stream("/events?topic=public:a");
    let connection = stream.connection();
    let path = format!("/api/v1/connections/{connection}");
    assert_eq!(
        hub.send("DELETE", &path, &[("Authorization", &bearer(&admin))], b"")
            .status,
        204
    );
    // Reading figures is nothing to write down.
    assert_eq!(get("/api/v1/stats", &admin), 200);
    let unknown = "/api/v1/connections/01a00000-0000-7000-8000-000000000000";
    assert_eq!(
        hub.send(
            "DELETE",
            unknown,
            &[("Authorization", &bearer(&admin))],
            b""
        )
        .status,
        404
    );

    let entries = wait_for(&hub, 6);
    assert_eq!(entries.len(), 6, "{entries:#?}");
    let of = |n: usize, name: &str| entries[n][name].clone();
    for (n, message, status, code) in [
        (0, "refused", 401, json!("missing_credential")),
        (1, "refused", 401, json!("bad_credential")),
        (2, "refused", 403, json!("not_allowed")),
        (3, "refused", 403, json!("not_allowed")),
        (4, "administration", 204, Value::Null),
        (5, "administration", 404, Value::Null),
    ] {
        assert_eq!(of(n, "message"), message, "{entries:#?}");
        assert_eq!(of(n, "status"), status);
        assert_eq!(of(n, "code"), code);
    }
    let text = |n: usize, name: &str| of(n, name).to_string();
    assert!(text(0, "client").contains("127.0.0.1") && text(0, "path").contains("/events"));
    assert!(
        of(1, "check") == "expired" && text(1, "detail").contains("10 min ago"),
        "{entries:#?}"
    );
    assert!(of(2, "who") == "user alice" && text(2, "detail").contains("orders"));
    assert!(text(4, "who").contains("user root") && text(4, "path").contains(&connection));
    assert_eq!(of(4, "method"), "DELETE");
    let output = hub.output();
    for secret in [&admin, &expired, &alice] {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!output.contains(signature), "a token is in the log");
    }
    assert!(!output.contains("access_token"), "a query is in the log");
}

#[test]
fn a_flood_of_refusals_does_not_fill_the_disk() {
    let hub = hub(&[]);
    let path = format!("/topics/{}/events", "x".repeat(5_000));
    for _ in 0..400 {
        let status = hub.get(&path).status;
        assert!([401, 422].contains(&status), "{status}");
        assert_eq!(hub.get("/events?topic=a").status, 401);
    }
    let written = entries(&hub).len();
    assert!(
        hub.output().lines().all(|line| line.len() < 2_000),
        "long entries"
    );
    // A flood hides nothing that an administrator does.
    let admin = json!({ "sub": "root", "tidewire": { "admin": true } });
    let admin = bearer(&Issuer::with_secret().token(&admin));
    hub.send("DELETE", "/sse/connect", &[("Authorization", &admin)], b"");
    let done = |entry: &Value| entry["message"] == "administration";
    let deadline = Instant::now() + WAIT_MAX;
    while !entries(&hub).iter().any(done) {
        assert!(
            Instant::now() < deadline,
            "the administration is not written down"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    // Fifty at once and fifty a second; the requests take some time.
    assert!((50..700).contains(&written), "{written}");
    // What was left out is said with the next one that is not.
    let deadline = Instant::now() + WAIT_MAX;
    while entries(&hub).iter().all(|entry| entry["left_out"] == 0) {
        assert!(Instant::now() < deadline);
        hub.get("/events?topic=a");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_can_be_left_out() {
    let hub = hub(&[("TIDEWIRE_LOG__LEVEL", "info,audit=off")]);
    assert_eq!(hub.get("/events?topic=a").status, 401);
    assert_eq!(hub.get("/healthz").status, 200);
    assert!(entries(&hub).is_empty());
}

#[test]
fn whatever_is_in_a_request_stays_on_its_line() {
    let hub = hub(&[("TIDEWIRE_LOG__FORMAT", "text")]);
    let forged = "/events?topic=%0A2026-01-01T00:00:00Z%20%20INFO%20audit:%20forged";
    hub.get(forged);
    hub.get("/events?topic=a");
    let deadline = Instant::now() + WAIT_MAX;
    while !hub.output().contains("refused") {
        assert!(Instant::now() < deadline, "{}", hub.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        hub.output()
            .lines()
            .all(|line| !line.starts_with("2026-01-01")),
        "{}",
        hub.output()
    );
}
