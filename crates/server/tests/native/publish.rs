//! `POST /events`: one event or an array as JSON, and raw bodies.

use serde_json::{Value, json};

use crate::support::Hub;
use crate::{events_held, history, id_of, problem};

/// What is on the wire for the first event of a topic, without the reconnection time of the greeting.
fn on_wire(hub: &Hub, topic: &str) -> String {
    let mut stream = hub.stream(&format!("/events?topic={topic}&since=earliest"));
    stream.event();
    let (_, event) = stream.text().split_once('\n').unwrap();
    event.to_owned()
}

#[test]
fn a_document_becomes_an_event() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        (r#""data":"x""#, "data: x\n\n"),
        (r#""data":"""#, "data: \n\n"),
        (
            r#""data":"a\nb\r\nc\rd""#,
            "data: a\ndata: b\ndata: c\ndata: d\n\n",
        ),
        (
            r#""data":{ "b" : [1, 2.50, 1e400],
            "a": "x  y" }"#,
            "data: {\"b\":[1,2.50,1e400],\"a\":\"x  y\"}\n\n",
        ),
        (r#""data":null"#, "data: null\n\n"),
        (
            r#""data":12345678901234567890123"#,
            "data: 12345678901234567890123\n\n",
        ),
        (
            r#""data":false,"event":"made""#,
            "event: made\ndata: false\n\n",
        ),
        (
            r#""data":1,"event":"tick","retry":250"#,
            "event: tick\nretry: 250\ndata: 1\n\n",
        ),
        (
            r#""data":1,"event":null,"id":null,"retry":null,"private":null"#,
            "data: 1\n\n",
        ),
        (r#""private":false,"data":" padded ""#, "data:  padded \n\n"),
    ];
    for (number, (members, expected)) in cases.iter().enumerate() {
        let body = format!("{{\"topic\":\"t{number}\",{members}}}");
        for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
            let answer = hub.request("POST", "/events", Some((content_type, &body)));
            let id = id_of(&answer);
            if content_type == "application/json" {
                assert_eq!(
                    on_wire(&hub, &format!("t{number}")),
                    with_id(expected, &id),
                    "{body}"
                );
            }
        }
    }
}

#[test]
fn an_own_id_is_used_and_resumed_from_and_not_taken_twice() {
    let hub = Hub::spawn(&[], &[]);
    for id in ["order-7", "größe 1", "18446744073709551616"] {
        let document = json!({"topic": "a", "data": id, "id": id});
        assert_eq!(id_of(&hub.post_json(&document)), id);
        let mut stream = hub.stream_with("/events?topic=a", &[("Last-Event-ID", id)]);
        hub.publish("a", &json!("next"));
        assert_eq!(stream.event().data, "next", "{id}");
        let taken = problem(&hub.post_json(&document), 409, "id_taken");
        assert!(taken["detail"].as_str().unwrap().contains(id), "{taken}");
    }
    assert_eq!(events_held(&hub), 6);
}

#[test]
fn an_array_is_published_in_order() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=a&topic=b");
    let batch = json!([
        {"topic": "a", "data": 1},
        {"topics": ["b", "a"], "data": 2, "id": "own"},
        {"topic": "c", "data": 3},
        {"topic": "b", "data": 4},
    ]);
    let answer = hub.post_json(&batch).json();
    let ids = answer["ids"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[1]), (4, &json!("own")));
    for (at, data) in [(0, "1"), (1, "2"), (3, "4")] {
        let event = stream.event();
        assert_eq!(
            (Some(event.id.as_str()), event.data.as_str()),
            (ids[at].as_str(), data)
        );
    }
    assert_eq!(hub.post_json(&json!([])).json(), json!({"ids": []}));
}

