//! Domain events from a Redis Stream: each is read by one node of the group, becomes notifications by the rules, and is
//! acknowledged once these are stored. A crash at any point repeats a step, and the store knows what it has already.
//!
//! What can't be made into a notification is tried again, as somebody may have mended the rules meanwhile, after pauses that
//! grow, and after so many attempts put aside in a stream of dead letters, with the reason. The same pauses hold for what a
//! node leaves that dies; which attempt it is, Redis counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, Value};
use tidewire::core::id::topic_hash_64;
use tidewire::redis::{Backoff, Connection, Redis, Script};

use super::delivery::{Delivery, NotCreated};
use super::domain::{NewNotification, Rule};
use super::store::StoreError;

/// Entries that are read at a time: what a node that dies leaves to the others.
const ENTRIES_MAX: usize = 64;
/// How long a read waits for news.
const BLOCK: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Dead letters that are kept.
const DEAD_MAX: usize = 10_000;
/// Fields of an event that its dead letter keeps. Lua can't hand over more than some thousand values.
const DEAD_FIELDS_MAX: usize = 1_000;
/// The pause before an attempt is `retry_after`, doubled for each one before it, up to so often.
const DOUBLINGS_MAX: u32 = 5;
/// A consumer that has nothing and has not asked for so many times `retry_after` is a node that is gone.
const GONE_AFTER: u32 = 10;

/// Puts an event aside, if nobody else has done so or handled it meanwhile.
const PUT_ASIDE: &str = "
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1";

/// Counts the events that a group has not been given, up to a number.
const COUNT: &str = "return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])";
/// So many are counted; of more, Redis says how many there are, as far as it knows.
const COUNTED_MAX: u64 = 1_000;

/// Removes from a group who has nothing, and has not asked for anything for long. Nodes without a `node.id` are new
/// consumers with every start.
const REMOVE_GONE: &str = "
local removed = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #row, 2 do consumer[row[i]] = row[i + 1] end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed";

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
    redis: Arc<Redis>,
    delivery: Arc<Delivery>,
    options: ConsumerOptions,
    figures: Arc<ConsumerFigures>,
    put_aside: Script,
    count: Script,
    remove_gone: Script,
}

type Entry = (String, Vec<(String, String)>);

/// An event that was read and not acknowledged.
struct Pending {
    id: String,
    /// For how long nobody has tried it.
    idle_ms: u64,
    attempts: u32,
}

impl Consumer {
    pub(super) fn new(
        redis: Arc<Redis>,
        delivery: Arc<Delivery>,
        options: ConsumerOptions,
        figures: Arc<ConsumerFigures>,
    ) -> Self {
        Self {
            redis,
            delivery,
            options,
            figures,
            put_aside: Script::new(PUT_ASIDE),
            count: Script::new(COUNT),
            remove_gone: Script::new(REMOVE_GONE),
        }
    }

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
        let mut connection = self.redis.dedicated().await?;
        self.make_group(&mut connection).await?;
        self.note_lag(&mut connection).await?;
        // Reading waits for the store: while it is away, events stay where they are.
        self.delivery.store.check().await?;
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
                self.remove_gone(&mut connection).await?;
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

    /// Takes over what has waited for long enough: what this or another node failed with, or left. A pass through all that
    /// is pending, a page at a time.
    async fn claim(&self, connection: &mut Connection) -> Result<(), Failed> {
        let mut from = "-".to_owned();
        loop {
            let page = self.waiting(connection, &from).await?;
            for Pending {
                id,
                idle_ms,
                attempts,
            } in &page
            {
                let pause_ms = self.pause_ms(*attempts);
                if *idle_ms < pause_ms {
                    continue;
                }
                // Of several nodes one gets it: to the others it is not idle any more. What was deleted, nobody gets.
                let mut claim = redis::cmd("XCLAIM");
                claim
                    .arg(&self.options.stream)
                    .arg(&self.options.group)
                    .arg(&self.options.name);
                claim.arg(pause_ms).arg(id);
                for entry in entries(ask(&claim, connection).await?) {
                    self.figures.retried.fetch_add(1, Ordering::Relaxed);
                    self.handle(connection, entry).await?;
                }
            }
            match page.last() {
                Some(last) if page.len() == ENTRIES_MAX => from = format!("({}", last.id),
                _ => return Ok(()),
            }
        }
    }

