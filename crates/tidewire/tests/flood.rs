//! Many connections at once, and more than the system has descriptors for.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::client::{Client, connect};
use support::server::{Carrier, Server, settings};
use support::wait_until;
use tidewire::core::subscription::CloseReason;

const HISTORY_BYTES: usize = 16 * 1024 * 1024;

/// Connections come and go on several threads while events are published as fast as they can be; those that stay lose
/// nothing, and each that goes is counted once.
#[test]
fn streams_come_and_go_by_the_thousand_while_events_are_published() {
    let server = Server::start(Carrier::Direct, settings(HISTORY_BYTES));
    let done = AtomicBool::new(false);
    let (threads, each) = (4, 500);
    let mut staying: Vec<_> = (0..4).map(|_| Client::open(&server, "topic=a")).collect();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                server.publish("a", n.to_string());
                n += 1;
                // About as fast as two cores can carry it to everybody.
                std::thread::sleep(Duration::from_micros(300));
            }
            n
        });
        let readers: Vec<_> = staying
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    let mut n = 0;
                    loop {
                        match client.tick() {
                            last if last == "last" => return n,
                            data => assert_eq!(data, n.to_string()),
                        }
                        n += 1;
                    }
                })
            })
            .collect();
        let churn: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| (0..each).for_each(|n| come_and_go(&server, n))))
            .collect();
        for thread in churn {
            thread.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let count = publisher.join().unwrap();
        server.publish("a", "last");
        for reader in readers {
            assert_eq!(reader.join().unwrap(), count);
        }
    });
    drop(staying);
    wait_until("all are gone", || server.hub.stats().connections == 0);
    let all = (threads * each) as u64 + 4;
    let closed = server.closes(CloseReason::Closed);
    assert_eq!(server.closes(CloseReason::ClientGone) + closed, all);
    assert!(closed <= (threads * each) as u64 / 5);
    let (stats, page) = (server.hub.stats(), server.hub.connections(None, 10));
    assert_eq!(
        (stats.log.filters, page.0.len(), server.hub.subscribers("a")),
        (0, 0, 0)
    );
}

/// Some leave before they get anything, some after, and some are closed; whoever gets events gets them in order.
fn come_and_go(server: &Server, n: usize) {
    let mut client = Client::open(server, "topic=a");
    let id = client.header("tidewire-connection").parse().unwrap();
    match n % 5 {
        0 => drop(server.hub.close(id)),
        1 => {
            let first: u64 = client.tick().parse().unwrap();
            for next in first + 1..first + 4 {
                assert_eq!(client.tick(), next.to_string());
            }
        }
        2 => client.read_until("retry: "),
        _ => {}
    }
}

/// Set where this test runs as the server.
const CHILD: &str = "TIDEWIRE_TEST_FLOOD_CHILD";
const DESCRIPTORS_MAX: u64 = 60;

/// The server runs in a process of its own with few descriptors.
#[test]
fn a_server_without_descriptors_keeps_its_clients_and_recovers() {
    if std::env::var_os(CHILD).is_some() {
        return serve_with_few_descriptors();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_server_without_descriptors_keeps_its_clients_and_recovers",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let port = loop {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0);
        // The test harness writes in front of it, on the same line.
        if let Some((_, port)) = line.split_once("port ") {
            break port.trim().parse::<u16>().unwrap();
        }
    };
    exhaust(([127, 0, 0, 1], port).into());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn exhaust(address: std::net::SocketAddr) {
    let ask = |address| {
        let mut http1 = support::client::Http1::new(connect(address));
        http1.send("GET /events?topic=a HTTP/1.1\r\nhost: hub\r\n\r\n");
        http1
    };
    let mut first = Client::over_http1(ask(address));
    // The kernel takes them all; the server can't.
    let mut waiting: Vec<_> = (0..2 * DESCRIPTORS_MAX).map(|_| ask(address)).collect();
    // It publishes by itself, every few milliseconds.
    let before = first.tick().parse::<u64>().unwrap();
    let started = Instant::now();
    let mut next = before + 1;
    while started.elapsed() < Duration::from_millis(500) {
        assert_eq!(first.tick(), next.to_string(), "who is there lives on");
        next += 1;
    }
    waiting.drain(..waiting.len() - 5);
    for http1 in waiting {
        let mut client = Client::over_http1(http1);
        assert_eq!(
            client.status, 200,
            "who waited is served when there is room"
        );
        client.tick();
    }
    assert_eq!(first.tick(), next.to_string());
}

fn serve_with_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let server = Server::start(Carrier::Direct, settings(HISTORY_BYTES));
    let limit = Some(DESCRIPTORS_MAX);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    println!("port {}", server.address.port());
    let parent_is_there = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            parent_is_there.store(false, Ordering::Relaxed);
        });
        let mut n = 0;
        while parent_is_there.load(Ordering::Relaxed) {
            if server.hub.stats().connections > 0 {
                server.publish("a", n.to_string());
                n += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
