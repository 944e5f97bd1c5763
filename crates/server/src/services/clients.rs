//! `/sse`: connections by the client's id, on whichever node they are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tidewire::cluster::{Reach, Scope};
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::{Cluster, Event, Rights};

use crate::config::{Config, Limits};
use crate::guard::{Need, Routes, check_admin};
use crate::routes::{check_right, read_body, unreadable_path, wrong_method};

/// What a right to publish must cover to reach every client.
const EVERY_CLIENT: &str = "connection:/clients";

type SomeRights = Option<Extension<Arc<Rights>>>;
type Id = Result<Path<String>, PathRejection>;

#[derive(Clone)]
struct Door {
    cluster: Cluster,
    limits: Arc<Limits>,
}

/// The door's routes.
pub(super) fn routes(cluster: &Cluster, config: &Config) -> Routes {
    let door = Door {
        cluster: cluster.clone(),
        limits: Arc::new(config.limits.clone()),
    };
    Routes::new()
        .stream("/sse/connect/{client_id}", Need::Subscribe, connect)
        .on(
            Method::DELETE,
            "/sse/connect/{client_id}",
            Need::Admin,
            close,
        )
        .on(Method::DELETE, "/sse/connect", Need::Admin, close_all)
        .on(Method::POST, "/sse/send/{client_id}", Need::Publish, send)
        .on(Method::POST, "/sse/broadcast", Need::Publish, broadcast)
        // Or `admin`.
        .on(
            Method::GET,
            "/sse/status/{client_id}",
            Need::Publish,
            status,
        )
        .on(Method::GET, "/sse/count", Need::Admin, count)
        .on(
            Method::DELETE,
            "/sse/users/{user}/connections",
            Need::Admin,
            close_user,
        )
        .wrong_method(wrong_method)
        .with_state(door)
}

async fn connect(State(door): State<Door>, id: Id, request: Request) -> Result<Response, Problem> {
    let Path(client) = id.map_err(unreadable_path)?;
    // The body is nobody's, and would keep the future from being sent between threads.
    let (parts, _) = request.into_parts();
    let request = http::Request::from_parts(parts, ());
    door.cluster.connect(&client, &request).await
}

async fn send(
    State(door): State<Door>,
    id: Id,
    RawQuery(query): RawQuery,
    rights: SomeRights,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(client) = id.map_err(unreadable_path)?;
    let topic = format!("connection:{client}");
    check_right(some(&rights), std::iter::once(topic.as_str()))?;
    let event = event(&door, query, &headers, body).await?;
    let node = door.cluster.send(&client, event).await?;
    Ok(Json(json!({ "delivered": true, "node": node })).into_response())
}

async fn broadcast(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
    rights: SomeRights,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_right(some(&rights), std::iter::once(EVERY_CLIENT))?;
    let scope = scope(query.as_deref())?;
    let event = event(&door, query, &headers, body).await?;
    let reach = match scope {
        Scope::Cluster => door.cluster.broadcast(event).await?,
        Scope::Local => Reach {
            connections: door.cluster.broadcast_local(event)?,
            ..Reach::default()
        },
    };
    answer(&reach)
}

async fn close(State(door): State<Door>, id: Id) -> Result<StatusCode, Problem> {
    let Path(client) = id.map_err(unreadable_path)?;
    door.cluster.close(&client).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn close_all(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let scope = scope(query.as_deref())?;
    answer(&door.cluster.close_all(scope).await?)
}

async fn close_user(State(door): State<Door>, user: Id) -> Result<Response, Problem> {
    let Path(user) = user.map_err(unreadable_path)?;
    answer(&door.cluster.close_user(&user).await?)
}

async fn status(State(door): State<Door>, id: Id, rights: SomeRights) -> Result<Response, Problem> {
    let Path(client) = id.map_err(unreadable_path)?;
    let topic = format!("connection:{client}");
    // Whoever may send to a client may know whether it is there.
    if check_right(some(&rights), std::iter::once(topic.as_str())).is_err() {
        check_admin(rights.as_ref().map(|Extension(rights)| rights))?;
    }
    let node = door.cluster.is_connected(&client).await?;
    let connected = node.is_some();
    Ok(Json(json!({ "client_id": client, "connected": connected, "node": node })).into_response())
}

async fn count(State(door): State<Door>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let scope = scope(query.as_deref())?;
    let count = match scope {
        Scope::Local => door.cluster.connection_count(),
        Scope::Cluster => door.cluster.cluster_connection_count().await?,
    };
    Ok(Json(json!({ "count": count, "scope": scope })).into_response())
}

fn some(rights: &SomeRights) -> Option<&Rights> {
    rights.as_ref().map(|Extension(rights)| &**rights)
}

/// The body is the data, and its name stands in the query.
async fn event(
    door: &Door,
    query: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Event, Problem> {
    let query = query.unwrap_or_default();
    let query = Query::parse(&query)?;
    let body = read_body(body, headers, &door.limits).await?;
    let data = String::from_utf8(body.into()).map_err(|_| {
        Problem::new(
            Code::BadUtf8,
            "an event's data is UTF-8 text, and this body is not",
        )
    })?;
    let mut event = Event::text(data);
    // `message` is the name of an event that has none.
    let name = query
        .get("event")
        .filter(|name| !["", "message"].contains(name));
    event.event = name.map(str::to_owned);
    Ok(event)
}

fn scope(query: Option<&str>) -> Result<Scope, Problem> {
    let query = Query::parse(query.unwrap_or_default())?;
    match query.get("scope") {
        None | Some("" | "cluster") => Ok(Scope::Cluster),
        Some("local") => Ok(Scope::Local),
        Some(other) => {
            let shown: String = other.chars().take(100).collect();
            let detail = format!("`scope={shown}` is not understood; allowed: `local`, `cluster`");
            Err(Problem::new(Code::BadParameter, detail).with("parameter", "scope"))
        }
    }
}

/// What was done; as an error where not all nodes have answered.
fn answer(reach: &Reach) -> Result<Response, Problem> {
    if reach.silent.is_empty() {
        return Ok(Json(json!({ "connections": reach.connections })).into_response());
    }
    let nodes = reach.silent.join("`, `");
    let detail = format!(
        "it was done to {} connections; what became of those of `{nodes}` is unknown, as it does not answer",
        reach.connections
    );
    Err(Problem::new(Code::NodeSilent, detail)
        .with("connections", reach.connections)
        .with("silent", reach.silent.clone()))
}
