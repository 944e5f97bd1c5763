//! Every address that the hub serves, put together from its doors.

mod admin;
pub(crate) mod body;
pub(crate) mod document;
mod health;
mod ndjson;
mod nodes;
mod openapi;
mod page;
pub(crate) mod publish;
mod topics;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, header};
use tidewire::cluster::ClusterOptions;
use tidewire::problem::{Code, Problem};
use tidewire::stream::{CONNECTION_HEADER, LAST_EVENT_ID};
use tidewire::{Cluster, Hub};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any as AnyOrigin, CorsLayer};

use crate::config::{Config, Limits};
use crate::guard::{self, Access, Declared, Gate, Need, Routes};
use crate::services::{self, notifications::Notifications};

/// What the handlers of the native door share.
#[derive(Clone)]
struct Door {
    hub: Hub,
    cluster: Cluster,
    notifications: Option<Notifications>,
    limits: Arc<Limits>,
    document: openapi::Document,
}

/// The whole router.
pub(crate) fn router(
    hub: &Hub,
    cluster: &Cluster,
    notifications: Option<&Notifications>,
    config: &Config,
    access: Access,
) -> Router {
    let document = openapi::Document::default();
    let (router, declared) = routes(hub, cluster, notifications, config, &document).into_parts();
    document.describe(&declared);
    let gate = Arc::new(Gate::new(access, declared, config));
    router
        .layer(axum::middleware::from_fn_with_state(gate, guard::check))
        .layer(cors(&config.cors.origins))
        .layer(CatchPanicLayer::custom(panicked))
}

/// Every route that there can be, for the test that goes through all of them. Has to be called in a runtime.
///
/// # Panics
/// If the hub can't be made.
pub fn declared_routes() -> Vec<Declared> {
    let config = Config::default();
    let hub = Hub::builder().build();
    let cluster = Cluster::alone(&hub, &ClusterOptions::new("node")).expect("a new hub");
    let notifications = Notifications::start(&hub, &config).expect("the default settings are good");
    let document = openapi::Document::default();
    routes(&hub, &cluster, Some(&notifications), &config, &document)
        .into_parts()
        .1
}

/// Every route, and what it needs.
fn routes(
    hub: &Hub,
    cluster: &Cluster,
    notifications: Option<&Notifications>,
    config: &Config,
    document: &openapi::Document,
) -> Routes {
    let door = Door {
        hub: hub.clone(),
        cluster: cluster.clone(),
        notifications: notifications.cloned(),
        limits: Arc::new(config.limits.clone()),
        document: document.clone(),
    };
    Routes::new()
        .on(Method::GET, "/", Need::Nothing, page::index)
        .on(Method::GET, "/docs", Need::Nothing, page::docs)
        .on(
            Method::GET,
            "/openapi.json",
            Need::Nothing,
            openapi::document,
        )
        .stream("/events", Need::Subscribe, hub.subscribe())
        .on(Method::POST, "/events", Need::Publish, publish::publish)
        .on(
            Method::POST,
            "/topics/{topic}/close",
            Need::Publish,
            topics::close,
        )
        .on(
            Method::GET,
            "/topics/{topic}/events",
            Need::Subscribe,
            topics::history,
        )
        .on(Method::GET, "/api/v1/stats", Need::Admin, admin::stats)
        .on(Method::GET, "/api/v1/topics", Need::Admin, admin::topics)
        .on(
            Method::GET,
            "/api/v1/connections",
            Need::Admin,
            admin::connections,
        )
        .on(
            Method::DELETE,
            "/api/v1/connections/{id}",
            Need::Admin,
            admin::close_connection,
        )
        .on(Method::GET, "/api/v1/nodes", Need::Admin, nodes::nodes)
        .on(
            Method::GET,
            "/api/v1/presence",
            Need::Subscribe,
            nodes::presence,
        )
        .on(Method::GET, "/healthz", Need::Nothing, health::alive)
        .on(Method::GET, "/readyz", Need::Nothing, health::ready)
        .on(Method::GET, "/metrics", Need::Figures, health::metrics)
        .fallback(not_found)
        .wrong_method(wrong_method)
        .with_state(door)
        .merge(services::routes(hub, cluster, notifications, config))
}

pub(crate) use body::{parse_object, read as read_body};
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
