//! Whether the stream is still the one that it was, and trimming it.
//!
//! A Redis that was restarted without its data, or a replica that took over before it had everything, has lost events that
//! were answered and seen. Ids of the lost ones must not be given out again, so the history gets a new epoch: whoever
//! notices first writes it, by compare-and-set, and nothing is stored under the old one any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{FromRedisValue, RedisError, RedisResult};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::Log;
use tokio::time::Instant;

use super::entry::{Read, id_text, parse_entries};
use super::history::{Info, ask, info};
use super::tail::Follower;
use crate::redis::Connection;

/// How often the stream is trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// A last id further in the future than this is no clock that is wrong: somebody added an entry with an id of their own.
const FUTURE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;

impl Follower {
    /// The epoch that the store has; a new one where it has none, or still the one that is over.
    pub(super) async fn epoch_of_store(
        &self,
        connection: &mut Connection,
        over: &str,
    ) -> RedisResult<Epoch> {
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

    /// Looks whether the stream is still the one that this node has followed so far.
    pub(super) async fn check(
        &mut self,
        connection: &mut Connection,
        anew: bool,
    ) -> RedisResult<()> {
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
        // Where what this node has read is gone, something was removed; or this is another stream in place of a deleted one.
        let is_whole = info.added == Some(info.length);
        let begins_later = info.first.is_some_and(|first| first > self.place);
        let is_shorter = info.added < self.added;
        let is_new = is_whole && ((begins_later && self.place > Offset::ZERO) || is_shorter);
        if info.last < self.place || is_new {
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
        self.take_up(connection, epoch).await
    }

    /// Between reading entries and showing them: were some removed that come before those?
    pub(super) async fn look_for_removed(
        &mut self,
        connection: &mut Connection,
        read: &Read,
    ) -> RedisResult<()> {
        let info = info(&self.shared.stream, connection).await?;
        if info.first.is_some_and(|first| first <= self.place) {
            return Ok(());
        }
        // All that this node has read before is gone, and maybe more. Where that is not known it is taken to be so.
        let is_new = self.place == Offset::ZERO;
        let removed = info.added.map(|added| added.saturating_sub(info.length));
        let before = self.added.or(is_new.then_some(0));
        let missed = match (removed, before) {
            (Some(removed), Some(before)) => removed.saturating_sub(before),
            _ => u64::from(!is_new),
        };
        if missed > 0 {
            let begins_with_these = info.first == read.entries.first().map(|entry| entry.offset);
            self.added = removed.filter(|_| begins_with_these);
            self.note_missed(missed);
        } else {
            self.added = removed.and(before);
        }
        Ok(())
    }

    /// Whether as many entries were read as were added, where all have been read.
    fn check_count(&mut self, info: &Info) {
        if info.last != self.place {
            return;
        }
        let read = std::mem::replace(&mut self.added, info.added);
        if let Some((added, read)) = info.added.zip(read)
            && added > read
        {
            self.note_missed(added - read);
        }
    }

    /// All that are connected are closed, and told of a gap when they come back, also those who have seen what came after.
    fn note_missed(&self, missed: u64) {
        tracing::error!(
            missed,
            "entries were removed from the stream before this node had read them"
        );
        self.tail.try_write(Log::note_missed);
        self.tail.close_everyone();
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
