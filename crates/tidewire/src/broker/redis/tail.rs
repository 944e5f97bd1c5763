//! Following the stream into the node's log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::Log;
use tokio::time::Instant;

use super::Shared;
use super::entry::{Entry, Read, What, entries_of_read, id_text, parse_entries};
use super::history::{Beginning, Portion, read_back};
use super::whole::{Begun, end_of_portion};
use crate::broker::{StartError, Tail};
use crate::redis::{Backoff, Connection, Script, timed_out};

/// How long a read waits for news. What makes a connection that is dead without saying so known in time.
const BLOCK: Duration = Duration::from_secs(1);
/// How much later than that an answer may come.
const BLOCK_GRACE: Duration = Duration::from_secs(3);
/// How often the stream is asked whether it is still the same.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long the first connection is tried for.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What follows the stream.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) tail: Tail,
    pub(super) epoch_script: Script,
    pub(super) epoch: Epoch,
    /// The entry that was read last.
    pub(super) place: Offset,
    /// How many entries were ever added up to that one, as far as Redis says so.
    pub(super) added: Option<u64>,
    begun: Begun,
    portion: Portion,
    pub(super) checked: Instant,
    pub(super) trimmed: Option<Instant>,
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
        added: None,
        begun: Begun::default(),
        portion: Portion::of_log(),
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

    /// Takes a history up from what the stream has of it. Whoever has a place in another one is closed.
    pub(super) async fn take_up(
        &mut self,
        connection: &mut Connection,
        epoch: Epoch,
    ) -> RedisResult<()> {
        let limits = |log: &mut Log| (log.ttl_ms(), log.memory_bytes_max());
        let Some((ttl_ms, bytes_max)) = self.tail.try_write(limits) else {
            return Ok(());
        };
        self.shared.ttl_ms.store(ttl_ms, Ordering::Relaxed);
        let oldest_ms = self.tail.now_ms().saturating_sub(ttl_ms);
        let Beginning {
            entries,
            lost,
            info,
        } = read_back(&self.shared, connection, oldest_ms, bytes_max).await?;
        self.tail.try_write(|log| {
            log.begin_epoch(epoch);
            log.skip_lost(lost, lost.major);
        });
        // Before there is anything to read, and after nobody can begin in the old one any more: so nobody goes on from the
        // one to the other without being told.
        self.tail.close_everyone();
        self.epoch = epoch;
        self.place = entries.last().map_or(info.last, |entry| entry.offset);
        self.added = info.added;
        self.begun = Begun::default();
        let _ = self.show(&entries);
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
            let shared = self.shared.clone();
            let asked = self.portion.count();
            let read = tokio::select! {
                read = self.read(&mut connection) => read?,
                () = shared.look_again.notified() => {
                    // The read is still under way on this connection.
                    connection = self.shared.redis.dedicated().await?;
                    self.check(&mut connection, true).await?;
                    continue;
                }
            };
            let is_idle = read.count == 0;
            let is_due = self.checked.elapsed() > CHECK_EVERY;
            // Where others add more than this node reads, entries may be removed before it comes to them. Where Redis counts
            // what is added, those few that are removed between two checks are found by the next.
            if read.count >= asked || (!is_idle && (is_due || self.added.is_none())) {
                self.look_for_removed(&mut connection, &read).await?;
            }
            self.take(read)?;
            if is_idle || is_due {
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
        self.added = self.added.map(|added| added + read.count as u64);
        self.place = read.end.unwrap_or(self.place);
        let whole = self.begun.add(read.entries);
        self.show(&whole)?;
        if self.begun.is_empty() && !whole.is_empty() {
            self.note_place();
        }
        Ok(())
    }

    fn show(&self, entries: &[Entry]) -> Result<(), End> {
        let mut at = 0;
        while at < entries.len() {
            let until = end_of_portion(entries, at);
            let append = |log: &mut Log| {
                let portion = entries[at..until].iter();
                portion.for_each(|entry| self.append(log, entry));
            };
            self.tail.try_write(append).ok_or(End::Over)?;
            at = until;
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
}
