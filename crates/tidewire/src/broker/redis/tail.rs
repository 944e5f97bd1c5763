//! Following the stream into the node's log, and noticing when it is not the stream that it was.
//!
//! A Redis that was restarted without its data, or a replica that took over before it had everything, has lost events that
//! were answered and seen. Ids of the lost ones must not be given out again, so the history gets a new epoch: whoever
//! notices first writes it, by compare-and-set, and nothing is stored under the old one any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{FromRedisValue, RedisError, RedisResult, Value};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::Log;
use tokio::time::Instant;

use super::Shared;
use super::entry::{Entry, Read, What, entries_of_read, id_text, parse_entries};
use super::history::{Beginning, Info, Portion, ask, info, read_back};
use crate::broker::{StartError, Tail};
use crate::redis::{Backoff, Connection, Script, timed_out};

/// How long a read waits for news. What makes a connection that is dead without saying so known in time.
const BLOCK: Duration = Duration::from_secs(1);
/// How much later than that an answer may come.
const BLOCK_GRACE: Duration = Duration::from_secs(3);
/// How often the stream is asked whether it is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often it is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// How long the first connection is tried for.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A last id further in the future than this is no clock that is wrong: somebody added an entry with an id of their own.
const FUTURE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Entries that may claim to belong together. Stops a foreign one from holding up all others for ever.
const BATCH_MAX: usize = 64 * 1024;
/// Events that are put into the log under one lock, so that readers come in between.
const LOCKED_MAX: usize = 256;

/// What follows the stream.
pub(super) struct Follower {
    shared: Arc<Shared>,
    tail: Tail,
    epoch_script: Script,
    epoch: Epoch,
    place: Offset,
    /// The first entries of a batch whose others have not come yet, and how many belong to it.
    begun: Vec<Entry>,
    wanted: usize,
    portion: Portion,
    /// Entries ever added when all had been read, and entries read since.
    counted: Option<u64>,
    read_since: u64,
    checked: Instant,
    trimmed: Option<Instant>,
}

/// The stream has ended, or the hub.
enum End {
    Over,
    Failed(RedisError),
}

impl From<RedisError> for End {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

/// Connects, and fills the node's log.
pub(super) async fn begin(shared: &Arc<Shared>) -> Result<Follower, StartError> {
    let mut follower = Follower {
        shared: shared.clone(),
        tail: shared.tail().clone(),
        epoch_script: Script::new(include_str!("epoch.lua")),
        epoch: shared.epoch(),
        place: Offset::ZERO,
        begun: Vec::new(),
        wanted: 0,
        portion: Portion::default(),
        counted: None,
        read_since: 0,
        checked: Instant::now(),
        trimmed: None,
    };
    let deadline = Instant::now() + START_TIMEOUT;
    let mut backoff = Backoff::default();
    loop {
        let error = match follower.try_begin().await {
            Ok(()) => return Ok(follower),
            Err(error) => error,
        };
        let pause = backoff.pause();
        if Instant::now() + pause > deadline || !is_passing(&error) {
            return Err(StartError::new(format!(
                "the Redis of broker.url can't be used: {error}; see that it runs, and that the user and password are right"
            )));
        }
        tokio::time::sleep(pause).await;
    }
}

fn is_passing(error: &RedisError) -> bool {
    error.is_io_error() || matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN"))
}

impl Follower {
    async fn try_begin(&mut self) -> RedisResult<()> {
        let mut connection = self.shared.redis.dedicated().await?;
        let epoch = self.epoch_of_store(&mut connection, "").await?;
        self.take_up(&mut connection, epoch).await
    }

    /// The epoch that the store has; a new one where it has none, or still the one that is over.
    async fn epoch_of_store(&self, connection: &mut Connection, over: &str) -> RedisResult<Epoch> {
        let new = Epoch::from_random(fastrand::u64(..));
        let answer = self
            .epoch_script
            .run_on(
                connection,
                &[&self.shared.epoch_key],
                &[over, new.as_str()],
                self.shared.options.answer_timeout,
            )
            .await?;
        let text = String::from_redis_value(answer)?;
        Epoch::parse(&text).ok_or_else(|| {
            let key = &self.shared.epoch_key;
            RedisError::from((
                redis::ErrorKind::UnexpectedReturnType,
                "the epoch is none",
                format!("{key} has {text:?}; delete it to begin a new epoch"),
            ))
        })
    }

