//! Domain events from a Redis Stream: each is read by one node of the group, becomes notifications by the rules, and is
//! acknowledged once these are stored. A crash at any point repeats a step, and the store knows what it has already.
//!
//! What can't be made into a notification is tried again, as somebody may have mended the rules meanwhile, and after
//! so many attempts put aside in a stream of dead letters, with the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, Value};
use tidewire::redis::{Backoff, Connection, Redis};

use super::delivery::{Delivery, NotCreated};
use super::domain::Rule;
use super::store::StoreError;

/// Entries that are read at a time: what a node that dies leaves to the others.
const ENTRIES_MAX: usize = 64;
/// How long a read waits for news.
const BLOCK: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Dead letters that are kept.
const DEAD_MAX: usize = 10_000;

/// What is followed, and how.
#[derive(Clone, Debug)]
pub(super) struct ConsumerOptions {
    pub(super) stream: String,
    pub(super) group: String,
    /// This node's name in the group.
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
    /// After how many attempts an event is put aside.
    pub(super) attempts_max: usize,
    /// After how long an event that nobody has acknowledged is tried again, by whichever node.
    pub(super) retry_after: Duration,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct ConsumerFigures {
    pub(super) handled: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dead: AtomicU64,
    /// Entries that the group has not been given yet, or not acknowledged.
    pub(super) lag: AtomicU64,
}

/// Why an event was not handled.
enum Failed {
    /// It can't be, as it is.
    Event(String),
    /// The store or Redis is away: nothing is wrong with the event.
    Away(String),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            // It is tried again, and the store knows what it has of this event.
            StoreError::Away(why) | StoreError::Unknown(why) => Self::Away(why),
            StoreError::Refused(why) => Self::Event(format!("the database refuses it: {why}")),
        }
    }
}

impl From<NotCreated> for Failed {
    fn from(error: NotCreated) -> Self {
        match error {
            NotCreated::Event(error) => Self::Event(error.to_string()),
            NotCreated::Store(error) => error.into(),
        }
    }
}

impl From<redis::RedisError> for Failed {
    fn from(error: redis::RedisError) -> Self {
        Self::Away(error.to_string())
    }
}

pub(super) struct Consumer {
    pub(super) redis: Arc<Redis>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) options: ConsumerOptions,
    pub(super) figures: Arc<ConsumerFigures>,
}

type Entry = (String, Vec<(String, String)>);

impl Consumer {
    /// Goes on for as long as the hub lives.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            if let Err(Failed::Away(why) | Failed::Event(why)) = self.follow(&mut backoff).await {
                tracing::warn!(why, "domain events can't be handled now");
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn follow(&self, backoff: &mut Backoff) -> Result<(), Failed> {
        // Reading waits for the store: while it is away, events stay where they are.
        self.delivery.store.check().await?;
        let mut connection = self.redis.dedicated().await?;
        self.make_group(&mut connection).await?;
        // What this node had read before it ended is its own again.
        let mut own = Some("0".to_owned());
        let mut claimed_at = tokio::time::Instant::now();
        loop {
            let from = own.clone().unwrap_or_else(|| ">".to_owned());
            let entries = self.read(&mut connection, &from).await?;
            own = own.and(entries.last().map(|(id, _)| id.clone()));
            for entry in entries {
                self.handle(&mut connection, entry).await?;
                backoff.reset();
            }
            if claimed_at.elapsed() >= self.options.retry_after / 2 {
                claimed_at = tokio::time::Instant::now();
                self.claim(&mut connection).await?;
                self.note_lag(&mut connection).await?;
            }
        }
    }

