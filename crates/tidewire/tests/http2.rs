//! Many streams on one HTTP/2 connection over TLS, and connections that are opened and left.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::server::{Carrier, Server, options, settings};
use support::{WAIT_MAX, tls, wait_until};
use tidewire::core::decode::Decoder;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Ends = (
    SendRequest<Empty<Bytes>>,
    Connection<TokioIo<TlsStream<TcpStream>>, Empty<Bytes>, TokioExecutor>,
);

/// What a stream may have under way, in bytes: less than what is published to it.
const WINDOW_BYTES: u32 = 64 * 1024;

async fn connect(server: &Server) -> Ends {
    connect_with_window(server, WINDOW_BYTES).await
}

async fn connect_with_window(server: &Server, window_bytes: u32) -> Ends {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = "hub".try_into().unwrap();
    let connector = TlsConnector::from(tls::client(b"h2"));
    let stream = connector.connect(name, stream).await.unwrap();
    hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(64 * WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap()
}

async fn subscribe(sender: &mut SendRequest<Empty<Bytes>>) -> Incoming {
    let request = http::Request::get("https://hub/events?topic=a");
    let request = request.body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Reads the data of so many events.
async fn read(body: &mut Incoming, count: usize) -> Vec<String> {
    let mut decoder = Decoder::new(1024 * 1024);
    let mut events = Vec::new();
    while events.len() < count {
        let frame = tokio::time::timeout(WAIT_MAX, body.frame()).await;
        let frame = frame.expect("more comes in time").unwrap().unwrap();
        decoder.push(frame.data_ref().unwrap());
        while let Some(event) = decoder.next_event().unwrap() {
            events.push(event.data);
        }
    }
    events
}

#[test]
fn a_stream_that_nobody_reads_does_not_hold_the_others() {
    const EVENTS: usize = 400;
    let server = Server::start(Carrier::TlsHttp2, settings(16 * 1024 * 1024));
    let data = |n: usize| format!("{n} {}", "x".repeat(1_000));
    server.runtime.block_on(async {
        let (mut sender, connection) = connect(&server).await;
        tokio::spawn(connection);
        let unread = subscribe(&mut sender).await;
        let mut others = Vec::new();
        for _ in 1..50 {
            others.push(subscribe(&mut sender).await);
        }
        let publishing = server.hub.clone();
        tokio::spawn(async move {
            for n in 0..EVENTS {
                let event = tidewire::Event::text(data(n));
                publishing.publish("a", event).await.unwrap();
            }
        });
        for body in &mut others {
            let events = read(body, EVENTS).await;
            assert!(events.into_iter().eq((0..EVENTS).map(data)));
        }
        assert_eq!(server.hub.stats().connections, 50);
        drop(unread);
    });
}

#[test]
fn a_connection_is_ended_when_it_is_idle_and_not_while_it_has_a_stream() {
    let limits = tidewire::ServeOptions {
        head_timeout: Duration::from_millis(200),
        ..options()
    };
    let server = Server::start_limited(Carrier::TlsHttp2, settings(1024 * 1024), limits);
    server.runtime.block_on(async {
        let (mut sender, in_use) = connect(&server).await;
        tokio::spawn(in_use);
        let mut stream = subscribe(&mut sender).await;
        let (idle_sender, idle) = connect(&server).await;
        let end = tokio::time::timeout(WAIT_MAX, idle).await;
        assert!(end.is_ok(), "an idle connection is ended in time");
        drop(idle_sender);
        let event = tidewire::Event::text("still here");
        server.hub.publish("a", event).await.unwrap();
        assert_eq!(read(&mut stream, 1).await, ["still here"]);
        let (mut sender, after) = connect(&server).await;
        let after = tokio::spawn(after);
        drop((stream, subscribe(&mut sender).await));
        let end = tokio::time::timeout(WAIT_MAX, after).await;
        assert!(end.is_ok(), "a connection without streams is ended in time");
    });
    wait_until("no stream is left", || server.hub.stats().connections == 0);
}

/// Asks for what is larger than any buffer, and answers the connection's end.
async fn ask(
    server: &Server,
    window_bytes: u32,
) -> (
    Incoming,
    SendRequest<Empty<Bytes>>,
    tokio::task::JoinHandle<()>,
) {
    let (mut sender, connection) = connect_with_window(server, window_bytes).await;
    let end = tokio::spawn(async move { drop(connection.await) });
    let request = http::Request::get("https://hub/large").body(Empty::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    (answer.into_body(), sender, end)
}

#[test]
fn a_connection_that_takes_no_answers_is_ended_and_one_that_waits_for_ours_is_not() {
    let limits = tidewire::ServeOptions {
        head_timeout: WAIT_MAX,
        peer_timeout: Duration::from_millis(300),
        ..options()
    };
    let server = Server::start_as(Carrier::TlsHttp2, settings(1024 * 1024), limits, |router| {
        router.route(
            "/large",
            axum::routing::get(async || vec![b'x'; 1024 * 1024]),
        )
    });
    server.runtime.block_on(async {
        let (mut sender, connection) = connect(&server).await;
        let quiet = tokio::spawn(connection);
        let mut stream = subscribe(&mut sender).await;

        // Neither gives room for even one byte, nor for all of it.
        for window_bytes in [0, WINDOW_BYTES] {
            let (_unread, _sender, end) = ask(&server, window_bytes).await;
            let end = tokio::time::timeout(WAIT_MAX, end).await;
            assert!(end.is_ok(), "a window of {window_bytes} bytes ends in time");
        }
        // In all that time nothing came for this one, and nothing had to.
        assert!(!quiet.is_finished());
        let event = tidewire::Event::text("still here");
        server.hub.publish("a", event).await.unwrap();
        assert_eq!(read(&mut stream, 1).await, ["still here"]);
    });
}
