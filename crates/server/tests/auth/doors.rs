//! Each door refuses in its own form, also where the hub refuses before the door has seen the request.

use serde_json::json;

use crate::issuer::{Issuer, SECRET};
use crate::support::{Hub, Response};

/// How a door says that something is refused.
#[derive(Clone, Copy)]
enum Form {
    Native,
    /// A problem with the sentence in `error` too.
    Metrics,
    /// `success`, `message`, `error`, `timestamp`.
    Envelopes,
}

use Form::{Envelopes, Metrics, Native};

/// Requests for which everyone needs a right.
const REQUESTS: &[(Form, &str, &str)] = &[
    (Native, "GET", "/events?topic=a"),
    (Native, "POST", "/events?topic=a"),
    (Native, "GET", "/api/v1/stats"),
    (Metrics, "GET", "/events/watch"),
    (Metrics, "POST", "/metrics"),
    (Metrics, "POST", "/metrics/readings"),
    (
        Metrics,
        "GET",
        "/metrics/01a1fe71-d343-75b2-b381-33a24bce1636",
    ),
    (Envelopes, "GET", "/api/v1/events/stream/a"),
    (Envelopes, "POST", "/api/v1/events/broadcast"),
    (Envelopes, "POST", "/events-full/stream/a/start"),
    (Envelopes, "GET", "/api/v1/broadcast-demo/stream/a"),
    (Envelopes, "POST", "/events-util/broadcast"),
];

const BODY: &[u8] = br#"{"stream_id": "a", "type": "t", "message": "m"}"#;

fn services(settings: &[(&str, &str)]) -> Hub {
    let mut all = vec![
        ("TIDEWIRE_SERVICES__EVENTS", "true"),
        ("TIDEWIRE_SERVICES__BROADCAST_DEMO", "true"),
        ("TIDEWIRE_SERVICES__GENERATOR_INTERVAL", "1h"),
    ];
    all.extend(settings);
    Hub::spawn(&[], &all)
}

fn check(form: Form, answer: &Response, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge.is_some(), status == 401, "{answer:?}");
    let kind = answer.header("content-type").unwrap_or_default();
    let document = answer.json();
    if let Envelopes = form {
        assert_eq!(kind, "application/json", "{answer:?}");
        assert_eq!(document["success"], false, "{document}");
        assert_eq!(document["error"], code, "{document}");
        assert!(document["message"].is_string() && document["timestamp"].is_u64());
        return;
    }
    assert_eq!(kind, "application/problem+json", "{answer:?}");
    assert_eq!(document["code"], code, "{document}");
    let sentence = match form {
        Metrics => document["detail"].clone(),
        _ => json!(null),
    };
    assert_eq!(document["error"], sentence, "{document}");
}

#[test]
fn who_may_not_is_told_in_the_form_of_the_door() {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let hub = services(&[("TIDEWIRE_AUTH__ISSUERS", &issuers)]);
    let powerless = Issuer::with_secret().token(&json!({ "sub": "alice" }));
    for (credential, status, code) in [
        (None, 401, "missing_credential"),
        (Some("junk"), 401, "bad_credential"),
        (Some(powerless.as_str()), 403, "not_allowed"),
    ] {
        let value = credential.map(crate::bearer);
        let headers: Vec<_> = value
            .iter()
            .map(|v| ("Authorization", v.as_str()))
            .collect();
        for (form, method, path) in REQUESTS {
            check(*form, &hub.send(method, path, &headers, BODY), status, code);
        }
    }
}

#[test]
fn an_open_hub_refuses_proxies_in_the_form_of_the_door() {
    let hub = services(&[]);
    for (form, method, path) in REQUESTS {
        let answer = hub.send(method, path, &[("X-Forwarded-For", "1.2.3.4")], BODY);
        check(*form, &answer, 403, "proxied");
    }
}

#[test]
fn the_metrics_sample_refuses_wrong_methods_in_its_form() {
    let hub = services(&[]);
    for path in ["/metrics/readings", "/metrics/a", "/events/watch"] {
        check(
            Metrics,
            &hub.send("DELETE", path, &[], b""),
            405,
            "wrong_method",
        );
    }
}
