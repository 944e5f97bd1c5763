//! Where a client goes on that comes back: in the log, or where that does not have the place, after what the store has
//! for it, a page at a time.
//!
//! A page is as large as one response may hold for a client that does not read. Where there is more, the response ends with
//! the page, and the client comes back with the last id of it.
//!
//! An id that a client has from a stream is one of
//! - a notification's, or that of an event that tells what another tab has done: a UUID, which says when;
//! - that of the greeting: a place in the log, `@`, and when that was. So who has seen nothing yet can resume, too, after the
//!   log has forgotten the place.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::request::Parts;
use jiff::Timestamp;
use tidewire::core::encode;
use tidewire::core::subscribe::Start;
use tidewire::problem::Problem;
use tidewire::query::Query;
use tidewire::stream::{LAST_EVENT_ID, event_stream_response};
use tidewire::{Event, Hub, Topic};
use uuid::Uuid;

use super::delivery::Delivery;
use super::domain::Notification;
use super::store::{After, StoreError, Stored};

/// How soon a client comes back for the next page, in milliseconds.
const NEXT_MS: u64 = 10;
/// How long a client waits for a node that lags.
const CATCH_UP_MAX: Duration = Duration::from_secs(3);
/// By how much the clocks of nodes may differ for a greeting's time to lead past nothing, in milliseconds.
const CLOCKS_APART_MS: i64 = 2_000;

/// What a request says of where it wants to go on.
pub(super) enum Place {
    /// Nothing: the stream begins now.
    New,
    /// An id that these streams give.
    Known(String),
    /// Anything else, which is the log's business.
    Log,
}

impl Place {
    /// Reads a request as the log does: a header beats the query, and an id beats `since`.
    pub(super) fn of(parts: &Parts) -> Result<Self, Problem> {
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let header = parts.headers.get(LAST_EVENT_ID);
        let header = header.and_then(|id| id.to_str().ok());
        let in_query = query.get("last_event_id").or(query.get("lastEventId"));
        let given = |id: &&str| !id.is_empty();
        let id = header.filter(given).or(in_query.filter(given));
        Ok(match id {
            Some(id) if Uuid::parse_str(id).is_ok() || stamp(id).is_some() => {
                Self::Known(id.to_owned())
            }
            Some(_) => Self::Log,
            None if query.get("since").is_some_and(|since| !since.is_empty()) => Self::Log,
            None => Self::New,
        })
    }
}

/// Where a place is.
pub(super) enum In {
    /// In the log, under this id.
    Log(String),
    Store(After),
}

/// A place in the log and the time, as one id.
pub(super) fn stamped(position: &str) -> String {
    format!("{position}@{}", Timestamp::now().as_millisecond())
}

fn stamp(id: &str) -> Option<(&str, i64)> {
    let (position, ms) = id.rsplit_once('@')?;
    let ms = ms.parse().ok().filter(|ms| *ms >= 0)?;
    position.starts_with('~').then_some((position, ms))
}

/// Finds a place that a client came with.
pub(super) async fn after(
    delivery: &Delivery,
    user: &str,
    topic: &Topic,
    last: &str,
) -> Result<In, StoreError> {
    if let Some((position, ms)) = stamp(last) {
        let start = Start::After(position.to_owned());
        if !delivery.hub.history(topic, &start, 0, 0, None).gap {
            return Ok(In::Log(position.to_owned()));
        }
        return Ok(In::Store(After {
            published_ms: ms.saturating_sub(CLOCKS_APART_MS),
            id: String::new(),
        }));
    }
    if delivery.hub.knows(last) {
        return Ok(In::Log(last.to_owned()));
    }
    let uuid = Uuid::parse_str(last).unwrap_or_default();
    let id = uuid.to_string();
    let published_ms = match delivery.store.published_ms(user, &id).await? {
        Some(ms) => ms,
        // Deleted since, or what a tab has done: it says itself when that was.
        None => uuid.get_timestamp().map_or(0, |at| {
            let (seconds, nanoseconds) = at.to_unix();
            i64::try_from(seconds).map_or(i64::MAX, |s| {
                s.saturating_mul(1_000) + i64::from(nanoseconds / 1_000_000)
            })
        }),
    };
    Ok(In::Store(After { published_ms, id }))
}

