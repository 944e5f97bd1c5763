//! Reactors with real sockets: slots that are used again, and what a connection costs.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidewire_core::subscription::{Batch, CloseReason, Poll, SlowClient, Subscription};
use tokio_util::task::TaskTracker;

use super::{dechunk, hub, live, publish, ticks};
use crate::connections::Connection;
use crate::hub::Hub;
use crate::live::Live;
use crate::serve::direct::Direct;
use crate::serve::reactor::{self, Adoption, Inbox, Reactor, SLICE};

const HISTORY_BYTES: usize = 16 * 1024 * 1024;

struct Rig {
    hub: Hub,
    inbox: Arc<Inbox>,
    tracker: TaskTracker,
    listener: Mutex<TcpListener>,
}

impl Rig {
    fn new() -> Self {
        Self::on(reactor::spawn(0).unwrap())
    }

    fn on(inbox: Arc<Inbox>) -> Self {
        Self {
            hub: hub(HISTORY_BYTES, SlowClient::Close),
            inbox,
            tracker: TaskTracker::new(),
            listener: Mutex::new(TcpListener::bind("127.0.0.1:0").unwrap()),
        }
    }

    /// A stream that a reactor carries: its client, and the hub's side.
    fn adopt(&self, topic: &str) -> (TcpStream, Arc<Connection>) {
        // Held for both ends, so that nobody takes another's.
        let listener = self.listener.lock();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        stream.set_nonblocking(true).unwrap();
        let live = live(&self.hub, topic);
        let connection = live.connection().clone();
        self.inbox.adopt(Adoption {
            live,
            stream: mio::net::TcpStream::from_std(stream),
            token: self.tracker.token(),
        });
        (client, connection)
    }

    fn wait_until_gone(&self, connections: usize) {
        let started = Instant::now();
        while self.hub.stats().connections > connections {
            assert!(started.elapsed() < Duration::from_secs(20), "not gone");
            std::thread::yield_now();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

/// Reads until a text has come, and the chunk with it to its end.
fn read_until(client: &mut TcpStream, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    while !(body.ends_with(b"\n\r\n") && String::from_utf8_lossy(&body).contains(text)) {
        let mut bytes = [0; 4_096];
        let n = client.read(&mut bytes).unwrap();
        assert!(n > 0, "the end before {text:?}");
        body.extend_from_slice(&bytes[..n]);
    }
    body
}

#[test]
fn a_wake_up_for_who_was_in_the_slot_before_does_no_harm() {
    let rig = Rig::new();
    for n in 0..300 {
        let (client, gone) = rig.adopt("a");
        drop(client);
        if n % 2 == 0 {
            rig.wait_until_gone(0);
        }
        gone.request_close(CloseReason::Closed);
        let (mut client, _) = rig.adopt("a");
        gone.wake();
        gone.wake();
        publish(&rig.hub, "a", "news");
        gone.wake();
        let (payload, _) = dechunk(&read_until(&mut client, "data: news"));
        assert!(ticks(&payload).len() <= 1);
        drop(client);
        rig.wait_until_gone(0);
    }
}

/// So that who hangs up, comes or is to be closed does not wait until all others are served.
#[test]
fn between_two_slices_the_inbox_is_looked_at() {
    let mut reactor = Reactor::new().unwrap();
    let rig = Rig::on(reactor.inbox.clone());
    let clients: Vec<_> = (0..2 * SLICE + 10).map(|_| rig.adopt("a")).collect();
    let served = || {
        let has_bytes = |(client, _): &&(TcpStream, Arc<Connection>)| {
            client.set_nonblocking(true).unwrap();
            client.peek(&mut [0]).is_ok()
        };
        clients.iter().filter(has_bytes).count()
    };
    assert!(reactor.take_notes());
    reactor.serve_slice();
    assert_eq!(served(), SLICE);
    assert!(reactor.take_notes());
    reactor.serve_slice();
    assert_eq!(served(), 2 * SLICE);
    rig.inbox.stop();
    assert!(
        !reactor.take_notes(),
        "it ends before the others are served"
    );
    assert_eq!(rig.hub.stats().connections, 0);
}

#[test]
fn an_event_that_is_published_while_a_stream_changes_hands_is_not_lost() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for topic in ["a", "b"] {
            let rig = &rig;
            scope.spawn(move || {
                for n in 0..1_000 {
                    let publisher = scope.spawn(move || publish(&rig.hub, "news", "before"));
                    let (mut client, _) = rig.adopt(topic);
                    publisher.join().unwrap();
                    let data = format!("{topic} {n}");
                    publish(&rig.hub, topic, &data);
                    read_until(&mut client, &data);
                }
            });
        }
    });
}

