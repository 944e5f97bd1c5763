//! What holds of a stream, whoever carries it.

mod coalesce;
mod door;
mod life;
mod slow;

use std::time::Duration;

use tidewire::core::subscription::CloseReason;
use tidewire::{Event, Topic};

pub(crate) use self::coalesce::*;
pub(crate) use self::door::*;
pub(crate) use self::life::*;
pub(crate) use self::slow::*;
use crate::support::client::{Client, End};
use crate::support::server::{Carrier, Server, settings};
use crate::support::wait_until;

const HISTORY_BYTES: usize = 16 * 1024 * 1024;

fn start(carrier: Carrier) -> Server {
    Server::start(carrier, settings(HISTORY_BYTES))
}

/// A client of topic `a` to whom the greeting has come.
fn open(server: &Server, query: &str) -> Client {
    let mut client = Client::open(server, query);
    client.read_until("retry: ");
    client
}

pub(crate) fn a_stream_begins_with_its_headers_and_greeting(carrier: Carrier) {
    let server = start(carrier);
    let id = server.publish("a", "before").to_string();
    let mut client = Client::open(&server, "topic=a&checkpoint=on&padding=3000");
    assert_eq!(client.status, 200);
    assert_eq!(client.header("content-type"), "text/event-stream");
    assert_eq!(client.header("cache-control"), "no-cache, no-transform");
    assert_eq!(client.header("x-accel-buffering"), "no");
    assert_eq!(client.header("last-event-id"), id);
    let connection = client.header("tidewire-connection").to_owned();
    assert_eq!(
        server.hub.connections(None, 2).0[0].id.to_string(),
        connection
    );
    client.read_until(&format!("id: {id}\n\n"));
    assert_eq!(client.text().find('\n'), Some(2_999));
    server.publish("a", "after");
    assert_eq!(client.tick(), "after");
    assert!((3_000..=4_500).contains(&client.retry_ms().unwrap()));
}

pub(crate) fn events_come_in_order_whole_and_whatever_their_size(carrier: Carrier) {
    let server = start(carrier);
    let mut client = open(&server, "topic=a&topic=b");
    let mut expected = vec!["one\ntwo\r\nthree".replace('\r', "")];
    server.publish("a", "one\ntwo\r\nthree");
    server.publish("c", "of no concern");
    for size in [0, 1, 15_000, 16_384, 65_536, 1024 * 1024 - 4] {
        expected.push("x".repeat(size));
        server.publish("b", "x".repeat(size));
    }
    for n in 0..300 {
        expected.push(n.to_string());
        server.publish(if n % 2 == 0 { "a" } else { "b" }, n.to_string());
    }
    for data in &expected {
        assert!(client.tick() == *data, "in order and whole");
    }
    drop(client);
    server.assert_closed(&[(CloseReason::ClientGone, 1)]);
    let totals = server.hub.stats().totals;
    assert_eq!((totals.delivered, totals.gaps), (expected.len() as u64, 0));
}

pub(crate) fn a_replay_of_more_than_all_buffers_is_complete(carrier: Carrier) {
    let server = start(carrier);
    let data = |n: usize| format!("{n} {}", "r".repeat(n % 3_000));
    for n in 0..2_000 {
        server.publish("a", data(n));
    }
    let mut client = Client::open(&server, "topic=a&since=earliest");
    for n in 0..2_000 {
        assert_eq!(client.tick(), data(n));
    }
    server.publish("a", "live");
    assert_eq!(client.tick(), "live");
    // It is counted once it is sent.
    wait_until("all is counted", || {
        server.hub.stats().totals.delivered == 2_001
    });
}

pub(crate) fn a_client_resumes_after_the_id_that_it_has_seen(carrier: Carrier) {
    let server = start(carrier);
    server.publish("a", "1");
    let mut client = Client::open(&server, "topic=a&since=earliest");
    assert_eq!(client.tick(), "1");
    let id = client.last_event_id().to_owned();
    drop(client);
    server.assert_closed(&[(CloseReason::ClientGone, 1)]);
    server.publish("a", "2");
    server.publish("a", "3");
    let mut client = Client::resume(&server, "topic=a", Some(&id));
    assert_eq!(client.header("last-event-id"), id);
    server.publish("a", "4");
    for data in ["2", "3", "4"] {
        assert_eq!(client.tick(), data);
    }
    assert_eq!(server.hub.stats().totals.gaps, 0);
}