/// What the store has behind a place.
pub(super) async fn missed(
    delivery: &Delivery,
    user: &str,
    after: &After,
) -> Result<Stored, StoreError> {
    // In this order: what is noted as published in between is in the second answer.
    let unnoted = delivery.store.unpublished_of(user).await?;
    let mut stored = delivery.store.published_after(user, after).await?;
    if !stored.is_all {
        return Ok(stored);
    }
    for notification in unnoted.notifications {
        // What the log does not have yet comes when it is published.
        let mut others = stored.notifications.iter();
        let is_new = others.all(|one| one.id != notification.id);
        if is_new && delivery.hub.knows(&notification.id) {
            stored.notifications.push(notification);
        }
    }
    Ok(stored)
}

/// The request as one for this place in the log; as it is without one. A header beats what the query says of a place.
pub(super) fn from_place(mut parts: Parts, place: Option<&str>) -> Parts {
    if let Some(place) = place.and_then(|place| HeaderValue::from_str(place).ok()) {
        parts.headers.insert(LAST_EVENT_ID, place);
    }
    parts
}

/// What comes after a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then<'a> {
    /// The store has more.
    Store,
    /// The log, after this event.
    LogAfter(&'a str),
    /// The log, from the place on that was its newest before the store was asked.
    Log,
}

/// A page of what a client lacks.
#[derive(Debug, PartialEq)]
pub(super) struct Page<'a> {
    pub(super) notifications: &'a [Notification],
    pub(super) then: Then<'a>,
}

/// The page that a client is sent. What other nodes have published a moment ago may be in the store's answer and not yet in
/// this node's log, from where it would come a second time: such a node is waited for.
pub(super) async fn next_page<'a>(hub: &Hub, stored: &'a Stored) -> Page<'a> {
    let knows = |id: &str| hub.knows(id);
    let next = page(stored, knows);
    if next.then != Then::Log || next.notifications.is_empty() {
        return next;
    }
    hub.catch_up(CATCH_UP_MAX).await;
    page(stored, knows)
}

/// Cuts a page off what the store answered: up to the last one that the log has, too.
pub(super) fn page(stored: &Stored, knows: impl Fn(&str) -> bool) -> Page<'_> {
    let all = &stored.notifications;
    let known = all.iter().rposition(|notification| knows(&notification.id));
    match known {
        Some(at) => Page {
            notifications: &all[..=at],
            then: Then::LogAfter(&all[at].id),
        },
        None => Page {
            notifications: all,
            then: if stored.is_all {
                Then::Log
            } else {
                Then::Store
            },
        },
    }
}

/// A response of a page alone.
pub(super) fn finite(greeting: &str, events: Vec<Event>) -> Response {
    let mut out = Vec::new();
    encode::encode(&mut out, None, Some("connected"), Some(NEXT_MS), greeting);
    for event in events {
        let id = event.id.as_deref().map(str::as_bytes);
        encode::encode(&mut out, id, event.event.as_deref(), None, &event.data);
    }
    event_stream_response(Body::from(out))
}

#[cfg(test)]
mod tests {
    use super::super::domain::NewNotification;
    use super::*;

    fn cut(count: usize, is_all: bool, known: &[&str]) -> (usize, String) {
        let one = |n| Notification {
            id: format!("{n:04}"),
            ..NewNotification::default().draft()
        };
        let stored = Stored {
            notifications: (0..count).map(one).collect(),
            is_all,
        };
        let page = page(&stored, |id| known.contains(&id));
        (page.notifications.len(), format!("{:?}", page.then))
    }

    #[test]
    fn a_greetings_id_says_where_and_when() {
        assert_eq!(
            stamp("~k3f09x2m-7.0@1700000000000"),
            Some(("~k3f09x2m-7.0", 1_700_000_000_000))
        );
        for other in ["", "@1", "~a-1", "~a-1@", "~a-1@x", "~a-1@-5", "a@1"] {
            assert_eq!(stamp(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_between_the_store_and_the_log_is_left_out() {
        assert_eq!(cut(0, true, &[]), (0, "Log".into()));
        assert_eq!(cut(3, true, &[]), (3, "Log".into()));
        assert_eq!(cut(3, true, &["0001"]), (2, "LogAfter(\"0001\")".into()));
        assert_eq!(
            cut(3, true, &["0000", "0002"]),
            (3, "LogAfter(\"0002\")".into())
        );
        // There is more.
        assert_eq!(cut(3, false, &[]), (3, "Store".into()));
        assert_eq!(cut(3, false, &["0002"]), (3, "LogAfter(\"0002\")".into()));
    }
}
