//! What a client is sent that comes back with an id which the log does not know: what the store has, a page at a time.
//!
//! A page is as large as one response may hold for a client that does not read. Where there is more, the response ends with
//! the page, and the client comes back with the last id of it.

use axum::body::Body;
use axum::response::Response;
use tidewire::Event;
use tidewire::core::encode;
use tidewire::stream::event_stream_response;

use super::domain::Notification;
use super::store::ROWS_MAX;

/// Most bytes of a page, but for its last notification. Stops clients who don't read from filling the memory.
const PAGE_BYTES_MAX: usize = 256 * 1_024;
/// How soon a client comes back for the next page, in milliseconds.
const NEXT_MS: u64 = 10;

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

/// Cuts a page off what the store answered, which is all it has if it is less than [`ROWS_MAX`] rows.
pub(super) fn page(stored: &[Notification], knows: impl Fn(&str) -> bool) -> Page<'_> {
    let known = stored
        .iter()
        .rposition(|notification| knows(&notification.id));
    let wanted = known.map_or(stored.len(), |at| at + 1);
    let mut bytes = 0;
    let fits = |notification: &&Notification| {
        let fits = bytes < PAGE_BYTES_MAX;
        bytes += size(notification);
        fits
    };
    let len = stored[..wanted].iter().take_while(fits).count();
    let is_all = i64::try_from(stored.len()).is_ok_and(|rows| rows < ROWS_MAX);
    let then = match known {
        _ if len < wanted => Then::Store,
        Some(at) => Then::LogAfter(&stored[at].id),
        None if is_all => Then::Log,
        None => Then::Store,
    };
    Page {
        notifications: &stored[..len],
        then,
    }
}

fn size(notification: &Notification) -> usize {
    let data = notification
        .data
        .as_ref()
        .map_or(0, |data| data.to_string().len());
    let body = notification.body.as_ref().map_or(0, String::len);
    notification.title.len() + body + data + 512
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
    use super::*;

    fn stored(count: usize, body_bytes: usize) -> Vec<Notification> {
        let one = |n| Notification {
            id: format!("{n:04}"),
            recipient_id: "u".into(),
            kind: "t".into(),
            title: "t".into(),
            body: Some("x".repeat(body_bytes)),
            link: None,
            data: None,
            read: false,
            read_at: None,
            created_at: String::new(),
        };
        (0..count).map(one).collect()
    }

    fn cut(count: usize, body_bytes: usize, known: &[&str]) -> (usize, String) {
        let stored = stored(count, body_bytes);
        let page = page(&stored, |id| known.contains(&id));
        (page.notifications.len(), format!("{:?}", page.then))
    }

    #[test]
    fn nothing_between_the_store_and_the_log_is_left_out() {
        assert_eq!(cut(0, 0, &[]), (0, "Log".into()));
        assert_eq!(cut(3, 0, &[]), (3, "Log".into()));
        assert_eq!(cut(3, 0, &["0001"]), (2, "LogAfter(\"0001\")".into()));
        assert_eq!(
            cut(3, 0, &["0000", "0002"]),
            (3, "LogAfter(\"0002\")".into())
        );
        // A full answer may not be all there is.
        assert_eq!(cut(500, 0, &[]), (500, "Store".into()));
        assert_eq!(cut(500, 0, &["0499"]), (500, "LogAfter(\"0499\")".into()));
        // Nor is what does not fit.
        let (len, then) = cut(100, 50_000, &["0099"]);
        assert_eq!((len, then.as_str()), (6, "Store"));
        assert_eq!(cut(1, 1_000_000, &[]), (1, "Log".into()), "one always fits");
    }
}
