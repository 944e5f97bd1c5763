//! The cluster, for administrators: its nodes, and who reads a topic on whichever of them.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::{Rights, Topic};

use super::Door;
use crate::guard::check_admin;

type SomeRights = Option<Extension<Arc<Rights>>>;

/// Answers `GET /api/v1/nodes`.
pub(super) async fn nodes(State(door): State<Door>) -> Result<Json<Value>, Problem> {
    let nodes = door.cluster.nodes().await?;
    Ok(Json(json!({ "node": door.cluster.node(), "nodes": nodes })))
}

/// Answers `GET /api/v1/presence?topic=`: for administrators, and whoever may read the topic's `presence:`.
pub(super) async fn presence(
    State(door): State<Door>,
    RawQuery(query): RawQuery,
    rights: SomeRights,
) -> Result<Json<Value>, Problem> {
    let query = query.unwrap_or_default();
    let query = Query::parse(&query)?;
    let topic = query.get("topic").unwrap_or_default();
    let topic = Topic::new(topic).map_err(|error| {
        Problem::new(Code::BadTopic, format!("name a topic: `?topic=`; {error}"))
            .with("reason", error.code())
    })?;
    let rights = rights.as_ref().map(|Extension(rights)| rights);
    let may_read = |rights: &Arc<Rights>| rights.may_read(&format!("presence:{}", topic.as_str()));
    if !rights.is_some_and(may_read) {
        check_admin(rights)?;
    }
    let presence = door.cluster.presence(topic.as_str()).await?;
    Ok(Json(json!({
        "topic": topic.as_str(),
        "count": presence.count,
        "truncated": presence.is_truncated(),
        "present": presence.present,
        "silent": presence.silent,
    })))
}