#[test]
fn an_array_with_one_bad_event_is_refused_as_a_whole() {
    let hub = Hub::spawn(&[], &[]);
    let connection = hub.stream("/events?topic=none");
    hub.request("POST", "/topics/closed/close", None);
    hub.post_json(&json!({"topic": "a", "data": 0, "id": "taken"}));
    let cases = [
        (json!({"topic": "a"}), 422, "bad_document"),
        (json!(1), 422, "bad_document"),
        (json!([]), 422, "bad_document"),
        // Not an event by the order of its fields.
        (
            json!(["a", null, null, 1, null, null, null]),
            422,
            "bad_document",
        ),
        (
            json!({"topic": "a", "data": 1, "x": 1}),
            422,
            "bad_document",
        ),
        (json!({"topic": "a*", "data": 1}), 422, "bad_topic"),
        (json!({"data": 1}), 422, "topic_missing"),
        (
            json!({"topic": "a", "data": 1, "id": "~x"}),
            422,
            "bad_event",
        ),
        (
            json!({"topic": "a", "data": 1, "private": true}),
            422,
            "private_unavailable",
        ),
        (json!({"topic": "closed", "data": 1}), 409, "topic_closed"),
        (
            json!({"topic": "a", "data": 1, "id": "taken"}),
            409,
            "id_taken",
        ),
        (
            json!({"topic": "a", "data": 1, "id": "first"}),
            409,
            "id_taken",
        ),
        (
            json!({"topic": format!("connection:{}", connection.connection()), "data": 1}),
            422,
            "bad_document",
        ),
    ];
    for (bad, status, code) in cases {
        let first = json!({"topic": "a", "data": 1, "id": "first"});
        let good = json!({"topic": "a", "data": 1});
        let answer = hub.post_json(&json!([first, good, bad, good]));
        let document = problem(&answer, status, code);
        assert_eq!(document["index"], 2, "{document}");
        assert_eq!(history(&hub, "a"), ["0"], "{bad}");
    }
}

#[test]
fn a_body_of_any_other_type_is_the_data() {
    let hub = Hub::spawn(&[], &[]);
    let cases: [(Option<&str>, &str, &str); 6] = [
        (Some("text/plain"), "{\"a\": 1}", "data: {\"a\": 1}\n\n"),
        (Some("application/octet-stream"), "", "data: \n\n"),
        (
            Some("text/csv; charset=utf-8"),
            "a,b\r\nc,d\r\n",
            "data: a,b\ndata: c,d\ndata: \n\n",
        ),
        (
            Some("application/x-www-form-urlencoded"),
            "a=1&b=%20",
            "data: a=1&b=%20\n\n",
        ),
        (
            Some("application/cloudevents+json"),
            " {} ",
            "data:  {} \n\n",
        ),
        (None, "grüße 🌊", "data: grüße 🌊\n\n"),
    ];
    for (number, (content_type, body, expected)) in cases.iter().enumerate() {
        let headers: Vec<_> = content_type
            .iter()
            .map(|kind| ("Content-Type", *kind))
            .collect();
        let path = format!("/events?topic=t{number}&event=made&retry=5");
        let id = id_of(&hub.send("POST", &path, &headers, body.as_bytes()));
        let wire = on_wire(&hub, &format!("t{number}"));
        assert_eq!(
            wire,
            with_id(&format!("event: made\nretry: 5\n{expected}"), &id),
            "{content_type:?}"
        );
    }
    let several = hub.send("POST", "/events?topic=x&topic=y,z&id=own", &[], b"1");
    assert_eq!(id_of(&several), "own");
    assert_eq!(
        (history(&hub, "x"), history(&hub, "y,z")),
        (vec!["1".into()], vec!["1".into()])
    );
}

#[test]
fn a_topic_in_the_query_fills_a_missing_one_only() {
    let hub = Hub::spawn(&[], &[]);
    let post = |body: &Value| {
        hub.request(
            "POST",
            "/events?topic=q&topic=r",
            Some(("application/json", &body.to_string())),
        )
    };
    id_of(&post(&json!({"data": 1})));
    id_of(&post(&json!({"data": 2, "topic": "own"})));
    assert_eq!(
        post(&json!([{"data": 3}, {"data": 4, "topics": ["own"]}])).status,
        200
    );
    assert_eq!(history(&hub, "q"), ["1", "3"]);
    assert_eq!(history(&hub, "r"), ["1", "3"]);
    assert_eq!(history(&hub, "own"), ["2", "4"]);
}

