//! Private events: whom they reach while they are new, in history, and after a restart.

use serde_json::{Value, json};

use crate::bearer;
use crate::issuer::{Issuer, SECRET};
use crate::support::Hub;

type Headers = Vec<(&'static str, String)>;

fn hub() -> Hub {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
            ("TIDEWIRE_BROKER__KIND", "disk"),
            ("TIDEWIRE_BROKER__PATH", "events"),
        ],
    )
}

fn token(claims: &Value) -> Headers {
    vec![(
        "Authorization",
        bearer(&Issuer::with_secret().token(claims)),
    )]
}

fn publish(hub: &Hub, document: &Value) {
    let headers = token(&json!({ "tidewire": { "publish": ["**", "user:*"] } }));
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", headers[0].1.as_str()),
    ];
    let answer = hub.send("POST", "/events", &headers, document.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Who asks, what for, and what of the events below is for them.
fn readers() -> Vec<(Headers, &'static str, &'static str)> {
    let orders = || token(&json!({ "sub": "ann", "tidewire": { "subscribe": ["order:*"] } }));
    let seven = || token(&json!({ "sub": "bob", "tidewire": { "subscribe": ["order:7"] } }));
    let powerless = || token(&json!({ "sub": "eve" }));
    vec![
        (vec![], "topic=order:7", "open"),
        (vec![], "topic=order:*&topic=news", "open"),
        (vec![], "", "open"),
        (powerless(), "topic=order:7", "open"),
        (powerless(), "topic=order:*&topic=order:7", "open"),
        (powerless(), "topic=news", ""),
        (orders(), "topic=order:7", "seven both own open"),
        (orders(), "topic=order:*", "seven both eight own open"),
        (orders(), "", "seven both eight own open"),
        (orders(), "topic=news", "own"),
        (seven(), "topic=order:7", "seven both open"),
        // A right to one topic of those that a pattern reaches.
        (seven(), "topic=order:*", "seven both open"),
        (seven(), "topic=order:8", ""),
    ]
}

fn publish_all(hub: &Hub) {
    let private = |topics: &Value, data: &str| {
        publish(
            hub,
            &json!({"topics": topics, "data": data, "private": true}),
        );
    };
    private(&json!(["order:7"]), "seven");
    private(&json!(["order:7", "news"]), "both");
    private(&json!(["order:8"]), "eight");
    private(&json!(["user:ann"]), "own");
    publish(hub, &json!({"topic": "order:7", "data": "open"}));
    publish(
        hub,
        &json!({"topics": ["order:7", "news", "user:ann", "order:8", "user:bob", "user:eve"], "data": "last"}),
    );
}

#[test]
fn a_private_event_reaches_those_whose_own_rights_cover_it() {
    let mut hub = hub();
    let open = |hub: &Hub, since: &str| -> Vec<_> {
        let open = |(headers, names, expected): (Headers, &str, &str)| {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let case = format!("{names} {expected}");
            let stream = hub.stream_with(&format!("/events?{names}{since}"), &headers);
            let expected = format!("{expected} last");
            (case, stream, expected.trim_start().to_owned())
        };
        readers().into_iter().map(open).collect()
    };
    let live = open(&hub, "");
    publish_all(&hub);
    let replayed = open(&hub, "&since=earliest");
    hub.restart();
    let restarted = open(&hub, "&since=earliest");
    for (when, streams) in [
        ("live", live),
        ("replayed", replayed),
        ("restarted", restarted),
    ] {
        for (case, mut stream, expected) in streams {
            // Streams of before the restart have all that they were sent, and then an end.
            let mut seen = Vec::new();
            while seen.last().is_none_or(|data| data != "last") {
                seen.push(stream.event().data);
            }
            assert_eq!(seen.join(" "), expected, "{when}: {case}");
        }
    }
}

#[test]
fn history_shows_a_private_event_to_the_same_people() {
    let hub = hub();
    publish_all(&hub);
    let read = |headers: &[(&str, String)], topic: &str| {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = hub.send("GET", &format!("/topics/{topic}/events"), &headers, b"");
        let page = answer.json();
        let events = page["events"].as_array().unwrap();
        let data = events.iter().map(|event| event["data"].as_str().unwrap());
        data.collect::<Vec<_>>().join(" ")
    };
    let orders = token(&json!({ "sub": "ann", "tidewire": { "subscribe": ["order:*"] } }));
    assert_eq!(read(&[], "order:7"), "open last");
    assert_eq!(read(&orders, "order:7"), "seven both open last");
    assert_eq!(read(&orders, "user:ann"), "own last");
}

/// A page used to count private events that it did not show, and to name the place behind them as where to go on.
#[test]
fn pages_of_history_are_those_of_a_topic_without_the_private_events_of_others() {
    let hub = hub();
    publish_all(&hub);
    let page = |since: &str| {
        let path = format!("/topics/order:7/events?limit=1&since={since}");
        hub.send("GET", &path, &[], b"").json()
    };
    let data = |page: &Value| -> Vec<String> {
        let events = page["events"].as_array().unwrap().iter();
        events
            .map(|event| event["data"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = page("earliest");
    assert_eq!(data(&first), ["open"], "{first}");
    let second = page(first["next"].as_str().unwrap());
    assert_eq!(data(&second), ["last"], "{second}");
    // Behind the last event that is for them there is nothing.
    publish(
        &hub,
        &json!({"topic": "order:7", "data": "later", "private": true}),
    );
    let second = page(first["next"].as_str().unwrap());
    assert_eq!(data(&second), ["last"], "{second}");
    assert_eq!(second["next"], Value::Null, "{second}");
}
