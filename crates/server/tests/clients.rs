//! Real clients against the real hub: each receives, resumes and learns of a loss as its users rely on.
//!
//! The clients are in `tests/clients/`; `make setup` installs what they need. A missing one fails the run.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Hub, Kind, Proxy};

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
        let newest = publisher.newest.load(Ordering::SeqCst);
        client.wait_for("a new event", |line| number(line) > Some(newest));
        proxy.set_down(lost % 2 == 1); // every second time, coming back fails at first
        proxy.drop_all();
        client.wait_for("the loss", |line| line["kind"] == "error");
        if lost % 2 == 1 {
            client.wait_for("a second failure", |line| line["kind"] == "error");
            proxy.set_down(false);
        }
    }
    assert_received_all_of(&mut client, publisher);
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
        let newest = publisher.newest.load(Ordering::SeqCst);
        client.wait_for("a new event", |line| number(line) > Some(newest));
        proxy.cut_after(marker);
        client.wait_for("the loss", |line| line["kind"] == "error");
    }
    assert_received_all_of(&mut client, publisher);
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

/// Publishes events numbered from 1 on, one every few milliseconds.
struct Publisher {
    /// The number of the event that was published last.
    newest: Arc<AtomicU64>,
    stop: Sender<()>,
    thread: JoinHandle<Vec<(u64, String)>>,
}

impl Publisher {
    const PAUSE: Duration = Duration::from_millis(5);

    fn spawn(port: u16) -> Self {
        let newest = Arc::<AtomicU64>::default();
        let (stop, stopped) = channel();
        let thread = thread::spawn({
            let newest = Arc::clone(&newest);
            move || {
                let mut published = Vec::new();
                while stopped.recv_timeout(Self::PAUSE) == Err(RecvTimeoutError::Timeout) {
                    let n = published.len() as u64 + 1;
                    published.push((
                        n,
                        support::publish(port, "t", &json!({"n": n, "z": "padding"})),
                    ));
                    newest.store(n, Ordering::SeqCst);
                }
                published
            }
        });
        Self {
            newest,
            stop,
            thread,
        }
    }

    /// Stops, and returns the number and the id of each event.
    fn stop(self) -> Vec<(u64, String)> {
        drop(self.stop);
        self.thread.join().expect("publishing went well")
    }
}

fn assert_received_all_of(client: &mut Client, publisher: Publisher) {
    let newest = publisher.newest.load(Ordering::SeqCst);
    client.wait_for("an event after the last loss", |line| {
        number(line) > Some(newest)
    });
    let sent = publisher.stop();
    let last = sent.last().map(|(n, _)| *n);
    if client.events().last().and_then(number) != last {
        client.wait_for("the last event", |line| number(line) == last);
    }
    assert_received(client, &sent);
}

/// Each of these once and in this order, with its id, and nothing else: no gap, no message that is empty.
fn assert_received(client: &Client, published: &[(u64, String)]) {
    let events: Vec<_> = client.events().collect();
    for (event, (n, id)) in events.iter().zip(published) {
        assert_eq!(
            (number(event), event["id"].as_str()),
            (Some(*n), Some(&**id)),
            "the first that differs: {event}"
        );
    }
    assert_eq!(
        events.len(),
        published.len(),
        "the last received: {:?}",
        events.last()
    );
}

/// The `n` in the data of a `tick`.
fn number(line: &Value) -> Option<u64> {
    let data = line["data"].as_str().filter(|_| line["event"] == "tick")?;
    serde_json::from_str::<Value>(data).ok()?["n"].as_u64()
}
