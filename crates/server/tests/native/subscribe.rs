//! `GET /events`: what is read, and how the stream looks.

use std::collections::HashSet;

use serde_json::json;

use crate::support::Hub;
use crate::{encoded, problem};

/// Published in this order, each with its name as its data.
const TOPICS: [&str; 12] = [
    "orders",
    "order:7",
    "a,b",
    "a",
    "grüße",
    "a b",
    "50%",
    "room:a/b",
    "user:42",
    "presence:x",
    "a.b",
    "zz",
];
const PUBLIC: [&str; 10] = [
    "orders", "order:7", "a,b", "a", "grüße", "a b", "50%", "room:a/b", "a.b", "zz",
];

#[test]
fn a_query_selects_topics_by_name_and_by_pattern() {
    let hub = Hub::spawn(&[], &[]);
    for topic in TOPICS {
        hub.post_json(&json!({"topic": topic, "data": topic}));
    }
    // Each query but the first names `zz` too, whose event is the last: with it everything has arrived.
    let cases: &[(&str, &[&str])] = &[
        ("", &PUBLIC),
        ("topic=orders", &["orders", "zz"]),
        ("topic=orders&topic=order:7", &["orders", "order:7", "zz"]),
        ("topics=orders,order:7", &["orders", "order:7", "zz"]),
        ("topics=order%3A7,,orders,", &["orders", "order:7", "zz"]),
        (
            "topics=+orders,%20order:7%20,+",
            &["orders", "order:7", "zz"],
        ),
        ("topics=orders&topic=order:7", &["orders", "order:7", "zz"]),
        ("topic=a,b", &["a,b", "zz"]),
        ("topic=a%2Cb", &["a,b", "zz"]),
        ("topics=a,b", &["a", "zz"]),
        ("topics=a%2Cb", &["a", "zz"]),
        ("topic=gr%C3%BC%C3%9Fe", &["grüße", "zz"]),
        ("topic=a+b", &["a b", "zz"]),
        ("topic=a%20b", &["a b", "zz"]),
        ("topic=50%25", &["50%", "zz"]),
        ("topic=room:a/b", &["room:a/b", "zz"]),
        ("topic=room%3Aa%2Fb", &["room:a/b", "zz"]),
        ("topic=order:*", &["order:7", "zz"]),
        ("topics=order:*,a*", &["order:7", "a,b", "a", "a b", "zz"]),
        ("topic=room:*", &["zz"]),
        ("topic=room:**", &["room:a/b", "zz"]),
        ("topic=**", &PUBLIC),
        ("topic=user:42", &["user:42", "zz"]),
        ("topic=user:*", &["user:42", "zz"]),
        ("topic=**&topic=user:42&topic=presence:*", &TOPICS),
        (
            "topic=order:7&topic=order:*&topic=order:7",
            &["order:7", "zz"],
        ),
        ("topic=nobody-publishes-here", &["zz"]),
    ];
    for (query, expected) in cases {
        let last = if query.is_empty() { "" } else { "&topic=zz" };
        let mut stream = hub.stream(&format!("/events?since=earliest&{query}{last}"));
        let mut got = Vec::new();
        while got.last().is_none_or(|data| data != "zz") {
            got.push(stream.event().data);
        }
        assert_eq!(got, *expected, "{query}");
    }
}

#[test]
fn who_names_no_topic_gets_public_events_live_too() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events");
    for topic in TOPICS {
        hub.post_json(&json!({"topic": topic, "data": topic}));
    }
    assert_eq!(stream.data(PUBLIC.len()), PUBLIC);
}

#[test]
fn an_event_of_several_topics_comes_once() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=a&topic=b&topic=*&fields=topic");
    hub.post_json(&json!({"topics": ["a", "b", "a"], "data": 1}));
    hub.post_json(&json!({"topics": ["user:1", "b"], "data": 2}));
    let (first, second) = (stream.event(), stream.event());
    assert_eq!(
        (first.data, first.topics),
        ("1".into(), vec!["a".into(), "b".into()])
    );
    assert_eq!((second.data, second.topics), ("2".into(), vec!["b".into()]));
}

#[test]
fn the_head_says_what_proxies_browsers_and_clients_need() {
    let hub = Hub::spawn(&[], &[]);
    let id = hub.publish("a", &json!(1));
    let stream = hub.stream("/events?topic=a");
    let expected = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
        ("last-event-id", &id),
    ];
    for (name, value) in expected {
        assert_eq!(
            stream.header(name),
            Some(value),
            "{name}: {}",
            stream.head()
        );
    }
    assert_eq!(stream.header("access-control-allow-credentials"), None);
    let exposed = stream
        .header("access-control-expose-headers")
        .unwrap_or_default()
        .to_ascii_lowercase();
    assert!(
        exposed.contains("last-event-id") && exposed.contains("tidewire-connection"),
        "{exposed}"
    );
    let other = hub.stream("/events?topic=a");
    assert_ne!(stream.connection(), other.connection());
}

