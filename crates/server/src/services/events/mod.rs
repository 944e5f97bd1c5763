//! `/api/v1/events`: streams of envelopes, with generators of sample events that can be started, paused and stopped.

mod generator;
mod generators;
mod samples;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tidewire::{Broadcaster, Hub};

use self::generator::State as Running;
use self::generators::{Generators, TooMany};
use super::envelopes::{self, Caller, Failure, StreamId, Streams, done, found};
use crate::config::Config;
use crate::guard::{Need, Routes};

pub(super) const ADDRESSES: [&str; 3] = ["/api/v1/events", "/api/v1/events-full", "/events-full"];

/// What these streams' topics begin with, before a colon.
const NAMESPACE: &str = "stream";

/// The streams that have a generator from the start.
const DEFAULT_STREAMS: [&str; 4] = ["default", "system", "user-activity", "notifications"];

/// When one who may start no more generators may ask again. A guess: it depends on when others are stopped.
const RETRY_AFTER_S: u32 = 30;

/// The service's routes. Starts the generators of the default streams, for which it needs a runtime.
pub(super) fn routes(hub: &Hub, config: &Config) -> Routes {
    let broadcaster = Broadcaster::new(hub, NAMESPACE).expect("`stream` is a namespace");
    let generators = Generators::new(
        broadcaster.clone(),
        config.services.generator_interval,
        config.limits.generators_max,
        samples::source_of,
    );
    for id in DEFAULT_STREAMS {
        if let Err(TooMany(max)) = generators.start_at_once(id) {
            tracing::warn!(
                stream = id,
                max,
                "not started, as limits.generators_max allows no more"
            );
        }
    }
    let post = Method::POST;
    let routes = Routes::new()
        .on(Method::GET, "/streams", Need::Subscribe, streams)
        .on(
            post.clone(),
            "/stream/{stream_id}/start",
            Need::Admin,
            start,
        )
        .on(post.clone(), "/stream/{stream_id}/stop", Need::Admin, stop)
        .on(
            post.clone(),
            "/stream/{stream_id}/pause",
            Need::Admin,
            pause,
        )
        .on(post, "/stream/{stream_id}/resume", Need::Admin, resume)
        .with_state(Arc::new(generators));
    let limits = Arc::new(config.limits.clone());
    let shared = envelopes::routes(Streams {
        broadcaster,
        limits,
    });
    envelopes::serve(routes.merge(shared), &ADDRESSES)
}

/// Lists the streams that the caller may read.
async fn streams(State(generators): State<Arc<Generators>>, caller: Caller) -> Response {
    let states = generators.states();
    let active = envelopes::readable(generators.broadcaster(), &caller);
    let rows = active.into_iter().map(|(id, clients)| {
        let state = states.get(&id).copied();
        let generator = json!({
            "running": state.is_some(),
            "paused": state == Some(Running::Paused),
        });
        let row = json!({ "clients": clients, "active": true, "generator": generator });
        (id, row)
    });
    found(rows.collect::<Map<String, Value>>())
}

async fn start(
    State(generators): State<Arc<Generators>>,
    id: StreamId,
) -> Result<Response, Failure> {
    let id = managed(&generators, id)?;
    generators.start(&id).await.map_err(|TooMany(max)| {
        let message =
            format!("{max} generators are there already (`limits.generators_max`); stop one first");
        Failure::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_generators",
            message,
        )
        .retry_after_s(RETRY_AFTER_S)
    })?;
    Ok(done(format!("Stream '{id}' started")))
}

async fn stop(
    State(generators): State<Arc<Generators>>,
    id: StreamId,
) -> Result<Response, Failure> {
    let id = managed(&generators, id)?;
    if !generators.stop(&id).await {
        return Err(no_generator(&id));
    }
    Ok(done(format!("Stream '{id}' stopped and removed")))
}

async fn pause(
    State(generators): State<Arc<Generators>>,
    id: StreamId,
) -> Result<Response, Failure> {
    let id = managed(&generators, id)?;
    let changed = generators.change(&id, Running::Running, Running::Paused);
    changed_to(&id, changed.await, "paused", "is paused already")
}

async fn resume(
    State(generators): State<Arc<Generators>>,
    id: StreamId,
) -> Result<Response, Failure> {
    let id = managed(&generators, id)?;
    let changed = generators.change(&id, Running::Paused, Running::Running);
    changed_to(&id, changed.await, "resumed", "is not paused")
}

/// What came of a change of state; `None` where there is no generator.
fn changed_to(
    id: &str,
    changed: Option<bool>,
    did: &str,
    refused: &str,
) -> Result<Response, Failure> {
    match changed {
        None => Err(no_generator(id)),
        Some(false) => Err(wrong_state(id, refused)),
        Some(true) => Ok(done(format!("Stream '{id}' {did}"))),
    }
}

/// The stream whose generator is to be managed.
fn managed(generators: &Generators, id: StreamId) -> Result<String, Failure> {
    envelopes::stream_id(id, generators.broadcaster())
}

fn no_generator(id: &str) -> Failure {
    let message = format!("Stream '{id}' has no generator; start it first");
    Failure::new(StatusCode::NOT_FOUND, "no_generator", message)
}

fn wrong_state(id: &str, what: &str) -> Failure {
    let message = format!("Stream '{id}' {what}");
    Failure::new(StatusCode::CONFLICT, "wrong_state", message)
}
