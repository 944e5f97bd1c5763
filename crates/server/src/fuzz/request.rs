//! Whole requests, as they come out of hyper: queries, ids, credentials, documents and streams of lines behind the real
//! router.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;
use tidewire::cluster::ClusterOptions;
use tidewire::core::decode::Decoder;
use tidewire::core::log::Retention;
use tidewire::{Cluster, Hub};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::token::SECRET;
use crate::config::Config;
use crate::guard::Access;
use crate::routes;

const HISTORY_BYTES: usize = 256 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Far longer than any answer takes that is one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Everyone may read all and publish to some; tokens may come by every way.
pub(super) fn config() -> Config {
    let text = format!(
        "auth = {{ anonymous = {{ subscribe = ['**'], publish = ['a*'] }}, cookie = 'token', query_token = true, \
         issuers = [{{ secret = '{SECRET}' }}] }}\ncors = {{ origins = ['https://app.example'] }}\n\
         services = {{ metrics = false, events = false, broadcast_demo = false }}\n"
    );
    let mut config: Config = toml::from_str(&text).expect("the settings are good");
    config.limits.body_bytes_max = BODY_BYTES_MAX;
    config.limits.batch_events_max = 8;
    config
}

struct Door {
    runtime: Runtime,
    hub: Hub,
    router: Router,
}

impl Door {
    fn new() -> Self {
        let config = config();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let inside = runtime.enter();
        let retention = Retention {
            memory_bytes: HISTORY_BYTES,
            ..Retention::default()
        };
        let hub = Hub::builder().history(retention).build();
        let cluster = Cluster::alone(&hub, &ClusterOptions::new("node")).expect("a new hub");
        let access = Access::new(&config).expect("the settings are good");
        let router = routes::router(&hub, &cluster, None, &config, access);
        drop(inside);
        Self {
            runtime,
            hub,
            router,
        }
    }
}

thread_local! {
    static DOOR: Door = Door::new();
}

/// A request as lines: method and target, then headers up to an empty line, then the body, which comes in pieces that
/// NUL bytes part. No answer is an error of the hub's, and all can be read.
pub fn requests(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    if let Ok(head) = std::str::from_utf8(head) {
        send(head, body);
    }
}

/// A request without a body.
pub(super) fn ask(head: &str) {
    send(head, &[]);
}

fn send(head: &str, body: &[u8]) {
    let Some(request) = request(head, body) else {
        return;
    };
    DOOR.with(|door| {
        door.runtime.block_on(async {
            let answering = async {
                let Ok(response) = door.router.clone().oneshot(request).await;
                assert_good(response).await;
            };
            let answered = tokio::time::timeout(ANSWER_TIMEOUT, answering).await;
            assert!(answered.is_ok(), "the answer comes in time");
        });
        let (topics, _) = door.hub.topics(0, 1_000);
        for topic in topics.iter().filter(|topic| topic.events > 0) {
            assert!(
                topic.topic.starts_with('a'),
                "`{}` takes nobody's events",
                topic.topic
            );
        }
    });
}

/// What hyper would take for a request.
fn request(head: &str, body: &[u8]) -> Option<Request<Body>> {
    let mut lines = head.split('\n');
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        let value = HeaderValue::from_str(value.trim_ascii()).ok()?;
        request = request.header(name, value);
    }
    let pieces = body.split(|byte| *byte == 0);
    let pieces = Pieces(pieces.map(Bytes::copy_from_slice).collect());
    request.body(Body::new(pieces)).ok()
}

async fn assert_good(response: Response) {
    let status = response.status();
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut body = response.into_body();
    if kind.starts_with("text/event-stream") {
        // The greeting. What comes behind it may take its time.
        let Some(Ok(frame)) = body.frame().await else {
            return;
        };
        let mut decoder = Decoder::new(BODY_BYTES_MAX);
        decoder.push(frame.data_ref().map_or(&[][..], |data| data));
        while decoder
            .next_event()
            .expect("a stream can be read")
            .is_some()
        {}
    } else {
        let body = body.collect().await.expect("a body is whole").to_bytes();
        if kind.contains("json") {
            let value: Value = serde_json::from_slice(&body).expect("what is said to be JSON is");
            // In the form of the door.
            let has_code = ["code", "error"].iter().any(|name| value[name].is_string());
            assert!(status.is_success() || has_code, "{value}");
        }
    }
}

/// A body that comes in these pieces.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