    /// Pending events that nobody has touched for `retry_after` at least.
    async fn waiting(&self, connection: &mut Connection, from: &str) -> RedisResult<Vec<Pending>> {
        let mut pending = redis::cmd("XPENDING");
        pending.arg(&self.options.stream).arg(&self.options.group);
        pending.arg("IDLE").arg(self.pause_ms(1));
        pending.arg(from).arg("+").arg(ENTRIES_MAX);
        let rows =
            Vec::<(String, String, u64, u32)>::from_redis_value(ask(&pending, connection).await?)?;
        let row = |(id, _, idle_ms, attempts)| Pending {
            id,
            idle_ms,
            attempts,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// How long an event waits after so many attempts.
    fn pause_ms(&self, attempts: u32) -> u64 {
        let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
        let pause = self.options.retry_after.saturating_mul(1 << doublings);
        u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
    }

    async fn handle(&self, connection: &mut Connection, (id, fields): Entry) -> Result<(), Failed> {
        if fields.is_empty() {
            // Redis stores no event without fields: somebody has deleted it, or the stream was cut.
            tracing::warn!(id, "a domain event was deleted before it was handled");
            self.figures.dead.fetch_add(1, Ordering::Relaxed);
            return Ok(self.acknowledge(connection, &id).await?);
        }
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
        let rules = self.options.rules.iter().filter(|rule| rule.on == kind);
        let mut made: Vec<(NewNotification, String)> = Vec::new();
        for rule in rules {
            let data = field("data").ok_or_else(|| Failed::Event("no field `data`".into()))?;
            let data = serde_json::from_str(data)
                .map_err(|error| Failed::Event(format!("`data` is no JSON: {error}")))?;
            let new = rule
                .apply(&data)
                .map_err(|error| Failed::Event(error.to_string()))?;
            let key = format!("{:016x}", topic_hash_64(&rule.key()));
            let equal = made.iter().filter(|(_, of)| of.starts_with(&key)).count();
            made.push((new, format!("{key}-{equal}")));
        }
        for (new, rule) in made {
            let source = format!("{}:{id}:{rule}", self.options.stream);
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
        let rows = Vec::<(String, String, u64, usize)>::from_redis_value(
            ask(&pending, connection).await?,
        )?;
        let Some((_, _, _, attempts)) = rows.first() else {
            // Another node has seen to it meanwhile.
            return Ok(());
        };
        if *attempts < self.options.attempts_max {
            tracing::info!(id, why, attempts, "a domain event is tried again");
            return Ok(());
        }
        tracing::warn!(id, why, "a domain event is put aside");
        let dead = format!("{}:dead", self.options.stream);
        let limit = DEAD_MAX.to_string();
        let mut arguments = vec![
            self.options.group.as_str(),
            id,
            &limit,
            "of",
            id,
            "error",
            why,
        ];
        for (name, value) in fields.iter().take(DEAD_FIELDS_MAX) {
            arguments.extend([name.as_str(), value]);
        }
        let keys = [self.options.stream.as_str(), &dead];
        let done = self
            .put_aside
            .run_on(connection, &keys, &arguments, ANSWER_TIMEOUT)
            .await?;
        if u64::from_redis_value(done)? > 0 {
            self.figures.dead.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn count_after(&self, connection: &mut Connection, id: String) -> RedisResult<u64> {
        let keys = [self.options.stream.as_str()];
        let arguments = [id, COUNTED_MAX.to_string()];
        let count = self
            .count
            .run_on(connection, &keys, &arguments, ANSWER_TIMEOUT);
        u64::from_redis_value(count.await?).map_err(Into::into)
    }

    async fn remove_gone(&self, connection: &mut Connection) -> RedisResult<()> {
        let idle = self.options.retry_after.saturating_mul(GONE_AFTER);
        let arguments = [self.options.group.clone(), idle.as_millis().to_string()];
        let keys = [self.options.stream.as_str()];
        let removed = self
            .remove_gone
            .run_on(connection, &keys, &arguments, ANSWER_TIMEOUT)
            .await?;
        if u64::from_redis_value(removed)? > 0 {
            tracing::debug!("consumers that are gone were removed from the group");
        }
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
            if name.as_ref() != Some(&self.options.group) {
                continue;
            }
            let number = |name| get(name).and_then(|value| u64::from_redis_value(value).ok());
            let last = get("last-delivered-id").and_then(|id| String::from_redis_value(id).ok());
            let counted = match last {
                Some(last) => self.count_after(connection, last).await?,
                None => 0,
            };
            // Where events were deleted, Redis does not know how many are waiting, or counts the deleted ones for ever.
            let waiting = match number("lag") {
                Some(lag) if counted == COUNTED_MAX => lag.max(counted),
                _ => counted,
            };
            let lag = waiting + number("pending").unwrap_or_default();
            self.figures.lag.store(lag, Ordering::Relaxed);
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
