//! Streams that may wait for more events, to get several with one write.

use std::time::{Duration, Instant};

use tidewire::core::coalesce::CoalesceRule;
use tidewire::core::subscription::CloseReason;
use tidewire::{Event, Pattern, Topic};

use super::{HISTORY_BYTES, open};
use crate::support::client::{Client, End};
use crate::support::server::{Carrier, Server, settings};

const WINDOW: Duration = Duration::from_secs(1);
const LONG_WINDOW: Duration = Duration::from_secs(10);

/// A server where the readers of `may-wait` and of `long:…` do so.
fn start(carrier: Carrier, heartbeat: Duration) -> Server {
    let rule = |pattern, window: Duration| CoalesceRule {
        pattern: Pattern::new(pattern).unwrap(),
        window_ms: window.as_millis() as u32,
    };
    let rules = vec![rule("may-wait", WINDOW), rule("long:*", LONG_WINDOW)];
    let settings = settings(HISTORY_BYTES).heartbeat(heartbeat);
    Server::start(carrier, settings.coalesce(rules))
}

/// Reads so many events, which must be numbered from 0; answers with how many reads they came.
fn count_reads(client: &mut Client, events: usize) -> usize {
    let mut seen = 0;
    let mut reads = 0;
    while seen < events {
        assert!(client.read_some(), "more events should come");
        let before = seen;
        while let Some(event) = client.ready_event() {
            assert_eq!(event.data, seen.to_string());
            seen += 1;
        }
        reads += usize::from(seen > before);
    }
    reads
}

pub(crate) fn events_within_a_window_come_together_and_others_at_once(carrier: Carrier) {
    let server = start(carrier, LONG_WINDOW);
    let mut waits = open(&server, "topic=may-wait&heartbeat=off");
    let mut does_not = open(&server, "topic=may-wait&topic=urgent&heartbeat=off");
    let started = Instant::now();
    for n in 0..50 {
        server.publish("may-wait", n.to_string());
        assert_eq!(does_not.tick(), n.to_string());
    }
    assert!(started.elapsed() < WINDOW, "they did not wait");
    let reads = count_reads(&mut waits, 50);
    assert!(reads <= 2, "{reads} reads for 50 events of one window");
    // Who comes back is given what is there.
    let id = does_not.last_event_id().to_owned();
    server.publish("may-wait", "after the window");
    let mut resumed = Client::resume(&server, "topic=may-wait", Some(&id));
    assert_eq!(resumed.tick(), "after the window");
    assert_eq!(waits.tick(), "after the window");
    assert!(started.elapsed() < LONG_WINDOW);
}

pub(crate) fn what_is_no_event_of_a_topic_does_not_wait(carrier: Carrier) {
    // A heartbeat later than the window would end: one that wakes a stream takes the events along.
    let server = start(carrier, 2 * LONG_WINDOW);
    let started = Instant::now();
    let mut ended = open(&server, "topic=long:a");
    let mut closed = open(&server, "topic=long:b");
    let mut told = open(&server, "topic=long:c");
    for topic in ["long:a", "long:b", "long:c"] {
        server.publish(topic, "waits");
    }
    let topic = Topic::new("long:a").unwrap();
    let end = server.runtime.block_on(server.hub.close_topic(topic));
    end.unwrap();
    let names: Vec<_> = ended.finish().0.into_iter().map(|e| e.event).collect();
    assert_eq!(names, ["tick", "end"]);
    let id = |client: &Client| client.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.close(id(&closed)));
    let (events, end) = closed.finish();
    let last = events.last().unwrap().event.as_str();
    assert_eq!((last, end), ("closed", End::Clean));
    let sent = server.hub.send_to(id(&told), Event::text("to one"));
    assert!(sent.unwrap());
    while told.event().data != "to one" {}
    assert!(started.elapsed() < LONG_WINDOW, "somebody waited");
    drop(told);
    let gone = (CloseReason::ClientGone, 1);
    server.assert_closed(&[(CloseReason::Ended, 1), (CloseReason::Closed, 1), gone]);
}

pub(crate) fn a_heartbeat_does_not_wait(carrier: Carrier) {
    let server = start(carrier, Duration::from_millis(200));
    let started = Instant::now();
    let mut client = open(&server, "topic=long:a&heartbeat=event");
    server.publish("long:a", "waits");
    while client.event().event != "heartbeat" {}
    assert!(started.elapsed() < LONG_WINDOW, "it waited");
}
