//! How a stream's socket leaves hyper, as seen from the other end: at any moment, behind any request, or not at all.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::io::Read;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use support::client::{Client, End, Http1, connect};
use support::server::{Carrier, Server, settings};
use support::wait_until;
use tidewire::core::subscription::CloseReason;
use tidewire::{Event, Hub};

const HISTORY_BYTES: usize = 16 * 1024 * 1024;
const STREAM: &str = "GET /events?topic=a HTTP/1.1\r\nhost: hub\r\n\r\n";
const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: hub\r\n\r\n";

fn start() -> Server {
    Server::start(Carrier::Direct, settings(HISTORY_BYTES))
}

fn connection(server: &Server) -> Http1 {
    Http1::new(connect(server.address))
}

/// Goes through a stream's life. Answers its connection if that can be used again, which it can where the stream
/// stayed in hyper; a reactor ends it.
fn live_and_let_end(server: &Server, mut client: Client) -> Option<Http1> {
    client.read_until("retry: ");
    server.publish("a", "live");
    assert_eq!(client.tick(), "live");
    let id = client.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.close(id));
    let (events, end) = client.finish();
    assert_eq!((events.len(), end), (1, End::Clean));
    let mut http1 = client.into_http1();
    http1.send(HELLO);
    http1.fill().then_some(http1)
}

#[test]
fn a_stream_may_follow_other_requests_on_its_connection() {
    let server = start();
    let mut http1 = connection(&server);
    for _ in 0..3 {
        http1.send(HELLO);
        assert_eq!(http1.read_answer(), (200, "hello".into()));
    }
    http1.send("GET /nowhere HTTP/1.1\r\nhost: hub\r\n\r\n");
    assert_eq!(http1.read_answer().0, 404);
    http1.send("GET /events?topic=a%00 HTTP/1.1\r\nhost: hub\r\n\r\n");
    assert_eq!(http1.read_answer().0, 422);
    http1.send(STREAM);
    assert!(live_and_let_end(&server, Client::over_http1(http1)).is_none());
    server.assert_closed(&[(CloseReason::Closed, 1)]);
}

#[test]
fn requests_in_one_packet_are_answered_up_to_the_stream() {
    let server = start();
    let mut http1 = connection(&server);
    http1.send(&format!("{HELLO}{HELLO}{STREAM}"));
    for _ in 0..2 {
        assert_eq!(http1.read_answer(), (200, "hello".into()));
    }
    assert!(live_and_let_end(&server, Client::over_http1(http1)).is_none());
}

#[test]
fn bytes_behind_the_request_of_a_stream_do_no_harm() {
    let server = start();
    let mut http1 = connection(&server);
    http1.send(&format!("{STREAM}{HELLO}"));
    let mut client = Client::over_http1(http1);
    client.read_until("retry: ");
    let mut http1 = client.into_http1();
    http1.send(HELLO);
    server.publish("a", "live");
    while !String::from_utf8_lossy(&http1.ahead).contains("data: live") {
        assert!(http1.fill());
    }
    // More than anybody sends by mistake.
    let flood = " ".repeat(1024 * 1024);
    let _ = std::io::Write::write_all(&mut http1.stream, flood.as_bytes());
    server.assert_closed(&[(CloseReason::ClientGone, 1)]);
}

