//! The end of a server, in a process of its own, so that its threads can be counted.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::client::{Client, End, Http1, connect};
use support::server::{Carrier, Server, settings};
use support::wait_until;
use tidewire::core::subscription::CloseReason;

/// Threads of this process whose names begin so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

fn reactors() -> usize {
    threads("tidewire-react")
}

fn server_with_streams(count: usize) -> (Server, Vec<Client>) {
    let server = Server::start(Carrier::Direct, settings(16 * 1024 * 1024));
    let clients = (0..count).map(|_| {
        let mut client = Client::open(&server, "topic=a");
        client.read_until("retry: ");
        client
    });
    let clients = clients.collect();
    wait_until("there is a reactor", || reactors() > 0);
    (server, clients)
}

/// One test, as both parts count threads.
#[test]
fn reactors_end_with_their_server() {
    a_drain_ends_them_and_every_stream();
    a_runtime_that_is_dropped_ends_them();
    wait_until("the hubs' threads are gone", || {
        threads("tidewire-fan") == 0
    });
}

fn a_drain_ends_them_and_every_stream() {
    let (mut server, clients) = server_with_streams(50);
    let mut idle = Http1::new(connect(server.address));
    idle.send("GET /hello HTTP/1.1\r\nhost: hub\r\n\r\n");
    assert_eq!(idle.read_answer().0, 200);
    // One that takes nothing, and one that has sent half a request.
    let stuck = Client::open(&server, "topic=b");
    for _ in 0..20 {
        server.publish("b", "x".repeat(200_000));
    }
    let mut half = Http1::new(connect(server.address));
    half.send("GET /events HTTP/1.1\r\nho");
    server.stop();
    server.wait();
    wait_until("the reactors are gone", || reactors() == 0);
    assert!(!idle.fill() && !half.fill());
    for mut client in clients {
        assert_eq!(client.finish().1, End::Clean);
    }
    server.assert_closed(&[(CloseReason::Shutdown, 51)]);
    drop(stuck);
}

fn a_runtime_that_is_dropped_ends_them() {
    let (server, clients) = server_with_streams(10);
    let hub = server.hub.clone();
    server.runtime.shutdown_timeout(Duration::from_secs(5));
    wait_until("the reactors are gone", || reactors() == 0);
    for mut client in clients {
        assert_eq!(client.finish().1, End::Clean);
        assert_eq!(client.text().matches("retry: ").count(), 2);
    }
    assert_eq!(hub.stats().connections, 0);
}
