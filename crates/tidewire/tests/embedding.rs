//! The hub in an application of someone else's: their users, their server, their figures.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tidewire::core::log::Retention;
use tidewire::core::subscription::CloseReason;
use tidewire::{Event, Hub, Pattern, Rights, UserId};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

const WAIT_MAX: Duration = Duration::from_secs(20);

/// Asks the handler as the application's middleware would: with its extensions.
fn ask(hub: &Hub, query: &str, user: Option<&str>, readable: Option<&[&str]>) -> Response {
    let mut request = Request::get(format!("/events?{query}")).body(()).unwrap();
    if let Some(user) = user {
        request.extensions_mut().insert(UserId(user.to_owned()));
    }
    if let Some(readable) = readable {
        let subscribe = readable.iter().map(|p| Pattern::new(p).unwrap()).collect();
        let rights = Rights {
            subscribe,
            ..Rights::default()
        };
        request.extensions_mut().insert(Arc::new(rights));
    }
    hub.subscribe().answer(&request)
}

/// Reads a body until it has this text, or to its end.
async fn read_until<B>(body: &mut B, wanted: &str) -> String
where
    B: http_body::Body<Data = bytes::Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let read = async {
        let mut text = String::new();
        while !text.contains(wanted)
            && let Some(frame) = body.frame().await
        {
            text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
        text
    };
    tokio::time::timeout(WAIT_MAX, read).await.expect(wanted)
}

#[tokio::test]
async fn a_user_gets_what_is_theirs_whatever_they_ask_for() {
    let hub = Hub::builder().build();
    for query in ["", "topic=orders", "topics=user:42,orders", "topic=user:42"] {
        let response = ask(&hub, query, Some("42"), None);
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        assert_eq!(hub.subscribers("user:42"), 1, "{query}");
        let event = Event::json("told", &[1]).unwrap();
        hub.publish_to_user("42", event).await.unwrap();
        hub.publish_to_user("43", Event::text("secret"))
            .await
            .unwrap();
        hub.publish_to_user("42", Event::text("last"))
            .await
            .unwrap();
        let text = read_until(&mut response.into_body(), "last").await;
        assert!(
            text.contains("event: told\ndata: [1]\n") && !text.contains("secret"),
            "{query}: {text}"
        );
    }
    // Their own topic alone is no wish for every public one.
    let response = ask(&hub, "topic=user:42", Some("42"), None);
    hub.publish("orders", Event::text("an order"))
        .await
        .unwrap();
    hub.publish_to_user("42", Event::text("last"))
        .await
        .unwrap();
    let text = read_until(&mut response.into_body(), "last").await;
    assert!(!text.contains("an order"), "{text}");
}

#[test]
fn a_user_without_rights_reads_nothing_of_others() {
    let hub = Hub::builder().build();
    let of_others = [
        "topic=user:43",
        "topics=orders,user:43",
        "topic=user:42&topic=user:43",
        "topic=user:%2A",
        "topic=user:42**",
        "topic=user:42:*",
        "topic=notification:42",
        "topic=connection:0",
        "topic=presence:room",
    ];
    for query in of_others {
        let status = ask(&hub, query, Some("42"), None).status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{query}");
    }
    for query in [
        "topic=orders",
        "topic=order:*",
        "topic=**",
        "topic=users:43",
    ] {
        let status = ask(&hub, query, Some("42"), None).status();
        assert_eq!(status, StatusCode::OK, "{query}");
    }
    assert_eq!(hub.subscribers("user:43"), 0);
}

#[test]
fn rights_say_more_and_less() {
    let hub = Hub::builder().build();
    let status = |query, user, readable: &[&str]| ask(&hub, query, user, Some(readable)).status();
    assert_eq!(status("topic=user:43", Some("42"), &["user:43"]), 200);
    assert_eq!(status("topic=user:42", Some("42"), &["news"]), 200);
    assert_eq!(status("topic=orders", Some("42"), &["news"]), 403);
    assert_eq!(status("topic=user:43", Some("42"), &["**"]), 403);
    assert_eq!(status("topic=user:43", None, &["**"]), 403);
    assert_eq!(status("", Some("42"), &[]), 200);
    assert_eq!(status("", None, &[]), 403);
}

/// Neither axum nor this crate's server: hyper, and the handler as the tower service that it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_plain_hyper_behind_a_tower_layer() {
    let hub = Hub::builder().build();
    let service = hub.subscribe().map_request(|mut request: Request<_>| {
        request.extensions_mut().insert(UserId("42".to_owned()));
        request
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
            .await
    });

    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let client = tokio::spawn(connection);
    let request = Request::get("/?topics=orders")
        .header("host", "app")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();

    hub.publish("orders", Event::text("tea")).await.unwrap();
    assert!(read_until(&mut body, "tea").await.contains("data: tea\n"));
    hub.publish_to_user("42", Event::text("yours"))
        .await
        .unwrap();
    read_until(&mut body, "yours").await;

    // The application ends: its streams do, and so does its server.
    hub.close_all(Duration::ZERO).await;
    let last = read_until(&mut body, "never").await;
    assert!(last.starts_with("retry: "), "{last}");
    drop(sender);
    let ended = async { (client.await.unwrap(), served.await.unwrap()) };
    let (client, served) = tokio::time::timeout(WAIT_MAX, ended).await.unwrap();
    assert!(client.is_ok() && served.is_ok(), "{client:?} {served:?}");
}

/// What a router of towers wants of its services.
#[test]
fn the_handler_is_a_service_for_any_body() {
    fn is_service<B>(
        _: &(impl tower::Service<Request<B>, Response = Response, Error = Infallible> + Clone + Send),
    ) {
    }
    let handler = Hub::builder().build().subscribe();
    is_service::<Body>(&handler);
    is_service::<hyper::body::Incoming>(&handler);
    is_service::<()>(&handler);
}

#[tokio::test]
async fn figures_count_clients_topics_and_drops() {
    let retention = Retention {
        memory_bytes: 64 * 1024,
        ..Retention::default()
    };
    let hub = Hub::builder().history(retention).build();
    let figures = || {
        let stats = hub.stats();
        (stats.connections, stats.topics(), stats.drops())
    };
    assert_eq!(figures(), (0, 0, 0));
    let slow = ask(&hub, "topic=orders", None, None);
    let other = ask(&hub, "topic=news", None, None);
    assert_eq!(figures(), (2, 2, 0));

    let first = hub.publish("orders", Event::text("first")).await.unwrap();
    for _ in 0..40 {
        let event = Event::text("x".repeat(10_000));
        hub.publish("orders", event).await.unwrap();
    }
    // It reads on only now: what came first is gone, and so is the client, by the default policy.
    read_until(&mut slow.into_body(), "never").await;
    assert_eq!(hub.stats().totals.closes_by(CloseReason::Lagged), 1);
    assert_eq!(figures(), (1, 2, 1));

    let request = Request::get("/events?topic=orders").header("last-event-id", first.to_string());
    let back = hub.subscribe().answer(&request.body(()).unwrap());
    let text = read_until(&mut back.into_body(), "event: gap").await;
    assert!(text.contains("event: gap"), "{text}");
    assert_eq!(figures().2, 2);
    drop(other);
}
