//! What everything that speaks to Redis (or Valkey) shares: addresses, connections that come back, scripts.
//!
//! | file | what lives there |
//! |---|---|
//! | `address.rs` | URLs: a single server, Sentinel, Cluster; with TLS and users |
//! | `connection.rs` | one connection, of whichever kind, that knows when it is dead |
//! | `script.rs` | Lua scripts by their digest, loaded where the server has forgotten them |
//! | `channels.rs` | Pub/Sub that subscribes again after an interruption, and says that there was one |

mod address;
pub(crate) mod channels;
mod connection;
mod script;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, RedisError, RedisResult, Value};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use self::address::Address;
pub use self::address::AddressError;
pub use self::channels::{Channels, Message};
pub use self::connection::Connection;
use self::connection::Pushes;
pub use self::script::Script;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest and the longest pause between two attempts to connect.
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 50..=1_000;

/// Where a Redis is, and what this hub's names there begin with. Keeps one connection for commands that all share.
pub struct Redis {
    address: Arc<Address>,
    prefix: String,
    shared: Mutex<Option<Attempt>>,
}

/// An attempt to connect, and what came of it. All who need the connection meanwhile wait for this one: while a server
/// hangs, nobody waits for more than one.
type Attempt = Shared<BoxFuture<'static, RedisResult<Connection>>>;

impl Redis {
    /// Nothing is connected yet.
    ///
    /// `url` is one of
    /// - `redis://[[user]:password@]host[:port][/db]`, with TLS `rediss://…`, or `unix:///path`;
    /// - `redis-sentinel://[[user]:password@]host[:port],host[:port]…/name-of-the-master`, `rediss-sentinel://…`;
    /// - `redis-cluster://[[user]:password@]host[:port],host[:port]…`, `rediss-cluster://…`.
    ///
    /// `prefix` stands before every key and channel. In a Cluster all keys must be in one slot, so there it needs a
    /// hash tag: `{tidewire}:`.
    ///
    /// # Errors
    /// If the URL is none of these, or the prefix has no hash tag where it needs one; says which.
    pub fn new(url: &str, prefix: &str) -> Result<Self, AddressError> {
        let address = Address::parse(url)?;
        if address.is_cluster() && !has_hash_tag(prefix) {
            return Err(AddressError::new(format!(
                "in a Cluster all keys must be in one slot: the prefix `{prefix}` needs a hash tag, such as `{{tidewire}}:`"
            )));
        }
        Ok(Self {
            address: Arc::new(address),
            prefix: prefix.to_owned(),
            shared: Mutex::new(None),
        })
    }

    /// A key or channel of this hub.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What keys and channels begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether several servers share the keys.
    pub(crate) fn is_cluster(&self) -> bool {
        self.address.is_cluster()
    }

    /// The connection that all commands share, made where there is none. Nothing that blocks may be sent over it.
    ///
    /// # Errors
    /// If none can be made now.
    pub async fn connection(&self) -> RedisResult<Connection> {
        self.attempt().await
    }

    /// The same, waited for until a time.
    pub(crate) async fn connection_by(&self, deadline: Instant) -> RedisResult<Connection> {
        let too_late = |_| Err(timed_out("Redis did not answer while connecting"));
        timeout_at(deadline, self.attempt())
            .await
            .unwrap_or_else(too_late)
    }

    fn attempt(&self) -> Attempt {
        let mut shared = self.shared.lock();
        let is_of_use = |attempt: &&Attempt| match attempt.peek() {
            Some(Ok(connection)) => connection.is_alive(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(attempt) = shared.as_ref().filter(is_of_use) {
            return attempt.clone();
        }
        let address = self.address.clone();
        let attempt = async move { connect(&address, None).await }
            .boxed()
            .shared();
        // It goes on also if all who wait have given up.
        tokio::spawn(attempt.clone());
        *shared = Some(attempt.clone());
        attempt
    }

    /// A new connection for one purpose, such as a command that blocks.
    ///
    /// # Errors
    /// If none can be made now.
    pub async fn dedicated(&self) -> RedisResult<Connection> {
        connect(&self.address, None).await
    }

    async fn for_channels(&self, pushes: Pushes) -> RedisResult<Connection> {
        connect(&self.address, Some(pushes)).await
    }

    /// Sends a command over the shared connection, and waits up to `longest` for the connection and the answer.
    ///
    /// # Errors
    /// What Redis answers, or that the connection broke: whether the command was carried out is unknown then.
    pub async fn send(&self, command: &Cmd, longest: Duration) -> RedisResult<Value> {
        let deadline = Instant::now() + longest;
        let connection = self.connection_by(deadline).await?;
        self.send_over(connection, command, deadline).await
    }

    /// Sends a command over the shared connection that was got before.
    pub(crate) async fn send_over(
        &self,
        mut connection: Connection,
        command: &Cmd,
        deadline: Instant,
    ) -> RedisResult<Value> {
        let answer = match timeout_at(deadline, command.query_async(&mut connection)).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out("Redis did not answer in time")),
        };
        if let Err(error) = &answer {
            Self::note(&connection, error);
        }
        answer
    }

    /// Gives the shared connection up where an error says that it is of no more use.
    pub(crate) fn note(connection: &Connection, error: &RedisError) {
        if error.is_io_error() || is_wrong_server(error) {
            connection.give_up();
        }
    }
}

async fn connect(address: &Address, pushes: Option<Pushes>) -> RedisResult<Connection> {
    match tokio::time::timeout(CONNECT_TIMEOUT, address.connect(pushes)).await {
        Ok(result) => result,
        Err(_) => Err(timed_out("Redis did not answer while connecting")),
    }
}

/// Whether the server is no master any more: another connection may find the one that is.
pub(crate) fn is_wrong_server(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

pub(crate) fn timed_out(what: &'static str) -> RedisError {
    RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

/// Whether a name has a part in braces, which alone decides in which slot of a Cluster it is.
pub fn has_hash_tag(name: &str) -> bool {
    let tag = name
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

/// Pauses that grow, each by chance up to half as long again, so that nodes don't come back in step.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let ms = (BACKOFF_MS.start() << self.attempts.min(10)).min(*BACKOFF_MS.end());
        self.attempts += 1;
        Duration::from_millis(ms + fastrand::u64(0..=ms / 2))
    }

    /// It worked: the next pause is a short one.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_needs_a_hash_tag() {
        let url = "redis-cluster://127.0.0.1:7000";
        assert!(Redis::new(url, "tidewire:").is_err());
        assert!(Redis::new(url, "{}:").is_err());
        assert!(Redis::new(url, "{tidewire}:").is_ok());
        assert!(Redis::new("redis://127.0.0.1", "tidewire:").is_ok());
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.pause().as_millis()).collect();
        assert!((50..=75).contains(&pauses[0]));
        assert!((1_000..=1_500).contains(&pauses[39]));
    }
}
