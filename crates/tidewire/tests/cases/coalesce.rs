//! Streams that may wait for more events, to get several with one write.

use std::time::{Duration, Instant};

use tidewire::core::coalesce::CoalesceRule;
use tidewire::core::subscription::CloseReason;
use tidewire::{Event, Pattern, Publication, Topic};

use super::{HISTORY_BYTES, open};
use crate::support::client::{Client, End};
use crate::support::server::{Carrier, Server, settings};

const WINDOW: Duration = Duration::from_secs(1);
const LONG_WINDOW: Duration = Duration::from_secs(10);

/// A server where the readers of `may-wait` and of `long` do so.
fn start(carrier: Carrier) -> Server {
    let rule = |pattern, window: Duration| CoalesceRule {
        pattern: Pattern::new(pattern).unwrap(),
        window_ms: window.as_millis() as u32,
    };
    let rules = vec![rule("may-wait", WINDOW), rule("long:*", LONG_WINDOW)];
    let settings = settings(HISTORY_BYTES).heartbeat(Duration::from_millis(500));
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
    let server = start(carrier);
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
    let server = start(carrier);
    let started = Instant::now();
    let mut ended = open(&server, "topic=long:a");
    let mut closed = open(&server, "topic=long:b");
    let mut told = open(&server, "topic=long:c&heartbeat=event");
    server.publish("long:a", "last");
    let topic = Topic::new("long:a").unwrap();
    let end = server.runtime.block_on(server.hub.close_topic(topic));
    end.unwrap();
    let names: Vec<_> = ended.finish().0.into_iter().map(|e| e.event).collect();
    assert_eq!(names, ["tick", "end"]);

    let both = ["long:b", "long:c"].map(|name| Topic::new(name).unwrap());
    let batch = [Publication::new(both, Event::text("waits").named("tick")).unwrap()];
    let published = server.hub.publish_all(&batch, None);
    server.runtime.block_on(published).unwrap();
    let id = |client: &Client| client.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.close(id(&closed)));
    let (events, end) = closed.finish();
    assert_eq!(
        (events.last().unwrap().event.as_str(), end),
        ("closed", End::Clean)
    );
    while told.event().event != "heartbeat" {}
    assert!(
        server
            .hub
            .send_to(id(&told), Event::text("to one"))
            .unwrap()
    );
    while told.event().data != "to one" {}
    assert!(started.elapsed() < LONG_WINDOW, "somebody waited");
    drop(told);
    let gone = (CloseReason::ClientGone, 1);
    server.assert_closed(&[(CloseReason::Ended, 1), (CloseReason::Closed, 1), gone]);
}
