//! Pub/Sub: channels and patterns of channels, subscribed again after every interruption.
//!
//! What is published while the connection is away is lost; that is Pub/Sub's promise, and an interruption is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::{Notify, mpsc};

use super::connection::Pushes;
use super::{Backoff, Connection, Redis, timed_out};

/// Messages on their way to whoever takes them, after those that wait in the connection. What there is no room for is
/// lost, and that is an interruption.
const MESSAGES_MAX: usize = 32;
/// How long Redis may take to confirm a subscription.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(2);

/// What comes over the channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// All subscriptions are in force: at the start, and again after an interruption. What was published in between
    /// is lost.
    Subscribed,
    /// A message.
    Data {
        /// Its channel.
        channel: String,
        /// What was published.
        payload: Vec<u8>,
    },
}

/// Which channels are subscribed to. When it is dropped, the connection ends.
pub struct Channels {
    wanted: Arc<Wanted>,
}

#[derive(Default)]
struct Wanted {
    names: Mutex<Names>,
    changed: Notify,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Names {
    channels: BTreeSet<String>,
    patterns: BTreeSet<String>,
}

impl Channels {
    /// Begins with these channels and patterns (Redis' globs). Needs a tokio runtime.
    pub fn open(
        redis: Arc<Redis>,
        channels: impl IntoIterator<Item = String>,
        patterns: impl IntoIterator<Item = String>,
    ) -> (Self, mpsc::Receiver<Message>) {
        let names = Names {
            channels: channels.into_iter().collect(),
            patterns: patterns.into_iter().collect(),
        };
        let wanted = Arc::new(Wanted {
            names: Mutex::new(names),
            ..Wanted::default()
        });
        let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(run(redis, Arc::downgrade(&wanted), messages));
        (Self { wanted }, receiver)
    }

    /// Adds a channel.
    pub fn add(&self, channel: &str) {
        self.wanted.names.lock().channels.insert(channel.to_owned());
        self.wanted.changed.notify_one();
    }

    /// Takes a channel away.
    pub fn remove(&self, channel: &str) {
        self.wanted.names.lock().channels.remove(channel);
        self.wanted.changed.notify_one();
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.wanted.changed.notify_one();
    }
}

/// A name as a pattern that stands for it alone.
pub(crate) fn escape_glob(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

async fn run(redis: Arc<Redis>, wanted: Weak<Wanted>, messages: mpsc::Sender<Message>) {
    let mut backoff = Backoff::default();
    while wanted.strong_count() > 0 && !messages.is_closed() {
        let error = match listen(&redis, &wanted, &messages, &mut backoff).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let pause = backoff.pause();
        tracing::debug!(%error, ?pause, "Pub/Sub is interrupted");
        tokio::time::sleep(pause).await;
    }
}

/// Answers `Ok` when nobody wants anything any more.
async fn listen(
    redis: &Redis,
    wanted: &Weak<Wanted>,
    messages: &mpsc::Sender<Message>,
    backoff: &mut Backoff,
) -> RedisResult<()> {
    let (pushes, mut pushed) = Pushes::new();
    let mut connection = redis.for_channels(pushes).await?;
    let mut current = Names::default();
    let mut told = false;
    loop {
        let Some(all) = wanted.upgrade() else {
            return Ok(());
        };
        let names = all.names.lock().clone();
        if names != current {
            change(&mut connection, &current, &names).await?;
            current = names;
        }
        if !std::mem::replace(&mut told, true) {
            backoff.reset();
            if messages.send(Message::Subscribed).await.is_err() {
                return Ok(());
            }
        }
        let changed = all.changed.notified();
        tokio::select! {
            push = pushed.next() => {
                let Some(push) = push.filter(|push| push.kind != PushKind::Disconnection) else {
                    return Err(timed_out("the connection has ended, or more came than was taken"));
                };
                if let Some(message) = message(push)
                    && messages.send(message).await.is_err()
                {
                    return Ok(());
                }
            }
            () = changed => {}
            () = tokio::time::sleep(PING_EVERY) => confirm(&redis::cmd("PING"), &mut connection).await?,
        }
    }
}

async fn change(connection: &mut Connection, from: &Names, to: &Names) -> RedisResult<()> {
    let steps = [
        ("SUBSCRIBE", &to.channels, &from.channels),
        ("PSUBSCRIBE", &to.patterns, &from.patterns),
        ("UNSUBSCRIBE", &from.channels, &to.channels),
        ("PUNSUBSCRIBE", &from.patterns, &to.patterns),
    ];
    for (name, of, without) in steps {
        let names: Vec<_> = of.difference(without).collect();
        if !names.is_empty() {
            confirm(redis::cmd(name).arg(names), connection).await?;
        }
    }
    Ok(())
}

async fn confirm(command: &Cmd, connection: &mut Connection) -> RedisResult<()> {
    match tokio::time::timeout(CONFIRM_TIMEOUT, command.query_async(connection)).await {
        Ok(answer) => answer.map(|_: Value| ()),
        Err(_) => Err(timed_out("Redis did not answer in time")),
    }
}

fn message(push: PushInfo) -> Option<Message> {
    let at = match push.kind {
        PushKind::Message | PushKind::SMessage => 0,
        PushKind::PMessage => 1,
        _ => return None,
    };
    let mut data = push.data.into_iter().skip(at);
    let channel = String::from_redis_value(data.next()?).ok()?;
    let payload = Vec::<u8>::from_redis_value(data.next()?).ok()?;
    Some(Message::Data { channel, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(escape_glob("{t}:a*[b]?\\"), "{t}:a\\*\\[b\\]\\?\\\\");
    }
}
