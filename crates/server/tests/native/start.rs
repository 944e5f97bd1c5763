//! Where a stream starts: live, in the past, or after the last event that the client has seen.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Hub;

#[test]
fn a_stream_starts_where_the_request_says() {
    let hub = Hub::spawn(&[], &[]);
    // `{a}` and `{b}` stand for the ids of the first and second of three events.
    let cases: &[(Option<&str>, &str, &[&str])] = &[
        (None, "", &[]),
        (None, "since=", &[]),
        (None, "since=earliest", &["a", "b", "c"]),
        (None, "since=5m", &["a", "b", "c"]),
        (None, "since=1h30m", &["a", "b", "c"]),
        (None, "since={a}", &["b", "c"]),
        (None, "last_event_id={a}", &["b", "c"]),
        (None, "lastEventId={b}", &["c"]),
        (Some("{a}"), "", &["b", "c"]),
        (Some("{b}"), "last_event_id={a}", &["c"]),
        (Some("{b}"), "lastEventId={a}&since=earliest", &["c"]),
        (None, "since=earliest&last_event_id={b}", &["c"]),
        (Some(""), "lastEventId={b}", &["c"]),
        (Some(""), "last_event_id=&since=earliest", &["a", "b", "c"]),
        (Some("{c}"), "", &[]),
    ];
    for (number, (header, query, expected)) in cases.iter().enumerate() {
        let topic = format!("t{number}");
        let ids = ["a", "b", "c"].map(|data| hub.publish(&topic, &json!(data)));
        let fill = |text: &str| {
            text.replace("{a}", &ids[0])
                .replace("{b}", &ids[1])
                .replace("{c}", &ids[2])
        };
        let header = header.map(fill);
        let headers: Vec<_> = header
            .iter()
            .map(|id| ("Last-Event-ID", id.as_str()))
            .collect();
        let mut stream =
            hub.stream_with(&format!("/events?topic={topic}&{}", fill(query)), &headers);
        hub.publish(&topic, &json!("live"));
        let got = stream.data(expected.len() + 1);
        assert_eq!(got, [*expected, &["live"]].concat(), "{header:?} {query}");
    }
}

#[test]
fn an_id_that_the_hub_never_gave_is_answered_with_a_gap_and_all_there_is() {
    let hub = Hub::spawn(&[], &[]);
    let id = hub.publish("a", &json!(1));
    let beyond = format!("{id}99");
    let cases = [
        (Some("nope"), String::new(), "nope"),
        (Some("~00000000-1"), String::new(), "~00000000-1"),
        (Some(&*beyond), String::new(), &beyond),
        (None, "last_event_id=n%20pe".to_owned(), "n pe"),
        (None, "since=tomorrow".to_owned(), "tomorrow"),
    ];
    for (header, query, from) in cases {
        let headers: Vec<_> = header.iter().map(|id| ("Last-Event-ID", *id)).collect();
        let mut stream = hub.stream_with(&format!("/events?topic=a&{query}"), &headers);
        let gap = stream.event();
        assert_eq!(gap.event, "gap", "{from}");
        let data: Value = serde_json::from_str(&gap.data).unwrap();
        assert_eq!(data, json!({"from": from, "reason": "unknown_id"}));
        // Whoever is cut off right here must not come back with the id that nobody knows; whoever was before the gap
        // came, must.
        assert!(stream.last_event_id().starts_with('~'), "{from}");
        assert_eq!(Some(from), stream.header("last-event-id"));
        assert_eq!(stream.event().data, "1");
    }
}

#[test]
fn a_duration_reaches_back_as_far_as_it_says() {
    let hub = Hub::spawn(&[], &[]);
    hub.publish("a", &json!("old"));
    // The duration ends between the two events, with room for a busy machine on both sides.
    thread::sleep(Duration::from_millis(1_200));
    let between = Instant::now();
    hub.publish("a", &json!("new"));
    let since = between.elapsed() + Duration::from_millis(600);
    let mut stream = hub.stream(&format!("/events?topic=a&since={}ms", since.as_millis()));
    assert_eq!(stream.event().data, "new");
}

#[test]
fn history_that_has_gone_is_a_gap_and_a_quiet_topic_is_not() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_HISTORY__TTL", "300ms")]);
    let quiet = hub.publish("quiet", &json!(1));
    let id = hub.publish("a", &json!(1));
    hub.publish("a", &json!(2));
    let emptied = Instant::now() + crate::support::WAIT_MAX;
    while crate::events_held(&hub) > 0 {
        assert!(Instant::now() < emptied, "history does not expire");
        thread::sleep(Duration::from_millis(20));
    }
    let mut stream = hub.stream_with("/events?topic=a", &[("Last-Event-ID", &id)]);
    let gap = stream.event();
    assert_eq!(gap.event, "gap");
    let data: Value = serde_json::from_str(&gap.data).unwrap();
    assert_eq!(data, json!({"from": id, "reason": "expired"}));
    let mut stream = hub.stream_with("/events?topic=quiet", &[("Last-Event-ID", &quiet)]);
    hub.publish("quiet", &json!("next"));
    assert_eq!(stream.event().data, "next");
}
