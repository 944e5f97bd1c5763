//! What the services of envelope streams have in common: how they answer and refuse, a stream, a broadcast.
//!
//! Every answer that is not a stream is a JSON object with `success` and `timestamp` (Unix seconds).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{OriginalUri, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tidewire::problem::{Code, Problem};
use tidewire::{BroadcastError, Broadcaster, Rights, Topic};

use crate::config::Limits;
use crate::guard::{Need, Routes};
use crate::routes::read_body;

/// Streams, and what limits requests to them.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) broadcaster: Broadcaster,
    pub(super) limits: Arc<Limits>,
}

/// The routes that every such service has.
pub(super) fn routes(streams: Streams) -> Routes {
    Routes::new()
        .stream("/stream/{stream_id}", Need::Subscribe, stream)
        .on(Method::POST, "/broadcast", Need::Publish, broadcast)
        .with_state(streams)
}

/// A service's routes under its addresses, with refusals in the service's form.
pub(super) fn serve(routes: Routes, addresses: &[&str]) -> Routes {
    let routes = routes.fallback(not_found).wrong_method(wrong_method);
    let nest = |all: Routes, address: &&str| {
        // Not among what is nested.
        let root = format!("{address}/");
        all.nest(address, routes.clone())
            .nothing_at(&root, not_found)
    };
    addresses.iter().fold(Routes::new(), nest)
}

fn timestamp() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn answer(body: Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Says that something was done.
pub(super) fn done(message: impl Into<String>) -> Response {
    let message = message.into();
    answer(json!({ "success": true, "message": message, "timestamp": timestamp() }))
}

/// Answers what was asked for.
pub(super) fn found(data: impl Into<Value>) -> Response {
    let data = data.into();
    answer(json!({ "success": true, "data": data, "timestamp": timestamp() }))
}

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    /// Stable, for programs.
    error: &'static str,
    message: String,
    retry_after_s: Option<u32>,
    /// How to authenticate.
    challenge: Option<&'static str>,
    /// What it was before it got this form.
    problem: Option<Box<Problem>>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            message: message.into(),
            retry_after_s: None,
            challenge: None,
            problem: None,
        }
    }

    pub(super) fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    fn bad_request(error: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({
            "success": false,
            "message": self.message,
            "error": self.error,
            "timestamp": timestamp(),
        });
        let mut response = answer(body);
        *response.status_mut() = self.status;
        if let Some(problem) = self.problem {
            response.extensions_mut().insert(*problem);
        }
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = problem.code();
        Self {
            status: code.status(),
            error: code.as_str(),
            message: problem.detail().to_owned(),
            retry_after_s: problem.retry_after(),
            challenge: code.challenge(),
            problem: Some(Box::new(problem)),
        }
    }
}

impl From<BroadcastError> for Failure {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::BadStreamId => Self::bad_request("bad_stream_id", error.to_string()),
            BroadcastError::Missing(_) => Self::bad_request("bad_event", error.to_string()),
            other => Problem::from(other).into(),
        }
    }
}

/// Whose rights the request has; none where everyone may do everything.
pub(super) type Caller = Option<Extension<Arc<Rights>>>;

/// The active streams that the caller may read, each with its number of clients.
pub(super) fn readable(broadcaster: &Broadcaster, caller: &Caller) -> BTreeMap<String, usize> {
    let mut active = broadcaster.active_streams();
    if let Some(Extension(rights)) = caller {
        let may_read = |topic: Topic| rights.may_read(topic.as_str());
        active.retain(|id, _| broadcaster.topic(id).is_ok_and(may_read));
    }
    active
}

/// The id in the address of a stream, once it is known to be one.
pub(super) type StreamId = Result<Path<String>, PathRejection>;

/// Reads the id in the address of a stream.
pub(super) fn stream_id(id: StreamId, broadcaster: &Broadcaster) -> Result<String, Failure> {
    let Path(id) = id.map_err(|_| BroadcastError::BadStreamId)?;
    broadcaster.topic(&id)?;
    Ok(id)
}

async fn stream(
    State(streams): State<Streams>,
    id: StreamId,
    request: Request,
) -> Result<Response, Failure> {
    let id = stream_id(id, &streams.broadcaster)?;
    Ok(streams.broadcaster.route(&id)?.respond(&request)?)
}

/// What is to be broadcast. What else a document has is of no concern.
#[derive(Deserialize)]
struct Document {
    stream_id: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    message: Option<String>,
    data: Option<Value>,
}

impl Document {
    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            Failure::bad_request("bad_json", format!("the body is no JSON: {error}"))
        })?;
        if !value.is_object() {
            return Err(Failure::bad_request(
                "bad_event",
                "the body must be a JSON object",
            ));
        }
        serde_json::from_value(value).map_err(|error| {
            let message = format!("`stream_id`, `type` and `message` must be strings: {error}");
            Failure::bad_request("bad_event", message)
        })
    }
}

async fn broadcast(
    State(streams): State<Streams>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, &parts.headers, &streams.limits).await?;
    let document = Document::parse(&body)?;
    let broadcaster = &streams.broadcaster;
    let event_type = document.event_type.unwrap_or_default();
    let message = document.message.unwrap_or_default();
    let one = document.stream_id.filter(|id| !id.is_empty());
    let Some(id) = one else {
        let active = broadcaster.active_streams();
        for id in active.keys() {
            // Which one it is that they may not publish to, they may not know.
            check_publisher(&caller, broadcaster, id, "every active stream")?;
        }
        // To none that somebody has begun to read since they were looked at.
        broadcaster
            .broadcast_to_each(active.keys(), &event_type, &message, document.data)
            .await?;
        return Ok(done("Event broadcasted to all streams"));
    };
    check_publisher(&caller, broadcaster, &id, &format!("stream `{id}`"))?;
    broadcaster
        .broadcast(&id, &event_type, &message, document.data)
        .await?;
    Ok(done(format!("Event broadcasted to stream: {id}")))
}

fn check_publisher(
    caller: &Caller,
    broadcaster: &Broadcaster,
    stream_id: &str,
    to: &str,
) -> Result<(), Failure> {
    let topic = broadcaster.topic(stream_id)?;
    match caller {
        Some(Extension(rights)) if !rights.may_publish(topic.as_str()) => {
            Err(rights.refuse(format!("no right to publish to {to}")).into())
        }
        _ => Ok(()),
    }
}

async fn not_found(OriginalUri(uri): OriginalUri) -> Failure {
    let detail = format!("nothing is served at `{}`", uri.path());
    Problem::new(Code::NotFound, detail).into()
}

async fn wrong_method(method: Method) -> Failure {
    let detail = format!("this address takes no {method}; see the `Allow` header");
    Problem::new(Code::WrongMethod, detail).into()
}