#[test]
fn the_position_in_the_head_resumes_a_client_that_saw_no_event() {
    let hub = Hub::spawn(&[], &[]);
    let start = hub
        .stream("/events?topic=a")
        .header("last-event-id")
        .unwrap()
        .to_owned();
    hub.publish("a", &json!("missed"));
    let mut stream = hub.stream_with("/events?topic=a", &[("Last-Event-ID", &start)]);
    let event = stream.event();
    assert_eq!(
        (event.event.as_str(), event.data.as_str()),
        ("tick", "missed")
    );
}

#[test]
fn heartbeats_are_comments_events_or_off() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_STREAM__HEARTBEAT", "1s")]);
    let mut off = hub.stream("/events?topic=a&heartbeat=off");
    let mut default = hub.stream("/events?topic=a");
    let mut comment = hub.stream("/events?topic=a&heartbeat=comment");
    let mut event = hub.stream("/events?topic=a&heartbeat=event");
    for _ in 0..2 {
        let heartbeat = event.event();
        assert_eq!(
            (heartbeat.event.as_str(), heartbeat.data.as_str()),
            ("heartbeat", "{}")
        );
        assert_eq!(heartbeat.id, "");
    }
    default.wait_for_text("\n:\n");
    comment.wait_for_text("\n:\n");
    let id = hub.publish("a", &json!(1));
    for stream in [&mut default, &mut comment, &mut off] {
        stream.event();
    }
    assert!(
        !default.text().contains("\n\n:") && !default.text().contains(":\n\n"),
        "no block of its own"
    );
    let retry = off.retry_ms().unwrap();
    assert_eq!(
        off.text(),
        format!("retry: {retry}\nevent: tick\ndata: 1\nid: {id}\n\n")
    );
}

#[test]
fn checkpoints_tell_the_position_at_the_start_and_with_heartbeats() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_STREAM__HEARTBEAT", "1s")]);
    let mut stream = hub.stream("/events?topic=a&checkpoint=on");
    let start = stream.header("last-event-id").unwrap().to_owned();
    stream.wait_for_text(&format!("id: {start}\n\n"));
    let mut plain = hub.stream("/events?topic=a&heartbeat=off&checkpoint=off");
    let mut silent = hub.stream("/events?topic=a&heartbeat=off&checkpoint=on");
    let later = hub.publish("another", &json!(1));
    for stream in [&mut stream, &mut silent] {
        stream.wait_for_text(&format!("id: {later}\n\n"));
    }
    hub.publish("a", &json!(1));
    let event = stream.event();
    assert_eq!(
        (event.event.as_str(), event.data.as_str()),
        ("tick", "1"),
        "id-only blocks are no events"
    );
    plain.event();
    assert!(!plain.text().contains(&later), "{}", plain.text());
}

#[test]
fn padding_is_a_comment_of_that_size() {
    let hub = Hub::spawn(&[], &[]);
    hub.publish("a", &json!(1));
    for (padding, bytes) in [
        ("0", 0),
        ("1", 0),
        ("2", 2),
        ("2048", 2048),
        ("65536", 65536),
    ] {
        let mut stream = hub.stream(&format!("/events?topic=a&since=earliest&padding={padding}"));
        stream.event();
        let at = stream.text().find("retry:").unwrap();
        let expected = if bytes == 0 {
            String::new()
        } else {
            format!(":{}\n", " ".repeat(bytes - 2))
        };
        assert_eq!(stream.text()[..at], expected, "padding={padding}");
    }
}

#[test]
fn topic_lines_are_for_those_who_ask() {
    let hub = Hub::spawn(&[], &[]);
    hub.publish("order:7", &json!(1));
    let mut with = hub.stream("/events?topic=order:*&since=earliest&fields=topic");
    assert_eq!(with.event().topics, ["order:7"]);
    let mut without = hub.stream("/events?topic=order:*&since=earliest");
    without.event();
    assert!(!without.text().contains("topic:"), "{}", without.text());
}

#[test]
fn clients_are_told_to_come_back_at_times_of_their_own() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_STREAM__RETRY", "2s")]);
    hub.publish("a", &json!(1));
    let retry = |_| {
        let mut stream = hub.stream("/events?topic=a&since=earliest");
        stream.event();
        stream.retry_ms().unwrap()
    };
    let times: HashSet<u64> = (0..20).map(retry).collect();
    assert!(
        times.iter().all(|ms| (2_000..=3_000).contains(ms)),
        "{times:?}"
    );
    assert!(times.len() > 10, "{times:?}");
}

