//! `/api/v1/…`: figures, and closing connections. Needs the right `admin`, which is asked for before it comes here.

use axum::Json;
use std::net::SocketAddr;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tidewire::ConnectionId;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;

use super::topics::{limit, rfc3339, unreadable_path};
use super::{Door, health};

/// Rows of a page, where the request does not say.
const PAGE_ROWS: usize = 100;
/// Most rows of a page.
const PAGE_ROWS_MAX: usize = 1_000;

/// Answers `GET /api/v1/stats`.
pub(super) async fn stats(State(door): State<Door>) -> Result<Json<Value>, Problem> {
    let stats = door.hub.stats();
    let closes: Map<String, Value> = stats
        .totals
        .closes
        .iter()
        .map(|(reason, n)| (reason.as_str().to_owned(), (*n).into()))
        .collect();
    Ok(Json(json!({
        "connections": stats.connections,
        "topics": stats.log.topics,
        "filters": stats.log.filters,
        "events": stats.log.events,
        "memory_bytes": stats.log.memory_bytes,
        "published": stats.totals.published,
        "delivered": stats.totals.delivered,
        "gaps": stats.totals.gaps,
        "drops": stats.drops(),
        "closes": closes,
        "broker": door.hub.broker_kind(),
        "ready": door.hub.ready().is_ok(),
        "uptime_s": health::uptime_s(),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

/// Answers `GET /api/v1/topics`.
pub(super) async fn topics(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let query = query.unwrap_or_default();
    let query = Query::parse(&query)?;
    let cursor = match query.get("cursor") {
        None => 0,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    let (topics, next) = door
        .hub
        .topics(cursor, limit(&query, PAGE_ROWS, PAGE_ROWS_MAX)?);
    let rows = topics.into_iter().map(|topic| {
        json!({
            "topic": topic.topic,
            "events": topic.events,
            "subscribers": topic.subscribers,
            "closed": topic.closed,
            "last_id": topic.last.map(|id| id.to_string()),
        })
    });
    Ok(Json(
        json!({ "topics": rows.collect::<Vec<_>>(), "next": next.map(|next| next.to_string()) }),
    ))
}

/// Answers `GET /api/v1/connections`.
pub(super) async fn connections(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let query = query.unwrap_or_default();
    let query = Query::parse(&query)?;
    let after = match query.get("cursor") {
        None => None,
        Some(text) => Some(text.parse::<ConnectionId>().map_err(|_| bad_cursor(text))?),
    };
    let limit = limit(&query, PAGE_ROWS, PAGE_ROWS_MAX)?;
    let (page, next) = door.hub.connections(after, limit);
    let rows = page.iter().map(|connection| {
        json!({
            "id": connection.id.to_string(),
            "topics": connection.topics,
            "patterns": connection.patterns,
            "remote": connection.remote.map(shown),
            "connected_at": rfc3339(connection.connected_ms),
            "delivered": connection.delivered,
            "lag": connection.lag,
        })
    });
    Ok(Json(
        json!({ "connections": rows.collect::<Vec<_>>(), "next": next.map(|next| next.to_string()) }),
    ))
}

/// Answers `DELETE /api/v1/connections/{id}`.
pub(super) async fn close_connection(
    State(door): State<Door>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(unreadable_path)?;
    let closed = id
        .parse::<ConnectionId>()
        .is_ok_and(|id| door.hub.close(id));
    if closed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(
            Code::NoSuchConnection,
            format!("connection `{id}` is not on this node"),
        ))
    }
}

/// An address; without the port where a proxy has not told it.
fn shown(remote: SocketAddr) -> String {
    match remote.port() {
        0 => remote.ip().to_string(),
        _ => remote.to_string(),
    }
}

fn bad_cursor(text: &str) -> Problem {
    let detail = format!("`cursor={text}` is not understood; use the `next` of the page before");
    Problem::new(Code::BadParameter, detail).with("parameter", "cursor")
}
