//! Reading what the stream has: all that a node starts with, and pages for those who resume from further back.

use std::cmp::Reverse;
use std::time::Duration;

use redis::{Cmd, Value};
use tidewire_core::id::Offset;

use super::Shared;
use super::entry::{Entry, Read, What, id_text, parse_entries, parse_offset};
use super::pack::first_in;
use crate::broker::Page;
use crate::redis::{Connection, timed_out};

/// Entries asked for at a time, and about how many bytes they shall have together: the number goes down where they are
/// large. Bounds what a node holds of Redis' answers.
const ENTRIES_MAX: usize = 1_000;
const ENTRIES_MIN: usize = 16;
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The same of a page, of which each of those who resume from further back may hold one.
const PAGE_BYTES: usize = 1024 * 1024;
/// How long Redis may take for a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many entries to ask for, by the size of the last ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    count: usize,
    bytes: usize,
}

impl Portion {
    /// For the node's log.
    pub(super) fn of_log() -> Self {
        Self::of(ANSWER_BYTES)
    }

    /// For those who resume from further back.
    pub(super) fn of_page() -> Self {
        Self::of(PAGE_BYTES)
    }

    fn of(bytes: usize) -> Self {
        let count = ENTRIES_MAX / 16;
        Self { count, bytes }
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    pub(super) fn note(&mut self, read: &Read) {
        let bytes: usize = read.entries.iter().map(|entry| entry.bytes).sum();
        if let Some(each) = bytes.checked_div(read.count) {
            self.count = (self.bytes / each.max(1)).clamp(ENTRIES_MIN, ENTRIES_MAX);
        }
    }
}

/// What is known of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    /// The place of the newest entry that there ever was.
    pub(super) last: Offset,
    /// The place of the oldest event that is there.
    pub(super) first: Option<Offset>,
    /// The newest entry that was removed, as Redis 7 and later know.
    pub(super) removed: Option<Offset>,
    /// Entries ever added, as Redis 7 and later know.
    pub(super) added: Option<u64>,
    pub(super) length: u64,
}

impl Info {
    /// Up to where entries may be gone. Redis before 7 does not say whether there ever were any.
    pub(super) fn lost(&self) -> Offset {
        if self.added == Some(self.length) {
            return Offset::ZERO;
        }
        let trimmed = self.first.map_or(self.last, before);
        trimmed.max(self.removed.unwrap_or_default())
    }
}

/// The place right before another one.
fn before(place: Offset) -> Offset {
    match place.minor.checked_sub(1) {
        Some(minor) => Offset { minor, ..place },
        None => Offset {
            major: place.major.saturating_sub(1),
            minor: u64::MAX,
        },
    }
}

/// Asks about the stream; nothing is known of one that is not there.
pub(super) async fn info(stream: &str, connection: &mut Connection) -> redis::RedisResult<Info> {
    let mut command = redis::cmd("XINFO");
    command.arg("STREAM").arg(stream);
    match ask(&command, connection).await {
        Ok(value) => Ok(parse_info(value)),
        Err(error) if error.to_string().contains("no such key") => Ok(Info::default()),
        Err(error) => Err(error),
    }
}

fn parse_info(value: Value) -> Info {
    let pairs: Vec<(Value, Value)> = match value {
        Value::Map(pairs) => pairs,
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        _ => Vec::new(),
    };
    let mut info = Info::default();
    let place = |value: &Value| parse_offset(&redis::from_redis_value_ref::<String>(value).ok()?);
    for (name, value) in pairs {
        let number = || redis::from_redis_value_ref::<u64>(&value).ok();
        match redis::from_redis_value_ref::<String>(&name).as_deref() {
            Ok("last-generated-id") => info.last = place(&value).unwrap_or_default(),
            Ok("max-deleted-entry-id") => info.removed = place(&value),
            Ok("entries-added") => info.added = number(),
            Ok("length") => info.length = number().unwrap_or_default(),
            Ok("first-entry") => {
                info.first = first_in(&value);
            }
            _ => {}
        }
    }
    info
}

pub(super) async fn ask(command: &Cmd, connection: &mut Connection) -> redis::RedisResult<Value> {
    match tokio::time::timeout(PAGE_TIMEOUT, command.query_async(connection)).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out("Redis did not answer in time")),
    }
}

/// What a node's log begins with.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// Everything up to here is not among them.
    pub(super) lost: Offset,
    pub(super) info: Info,
}

/// Reads back from the end of the stream, until what is there is older than `oldest_ms` or more than `bytes_max`.
pub(super) async fn read_back(
    shared: &Shared,
    connection: &mut Connection,
    oldest_ms: u64,
    bytes_max: usize,
) -> redis::RedisResult<Beginning> {
    let info = info(&shared.stream, connection).await?;
    let (mut newest_first, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
    let mut portion = Portion::of_log();
    let mut from = id_text(info.last);
    loop {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&shared.stream).arg(&from).arg("-");
        command.arg("COUNT").arg(portion.count());
        let value = ask(&command, connection).await?;
        let read = parse_entries(value, shared.options.event_bytes_max);
        portion.note(&read);
        let end = read.end;
        let mut page = read.entries;
        // Those that came as one entry are in their own order.
        page.sort_unstable_by_key(|entry| Reverse(entry.offset));
        for entry in page {
            if entry.offset.major < oldest_ms || bytes > bytes_max {
                let lost = entry.offset.max(info.removed.unwrap_or_default());
                newest_first.reverse();
                return Ok(Beginning {
                    entries: newest_first,
                    lost,
                    info,
                });
            }
            bytes += entry.bytes;
            newest_first.push(entry);
        }
        let Some(end) = end else {
            newest_first.reverse();
            return Ok(Beginning {
                entries: newest_first,
                lost: info.lost(),
                info,
            });
        };
        from = format!("({}", id_text(end));
    }
}

impl Shared {
    /// A page of what is after a place.
    pub(super) async fn page(&self, after: Offset) -> Result<Page, String> {
        let read = async {
            let mut connection = self.redis.connection().await?;
            let mut command = redis::cmd("XRANGE");
            command.arg(&self.stream);
            command.arg(format!("({}", id_text(after))).arg("+");
            command.arg("COUNT").arg(self.pages.lock().count());
            let value = ask(&command, &mut connection).await?;
            let read = parse_entries(value, self.options.event_bytes_max);
            self.pages.lock().note(&read);
            // Asked afterwards, so that what was removed before the page was read is known.
            let info = info(&self.stream, &mut connection).await?;
            Ok::<_, redis::RedisError>((read.entries, info))
        };
        let (entries, info) = read.await.map_err(|error| error.to_string())?;
        // Not the stream's end as it is by now: what came between the two questions was not looked at.
        let until = entries.last().map_or(after, |entry| entry.offset);
        let events = entries.into_iter().filter_map(|entry| match entry.what {
            What::Event(publication, _) => Some((entry.offset, publication)),
            _ => None,
        });
        Ok(Page {
            events: events.collect(),
            until,
            lost: info.lost(),
            newest: info.last,
        })
    }
}
