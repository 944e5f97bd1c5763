//! `POST /topics/{topic}/close`: the end of a topic.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Hub, Stream, WAIT_MAX};
use crate::{encoded, events_held, id_of, problem};

fn close(hub: &Hub, topic: &str) -> String {
    id_of(&hub.request("POST", &format!("/topics/{}/close", encoded(topic)), None))
}

/// Checks that a stream ends with the end of this topic; returns the data of the events before it.
fn ends(stream: &mut Stream, topic: &str) -> Vec<String> {
    let mut events = stream.rest();
    let end = events.pop().expect("an end");
    assert_eq!(end.event, "end", "{}", stream.text());
    let data: Value = serde_json::from_str(&end.data).unwrap();
    assert_eq!(data, json!({"topic": topic}));
    assert_eq!(end.id, stream.last_event_id());
    events.into_iter().map(|event| event.data).collect()
}

#[test]
fn a_closed_topic_ends_its_streams_for_good() {
    let hub = Hub::spawn(&[], &[]);
    for topic in [
        "orders", "room:a/b", "50%", "a b", "a+b", "grüße", "a,b", "?#",
    ] {
        let path = format!("/events?topic={}", encoded(topic));
        let mut live = hub.stream(&path);
        hub.post_json(&json!({"topic": topic, "data": "x"}));
        let id = close(&hub, topic);
        assert_eq!(ends(&mut live, topic), ["x"]);
        assert_eq!(live.last_event_id(), id);

        let again = hub.send("GET", &path, &[("Last-Event-ID", &id)], b"");
        assert_eq!((again.status, again.body.as_str()), (204, ""), "{again:?}");
        let refused = hub.post_json(&json!({"topic": topic, "data": "y"}));
        let document = problem(&refused, 409, "topic_closed");
        assert!(
            document["detail"].as_str().unwrap().contains(topic),
            "{document}"
        );

        let mut late = hub.stream(&format!("{path}&since=earliest"));
        assert_eq!(ends(&mut late, topic), ["x"], "history, then the end");
        assert!(
            ends(&mut hub.stream(&path), topic).is_empty(),
            "who comes after the end is told"
        );
        assert_eq!(close(&hub, topic), id, "closing twice is closing once");
    }
}

#[test]
fn a_stream_ends_when_all_its_topics_have() {
    let hub = Hub::spawn(&[], &[]);
    let mut both = hub.stream("/events?topic=a&topic=b");
    let mut pattern = hub.stream("/events?topic=a&topic=b*");
    let first = close(&hub, "a");
    assert_eq!(both.event().event, "end");
    let mut resumed = hub.stream_with("/events?topic=a&topic=b", &[("Last-Event-ID", &first)]);
    hub.publish("b", &json!(1));
    assert_eq!(resumed.event().data, "1", "one of two topics goes on");
    let last = close(&hub, "b");
    assert_eq!(ends(&mut both, "b"), ["1"]);
    assert!(ends(&mut resumed, "b").is_empty());
    let again = hub.send(
        "GET",
        "/events?topic=a&topic=b",
        &[("Last-Event-ID", &last)],
        b"",
    );
    assert_eq!(again.status, 204, "{again:?}");
    hub.publish("b2", &json!(2));
    let events: Vec<_> = (0..4).map(|_| pattern.event().event).collect();
    assert_eq!(
        events,
        ["end", "tick", "end", "tick"],
        "a subscription with a pattern never ends"
    );
    hub.stream_with("/events?topic=a&topic=b*", &[("Last-Event-ID", &last)]);
}

#[test]
fn a_topic_opens_again_when_its_end_has_left_the_history() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_HISTORY__TTL", "1s")]);
    close(&hub, "a");
    let document = json!({"topic": "a", "data": "again"});
    problem(&hub.post_json(&document), 409, "topic_closed");
    let deadline = Instant::now() + WAIT_MAX;
    while hub.post_json(&document).status == 409 {
        assert!(Instant::now() < deadline, "still closed");
        thread::sleep(Duration::from_millis(50));
    }
    let mut stream = hub.stream("/events?topic=a&since=earliest");
    hub.publish("a", &json!("live"));
    assert_eq!(stream.data(2), ["again", "live"]);
}

#[test]
fn names_that_can_not_be_closed_are_refused() {
    let hub = Hub::spawn(&[], &[]);
    let stream = hub.stream("/events");
    let connection = stream.connection();
    let cases = [
        (String::new(), 422, "bad_topic"),
        ("order%3A*".to_owned(), 422, "bad_topic"),
        ("a%00".to_owned(), 422, "bad_topic"),
        ("x".repeat(1_025), 422, "bad_topic"),
        ("%FF".to_owned(), 400, "bad_query"),
        (format!("connection:{connection}"), 422, "bad_topic"),
    ];
    for (name, status, code) in cases {
        problem(
            &hub.request("POST", &format!("/topics/{name}/close"), None),
            status,
            code,
        );
    }
    assert_eq!(events_held(&hub), 0);
}