    /// Takes a history up from what the stream has of it.
    async fn take_up(&mut self, connection: &mut Connection, epoch: Epoch) -> RedisResult<()> {
        let limits = |log: &mut Log| (log.ttl_ms(), log.memory_bytes_max());
        let Some((ttl_ms, bytes_max)) = self.tail.try_write(limits) else {
            return Ok(());
        };
        self.shared.ttl_ms.store(ttl_ms, Ordering::Relaxed);
        let oldest_ms = self.tail.now_ms().saturating_sub(ttl_ms);
        let beginning = read_back(&self.shared, connection, oldest_ms, bytes_max).await?;
        let Beginning {
            entries,
            lost,
            info,
        } = beginning;
        self.tail.try_write(|log| {
            log.begin_epoch(epoch);
            log.skip_lost(lost, lost.major);
        });
        self.epoch = epoch;
        self.place = entries.last().map_or(info.last, |entry| entry.offset);
        self.counted = info.added;
        self.read_since = 0;
        (self.begun, self.wanted) = (Vec::new(), 0);
        for entries in entries.chunks(LOCKED_MAX) {
            self.tail
                .try_write(|log| entries.iter().for_each(|entry| self.append(log, entry)));
        }
        self.note_place();
        tracing::info!(%epoch, place = id_text(self.place), "the stream is open");
        Ok(())
    }

    fn note_place(&self) {
        self.shared.place.send_replace((self.epoch, self.place));
    }

    /// Follows until the hub ends.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let mut ending = self.shared.ending.subscribe();
            let end = tokio::select! {
                end = self.follow(&mut backoff) => end,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            let error = match end {
                Err(End::Failed(error)) => error,
                Ok(()) | Err(End::Over) => return,
            };
            self.note_trouble(&error);
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn note_trouble(&self, error: &RedisError) {
        let mut trouble = self.shared.trouble.lock();
        if trouble.is_none() {
            tracing::warn!(%error, "Redis can't be followed; streams go on with what this node has");
            let figures = &self.shared.figures;
            figures.interruptions.fetch_add(1, Ordering::Relaxed);
        }
        *trouble = Some(format!("Redis can't be followed: {error}"));
    }

    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), End> {
        let mut connection = self.shared.redis.dedicated().await?;
        self.check(&mut connection, true).await?;
        backoff.reset();
        if self.shared.trouble.lock().take().is_some() {
            tracing::info!("Redis is followed again");
        }
        loop {
            let look_again = self.shared.clone();
            let read = tokio::select! {
                read = self.read(&mut connection) => read?,
                () = look_again.look_again.notified() => {
                    // The read is still under way on this connection.
                    connection = self.shared.redis.dedicated().await?;
                    self.check(&mut connection, true).await?;
                    continue;
                }
            };
            let is_idle = read.count == 0;
            self.take(read)?;
            if is_idle || self.checked.elapsed() > CHECK_EVERY {
                self.check(&mut connection, false).await?;
            }
        }
    }

    async fn read(&self, connection: &mut Connection) -> RedisResult<Read> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(self.portion.count());
        command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command
            .arg("STREAMS")
            .arg(&self.shared.stream)
            .arg(id_text(self.place));
        let answer = command.query_async(connection);
        let value: Value = match tokio::time::timeout(BLOCK + BLOCK_GRACE, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(timed_out("Redis is silent")),
        };
        Ok(parse_entries(
            entries_of_read(value),
            self.shared.options.event_bytes_max,
        ))
    }

    /// Puts what was read into the log; batches as a whole.
    fn take(&mut self, read: Read) -> Result<(), End> {
        self.portion.note(&read);
        self.read_since += read.count as u64;
        let entries = read.entries;
        let mut whole = Vec::with_capacity(entries.len());
        if entries.is_empty() {
            // A batch is added at once, so what does not follow won't: its first entry was somebody else's.
            whole.append(&mut self.begun);
            self.wanted = 0;
        }
        for entry in entries {
            self.place = entry.offset;
            if let What::Event(_, batch @ 2..=BATCH_MAX) = entry.what
                && self.begun.is_empty()
            {
                self.wanted = batch;
            }
            if self.wanted == 0 {
                whole.push(entry);
                continue;
            }
            self.begun.push(entry);
            if self.begun.len() == self.wanted {
                whole.append(&mut self.begun);
                self.wanted = 0;
            }
        }
        let mut at = 0;
        while at < whole.len() {
            let until = end_of_batches(&whole, at);
            let done = self.tail.try_write(|log| {
                whole[at..until]
                    .iter()
                    .for_each(|entry| self.append(log, entry));
            });
            if done.is_none() {
                return Err(End::Over);
            }
            at = until;
        }
        if self.begun.is_empty() && !whole.is_empty() {
            self.note_place();
        }
        Ok(())
    }