pub(crate) fn a_gap_is_told_where_history_is_missing(carrier: Carrier) {
    let server = Server::start(carrier, settings(8 * 1024));
    let id = server.publish("a", "0").to_string();
    for n in 1..100 {
        server.publish("a", format!("{n} {}", "x".repeat(200)));
    }
    let mut client = Client::resume(&server, "topic=a", Some(&id));
    let gap = client.event();
    assert_eq!(gap.event, "gap");
    assert_eq!(gap.data, format!(r#"{{"from":"{id}","reason":"expired"}}"#));
    let first = client.tick();
    assert!(first != "0" && !first.starts_with("1 "), "{first}");
    let mut client = Client::resume(&server, "topic=a", Some("from elsewhere"));
    assert!(client.event().data.contains("unknown_id"));
    assert_eq!(server.hub.stats().totals.gaps, 2);
}

pub(crate) fn heartbeats_come_as_asked_for(carrier: Carrier) {
    let server = Server::start(
        carrier,
        settings(HISTORY_BYTES).heartbeat(Duration::from_millis(100)),
    );
    let id = server.publish("a", "before").to_string();
    let mut silent = open(&server, "topic=a&heartbeat=off");
    let mut comment = open(&server, "topic=a");
    comment.read_until("\n:\n:\n");
    let mut event = open(&server, "topic=a&heartbeat=event");
    assert_eq!(event.event().event, "heartbeat");
    let mut checkpoint = open(&server, "topic=a&heartbeat=comment&checkpoint=on");
    checkpoint.read_until(&format!("\n\n:\nid: {id}\n\n:\nid: {id}\n\n"));
    assert_eq!(event.event().event, "heartbeat");
    server.publish("a", "after");
    let clients = [&mut silent, &mut comment, &mut checkpoint];
    for client in clients {
        assert_eq!(client.tick(), "after");
    }
    assert!(!silent.text().contains(':') || !silent.text().contains("\n:\n"));
    let heartbeats = std::iter::from_fn(|| Some(event.event()));
    assert!(heartbeats.take(100).any(|event| event.data == "after"));
}

pub(crate) fn broadcasts_and_events_to_one_connection_arrive(carrier: Carrier) {
    let server = start(carrier);
    let mut one = open(&server, "topic=a");
    let mut other = open(&server, "topic=b");
    let id = one.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.send_to(id, Event::text("to one")).unwrap());
    server.hub.broadcast(Event::text("to all")).unwrap();
    assert!(server.hub.send_to(id, Event::text("to one again")).unwrap());
    for data in ["to one", "to all", "to one again"] {
        let event = one.event();
        assert_eq!((event.data.as_str(), event.id.as_str()), (data, ""));
    }
    assert_eq!(other.event().data, "to all");
    server.publish("b", "next");
    assert_eq!(other.tick(), "next");
    drop(one);
    drop(other);
    server.assert_closed(&[(CloseReason::ClientGone, 2)]);
    assert!(!server.hub.send_to(id, Event::text("nobody")).unwrap());
    assert_eq!(server.hub.stats().totals.delivered, 5);
}

pub(crate) fn the_end_of_a_topic_ends_its_streams(carrier: Carrier) {
    let server = start(carrier);
    let mut both = open(&server, "topic=a&topic=b");
    let mut one = open(&server, "topic=a");
    server.publish("a", "last");
    let close = |topic| {
        let topic = Topic::new(topic).unwrap();
        server
            .runtime
            .block_on(server.hub.close_topic(topic))
            .unwrap();
    };
    close("a");
    let (events, end) = one.finish();
    let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!((names, end), (vec!["tick", "end"], End::Clean));
    server.publish("b", "goes on");
    close("b");
    let (events, end) = both.finish();
    let names: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(
        (names, end),
        (vec!["tick", "end", "tick", "end"], End::Clean)
    );
    server.assert_closed(&[(CloseReason::Ended, 2)]);
    let over = Client::resume(&server, "topic=a", Some(one.last_event_id()));
    assert_eq!(over.status, 204);
}
