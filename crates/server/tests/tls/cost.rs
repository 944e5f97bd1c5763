//! What a delivery costs the hub, by the way in which streams are carried. `make tls-cost` prints it for a release build; in the
//! tests it is short, and holds that every event arrives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Files;
use super::abuse::connect;
use super::floods::{preface_with_windows, read_frame, subscribe};
use crate::support::{Hub, http, process};

/// Streams in all; over HTTP/2 so many share a connection.
const STREAMS: usize = 200;
const STREAMS_OF_A_CONNECTION: usize = 50;
const DATA_BYTES: usize = 100;
/// Apart enough that each event is written by itself.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Carrier {
    /// Plain HTTP/1.1: a reactor's.
    Direct,
    /// Plain HTTP/1.0: hyper's.
    Body,
    TlsHttp1,
    TlsHttp2,
}

/// How many events end in these bytes, of which some were there before.
fn count(bytes: &[u8], wanted: &mut usize) {
    let ends = memchr::memchr_iter(b'!', bytes).count();
    *wanted = wanted.saturating_sub(ends);
}

/// Reads until so many events have come.
fn read_all(mut stream: impl Read, events: usize) {
    let mut wanted = events;
    let mut buffer = [0; 16 * 1024];
    while wanted > 0 {
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "{wanted} of {events} events are missing");
        count(&buffer[..read], &mut wanted);
    }
}

/// A thread that has subscribed once and waits for all events of its streams.
fn reader(carrier: Carrier, files: &Files, hub: &Hub, events: usize) -> thread::JoinHandle<()> {
    let version = if carrier == Carrier::Body {
        "1.0"
    } else {
        "1.1"
    };
    let request = format!("GET /events?topic=a HTTP/{version}\r\nHost: localhost\r\n\r\n");
    let stack = |run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(run)
            .unwrap()
    };
    match carrier {
        Carrier::Direct | Carrier::Body => {
            let mut stream: TcpStream = http::connect(hub.port()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stack(Box::new(move || read_all(stream, events)))
        }
        Carrier::TlsHttp1 => {
            let mut stream = connect(files, hub, b"http/1.1");
            stream.write_all(request.as_bytes()).unwrap();
            stack(Box::new(move || read_all(stream, events)))
        }
        Carrier::TlsHttp2 => {
            let mut stream = connect(files, hub, b"h2");
            let mut bytes = preface_with_windows();
            for n in 0..STREAMS_OF_A_CONNECTION {
                bytes.extend(subscribe(u32::try_from(2 * n + 1).unwrap()));
            }
            stream.write_all(&bytes).unwrap();
            stack(Box::new(move || {
                let mut wanted = events * STREAMS_OF_A_CONNECTION;
                while wanted > 0 {
                    let (kind, payload) = read_frame(&mut stream);
                    if kind == 0 {
                        count(&payload, &mut wanted);
                    }
                }
            }))
        }
    }
}

/// Publishes on one connection, one after the other.
fn publish(mut stream: impl Read + Write, events: usize) {
    let data = format!("{}!", "x".repeat(DATA_BYTES - 1));
    let request = format!(
        "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {DATA_BYTES}\r\n\r\n{data}"
    );
    let mut answer = [0; 4 * 1024];
    for _ in 0..events {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        let read = stream.read(&mut answer).unwrap();
        assert!(
            answer[..read].starts_with(b"HTTP/1.1 200"),
            "{}",
            answer[..read].escape_ascii()
        );
        thread::sleep(PAUSE.saturating_sub(began.elapsed()));
    }
}

/// One round; prints what it cost.
fn measure(carrier: Carrier, events: usize) {
    let files = Files::new();
    let is_tls = matches!(carrier, Carrier::TlsHttp1 | Carrier::TlsHttp2);
    let hub = if is_tls {
        files.hub(&[])
    } else {
        Hub::spawn(&[], &[])
    };
    let connections = if carrier == Carrier::TlsHttp2 {
        STREAMS / STREAMS_OF_A_CONNECTION
    } else {
        STREAMS
    };
    let idle = process::memory_bytes(hub.pid());
    let readers: Vec<_> = (0..connections)
        .map(|_| reader(carrier, &files, &hub, events))
        .collect();
    let is_open = |stats: &str| stats.contains(&format!("\"connections\":{STREAMS}"));
    crate::support::until("all have subscribed", || {
        let path = "/api/v1/stats";
        is_open(&if is_tls {
            files.get(&hub, path, &["-f"])
        } else {
            hub.get(path).body
        })
    });
    let open = process::memory_bytes(hub.pid());
    let before = process::cpu_time(hub.pid());
    if is_tls {
        publish(connect(&files, &hub, b"http/1.1"), events);
    } else {
        publish(http::connect(hub.port()).unwrap(), events);
    }
    for reader in readers {
        reader.join().unwrap();
    }
    let cpu = process::cpu_time(hub.pid()).saturating_sub(before);
    let deliveries = u32::try_from(events * STREAMS).unwrap();
    println!(
        "{carrier:?}: {:?} of processor time a delivery ({} ms for {deliveries}), {} bytes a stream",
        cpu / deliveries,
        cpu.as_millis(),
        open.saturating_sub(idle) / STREAMS as u64,
    );
}

#[test]
fn every_carrier_delivers_all_and_what_it_costs_is_printed() {
    let scale = std::env::var("TIDEWIRE_TEST_SCALE").map_or(1, |n| n.parse().unwrap());
    for _ in 0..scale.min(3) {
        for carrier in [
            Carrier::Direct,
            Carrier::Body,
            Carrier::TlsHttp1,
            Carrier::TlsHttp2,
        ] {
            measure(carrier, 20 * scale);
        }
    }
}