    async fn make_group(&self, connection: &mut Connection) -> RedisResult<()> {
        let mut create = redis::cmd("XGROUP");
        create
            .arg("CREATE")
            .arg(&self.options.stream)
            .arg(&self.options.group);
        create.arg("0").arg("MKSTREAM");
        match ask(&create, connection).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(()),
        }
    }

    async fn read(&self, connection: &mut Connection, from: &str) -> RedisResult<Vec<Entry>> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(&self.options.group)
            .arg(&self.options.name);
        read.arg("COUNT").arg(ENTRIES_MAX);
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.options.stream).arg(from);
        let answer = match ask(&read, connection).await? {
            Value::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
            _ => None,
        };
        Ok(answer.map_or_else(Vec::new, entries))
    }

    /// Takes over what a node has left, this one included.
    async fn claim(&self, connection: &mut Connection) -> Result<(), Failed> {
        let mut cursor = "0-0".to_owned();
        loop {
            let mut claim = redis::cmd("XAUTOCLAIM");
            claim
                .arg(&self.options.stream)
                .arg(&self.options.group)
                .arg(&self.options.name);
            claim.arg(self.options.retry_after.as_millis() as u64);
            claim.arg(&cursor).arg("COUNT").arg(ENTRIES_MAX);
            let Value::Array(answer) = ask(&claim, connection).await? else {
                return Ok(());
            };
            let mut answer = answer.into_iter();
            cursor =
                String::from_redis_value(answer.next().unwrap_or_default()).unwrap_or_default();
            for entry in entries(answer.next().unwrap_or_default()) {
                self.figures.retried.fetch_add(1, Ordering::Relaxed);
                self.handle(connection, entry).await?;
            }
            if cursor.is_empty() || cursor == "0-0" {
                return Ok(());
            }
        }
    }

    async fn handle(&self, connection: &mut Connection, (id, fields): Entry) -> Result<(), Failed> {
        match self.make(&id, &fields).await {
            Ok(()) => {
                self.figures.handled.fetch_add(1, Ordering::Relaxed);
                self.acknowledge(connection, &id).await?;
            }
            Err(Failed::Event(why)) => self.put_aside(connection, &id, &fields, &why).await?,
            Err(away @ Failed::Away(_)) => return Err(away),
        }
        Ok(())
    }

    /// Stores and publishes what the rules make of an event.
    async fn make(&self, id: &str, fields: &[(String, String)]) -> Result<(), Failed> {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.as_str())
        };
        let kind = field("type").ok_or_else(|| Failed::Event("no field `type`".into()))?;
        let rules = self
            .options
            .rules
            .iter()
            .zip(0..)
            .filter(|(rule, _)| rule.on == kind);
        let mut made = Vec::new();
        for (rule, n) in rules {
            let data = field("data").ok_or_else(|| Failed::Event("no field `data`".into()))?;
            let data = serde_json::from_str(data)
                .map_err(|error| Failed::Event(format!("`data` is no JSON: {error}")))?;
            let new = rule
                .apply(&data)
                .map_err(|error| Failed::Event(error.to_string()))?;
            made.push((new, n));
        }
        for (new, n) in made {
            let source = format!("{}:{id}:{n}", self.options.stream);
            self.delivery.create(&new, Some(&source)).await?;
        }
        Ok(())
    }

    async fn acknowledge(&self, connection: &mut Connection, id: &str) -> RedisResult<()> {
        let mut acknowledge = redis::cmd("XACK");
        acknowledge
            .arg(&self.options.stream)
            .arg(&self.options.group)
            .arg(id);
        ask(&acknowledge, connection).await.map(|_| ())
    }

    /// Leaves an event for another attempt, or puts it into the stream of dead letters if it had enough.
    async fn put_aside(
        &self,
        connection: &mut Connection,
        id: &str,
        fields: &[(String, String)],
        why: &str,
    ) -> RedisResult<()> {
        let mut pending = redis::cmd("XPENDING");
        pending
            .arg(&self.options.stream)
            .arg(&self.options.group)
            .arg(id)
            .arg(id)
            .arg(1);
        let answer = ask(&pending, connection).await?;
        let attempts = Vec::<(String, String, u64, usize)>::from_redis_value(answer)
            .ok()
            .and_then(|rows| rows.first().map(|row| row.3))
            .unwrap_or(usize::MAX);
        if attempts < self.options.attempts_max {
            tracing::info!(id, why, attempts, "a domain event is tried again");
            return Ok(());
        }
        tracing::warn!(id, why, "a domain event is put aside");
        // Both or nothing, so that it is not put aside twice.
        let mut both = redis::pipe();
        let add = both
            .atomic()
            .cmd("XADD")
            .arg(format!("{}:dead", self.options.stream));
        add.arg("MAXLEN")
            .arg("~")
            .arg(DEAD_MAX)
            .arg("*")
            .arg("of")
            .arg(id)
            .arg("error")
            .arg(why);
        for (name, value) in fields {
            add.arg(name).arg(value);
        }
        both.cmd("XACK")
            .arg(&self.options.stream)
            .arg(&self.options.group)
            .arg(id);
        let done =
            tokio::time::timeout(ANSWER_TIMEOUT, both.query_async::<Value>(connection)).await;
        done.unwrap_or_else(|_| Err(silent()))?;
        self.figures.dead.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn note_lag(&self, connection: &mut Connection) -> RedisResult<()> {
        let mut info = redis::cmd("XINFO");
        info.arg("GROUPS").arg(&self.options.stream);
        let Value::Array(groups) = ask(&info, connection).await? else {
            return Ok(());
        };
        for group in groups {
            let Value::Map(pairs) = group else {
                continue;
            };
            let get = |wanted: &str| {
                let found = pairs.iter().find(|(name, _)| {
                    String::from_redis_value(name.clone()).is_ok_and(|name| name == wanted)
                });
                found.map(|(_, value)| value.clone())
            };
            let name = get("name").and_then(|value| String::from_redis_value(value).ok());
            if name.as_ref() == Some(&self.options.group) {
                let number = |name| get(name).and_then(|value| u64::from_redis_value(value).ok());
                let lag = number("lag").unwrap_or_default() + number("pending").unwrap_or_default();
                self.figures.lag.store(lag, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

async fn ask(command: &Cmd, connection: &mut Connection) -> RedisResult<Value> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, command.query_async(connection)).await;
    answer.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> redis::RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "Redis is silent").into()
}

fn entries(value: Value) -> Vec<Entry> {
    let Value::Array(entries) = value else {
        return Vec::new();
    };
    let read = |entry| {
        let Value::Array(parts) = entry else {
            return None;
        };
        let mut parts = parts.into_iter();
        let id = String::from_redis_value(parts.next()?).ok()?;
        let flat = Vec::<Vec<u8>>::from_redis_value(parts.next()?).unwrap_or_default();
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let fields = flat
            .chunks_exact(2)
            .map(|pair| (text(&pair[0]), text(&pair[1])));
        Some((id, fields.collect()))
    };
    entries.into_iter().filter_map(read).collect()
}
