//! The addresses of the metrics sample: requests to use cases, and what comes of them to answers.
//!
//! Errors are problems as everywhere, with one more member, `error`, which holds the sentence where the Go sample has it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tidewire::problem::{Code, Problem};
use tidewire::subscribe::Subscribe;
use tidewire::{Hub, Rights, Topic};
use uuid::Uuid;

use super::TOPIC;
use super::announcer::HubAnnouncer;
use super::domain::{Failed, UseCases};
use super::repository::InMemory;
use super::wire::{MetricJson, ReadingJson};
use crate::config::{Config, Limits};
use crate::guard::{Need, Routes};
use crate::routes::publish::check_right;
use crate::routes::{body, wrong_method};

const METRIC_SHAPE: &str =
    r#"a metric is {"name": "…"} with the texts "unit" and "description" as options"#;
const READING_SHAPE: &str = r#"a reading is {"metric_id": "…", "value": 21.5} with "recorded_at", a time of RFC 3339, as an option"#;

/// What the handlers share.
#[derive(Clone)]
struct Service {
    metrics: Arc<UseCases<InMemory, HubAnnouncer>>,
    limits: Arc<Limits>,
    stream: Subscribe,
}

/// Where this service is, with all that lies below.
pub(in super::super) const ADDRESSES: [&str; 2] = ["/metrics", "/events/watch"];

/// The routes. `GET /metrics` is none of them: Prometheus reads there.
pub(in super::super) fn routes(hub: &Hub, config: &Config) -> Routes {
    let topic = Topic::new(TOPIC).expect("a plain word is a topic");
    let service = Service {
        metrics: Arc::new(UseCases::new(
            InMemory::default(),
            HubAnnouncer(hub.clone()),
        )),
        limits: Arc::new(config.limits.clone()),
        stream: hub.subscribe_to([topic]),
    };
    Routes::new()
        .on(
            Method::POST,
            "/metrics/readings",
            Need::Publish,
            create_reading,
        )
        .on(Method::GET, "/metrics/{id}", Need::Subscribe, metric)
        .stream("/events/watch", Need::Subscribe, watch)
        .wrong_method(wrong_method)
        // After that, as this address has an answer already, where Prometheus' route was made.
        .on(Method::POST, "/metrics", Need::Publish, create_metric)
        .with_state(service)
}

type SomeRights = Option<Extension<Arc<Rights>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a metric, which is a JSON object")]
struct NewMetric {
    name: String,
    unit: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a reading, which is a JSON object")]
struct NewReading {
    metric_id: String,
    value: f64,
    /// `timestamp` in the Go sample.
    #[serde(alias = "timestamp")]
    recorded_at: Option<String>,
}

/// Answers `GET /events/watch`.
async fn watch(State(service): State<Service>, request: Request) -> Result<Response, Refused> {
    Ok(service.stream.respond(&request)?)
}

/// Answers `POST /metrics`.
async fn create_metric(
    State(service): State<Service>,
    rights: SomeRights,
    request: Request,
) -> Result<Response, Refused> {
    let new: NewMetric = service.document(rights, request, METRIC_SHAPE).await?;
    let created = service
        .metrics
        .create_metric(new.name, new.unit, new.description);
    let metric = created.await.map_err(refusal)?;
    let address = [(header::LOCATION, format!("/metrics/{}", metric.id))];
    Ok((
        StatusCode::CREATED,
        address,
        Json(MetricJson::from(&metric)),
    )
        .into_response())
}

/// Answers `POST /metrics/readings`.
async fn create_reading(
    State(service): State<Service>,
    rights: SomeRights,
    request: Request,
) -> Result<Response, Refused> {
    let new: NewReading = service.document(rights, request, READING_SHAPE).await?;
    // An id of another form is as unknown as one that was never given out.
    let metric_id = Uuid::parse_str(&new.metric_id).map_err(|_| unknown_metric())?;
    let recorded_at = new.recorded_at.as_deref();
    let created = service
        .metrics
        .create_reading(metric_id, new.value, recorded_at);
    let reading = created.await.map_err(refusal)?;
    Ok((StatusCode::CREATED, Json(ReadingJson::from(&reading))).into_response())
}

/// Answers `GET /metrics/{id}`.
async fn metric(
    State(service): State<Service>,
    rights: SomeRights,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refused> {
    if let Some(rights) = rights.filter(|rights| !rights.may_read(TOPIC)) {
        let detail = format!("no right to subscribe to `{TOPIC}`");
        return Err(rights.refuse(detail).with("topic", TOPIC).into());
    }
    let Path(id) = id.map_err(|error| Problem::new(Code::BadQuery, error.body_text()))?;
    let found = Uuid::parse_str(&id)
        .ok()
        .and_then(|id| service.metrics.metric(id));
    let (metric, readings) = found.ok_or_else(unknown_metric)?;
    Ok(Json(MetricJson::with_readings(&metric, &readings)).into_response())
}

impl Service {
    /// The document in a request of someone who may publish.
    async fn document<T: DeserializeOwned>(
        &self,
        rights: SomeRights,
        request: Request,
        shape: &str,
    ) -> Result<T, Problem> {
        let rights = rights.as_ref().map(|Extension(rights)| &**rights);
        check_right(rights, [TOPIC].into_iter())?;
        let (parts, body): (_, Body) = request.into_parts();
        let headers: &HeaderMap = &parts.headers;
        let json = body::read(body, headers, &self.limits).await?;
        parse(&json, shape)
    }
}

/// Reads a document, whatever its `Content-Type` says: clients of the Go sample need none.
fn parse<T: DeserializeOwned>(json: &[u8], shape: &str) -> Result<T, Problem> {
    if std::str::from_utf8(json).is_err() {
        let detail = "JSON is UTF-8 (RFC 8259 section 8.1), and this body is not";
        return Err(Problem::new(Code::BadUtf8, detail));
    }
    body::parse_object(json).map_err(|error| {
        // A number out of range is an error of syntax to serde only.
        let is_json = serde_json::from_slice::<IgnoredAny>(json).is_ok();
        let code = if is_json {
            Code::BadDocument
        } else {
            Code::BadJson
        };
        let error: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
        Problem::new(code, format!("{error}; {shape}"))
    })
}

/// Most characters of what serde says, which repeats names and texts of any length.
const ERROR_CHARS_MAX: usize = 300;

fn refusal(failed: Failed<Problem>) -> Problem {
    match failed {
        Failed::Invalid(invalid) => Problem::new(Code::BadDocument, invalid.detail)
            .with("field", invalid.field)
            .with("reason", invalid.reason),
        Failed::UnknownMetric => unknown_metric(),
        Failed::NotAnnounced(problem) => problem,
    }
}

fn unknown_metric() -> Problem {
    let detail =
        "no metric has this id; create it with `POST /metrics`, and use the `id` of the answer";
    Problem::new(Code::NoSuchMetric, detail)
}

/// A problem as this service answers it.
pub(in super::super) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let sentence = self.0.detail().to_owned();
        self.0.with("error", sentence).into_response()
    }
}
