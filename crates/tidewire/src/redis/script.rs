//! Lua scripts: sent by their digest, and whole where the server does not know them.

use std::time::Duration;

use redis::{Cmd, RedisError, RedisResult, ServerErrorKind, ToRedisArgs, Value};
use tokio::time::{Instant, timeout_at};

use super::{Connection, Redis, timed_out};

/// A script. A server carries it out whole, with nothing else in between.
pub struct Script {
    code: &'static str,
    digest: String,
}

impl Script {
    /// A script of this source.
    pub fn new(code: &'static str) -> Self {
        let digest = redis::Script::new(code).get_hash().to_owned();
        Self { code, digest }
    }

    /// Carries the script out once, over the shared connection, and waits up to `longest` for all that takes. Where the server has forgotten the script, which it says
    /// before it does anything, it is sent again.
    ///
    /// # Errors
    /// As [`Redis::send`].
    pub async fn run(
        &self,
        redis: &Redis,
        keys: &[&str],
        arguments: &[impl ToRedisArgs],
        longest: Duration,
    ) -> RedisResult<Value> {
        let deadline = Instant::now() + longest;
        let mut connection = redis.connection_by(deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.run_on(&mut connection, keys, arguments, left).await;
        if let Err(error) = &answer {
            Redis::note(&connection, error);
        }
        answer
    }

    /// The same over a connection of one's own.
    ///
    /// # Errors
    /// What Redis answers, or that the connection broke or was silent: then it is unknown what was done.
    pub async fn run_on(
        &self,
        connection: &mut Connection,
        keys: &[&str],
        arguments: &[impl ToRedisArgs],
        longest: Duration,
    ) -> RedisResult<Value> {
        let deadline = Instant::now() + longest;
        let by_digest = command("EVALSHA", &self.digest, keys, arguments);
        let answer = query(&by_digest, connection, deadline).await;
        match answer {
            Err(error) if is_unknown(&error) => {
                let whole = command("EVAL", self.code, keys, arguments);
                query(&whole, connection, deadline).await
            }
            answer => answer,
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

fn command(name: &str, script: &str, keys: &[&str], arguments: &[impl ToRedisArgs]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len()).arg(keys);
    for argument in arguments {
        command.arg(argument);
    }
    command
}

async fn query(
    command: &Cmd,
    connection: &mut Connection,
    deadline: Instant,
) -> RedisResult<Value> {
    match timeout_at(deadline, command.query_async(connection)).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out("Redis did not answer in time")),
    }
}