#[test]
fn many_events_by_many_publishers_reach_everybody_in_one_order() {
    let rig = Rig::new();
    let (publishers, events, clients) = (3, 2_000, 8);
    let mut clients: Vec<_> = (0..clients).map(|_| rig.adopt("a").0).collect();
    let bodies: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| read_until(client, "data: the last")))
            .collect();
        let publishers: Vec<_> = (0..publishers)
            .map(|p| {
                let hub = &rig.hub;
                scope.spawn(move || {
                    (0..events).for_each(|n| publish(hub, "a", &format!("{p} {n}")));
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        publish(&rig.hub, "a", "the last");
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let first = ticks(&dechunk(&bodies[0]).0);
    assert!(first.len() >= publishers * events);
    for body in &bodies {
        assert!(ticks(&dechunk(body).0) == first, "one order for all");
    }
}

#[test]
fn streams_that_come_too_late_for_their_reactor_are_ended() {
    let rig = Rig::new();
    let (mut early, _) = rig.adopt("a");
    read_until(&mut early, "retry: ");
    rig.inbox.stop();
    rig.wait_until_gone(0);
    for _ in 0..10 {
        let (mut late, _) = rig.adopt("a");
        assert_eq!(late.read(&mut [0; 10]).unwrap(), 0);
    }
    assert_eq!(rig.hub.stats().connections, 0);
    assert!(rig.tracker.is_empty(), "nobody waits for them");
    let closes = rig.hub.stats().totals.closes;
    assert!(closes.contains(&(CloseReason::Shutdown, 11)), "{closes:?}");
}

/// What one connection costs beside the socket and its share of the tables. Printed with `--nocapture`.
#[test]
fn a_connection_costs_no_more_than_it_should() {
    let sizes = [
        ("slab entry", reactor::entry_size()),
        ("of it Direct", size_of::<Direct>()),
        ("of that Live", size_of::<Live>()),
        ("of that Subscription", size_of::<Subscription>()),
        ("Connection", size_of::<Connection>()),
    ];
    for (what, bytes) in sizes {
        println!("{what}: {bytes}");
    }
    // The connection's allocation has two counters; it stands in two tables and the calendar.
    let tables = 2 * (16 + 8) + 8 + 8;
    let all = reactor::entry_size() + size_of::<Connection>() + 16 + tables;
    println!("in all: {all}");
    assert!(all <= 500, "{all}");
}

/// A connection gets a topic of its own with the first event that is sent to it, and that may be while it looks for news.
#[test]
fn the_first_event_to_a_connection_is_not_passed_over() {
    const ROUNDS: usize = 500;
    let hub = hub(HISTORY_BYTES, SlowClient::Close);
    let mut batch = Batch::default();
    let mut takes_data = |live: &mut Live| {
        let has_data = live.gather(1_000, &mut batch) == Poll::Data;
        if has_data {
            live.sent(&batch, batch.bytes().len());
        }
        has_data
    };
    for round in 0..ROUNDS {
        let mut live = live(&hub, "a");
        while takes_data(&mut live) {}
        let id = live.connection().id;
        let mut has_come = false;
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| hub.send_to(id, "first").unwrap());
            while !sending.is_finished() {
                has_come |= takes_data(&mut live);
            }
            assert!(sending.join().unwrap());
        });
        assert!(has_come || takes_data(&mut live), "round {round}");
    }
}
