//! How much may be asked for, by whom, and from where.

use serde_json::json;

use super::{EVENTS, done, hub, hub_with, manage, open, post, refused, row, say, streams};

#[test]
fn what_is_too_large_is_refused() {
    let hub = hub_with(&[
        ("TIDEWIRE_LIMITS__BODY_BYTES_MAX", "2000B"),
        ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "1000B"),
    ]);
    let body = |len: usize| json!({"type": "t", "message": "x".repeat(len)});
    let path = format!("{EVENTS}/broadcast");
    done(&post(&hub, &path, &body(500)));
    refused(&post(&hub, &path, &body(1_500)), 413, "event_too_large");
    refused(&post(&hub, &path, &body(2_500)), 413, "body_too_large");
}

#[test]
fn no_more_generators_are_started_than_may_be() {
    let hub = hub_with(&[("TIDEWIRE_LIMITS__GENERATORS_MAX", "4")]);
    let full = manage(&hub, "fifth", "start");
    refused(&full, 429, "too_many_generators");
    assert!(
        full.header("retry-after").unwrap().parse::<u32>().is_ok(),
        "{full:?}"
    );
    assert!(streams(&hub, EVENTS).get("fifth").is_none());
    done(&manage(&hub, "default", "start"));
    done(&manage(&hub, "system", "stop"));
    done(&manage(&hub, "fifth", "start"));

    let few = hub_with(&[("TIDEWIRE_LIMITS__GENERATORS_MAX", "1")]);
    assert_eq!(
        streams(&few, EVENTS),
        json!({"default": row(0, true, false)})
    );
    assert!(
        few.output().contains("limits.generators_max"),
        "{}",
        few.output()
    );
}

#[test]
fn a_full_hub_says_so_in_the_form_of_the_service() {
    let hub = hub_with(&[
        ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "1"),
        ("TIDEWIRE_LIMITS__AT_CAPACITY", "reject"),
    ]);
    let path = format!("{EVENTS}/stream/a");
    let head = hub.request("HEAD", &path, None);
    assert_eq!(
        (head.status, head.body.as_str()),
        (200, ""),
        "and opens nothing"
    );
    let _client = open(&hub, "a");
    let full = hub.get(&path);
    refused(&full, 503, "at_capacity");
    assert!(full.header("retry-after").is_some(), "{full:?}");
    let browser = hub.send("GET", &path, &[("Accept", "text/event-stream")], b"");
    assert_eq!(browser.status, 200, "or it would give up for ever");
    assert!(browser.body.contains("retry: "), "{browser:?}");
}

#[test]
fn rights_bind_readers_publishers_and_managers() {
    let hub = hub_with(&[
        (
            "TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE",
            "stream:default,stream:a",
        ),
        ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "stream:a"),
    ]);
    let _client = open(&hub, "a");
    refused(
        &hub.get(&format!("{EVENTS}/stream/system")),
        403,
        "not_allowed",
    );
    let names: Vec<_> = streams(&hub, EVENTS)
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        names,
        ["a", "default"],
        "what may not be read is not listed"
    );
    say(&hub, "a", "t");
    for to in ["default", ""] {
        let body = json!({"stream_id": to, "type": "t", "message": "m"});
        refused(
            &post(&hub, &format!("{EVENTS}/broadcast"), &body),
            403,
            "not_allowed",
        );
    }
    for what in ["start", "stop", "pause", "resume"] {
        refused(&manage(&hub, "default", what), 403, "not_allowed");
    }
}

#[test]
fn pages_of_any_origin_may_use_the_service() {
    let hub = hub();
    let origin = ("Origin", "https://example.com");
    let stream = hub.stream_with(&format!("{EVENTS}/stream/a"), &[origin]);
    let head = stream.head().to_ascii_lowercase();
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "access-control-allow-origin: *",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let headers = [origin, ("Access-Control-Request-Method", "POST")];
    let headers = [
        &headers[..],
        &[(
            "Access-Control-Request-Headers",
            "content-type,cache-control",
        )],
    ]
    .concat();
    let preflight = hub.send("OPTIONS", &format!("{EVENTS}/broadcast"), &headers, b"");
    assert_eq!(preflight.status, 200, "{preflight:?}");
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(
        allowed.contains("content-type") && allowed.contains("cache-control"),
        "{allowed}"
    );
}
