//! Clients that take their time, and those that take nothing.

use std::time::Duration;

use tidewire::core::decode::Decoded;
use tidewire::core::subscription::{CloseReason, SlowClient};

use super::{HISTORY_BYTES, open};
use crate::support::client::End;
use crate::support::server::{Carrier, Server, settings};
use crate::support::wait_until;

/// What is published to a slow client: more than all buffers on the way and the history have.
const EVENTS: usize = 6_000;

/// Data that tells whether it is whole.
fn data(n: usize) -> String {
    format!("{n} {} {n}", "s".repeat(400 + n % 300))
}

fn number(event: &Decoded) -> usize {
    let n = event.data.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(event.data, data(n), "no event is ever torn");
    n
}

fn start(carrier: Carrier, slow_client: SlowClient) -> Server {
    Server::start(carrier, settings(256 * 1024).slow_client(slow_client))
}

pub(crate) fn a_slow_client_is_closed_and_never_gets_half_an_event(carrier: Carrier) {
    let server = start(carrier, SlowClient::Close);
    let mut client = open(&server, "topic=a");
    for n in 0..EVENTS {
        server.publish("a", data(n));
    }
    let (events, _) = client.finish();
    let got: Vec<_> = events.iter().map(number).collect();
    assert!(got.len() < EVENTS && got.iter().copied().eq(0..got.len()));
    server.assert_closed(&[(CloseReason::Lagged, 1)]);
    let delivered = server.hub.stats().totals.delivered;
    assert!(delivered >= got.len() as u64);
}

pub(crate) fn a_slow_client_is_skipped_forward(carrier: Carrier) {
    let server = start(carrier, SlowClient::Skip);
    let mut client = open(&server, "topic=a");
    for n in 0..EVENTS {
        server.publish("a", data(n));
    }
    let (mut next, mut gaps) = (0, 0);
    while next < EVENTS {
        let event = client.event();
        if event.event == "gap" {
            assert!(event.data.contains("lagged"));
            gaps += 1;
            let after = number(&client.event());
            assert!(after > next, "a gap is told where there is one");
            next = after + 1;
        } else {
            assert_eq!(number(&event), next, "no event is lost silently");
            next += 1;
        }
    }
    assert!(gaps > 0);
    drop(client);
    server.assert_closed(&[(CloseReason::ClientGone, 1)]);
    assert_eq!(server.hub.stats().totals.gaps, gaps);
}

pub(crate) fn a_client_that_takes_nothing_is_cut_off(carrier: Carrier) {
    let server = Server::start(
        carrier,
        settings(HISTORY_BYTES).stall_timeout(Duration::from_millis(300)),
    );
    let mut client = open(&server, "topic=a");
    for n in 0..EVENTS {
        server.publish("a", data(n));
    }
    wait_until("the client is given up", || {
        server.hub.stats().connections == 0
    });
    server.assert_closed(&[(CloseReason::Stalled, 1)]);
    if carrier.can_cut_off() {
        let (events, end) = client.finish();
        let got: Vec<_> = events.iter().map(number).collect();
        assert!(got.len() < EVENTS && got.iter().copied().eq(0..got.len()));
        // The kernel may find room for the body's end at the last moment, and then it is a good one.
        let is_whole = client.body.ends_with(b"\n\n");
        assert!(end == End::CutShort || carrier == Carrier::Http10 || is_whole);
    }
}

/// The time from the first bytes on used to count as if they had not been taken, so that a stream without events was
/// ended after the time-out.
pub(crate) fn an_idle_client_is_not_stalled(carrier: Carrier) {
    let server = Server::start(
        carrier,
        settings(HISTORY_BYTES)
            .stall_timeout(Duration::from_millis(150))
            .heartbeat(Duration::from_millis(700)),
    );
    let mut client = open(&server, "topic=a");
    client.read_until("\n:\n");
    server.publish("a", "still here");
    assert_eq!(client.tick(), "still here");
    drop(client);
    server.assert_closed(&[(CloseReason::ClientGone, 1)]);
}
