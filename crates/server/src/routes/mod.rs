//! Every address that the hub serves, put together from its doors.

mod admin;
pub(crate) mod body;
pub(crate) mod document;
mod guard;
mod health;
mod ndjson;
mod nodes;
mod page;
pub(crate) mod publish;
mod topics;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, Method, header};
use tidewire::problem::{Code, Problem};
use tidewire::stream::{CONNECTION_HEADER, LAST_EVENT_ID};
use tidewire::{Cluster, Hub};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any as AnyOrigin, CorsLayer};

use crate::config::{Config, Limits};
use crate::services::{self, notifications::Notifications};

/// What the handlers of the native door share.
#[derive(Clone)]
struct Door {
    hub: Hub,
    cluster: Cluster,
    notifications: Option<Notifications>,
    limits: Arc<Limits>,
}

/// The whole router.
pub(crate) fn router(
    hub: &Hub,
    cluster: &Cluster,
    notifications: Option<&Notifications>,
    config: &Config,
    access: guard::Access,
) -> Router {
    let door = Door {
        hub: hub.clone(),
        cluster: cluster.clone(),
        notifications: notifications.cloned(),
        limits: Arc::new(config.limits.clone()),
    };
    Router::new()
        .route("/", get(page::index))
        .route("/events", get(hub.subscribe()).post(publish::publish))
        .route("/topics/{topic}/close", post(topics::close))
        .route("/topics/{topic}/events", get(topics::history))
        .route("/api/v1/stats", get(admin::stats))
        .route("/api/v1/topics", get(admin::topics))
        .route("/api/v1/connections", get(admin::connections))
        .route(
            "/api/v1/connections/{id}",
            axum::routing::delete(admin::close_connection),
        )
        .route("/api/v1/nodes", get(nodes::nodes))
        .route("/api/v1/presence", get(nodes::presence))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(door)
        .merge(services::router(hub, cluster, notifications, config))
        .layer(axum::middleware::from_fn_with_state(
            Arc::new(access),
            guard::check,
        ))
        .layer(cors(&config.cors.origins))
        .layer(CatchPanicLayer::custom(panicked))
}

pub(crate) use body::read as read_body;
pub(crate) use guard::{Access, Publisher, check_admin};
pub(crate) use health::start_clock;
pub(crate) use publish::check_right;
pub(crate) use topics::unreadable_path;

async fn not_found(request: Request) -> Problem {
    let detail = format!("nothing is served at `{}`", request.uri().path());
    Problem::new(Code::NotFound, detail)
}

pub(crate) async fn wrong_method(request: Request) -> Response {
    let detail = format!(
        "`{}` takes no {}; see the `Allow` header",
        request.uri().path(),
        request.method()
    );
    let problem = Problem::new(Code::WrongMethod, detail);
    services::refusal(request.uri().path(), problem)
}

/// A handler's panic is a bug of ours; its request gets an answer and the hub goes on.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::new(Code::Internal, "a handler failed; the hub's log says where").into_response()
}

/// Without configured origins every page may read, without credentials; with them, those pages with credentials.
fn cors(origins: &[String]) -> CorsLayer {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let headers = [
        header::ACCEPT,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_TYPE,
        HeaderName::from_static("idempotency-key"),
        LAST_EVENT_ID,
    ];
    let layer = CorsLayer::new()
        .allow_methods(methods)
        .allow_headers(headers)
        .expose_headers([LAST_EVENT_ID, CONNECTION_HEADER, header::RETRY_AFTER])
        .max_age(std::time::Duration::from_hours(1));
    if origins.is_empty() {
        layer.allow_origin(AnyOrigin)
    } else {
        let origins = origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok());
        layer
            .allow_origin(origins.collect::<Vec<_>>())
            .allow_credentials(true)
    }
}
