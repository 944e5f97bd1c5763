//! Servers: each way in which a stream can be carried.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use http::{HeaderValue, header};
use socket2::SockRef;
use tidewire::core::log::Retention;
use tidewire::core::subscription::CloseReason;
use tidewire::{Broadcaster, Event, EventId, Hub, HubBuilder, ServeOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{WAIT_MAX, tls, wait_until};

/// How a stream gets to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// HTTP/1.1 on the hub's own server: by a reactor.
    Direct,
    /// HTTP/1.0 on the hub's own server: as a body that ends with the connection.
    Http10,
    /// HTTP/1.1 on the hub's own server behind middleware that changes the response: as a body.
    Changed,
    /// HTTP/2 on the hub's own server.
    Http2,
    /// HTTP/1.1 over TLS on the hub's own server.
    TlsHttp1,
    /// HTTP/2 over TLS on the hub's own server.
    TlsHttp2,
    /// HTTP/1.1 on `axum::serve`.
    Axum,
}

impl Carrier {
    /// Whether the hub's own server has the connection to itself, and can cut it off.
    pub fn can_cut_off(self) -> bool {
        matches!(
            self,
            Self::Direct | Self::Http10 | Self::Changed | Self::TlsHttp1
        )
    }

    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::TlsHttp2)
    }
}

/// The kernel's buffer for what is sent to one client, in bytes; it doubles it.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// A hub behind a server, which ends with it.
pub struct Server {
    pub hub: Hub,
    pub carrier: Carrier,
    pub address: SocketAddr,
    pub runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server for a hub with these settings; streams are at `/events`, and the stream `a` of the broadcaster `door` at
    /// `/door`.
    pub fn start(carrier: Carrier, settings: HubBuilder) -> Self {
        Self::start_with(carrier, settings, |router| router)
    }

    /// As [`start`](Self::start), with more on the router.
    pub fn start_with(
        carrier: Carrier,
        settings: HubBuilder,
        more: impl FnOnce(Router) -> Router,
    ) -> Self {
        Self::start_as(carrier, settings, options(), more)
    }

    /// As [`start`](Self::start), with other limits.
    pub fn start_limited(carrier: Carrier, settings: HubBuilder, options: ServeOptions) -> Self {
        Self::start_as(carrier, settings, options, |router| router)
    }

    /// As [`start_with`](Self::start_with), with other limits.
    pub fn start_as(
        carrier: Carrier,
        settings: HubBuilder,
        options: ServeOptions,
        more: impl FnOnce(Router) -> Router,
    ) -> Self {
        let hub = settings.build();
        let door = Broadcaster::new(&hub, "door").unwrap();
        let mut router = Router::new()
            .route("/events", get(hub.subscribe()))
            .route("/door", get(door.route("a").unwrap()))
            .route("/hello", get(async || "hello"));
        if carrier == Carrier::Changed {
            router = router.layer(axum::middleware::map_response(change));
        }
        let router = more(router);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let inside = runtime.enter();
        let listener = tidewire::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let served = if carrier == Carrier::Axum {
            let listener = listener.tap_io(|stream| {
                SockRef::from(&*stream)
                    .set_send_buffer_size(SEND_BUFFER_BYTES)
                    .unwrap();
            });
            let serve = axum::serve(listener, router).with_graceful_shutdown(stopped);
            runtime.spawn(async { serve.await.unwrap() })
        } else {
            let mut serve = tidewire::serve(listener, router);
            if matches!(carrier, Carrier::TlsHttp1 | Carrier::TlsHttp2) {
                serve = serve.with_tls(&tls::server());
            }
            let serve = serve.with_options(options).with_graceful_shutdown(stopped);
            runtime.spawn(async { serve.into_future().await.unwrap() })
        };
        drop(inside);
        Self {
            hub,
            carrier,
            address,
            runtime,
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// Publishes an event named `tick`.
    pub fn publish(&self, topic: &str, data: impl Into<String>) -> EventId {
        let event = Event::text(data).named("tick");
        self.runtime
            .block_on(self.hub.publish(topic, event))
            .unwrap()
    }

    /// How many connections ended for a reason.
    pub fn closes(&self, reason: CloseReason) -> u64 {
        let closes = self.hub.stats().totals.closes;
        let found = closes.into_iter().find(|(r, _)| *r == reason);
        found.map_or(0, |(_, n)| n)
    }

    /// Waits until no connection is left, and sees to it that as many ended for each reason as given.
    pub fn assert_closed(&self, expected: &[(CloseReason, u64)]) {
        wait_until("no connection is left", || {
            self.hub.stats().connections == 0
        });
        let expected_of = |reason| {
            let found = expected.iter().find(|(r, _)| *r == reason);
            found.map_or(0, |&(_, n)| n)
        };
        for (reason, n) in self.hub.stats().totals.closes {
            assert_eq!(n, expected_of(reason), "closes as {}", reason.as_str());
        }
    }

    /// Tells the server to drain and end.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for the server's end.
    pub fn wait(&mut self) {
        if let Some(served) = self.served.take() {
            self.runtime.block_on(async {
                tokio::time::timeout(WAIT_MAX, served)
                    .await
                    .expect("the server ends in time")
                    .unwrap();
            });
        }
    }
}

/// Limits that let tests be quick.
pub fn options() -> ServeOptions {
    ServeOptions {
        send_buffer_bytes: SEND_BUFFER_BYTES,
        drain_grace: Duration::from_millis(1),
        drain_time: Duration::from_millis(50),
        ..ServeOptions::default()
    }
}

/// What a response with another coding looks like; this one is the coding that changes nothing.
async fn change(mut response: Response) -> Response {
    let identity = HeaderValue::from_static("identity");
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, identity);
    response
}

/// Settings with a history of so many bytes, and a heartbeat that does not come in between.
pub fn settings(memory_bytes: usize) -> HubBuilder {
    Hub::builder()
        .history(Retention {
            memory_bytes,
            ..Retention::default()
        })
        .heartbeat(Duration::from_mins(1))
}
