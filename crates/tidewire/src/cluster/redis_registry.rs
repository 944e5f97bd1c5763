//! The registry in Redis. Every change is one script.

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::registry::{Answer, Entry, NodeInfo, Place, Registry, Renewed, Unavailable};
use crate::redis::{Backoff, Redis, Script};

/// Entries that one call renews or gives back. Redis does nothing else meanwhile.
const ENTRIES_MAX: usize = 500;

/// How calls are tried again that failed. All of them may be carried out twice.
#[derive(Clone, Copy, Debug)]
pub struct RetryOptions {
    /// How often again at most. Default: 3.
    pub retries: u32,
    /// How long all attempts may take together. Default: 2 seconds.
    pub within: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            retries: 3,
            within: Duration::from_secs(2),
        }
    }
}

/// The registry of nodes that share a Redis.
pub struct RedisRegistry {
    redis: Arc<Redis>,
    script: Script,
    ttl: Duration,
    retry: RetryOptions,
    slot_key: String,
}

impl RedisRegistry {
    /// Entries live for `ttl` from their last renewal on.
    pub fn new(redis: Arc<Redis>, ttl: Duration, retry: RetryOptions) -> Self {
        Self {
            slot_key: redis.key("nodes"),
            redis,
            script: Script::new(include_str!("registry.lua")),
            ttl,
            retry,
        }
    }

    async fn call<T: FromRedisValue>(&self, op: &str, more: &[&str]) -> Result<T, Unavailable> {
        let ttl_ms = self.ttl.as_millis().to_string();
        let arguments = [&[op, self.redis.prefix(), &ttl_ms], more].concat();
        let answer = self.retried(&arguments).await;
        answer
            .and_then(|value| T::from_redis_value(value).map_err(RedisError::from))
            .map_err(|error| Unavailable(error.to_string()))
    }

    async fn retried(&self, arguments: &[&str]) -> RedisResult<Value> {
        let deadline = Instant::now() + self.retry.within;
        let mut backoff = Backoff::default();
        let mut left = self.retry.retries;
        loop {
            let longest = deadline.saturating_duration_since(Instant::now());
            let keys = [self.slot_key.as_str()];
            let error = match self
                .script
                .run(&self.redis, &keys, arguments, longest)
                .await
            {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let pause = backoff.pause();
            if left == 0 || Instant::now() + pause >= deadline {
                return Err(error);
            }
            left -= 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn each_portion(
        &self,
        op: &str,
        node: &str,
        entries: &[Entry],
    ) -> Result<Vec<Value>, Unavailable> {
        let mut answers = Vec::new();
        for portion in entries.chunks(ENTRIES_MAX) {
            let connections: Vec<_> = portion.iter().map(|(_, id)| id.to_string()).collect();
            let mut more = vec![node];
            for ((client, _), connection) in portion.iter().zip(&connections) {
                more.extend([client.as_str(), connection]);
            }
            answers.push(self.call(op, &more).await?);
        }
        Ok(answers)
    }
}

/// `node connection rank`.
fn place(route: &str) -> Option<Place> {
    let mut words = route.split(' ');
    Some(Place {
        node: words.next()?.to_owned(),
        connection: words.next()?.parse().ok()?,
    })
}

impl Registry for RedisRegistry {
    fn register<'a>(&'a self, client: &'a str, place: &'a Place) -> Answer<'a, Option<Place>> {
        Box::pin(async move {
            let connection = place.connection.to_string();
            let before: String = self
                .call("register", &[client, &place.node, &connection])
                .await?;
            // A repeated attempt finds what the first one has written.
            Ok(self::place(&before).filter(|before| before != place))
        })
    }

    fn unregister<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.each_portion("unregister", node, entries).await?;
            Ok(())
        })
    }

    fn renew<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, Renewed> {
        Box::pin(async move {
            let mut renewed = Renewed::default();
            for answer in self.each_portion("renew", node, entries).await? {
                let texts = Vec::<String>::from_redis_value(answer);
                let texts = texts.map_err(|error| Unavailable(error.to_string()))?;
                let Some((restored, lost)) = texts.split_first() else {
                    continue;
                };
                renewed.restored += restored.parse::<usize>().unwrap_or(0);
                let places = lost.chunks_exact(2);
                let places =
                    places.filter_map(|pair| Some((pair[0].clone(), self::place(&pair[1])?)));
                renewed.lost.extend(places);
            }
            Ok(renewed)
        })
    }

    fn find<'a>(&'a self, client: &'a str) -> Answer<'a, Option<Place>> {
        Box::pin(async move {
            let route: String = self.call("find", &[client]).await?;
            Ok(place(&route))
        })
    }

    fn count(&self) -> Answer<'_, usize> {
        Box::pin(self.call("count", &[]))
    }

    fn beat<'a>(&'a self, info: &'a NodeInfo) -> Answer<'a, Option<NodeInfo>> {
        Box::pin(async move {
            let text = serde_json::to_string(info).unwrap_or_default();
            let former: String = self.call("beat", &[&info.node, &text]).await?;
            Ok(serde_json::from_str(&former).ok())
        })
    }

    fn leave<'a>(&'a self, node: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            while self.call::<usize>("leave", &[node]).await? > 0 {}
            Ok(())
        })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        Box::pin(async move {
            let texts: Vec<String> = self.call("nodes", &[]).await?;
            let known = texts
                .iter()
                .filter_map(|text| serde_json::from_str(text).ok());
            let mut nodes: Vec<NodeInfo> = known.collect();
            nodes.sort_by(|a, b| a.node.cmp(&b.node));
            Ok(nodes)
        })
    }

    fn sweep(&self) -> Answer<'_, usize> {
        Box::pin(self.call("sweep", &[]))
    }

    fn entries<'a>(&'a self, node: &'a str, cursor: u64) -> Answer<'a, (Vec<String>, u64)> {
        Box::pin(async move {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(self.redis.key(&format!("clients:{node}")))
                .arg(cursor);
            scan.arg("COUNT").arg(ENTRIES_MAX);
            let answer = self.redis.send(&scan, self.retry.within).await;
            let page = answer
                .and_then(|value| {
                    <(u64, Vec<String>)>::from_redis_value(value).map_err(RedisError::from)
                })
                .map_err(|error| Unavailable(error.to_string()))?;
            Ok((page.1, page.0))
        })
    }

    fn forget<'a>(&'a self, node: &'a str, clients: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move {
            for portion in clients.chunks(ENTRIES_MAX) {
                let names = portion.iter().map(String::as_str);
                let more: Vec<_> = std::iter::once(node).chain(names).collect();
                self.call::<usize>("forget", &more).await?;
            }
            Ok(())
        })
    }
}
