//! What orchestrators and Prometheus ask.

use std::sync::LazyLock;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use serde_json::{Value, json};
use tidewire::problem::{Code, Problem};

use super::Door;
use crate::metrics;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Lets the up-time begin.
pub(crate) fn start_clock() {
    LazyLock::force(&STARTED);
}

/// Seconds since the start.
pub(super) fn uptime_s() -> u64 {
    STARTED.elapsed().as_secs()
}

/// Answers `GET /healthz`: the process is alive.
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Answers `GET /readyz`: events can be stored, and the hub is not about to end.
pub(super) async fn ready(State(door): State<Door>) -> Result<Json<Value>, Problem> {
    match door.hub.ready().and_then(|()| door.cluster.ready()) {
        Ok(()) => Ok(Json(
            json!({ "status": "ready", "broker": door.hub.broker_kind() }),
        )),
        Err(reason) => Err(Problem::new(Code::NotReady, reason).retry_after_s(5)),
    }
}

/// Answers `GET /metrics`: as `OpenMetrics` whoever asks for that, as Prometheus does, and as plain text anyone else.
pub(super) async fn metrics(State(door): State<Door>, headers: HeaderMap) -> Response {
    let text = metrics::exposition(&door.hub, &door.cluster, door.notifications.as_ref());
    let accepts = headers.get_all(ACCEPT).into_iter();
    let (kind, text) = if accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"))
    {
        (metrics::OPENMETRICS, text)
    } else {
        (metrics::PLAIN, metrics::plain(&text))
    };
    ([(CONTENT_TYPE, kind), (VARY, "accept")], text).into_response()
}