#[test]
fn a_head_request_shows_the_head_and_opens_nothing() {
    let hub = Hub::spawn(&[], &[]);
    let answer = hub.request("HEAD", "/events?topic=a", None);
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        answer.header("content-length"),
        None,
        "a stream has no length"
    );
    assert_eq!(hub.get("/api/v1/stats").json()["connections"], 0);
    assert_eq!(hub.request("HEAD", "/events?topic=", None).status, 422);
}

#[test]
fn parameters_of_others_count_for_nothing() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=a&_=1700000000000&t=5&utm_source=x&cb&x-trace-id=7");
    hub.publish("b", &json!(1));
    hub.publish("a", &json!(2));
    assert_eq!(stream.event().data, "2");
}

#[test]
fn options_that_are_not_understood_are_refused() {
    let hub = Hub::spawn(&[], &[]);
    let many = |count: usize, suffix: &str| {
        (0..count)
            .map(|n| format!("t{n}{suffix}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let long_id = "x".repeat(1_025);
    let cases = [
        (
            "heartbeat=never".to_owned(),
            422,
            "bad_parameter",
            "comment",
        ),
        ("checkpoint=yes".to_owned(), 422, "bad_parameter", "`on`"),
        ("padding=65537".to_owned(), 422, "bad_parameter", "65536"),
        ("padding=-1".to_owned(), 422, "bad_parameter", "padding"),
        ("padding=".to_owned(), 422, "bad_parameter", "padding"),
        ("fields=data".to_owned(), 422, "bad_parameter", "topic"),
        // In silence it would be a stream of everything.
        (
            "topcis=a".to_owned(),
            422,
            "bad_parameter",
            "is `topics` what",
        ),
        (
            "topic[]=a".to_owned(),
            422,
            "bad_parameter",
            "is `topic` what",
        ),
        (
            "topic=a&lastEventID=x".to_owned(),
            422,
            "bad_parameter",
            "is `last_event_id` what",
        ),
        (
            format!("last_event_id={long_id}"),
            422,
            "bad_parameter",
            "1024",
        ),
        (format!("since={long_id}"), 422, "bad_parameter", "1024"),
        ("topic=".to_owned(), 422, "bad_topic", "empty"),
        ("topic=a%0Ab".to_owned(), 422, "bad_topic", "U+000A"),
        ("topic=a%00b".to_owned(), 422, "bad_topic", "U+0000"),
        (
            format!("topic={}", encoded(&"é".repeat(513))),
            422,
            "bad_topic",
            "1026",
        ),
        (
            format!("topics={}", many(129, "")),
            422,
            "too_many_topics",
            "128",
        ),
        (
            format!("topics={}", many(17, ":*")),
            422,
            "too_many_topics",
            "16",
        ),
        ("topic=%FF".to_owned(), 400, "bad_query", "UTF-8"),
        ("%FF=1".to_owned(), 400, "bad_query", "UTF-8"),
    ];
    for (query, status, code, detail) in &cases {
        let answer = hub.get(&format!("/events?{query}"));
        let document = problem(&answer, *status, code);
        assert!(
            document["detail"].as_str().unwrap().contains(detail),
            "{query}: {document}"
        );
    }
    hub.stream(&format!("/events?topics={}", many(128, "")));
    hub.stream(&format!("/events?topics={}", many(16, ":*")));
}

#[test]
fn a_full_hub_tells_event_sources_to_come_back_and_others_that_it_is_full() {
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "1"),
            ("TIDEWIRE_LIMITS__AT_CAPACITY", "reject"),
        ],
    );
    let mut first = hub.stream("/events?topic=a");
    let mut refused = hub.stream_with("/events?topic=a", &[("Accept", "text/event-stream")]);
    assert!(refused.rest().is_empty());
    let retry_ms = refused.retry_ms();
    assert!(
        (Some(30_000)..=Some(60_000)).contains(&retry_ms),
        "{retry_ms:?}"
    );
    let other = hub.get("/events?topic=a");
    problem(&other, 503, "at_capacity");
    let seconds: u64 = other.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&seconds), "{seconds}");
    hub.publish("a", &json!("still here"));
    assert_eq!(first.event().data, "still here");
}

#[test]
fn the_oldest_client_makes_room_for_a_new_one() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "2")]);
    let mut streams: Vec<_> = (0..3).map(|_| hub.stream("/events?topic=a")).collect();
    assert!(streams[0].rest().is_empty());
    let retry_ms = streams[0].retry_ms();
    assert!(
        (Some(30_000)..=Some(60_000)).contains(&retry_ms),
        "{retry_ms:?}"
    );
    hub.publish("a", &json!(1));
    for stream in &mut streams[1..] {
        assert_eq!(stream.event().data, "1");
    }
    assert_eq!(hub.get("/api/v1/stats").json()["closes"]["evicted"], 1);
}
