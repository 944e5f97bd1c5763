//! Real clients against the real hub: each receives, resumes and learns of a loss as its users rely on.
//!
//! The clients are in `tests/clients/`; `make setup` installs what they need. A missing one fails the run.

mod support;

use serde_json::{Value, json};
use support::{Client, Hub, Kind, Proxy, Publisher, assert_received, number};

const STREAM: &str = "/events?topic=t";

/// Each of these for each client, as `chromium::receives_events_in_order` and so on.
macro_rules! for_each_client {
    ($($client:ident: $kind:ident),+ $(,)?) => {$(
        mod $client {
            use super::Kind::$kind;

            #[test]
            fn receives_events_in_order() {
                super::receives_events_in_order($kind);
            }

            #[test]
            fn resumes_exactly_after_lost_connections() {
                super::resumes_exactly_after_lost_connections($kind);
            }

            #[test]
            fn resumes_exactly_after_an_event_cut_short() {
                super::resumes_exactly_after_an_event_cut_short($kind);
            }

            #[test]
            fn is_told_of_the_gap_after_a_restart() {
                super::is_told_of_the_gap_after_a_restart($kind);
            }

            #[test]
            fn leaves_a_closed_topic() {
                super::leaves_a_closed_topic($kind);
            }
        }
    )+};
}

for_each_client! {
    chromium: Chromium,
    curl: Curl,
    eventsource: EventSource,
    fetch_event_source: FetchEventSource,
    httpx_sse: HttpxSse,
    sseclient_py: SseclientPy,
}

/// A hub whose clients come back soon.
fn hub() -> Hub {
    Hub::spawn(&[], &[("TIDEWIRE_STREAM__RETRY", "200ms")])
}

fn receives_events_in_order(kind: Kind) {
    let hub = hub();
    let mut client = Client::spawn(kind, &hub.url(STREAM));
    client.wait_for_open();
    let text = "one line: ä € 😀\nand\ttwo";
    let published: Vec<_> = (1..=20)
        .map(|n| (n, hub.publish("t", &json!({"n": n, "text": text}))))
        .collect();
    let last = client.wait_for("the last event", |line| number(line) == Some(20));
    let data: Value =
        serde_json::from_str(last["data"].as_str().expect("data is text")).expect("data is JSON");
    assert_eq!(data, json!({"n": 20, "text": text}));
    assert_received(&client, &published);
}

fn resumes_exactly_after_lost_connections(kind: Kind) {
    let hub = hub();
    let proxy = Proxy::spawn(hub.port());
    let mut client = Client::spawn(kind, &proxy.url(STREAM));
    client.wait_for_open();
    let publisher = Publisher::spawn(hub.port());
    for lost in 0..5 {
        let newest = publisher.newest();
        client.wait_for("a new event", |line| number(line) > Some(newest));
        proxy.set_down(lost % 2 == 1); // every second time, coming back fails at first
        proxy.drop_all();
        client.wait_for("the loss", |line| line["kind"] == "error");
        if lost % 2 == 1 {
            client.wait_for("a second failure", |line| line["kind"] == "error");
            proxy.set_down(false);
        }
    }
    publisher.assert_all_received_by(&mut client);
}

/// A connection that ends inside an event. What came of that event is void, and all of it comes again.
///
/// Not every client sees to that: `fetch-event-source` remembers an id when its line has come, not when the event is
/// complete. So it holds only if an event's `id:` line is the last of its lines.
fn resumes_exactly_after_an_event_cut_short(kind: Kind) {
    let hub = hub();
    let proxy = Proxy::spawn(hub.port());
    let mut client = Client::spawn(kind, &proxy.url(STREAM));
    client.wait_for_open();
    let publisher = Publisher::spawn(hub.port());
    // In the event's name, in its data, and at the end of its data.
    for marker in ["tic", "{\"n\":", "padding\""] {
        let newest = publisher.newest();
        client.wait_for("a new event", |line| number(line) > Some(newest));
        proxy.cut_after(marker);
        client.wait_for("the loss", |line| line["kind"] == "error");
    }
    publisher.assert_all_received_by(&mut client);
}

fn is_told_of_the_gap_after_a_restart(kind: Kind) {
    let mut hub = hub();
    let mut client = Client::spawn(kind, &hub.url(STREAM));
    client.wait_for_open();
    let last_id = hub.publish("t", &json!({"n": 1}));
    client.wait_for_event("tick");

    hub.restart(); // its memory was the history
    let gap = client.wait_for_event("gap");
    let data: Value =
        serde_json::from_str(gap["data"].as_str().expect("data is text")).expect("data is JSON");
    assert_eq!(data["from"], json!(last_id), "{gap}");
    assert!(
        ["expired", "unknown_id"]
            .iter()
            .any(|reason| data["reason"] == *reason),
        "{gap}"
    );

    let id = hub.publish("t", &json!({"n": 2}));
    let event = client.wait_for_event("tick");
    assert_eq!(
        (number(&event), event["id"].as_str()),
        (Some(2), Some(&*id))
    );
    let names: Vec<_> = client
        .events()
        .map(|event| event["event"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(names, ["tick", "gap", "tick"]);
}

/// The end of a topic is an event; who comes back after it is told 204, which ends a browser's `EventSource`.
fn leaves_a_closed_topic(kind: Kind) {
    let hub = hub();
    let mut client = Client::spawn(kind, &hub.url(STREAM));
    client.wait_for_open();
    hub.publish("t", &json!({"n": 1}));
    let answer = hub.request("POST", "/topics/t/close", None);
    assert!((200..300).contains(&answer.status), "{answer:?}");
    client.wait_for_event("tick");
    let end = client.wait_for_event("end");
    assert_eq!(end["data"], "{\"topic\":\"t\"}");
    if kind == Kind::FetchEventSource {
        // With its README's callbacks it never stops by itself: it is told 204 and asks again.
        let told = |line: &Value| {
            line["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("status 204"))
        };
        client.wait_for("status 204", told);
    } else {
        client.wait_for("closed", |line| line["kind"] == "closed");
    }
}