    fn append(&self, log: &mut Log, entry: &Entry) {
        let at_ms = entry.offset.major;
        if entry.offset <= log.head() {
            return;
        }
        match &entry.what {
            What::Event(publication, _) => {
                log.append(&publication.topics, &publication.event, entry.offset, at_ms);
            }
            What::End(topic) => {
                log.append_end(topic, entry.offset, at_ms);
            }
            What::Malformed(why) => {
                self.shared
                    .figures
                    .malformed
                    .fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    id = id_text(entry.offset),
                    why,
                    "an entry of the stream is no event"
                );
            }
        }
    }

    /// Looks whether the stream is still the one that this node has followed so far.
    async fn check(&mut self, connection: &mut Connection, anew: bool) -> RedisResult<()> {
        self.checked = Instant::now();
        let epoch: Option<String> = {
            let mut get = redis::cmd("GET");
            FromRedisValue::from_redis_value(
                ask(get.arg(&self.shared.epoch_key), connection).await?,
            )?
        };
        let info = info(&self.shared.stream, connection).await?;
        if epoch.as_deref() != Some(self.epoch.as_str())
            || self.is_broken(connection, &info, anew).await?
        {
            return self.change_epoch(connection).await;
        }
        let figures = &self.shared.figures;
        let lag_ms = info.last.major.saturating_sub(self.place.major);
        figures.lag_ms.store(lag_ms, Ordering::Relaxed);
        self.check_count(&info);
        self.check_future(&info);
        if self.trimmed.is_none_or(|at| at.elapsed() > TRIM_EVERY) {
            self.trimmed = Some(Instant::now());
            self.trim(connection, &info).await?;
        }
        Ok(())
    }

    /// Whether the stream lacks what this node has seen of it.
    async fn is_broken(
        &self,
        connection: &mut Connection,
        info: &Info,
        anew: bool,
    ) -> RedisResult<bool> {
        if info.last < self.place {
            return Ok(true);
        }
        let may_be_there = info.first.is_some_and(|first| first <= self.place);
        if !anew || !may_be_there || self.place == Offset::ZERO {
            return Ok(false);
        }
        // Something else may have been added since, past the place where this node is.
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.shared.stream);
        command.arg(id_text(self.place)).arg(id_text(self.place));
        let found = parse_entries(ask(&command, connection).await?, usize::MAX);
        let removed = info.removed.is_some_and(|removed| removed >= self.place);
        Ok(found.count == 0 && !removed)
    }

    async fn change_epoch(&mut self, connection: &mut Connection) -> RedisResult<()> {
        let old = self.epoch;
        let epoch = self.epoch_of_store(connection, old.as_str()).await?;
        tracing::error!(%old, new = %epoch, "Redis has lost events; everyone is told of a gap");
        // First, so that nobody who goes on reading misses that it is another history.
        self.tail.close_everyone();
        self.take_up(connection, epoch).await
    }

    /// Whether as many entries were read as were added. Fewer means that some were removed before this node saw them.
    fn check_count(&mut self, info: &Info) {
        let Some(added) = info.added.filter(|_| info.last == self.place) else {
            return;
        };
        let expected = self.counted.map(|counted| counted + self.read_since);
        self.counted = Some(added);
        self.read_since = 0;
        if let Some(missed) = expected.and_then(|expected| added.checked_sub(expected))
            && missed > 0
        {
            tracing::error!(
                missed,
                "entries were removed from the stream before this node had read them"
            );
            self.tail.close_everyone();
            let place = self.place;
            self.tail.try_write(|log| log.skip_lost(place, place.major));
        }
    }

    fn check_future(&self, info: &Info) {
        let far = self.tail.now_ms().saturating_add(FUTURE_MS_MAX);
        let mut trouble = self.shared.trouble.lock();
        *trouble = (info.last.major > far).then(|| {
            format!(
                "the stream's last id is {}, so that no or hardly any event can be added: somebody gave an entry an id \
                 of their own; delete {} and {}, and keep others from writing there",
                id_text(info.last),
                self.shared.stream,
                self.shared.epoch_key,
            )
        });
    }

    async fn trim(&self, connection: &mut Connection, info: &Info) -> RedisResult<()> {
        let stream = &self.shared.stream;
        let kept_ms = u64::try_from(self.shared.options.retention.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = self.tail.now_ms().saturating_sub(kept_ms);
        let mut trim = redis::cmd("XTRIM");
        trim.arg(stream).arg("MINID").arg("~").arg(oldest_ms);
        ask(&trim, connection).await?;
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(stream);
        let bytes: Option<u64> = match ask(&usage, connection).await {
            Ok(value) => FromRedisValue::from_redis_value(value)?,
            // A user that may not ask.
            Err(error) if error.code() == Some("NOPERM") => None,
            Err(error) => return Err(error),
        };
        let bytes = bytes.unwrap_or_default();
        self.shared
            .figures
            .stored_bytes
            .store(bytes, Ordering::Relaxed);
        let bytes_max = self.shared.options.bytes_max;
        if bytes > bytes_max {
            let kept = u128::from(info.length) * u128::from(bytes_max) / u128::from(bytes);
            let mut trim = redis::cmd("XTRIM");
            trim.arg(stream)
                .arg("MAXLEN")
                .arg("~")
                .arg(u64::try_from(kept).unwrap_or(u64::MAX));
            ask(&trim, connection).await?;
        }
        Ok(())
    }
}

/// Up to where entries go into the log together: a portion, and what belongs to the batches in it.
fn end_of_batches(entries: &[Entry], from: usize) -> usize {
    let mut until = from;
    while until < entries.len() && until - from < LOCKED_MAX {
        let batch = match entries[until].what {
            What::Event(_, batch) => batch,
            _ => 1,
        };
        until += batch.max(1);
    }
    until.min(entries.len())
}
