//! `POST /events`: publishing as JSON, as a stream of lines, and raw.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::json;
use sha2::{Digest, Sha256};
use tidewire::broker::IdempotencyKey;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::{ConnectionId, Event, Publication, Rights};

use super::document::{self, Documents};
use super::{Door, body, ndjson};
use crate::auth::QUERY_PARAMETER;
use crate::guard::{Publisher, Publishing};

/// Longest idempotency key, in bytes. Stops keys from being used as storage.
const KEY_BYTES_MAX: usize = 256;
const KEY_HEADER: &str = "idempotency-key";
const NDJSON: &str = "application/x-ndjson";
const CONNECTION_TOPIC: &str = "connection:";

/// Answers `POST /events`.
pub(super) async fn publish(
    State(door): State<Door>,
    rights: Option<Extension<Arc<Rights>>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let rights = rights.map(|Extension(rights)| rights);
    let publishing = parts.extensions.get::<Publishing>().cloned();
    let kind = content_type(&parts.headers);
    check_parameters(&query, &kind)?;
    if kind == NDJSON {
        if parts.headers.contains_key(KEY_HEADER) {
            let detail = "a stream of lines is committed in parts, so it takes no Idempotency-Key; send a JSON array";
            return Err(Problem::new(Code::BadKey, detail));
        }
        let sender = ndjson::Sender {
            rights: rights.as_deref(),
            publishing,
            expires: parts.extensions.get().copied(),
        };
        return ndjson::publish(&door, &query, sender, body).await;
    }
    let body = body::read(body, &parts.headers, &door.limits).await?;
    let key = idempotency_key(&parts, &body)?;
    let documents = if kind == "application/json" {
        let topics: Vec<&str> = query.all("topic").collect();
        document::parse(&body, &topics, door.limits.batch_events_max)?
    } else {
        Documents::One(raw(&query, &body)?)
    };
    match documents {
        Documents::One(publication) => {
            publish_one(&door, rights.as_deref(), publication, key).await
        }
        Documents::Many(batch) => {
            for (index, publication) in batch.iter().enumerate() {
                check(&door, publication, rights.as_deref())
                    .map_err(|problem| problem.with("index", index))?;
            }
            if let Some(publishing) = publishing {
                publishing.count_batch(batch.len())?;
            }
            let ids = door.hub.publish_all(&batch, key).await?;
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            Ok(Json(json!({ "ids": ids })).into_response())
        }
    }
}

async fn publish_one(
    door: &Door,
    rights: Option<&Rights>,
    publication: Publication,
    key: Option<IdempotencyKey>,
) -> Result<Response, Problem> {
    check(door, &publication, rights)?;
    if let [topic] = &publication.topics[..]
        && let Some(connection) = topic.as_str().strip_prefix(CONNECTION_TOPIC)
    {
        if key.is_some() {
            let detail = "what is sent to a connection is not stored, and neither is an Idempotency-Key; send it without";
            return Err(Problem::new(Code::BadKey, detail));
        }
        let sent = match connection.parse::<ConnectionId>() {
            Ok(connection) => door.hub.send_to(connection, publication.event)?,
            Err(_) => false,
        };
        if !sent {
            return Err(Problem::new(
                Code::NoSuchConnection,
                format!("connection `{connection}` is not on this node"),
            ));
        }
        return Ok(Json(json!({ "id": null })).into_response());
    }
    let ids = door.hub.publish_all(&[publication], key).await?;
    Ok(Json(json!({ "id": ids[0].to_string() })).into_response())
}

/// Whether the event is valid, and whether it may go where it should.
pub(super) fn check(
    door: &Door,
    publication: &Publication,
    rights: Option<&Rights>,
) -> Result<(), Problem> {
    publication.validate(door.limits.event_bytes_max)?;
    if publication.event.private && rights.is_none() {
        let detail = "this hub has no authentication, so nobody can be told from anybody else; publish the event \
                      without `private`, or set `auth`";
        return Err(Problem::new(Code::PrivateUnavailable, detail));
    }
    check_right(
        rights,
        publication.topics.iter().map(tidewire::Topic::as_str),
    )
}

/// Whether the sender may publish to all of these topics.
pub(crate) fn check_right<'a>(
    rights: Option<&Rights>,
    mut topics: impl Iterator<Item = &'a str>,
) -> Result<(), Problem> {
    let Some(rights) = rights else { return Ok(()) };
    match topics.find(|topic| !rights.may_publish(topic)) {
        None => Ok(()),
        Some(topic) => {
            let detail = format!("no right to publish to `{topic}`");
            Err(rights.refuse(detail).with("topic", topic))
        }
    }
}

/// The essence of the media type, in lower case; empty where there is none.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Of a document the query says the topic at most. What else it said would be lost in silence, `private` too.
fn check_parameters(query: &Query<'_>, kind: &str) -> Result<(), Problem> {
    query.check_names(&["topic", "event", "id", "retry", "private"])?;
    let in_document = ["event", "id", "retry", "private"];
    let is_document = ["application/json", NDJSON].contains(&kind);
    let misplaced = in_document.iter().find(|name| query.get(name).is_some());
    match misplaced.filter(|_| is_document) {
        None => Ok(()),
        Some(name) => {
            let detail = format!(
                "`{name}` is a member of the document, where the body is one; in the query it is for bodies of other \
                 types, which are data as they are"
            );
            Err(Problem::new(Code::BadParameter, detail).with("parameter", *name))
        }
    }
}

/// The body is the data, and all else is in the query.
fn raw(query: &Query<'_>, body: &[u8]) -> Result<Publication, Problem> {
    let data = std::str::from_utf8(body).map_err(|error| {
        let detail = format!(
            "an event's data is UTF-8 text, and byte {} of this body is not",
            error.valid_up_to()
        );
        Problem::new(Code::BadUtf8, detail)
    })?;
    let parameter = |name: &str, value: &str, allowed: &str| {
        Problem::new(
            Code::BadParameter,
            format!("`{name}={value}` is not understood; allowed: {allowed}"),
        )
        .with("parameter", name)
    };
    let retry_ms = match query.get("retry") {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| parameter("retry", text, "a number of milliseconds"))?,
        ),
    };
    let private = match query.get("private") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(parameter("private", other, "`true`, `false`")),
    };
    let event = Event {
        id: query.get("id").map(str::to_owned),
        event: query.get("event").map(str::to_owned),
        data: data.to_owned(),
        retry_ms,
        private,
    };
    document::publication(query.all("topic"), event)
}

fn idempotency_key(parts: &Parts, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = parts.headers.get(KEY_HEADER) else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX);
    let Some(key) = key else {
        return Err(Problem::new(
            Code::BadKey,
            format!("an Idempotency-Key is 1 to {KEY_BYTES_MAX} visible ASCII characters"),
        ));
    };
    // A newer token makes no other request of it.
    let query = parts.uri.query().unwrap_or_default().split('&');
    let is_token = |parameter: &&str| parameter.split('=').next() == Some(QUERY_PARAMETER);
    let query: Vec<_> = query.filter(|parameter| !is_token(parameter)).collect();
    let mut digest = Sha256::new();
    for part in [
        query.join("&").as_bytes(),
        content_type(&parts.headers).as_bytes(),
        body,
    ] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    // Without authentication all who publish are one publisher.
    let publisher = parts.extensions.get::<Publisher>();
    Ok(Some(IdempotencyKey {
        publisher: publisher.map_or_else(String::new, |Publisher(name)| name.to_string()),
        key: key.to_owned(),
        fingerprint: digest.finalize().into(),
    }))
}
