//! `/api/v1/broadcast-demo`: how little a service of streams needs on top of the library's `Broadcaster`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Method;
use serde_json::{Map, Value, json};
use tidewire::{Broadcaster, Hub};

use super::envelopes::{self, Caller, Streams};
use crate::config::Config;
use crate::guard::{Need, Routes};

pub(super) const ADDRESSES: [&str; 3] = [
    "/api/v1/broadcast-demo",
    "/api/v1/events-util",
    "/events-util",
];

/// The stream that is there also without clients.
const DEFAULT_STREAM: &str = "demo-notifications";

/// The service's routes.
pub(super) fn routes(hub: &Hub, config: &Config) -> Routes {
    let broadcaster = Broadcaster::new(hub, "demo").expect("`demo` is a namespace");
    broadcaster
        .keep_active(DEFAULT_STREAM)
        .expect("the name is a stream's id");
    let routes = Routes::new()
        .on(Method::GET, "/streams", Need::Subscribe, streams)
        .with_state(broadcaster.clone());
    let limits = Arc::new(config.limits.clone());
    let shared = envelopes::routes(Streams {
        broadcaster,
        limits,
    });
    envelopes::serve(routes.merge(shared), &ADDRESSES)
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
