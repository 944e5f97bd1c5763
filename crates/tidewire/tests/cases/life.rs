//! How streams end, other than with their topics.

use std::time::Duration;

use tidewire::core::id::{NativeId, Tombstone};
use tidewire::core::subscription::CloseReason;

use super::{HISTORY_BYTES, open, start};
use crate::support::client::{Client, End};
use crate::support::server::{Carrier, Server, settings};
use crate::support::wait_until;

pub(crate) fn a_stream_that_is_closed_says_so_for_good(carrier: Carrier) {
    let server = start(carrier);
    let mut client = open(&server, "topic=a");
    server.publish("a", "last");
    assert_eq!(client.tick(), "last");
    let id = client.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.close(id));
    let (events, end) = client.finish();
    assert_eq!((events.len(), end), (1, End::Clean));
    assert_eq!(events[0].event, "closed");
    let id = NativeId::parse(&events[0].id).unwrap();
    assert_eq!(id.tombstone, Some(Tombstone::Closed));
    let again = Client::resume(&server, "topic=a", Some(&events[0].id));
    assert_eq!(again.status, 204);
    server.assert_closed(&[(CloseReason::Closed, 1)]);
}

pub(crate) fn an_evicted_client_is_told_to_stay_away(carrier: Carrier) {
    let server = Server::start(carrier, settings(HISTORY_BYTES).max_connections(2));
    let mut oldest = open(&server, "topic=a");
    let mut middle = open(&server, "topic=a");
    let newest = open(&server, "topic=a");
    let (events, end) = oldest.finish();
    assert_eq!((events.len(), end), (0, End::Clean));
    let retry_ms = oldest.retry_ms().unwrap();
    assert!((30_000..=60_000).contains(&retry_ms), "{retry_ms}");
    server.publish("a", "to the others");
    assert_eq!(middle.tick(), "to the others");
    assert_eq!(server.hub.stats().connections, 2);
    drop((middle, newest));
    server.assert_closed(&[(CloseReason::Evicted, 1), (CloseReason::ClientGone, 2)]);
}

pub(crate) fn a_stream_ends_with_its_longest_life(carrier: Carrier) {
    let server = Server::start(
        carrier,
        settings(HISTORY_BYTES).max_lifetime(Duration::from_millis(100)),
    );
    let (events, end) = open(&server, "topic=a").finish();
    assert_eq!((events.len(), end), (0, End::Clean));
    server.assert_closed(&[(CloseReason::Lifetime, 1)]);
}

pub(crate) fn a_drain_ends_all_streams(carrier: Carrier) {
    let mut server = start(carrier);
    let mut clients: Vec<_> = (0..5).map(|_| open(&server, "topic=a")).collect();
    server.publish("a", "last");
    wait_until("all have it", || server.hub.stats().totals.delivered == 5);
    server.stop();
    if carrier == Carrier::Axum {
        // Another server does not know the hub; its owner closes the streams.
        server
            .runtime
            .block_on(server.hub.close_all(Duration::from_millis(20)));
    }
    for client in &mut clients {
        let (events, end) = client.finish();
        assert_eq!((events.len(), end), (1, End::Clean));
        assert_eq!(client.text().matches("retry: ").count(), 2);
    }
    server.assert_closed(&[(CloseReason::Shutdown, 5)]);
    drop(clients);
    server.wait();
}

pub(crate) fn a_client_that_hangs_up_is_gone(carrier: Carrier) {
    let server = start(carrier);
    let mut clients: Vec<_> = (0..20).map(|_| open(&server, "topic=a")).collect();
    assert_eq!(server.hub.stats().connections, 20);
    let rest = clients.split_off(10);
    drop(rest);
    wait_until("the others are gone", || {
        server.hub.stats().connections == 10
    });
    server.publish("a", "still here");
    for client in &mut clients {
        assert_eq!(client.tick(), "still here");
    }
    drop(clients);
    server.assert_closed(&[(CloseReason::ClientGone, 20)]);
    wait_until("nobody reads it", || server.hub.subscribers("a") == 0);
}
