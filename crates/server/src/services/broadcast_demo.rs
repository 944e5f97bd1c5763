//! `/api/v1/broadcast-demo`: how little a service of streams needs on top of the library's `Broadcaster`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};
use tidewire::{Broadcaster, Hub};

use super::envelopes::{self, Caller, Streams};
use crate::config::Config;

pub(super) const ADDRESSES: [&str; 3] = [
    "/api/v1/broadcast-demo",
    "/api/v1/events-util",
    "/events-util",
];

/// The stream that is there also without clients.
const DEFAULT_STREAM: &str = "demo-notifications";

/// The service's routes.
pub(super) fn router(hub: &Hub, config: &Config) -> Router {
    let broadcaster = Broadcaster::new(hub, "demo").expect("`demo` is a namespace");
    broadcaster
        .keep_active(DEFAULT_STREAM)
        .expect("the name is a stream's id");
    let router = Router::new()
        .route("/streams", get(streams))
        .with_state(broadcaster.clone());
    let limits = Arc::new(config.limits.clone());
    let shared = envelopes::router(Streams {
        broadcaster,
        limits,
    });
    envelopes::serve(router.merge(shared), &ADDRESSES)
}

async fn streams(State(broadcaster): State<Broadcaster>, caller: Caller) -> Response {
    envelopes::found(listing(envelopes::readable(&broadcaster, &caller)))
}

fn listing(active: BTreeMap<String, usize>) -> Map<String, Value> {
    let row = |(id, clients)| {
        let generator = json!({ "running": false, "paused": false });
        let row = json!({ "clients": clients, "active": true, "generator": generator });
        (id, row)
    };
    active.into_iter().map(row).collect()
}
