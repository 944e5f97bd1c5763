//! How a stream tells its client what no publisher has said: that events are missing, or that it is over.
//!
//! By default these are events with names of their own (`gap`, `end`, `closed`, `replaced`). Clients of another system
//! expect them in that system's form; a stream with a [`Dialect`] has them so. The dialect stands in the filter, which
//! is shared, so that a connection needs no memory for it.

use std::hash::{Hash, Hasher};

use crate::encode::encode;
use crate::event::Event;
use crate::filter::FilterKey;
use crate::log::Log;

/// A form for what the hub itself says on a stream.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Tells it from other dialects.
    pub name: &'static str,
    /// Puts a notice into this form. Equal notices must give equal events, as one may go out in pieces. An id of the
    /// event's own does not count: the hub's is on the wire.
    pub render: fn(&Notice<'_>) -> Event,
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Dialect {}

impl Hash for Dialect {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// What the hub has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// Its name in the hub's own form: `gap`, `end`, `closed` or `replaced`.
    pub name: &'a str,
    /// Its data in that form, a JSON object.
    pub data: &'a str,
    /// Its `id:`.
    pub id: &'a str,
    /// The topic that ended, or the first one that the stream names; empty for a stream of patterns.
    pub topic: &'a str,
    /// When it was said, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Log {
    /// Writes what the hub has to say to the readers of a filter that somebody holds, in the form that they expect.
    pub fn write_notice(
        &self,
        out: &mut Vec<u8>,
        filter: FilterKey,
        id: &str,
        (name, data): (&str, &str),
        at_ms: u64,
    ) {
        let filter = self.filters.get(filter);
        let Some(dialect) = filter.dialect else {
            encode(out, Some(id.as_bytes()), Some(name), None, data);
            return;
        };
        let topic = filter
            .topics
            .get(1)
            .map_or("", |key| self.topic(*key).name());
        let notice = Notice {
            name,
            data,
            id,
            topic,
            at_ms,
        };
        write_rendered(out, dialect, &notice);
    }
}

/// Writes a notice in a dialect's form.
pub(crate) fn write_rendered(out: &mut Vec<u8>, dialect: &Dialect, notice: &Notice<'_>) {
    let event = (dialect.render)(notice);
    encode(
        out,
        Some(notice.id.as_bytes()),
        event.event.as_deref(),
        event.retry_ms,
        &event.data,
    );
}