#[test]
fn the_head_alone_opens_no_stream_and_keeps_the_connection() {
    let server = start();
    let mut http1 = connection(&server);
    http1.send(&STREAM.replace("GET", "HEAD"));
    let (status, headers) = http1.read_head();
    assert_eq!(
        (status, &headers["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(server.hub.stats().connections, 0);
    http1.send(HELLO);
    assert_eq!(http1.read_answer(), (200, "hello".into()));
    http1.send(STREAM);
    assert!(live_and_let_end(&server, Client::over_http1(http1)).is_none());
}

#[test]
fn a_request_that_asks_for_the_end_gets_its_stream_first() {
    let server = start();
    let mut http1 = connection(&server);
    http1.send(&STREAM.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"));
    let client = Client::over_http1(http1);
    assert_eq!(client.header("connection"), "close");
    assert!(live_and_let_end(&server, client).is_none());
}

#[test]
fn a_response_that_was_changed_stays_in_hyper_and_so_does_its_connection() {
    let server = Server::start(Carrier::Changed, settings(HISTORY_BYTES));
    let mut http1 = connection(&server);
    for _ in 0..3 {
        http1.send(STREAM);
        let again = live_and_let_end(&server, Client::over_http1(http1));
        http1 = again.expect("the connection goes on");
        assert_eq!(http1.read_answer(), (200, "hello".into()));
    }
    server.assert_closed(&[(CloseReason::Closed, 3)]);
}

/// Such a body's offer was never seen by anybody, and its stream stood still for ever.
#[test]
fn a_body_that_a_task_of_its_own_reads_stays_in_hyper() {
    let server = Server::start_with(Carrier::Direct, settings(HISTORY_BYTES), |router| {
        router.layer(axum::middleware::map_response(pump))
    });
    for _ in 0..3 {
        let mut http1 = connection(&server);
        http1.send(STREAM);
        assert!(live_and_let_end(&server, Client::over_http1(http1)).is_some());
    }
    server.assert_closed(&[(CloseReason::Closed, 3)]);
}

/// Middleware that looks at the first frame, and moves the others through a channel when that was sent.
async fn pump(response: Response) -> Response {
    let (parts, mut body) = response.into_parts();
    let (frames, mut received) = tokio::sync::mpsc::channel(1);
    let first = body.frame().await.unwrap().unwrap();
    frames.send(Ok(first)).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        while let Some(Ok(frame)) = body.frame().await {
            if frames.send(Ok::<_, Infallible>(frame)).await.is_err() {
                return;
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |cx| received.poll_recv(cx));
    Response::from_parts(parts, Body::new(StreamBody::new(frames)))
}

/// Middleware whose first bytes come late, when the head is gone already.
#[test]
fn a_body_that_begins_late_is_carried_all_the_same() {
    let server = Server::start_with(Carrier::Direct, settings(HISTORY_BYTES), |router| {
        router.layer(axum::middleware::map_response(
            async |response: Response| {
                let (parts, body) = response.into_parts();
                let late = futures_util::stream::once(async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, axum::Error>(Bytes::from_static(b":\n"))
                });
                let body = futures_util::StreamExt::chain(late, body.into_data_stream());
                Response::from_parts(parts, Body::from_stream(body))
            },
        ))
    });
    let mut http1 = connection(&server);
    http1.send(STREAM);
    live_and_let_end(&server, Client::over_http1(http1));
}

#[test]
fn two_hubs_share_a_server_and_do_not_mix() {
    let other = Hub::builder().build();
    let route = get(other.subscribe());
    let server = Server::start_with(
        Carrier::Direct,
        settings(HISTORY_BYTES),
        |router: Router| router.route("/other", route),
    );
    let mut one = Client::open(&server, "topic=a");
    let mut http1 = connection(&server);
    http1.send(&STREAM.replace("/events", "/other"));
    let mut two = Client::over_http1(http1);
    for n in 0..50 {
        server.publish("a", n.to_string());
        let event = Event::text(format!("other {n}")).named("tick");
        server.runtime.block_on(other.publish("a", event)).unwrap();
    }
    for n in 0..50 {
        assert_eq!(one.tick(), n.to_string());
        assert_eq!(two.tick(), format!("other {n}"));
    }
}

/// A client hangs up when it has sent so much of its request, or got so many bytes of the answer.
#[test]
fn a_client_may_hang_up_at_any_moment() {
    let server = start();
    for sent in (0..=STREAM.len()).step_by(3) {
        connection(&server).send(&STREAM[..sent]);
    }
    for got in (1..400).step_by(7) {
        let mut http1 = connection(&server);
        http1.send(STREAM);
        let mut bytes = vec![0; got];
        let (head, events) = bytes.split_at_mut(got.min(200));
        http1.stream.read_exact(head).unwrap();
        server.publish("a", "x".repeat(300));
        http1.stream.read_exact(events).unwrap();
    }
    for _ in 0..50 {
        let mut http1 = connection(&server);
        http1.send(STREAM);
        http1.half_close();
        while http1.fill() {}
    }
    wait_until("all are gone", || server.hub.stats().connections == 0);
    let totals = server.hub.stats().totals;
    for (reason, n) in totals.closes {
        assert_eq!(
            n > 0,
            reason == CloseReason::ClientGone,
            "{}",
            reason.as_str()
        );
    }
    assert!(live_and_let_end(&server, Client::open(&server, "topic=a")).is_none());
}

#[test]
fn a_client_may_hang_up_while_it_is_sent_more_than_it_takes() {
    let server = start();
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = Client::open(&server, "topic=a");
            client.read_until("retry: ");
            client
        })
        .collect();
    for _ in 0..10 {
        server.publish("a", "x".repeat(500_000));
    }
    for mut client in clients {
        client.read_until("xxx");
    }
    server.assert_closed(&[(CloseReason::ClientGone, 10)]);
}

/// Patterns may name the topics of single connections; their readers used to be told with the next event only.
#[test]
fn a_pattern_of_connections_sees_what_is_sent_to_one() {
    let server = start();
    let mut all = Client::open(&server, "topic=connection:*");
    all.read_until("retry: ");
    let one = Client::open(&server, "topic=a");
    let id = one.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.send_to(id, Event::text("to one")).unwrap());
    assert_eq!(all.event().data, "to one");
}

/// Middleware whose body is asked for its second frame in hyper's second look at it, when everything was flushed, and
/// which nothing wakes before.
async fn hesitate(response: Response) -> Response {
    let (parts, mut body) = response.into_parts();
    let mut polls = 0;
    let frames = futures_util::stream::poll_fn(move |cx| {
        polls += 1;
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        let cx = if polls == 1 { &mut nobody } else { cx };
        match polls {
            2 => return std::task::Poll::Pending,
            // Long enough for the stream to end, where it has a short life.
            3 => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
    });
    Response::from_parts(parts, Body::new(StreamBody::new(frames)))
}

fn hesitant(carrier: Carrier, longest_life: Duration) -> Server {
    let settings = settings(HISTORY_BYTES).max_lifetime(longest_life);
    Server::start_with(carrier, settings, |router| {
        router.layer(axum::middleware::map_response(hesitate))
    })
}

/// Without a last chunk to write, hyper did not see that the body had ended, and kept the connection for ever.
#[test]
fn a_body_that_ends_unseen_ends_its_connection() {
    for carrier in [Carrier::Http10, Carrier::Direct, Carrier::Axum] {
        let server = hesitant(carrier, Duration::from_millis(50));
        let (events, end) = Client::open(&server, "topic=a").finish();
        assert_eq!((events.len(), end), (0, End::Clean));
        server.assert_closed(&[(CloseReason::Lifetime, 1)]);
    }
}

/// hyper had flushed before the offer, and did not again: nobody took the stream.
#[test]
fn an_offer_after_the_flush_is_taken() {
    let server = hesitant(Carrier::Direct, Duration::from_mins(1));
    let client = Client::open(&server, "topic=a");
    assert!(live_and_let_end(&server, client).is_none());
}