#[test]
fn what_belongs_into_a_document_is_not_lost_in_the_query() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        ("private=true", "application/json", "{\"data\":1}"),
        (
            "event=e",
            "application/json; charset=utf-8",
            "[{\"data\":1}]",
        ),
        ("id=e", "application/x-ndjson", "{\"data\":1}\n"),
        ("retry=5", "application/json", "{\"data\":1}"),
    ];
    for (query, kind, body) in cases {
        let path = format!("/events?topic=a&{query}");
        let document = problem(
            &hub.request("POST", &path, Some((kind, body))),
            422,
            "bad_parameter",
        );
        assert!(
            query.starts_with(document["parameter"].as_str().unwrap()),
            "{document}"
        );
    }
    assert!(history(&hub, "a").is_empty());
}

#[test]
fn an_event_to_a_connection_reaches_that_one_only() {
    let hub = Hub::spawn(&[], &[]);
    let mut wanted = hub.stream("/events?topic=a");
    let mut twin = hub.stream("/events?topic=a");
    let mut everything = hub.stream("/events?topic=**");
    let mut watcher = hub.stream("/events?topic=connection:*&fields=topic");
    let topic = format!("connection:{}", wanted.connection());
    let sent = hub.post_json(&json!({"topic": topic, "event": "hello", "data": "you"}));
    assert_eq!((sent.status, sent.json()), (200, json!({"id": null})));
    let event = wanted.event();
    assert_eq!(
        (event.event.as_str(), event.data.as_str(), event.id.as_str()),
        ("hello", "you", "")
    );
    // Who asks for connections by name, and may, sees it as it happens.
    assert_eq!(watcher.event().topics, [topic.as_str()]);
    let raw = hub.send("POST", &format!("/events?topic={topic}"), &[], b"raw");
    assert_eq!(raw.status, 200, "{raw:?}");
    assert_eq!(wanted.event().data, "raw");
    hub.publish("a", &json!("all"));
    for stream in [&mut twin, &mut everything, &mut wanted] {
        assert_eq!(stream.event().data, "all");
    }
    assert_eq!(history(&hub, &topic), [""; 0], "it is not kept");

    let gone = json!({"topic": "connection:0199-gone", "data": 1});
    problem(&hub.post_json(&gone), 404, "no_such_connection");
    let unknown = json!({"topic": "connection:01890000-0000-7000-8000-000000000000", "data": 1});
    problem(&hub.post_json(&unknown), 404, "no_such_connection");
    let mixed = json!({"topics": [topic, "a"], "data": 1});
    problem(&hub.post_json(&mixed), 422, "bad_document");
    assert_eq!(history(&hub, "a"), ["all"]);
}

#[test]
fn private_events_are_refused_while_nobody_can_be_told_apart() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        hub.post_json(&json!({"topic": "a", "data": 1, "private": true})),
        hub.send("POST", "/events?topic=a&private=true", &[], b"1"),
        hub.request(
            "POST",
            "/events",
            Some((
                "application/x-ndjson",
                r#"{"topic":"a","data":1,"private":true}"#,
            )),
        ),
    ];
    for answer in cases {
        let document = problem(&answer, 422, "private_unavailable");
        assert!(
            document["detail"]
                .as_str()
                .unwrap()
                .contains("without `private`"),
            "{document}"
        );
    }
    assert_eq!(events_held(&hub), 0);
}

/// An event on the wire, with its id in the last line.
fn with_id(event: &str, id: &str) -> String {
    let lines = event
        .strip_suffix('\n')
        .expect("an event ends in a blank line");
    format!("{lines}id: {id}\n\n")
}
