//! What orchestrators and Prometheus ask.

use std::sync::LazyLock;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
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

/// Answers `GET /metrics`.
pub(super) async fn metrics(State(door): State<Door>) -> Response {
    let text = metrics::exposition(&door.hub, &door.cluster, door.notifications.as_ref());
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}
