//! `/topics/{topic}/…`: ending a topic, and its history as JSON.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidewire::core::log::HistoryEvent;
use tidewire::core::subscribe::Start;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::subscribe::parse_since;
use tidewire::{PublishError, Rights, Topic};

use super::{Door, publish};

/// Events on a page of history, where the request does not say.
const PAGE_EVENTS: usize = 100;
/// Most events on a page.
const PAGE_EVENTS_MAX: usize = 1_000;
/// Bytes of events after which a page ends. A client that asks often and reads nothing shall not make the hub hold much.
const PAGE_BYTES: usize = 256 * 1024;

type TopicInPath = Result<Path<String>, PathRejection>;

/// Answers `POST /topics/{topic}/close`.
pub(super) async fn close(
    State(door): State<Door>,
    rights: Option<Extension<Arc<Rights>>>,
    topic: TopicInPath,
) -> Result<Json<Value>, Problem> {
    let topic = topic_of(topic)?;
    publish::check_right(
        rights.as_deref().map(|rights| &**rights),
        [topic.as_str()].into_iter(),
    )?;
    let id = door.hub.close_topic(topic).await?;
    Ok(Json(json!({ "id": id.to_string() })))
}

/// Answers `GET /topics/{topic}/events`.
pub(super) async fn history(
    State(door): State<Door>,
    rights: Option<Extension<Arc<Rights>>>,
    topic: TopicInPath,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let topic = topic_of(topic)?;
    let rights = rights.as_deref().map(|rights| &**rights);
    if let Some(rights) = rights.filter(|rights| !rights.may_read(topic.as_str())) {
        let detail = format!("no right to subscribe to `{topic}`");
        return Err(rights.refuse(detail).with("topic", topic.as_str()));
    }
    let query = query.unwrap_or_default();
    let query = Query::parse(&query)?;
    query.check_names(&["since", "limit"])?;
    let start = match query.get("since") {
        None => Start::Earliest,
        since => parse_since(
            since,
            Timestamp::now().as_millisecond().max(0).cast_unsigned(),
        ),
    };
    let limit = limit(&query, PAGE_EVENTS, PAGE_EVENTS_MAX)?;
    let page = door.hub.history(&topic, &start, limit, PAGE_BYTES, rights);
    let events: Vec<Value> = page
        .events
        .iter()
        .map(|event| event_json(event, &topic, rights))
        .collect();
    Ok(Json(json!({
        "topic": topic.as_str(),
        "events": events,
        "gap": page.gap,
        "next": page.next.map(|id| id.to_string()),
    })))
}

/// The other topics of an event are named to those only who may read them, as in a stream.
fn event_json(event: &HistoryEvent, topic: &Topic, rights: Option<&Rights>) -> Value {
    let may_know = |name: &&String| {
        *name == topic.as_str() || rights.is_none_or(|rights| rights.may_read(name))
    };
    let topics: Vec<_> = event.topics.iter().filter(may_know).collect();
    json!({
        "id": event.id,
        "topics": topics,
        "event": event.event,
        "data": event.data,
        "published_at": rfc3339(event.published_at_ms),
    })
}

/// A time as RFC 3339 text, with milliseconds.
pub(super) fn rfc3339(ms: u64) -> Option<String> {
    let timestamp = Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?;
    Some(format!("{timestamp:.3}"))
}

/// The query's `limit`.
pub(super) fn limit(query: &Query<'_>, default: usize, max: usize) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else {
        return Ok(default);
    };
    match text.parse() {
        Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
        _ => {
            let detail = format!("`limit={text}` is not understood; allowed: 1 to {max}");
            Err(Problem::new(Code::BadParameter, detail).with("parameter", "limit"))
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
pub(crate) fn unreadable_path(rejection: PathRejection) -> Problem {
    Problem::new(Code::BadQuery, rejection.body_text())
}

fn topic_of(path: TopicInPath) -> Result<Topic, Problem> {
    let Path(name) = path.map_err(unreadable_path)?;
    Topic::new(&name).map_err(|error| PublishError::from(error).into())
}
