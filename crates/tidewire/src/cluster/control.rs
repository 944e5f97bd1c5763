//! What nodes say to each other: orders and their answers over Pub/Sub, a channel for each node and one for all.
//!
//! Pub/Sub promises nothing, so every order is answered, and one without an answer in time is reported as such.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError};
use serde::{Deserialize, Serialize};
use tidewire_core::event::Event;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::Present;
use super::registry::{Entry, Unavailable};
use crate::connections::ConnectionId;
use crate::redis::{Backoff, Channels, Message, Redis};

/// Orders that wait for answers at a time. Stops a node that is silent from filling the memory of the others.
const PENDING_MAX: usize = 10_000;
/// Answers under way at a time. Stops nodes that ask and don't listen from filling the memory.
const ANSWERS_MAX: usize = 1_024;

/// An event on its way to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireEvent {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_ms: Option<u64>,
}

impl From<&Event> for WireEvent {
    fn from(event: &Event) -> Self {
        Self {
            event: event.event.clone(),
            data: event.data.clone(),
            retry_ms: event.retry_ms,
        }
    }
}

impl From<WireEvent> for Event {
    fn from(wire: WireEvent) -> Self {
        Self {
            event: wire.event,
            retry_ms: wire.retry_ms,
            ..Self::text(wire.data)
        }
    }
}

/// What a node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Order {
    /// Send an event to a client.
    Send { client: String, event: WireEvent },
    /// Send an event to every client.
    Broadcast { event: WireEvent },
    /// A client has a newer connection elsewhere.
    Replace {
        client: String,
        connection: ConnectionId,
    },
    /// Say which of these clients' connections are not here.
    Holds { entries: Vec<Entry> },
    /// Close this connection of a client.
    Close {
        client: String,
        connection: ConnectionId,
    },
    /// Close all connections of clients.
    CloseAll,
    /// Close a user's connections.
    CloseUser { user: String },
    /// Say who reads a topic.
    Presence { topic: String, limit: usize },
}

/// What a node has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// Connections that it was done to.
    pub(super) count: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) present: Vec<Present>,
    /// Clients whose connections are not here, of those that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
    /// How large an event may be, where it was too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event_bytes_max: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Letter {
    Order {
        from: String,
        number: u64,
        order: Order,
    },
    Answer {
        from: String,
        to: u64,
        done: Done,
    },
}

/// Does what is asked.
pub(super) trait Servant: Send + Sync + 'static {
    fn carry_out(&self, order: Order) -> Done;
}

/// A node's way to the others.
pub(super) struct Control {
    redis: Arc<Redis>,
    node: String,
    timeout: Duration,
    numbers: AtomicU64,
    pending: Mutex<HashMap<u64, Waiting>>,
    _channels: Channels,
}

/// Who waits for answers, and of whom.
struct Waiting {
    asked: Vec<String>,
    answers: mpsc::Sender<(String, Done)>,
}

impl Control {
    /// Begins to listen. Needs tokio.
    pub(super) fn open(
        redis: Arc<Redis>,
        node: &str,
        timeout: Duration,
        servant: std::sync::Weak<impl Servant>,
    ) -> Arc<Self> {
        let own = redis.key(&format!("control:{node}"));
        let all = redis.key("control");
        let (channels, messages) = Channels::open(redis.clone(), [own, all], []);
        let control = Arc::new(Self {
            redis,
            node: node.to_owned(),
            timeout,
            // So that answers to a node of the same name in a former life are none of this one's.
            numbers: AtomicU64::new(fastrand::u64(..u64::MAX / 2)),
            pending: Mutex::default(),
            _channels: channels,
        });
        tokio::spawn(listen(Arc::downgrade(&control), servant, messages));
        control
    }

    /// Asks one node; `None` if it is silent.
    pub(super) async fn ask(&self, node: &str, order: &Order) -> Result<Option<Done>, Unavailable> {
        let channel = self.redis.key(&format!("control:{node}"));
        let asked = [node.to_owned()].into();
        let answers = self.ask_over(&channel, order, asked).await?;
        Ok(answers.into_iter().next().map(|(_, done)| done))
    }

    /// Asks the other nodes. Answers what those said that did, and which are silent.
    pub(super) async fn ask_all(
        &self,
        nodes: impl IntoIterator<Item = String>,
        order: &Order,
    ) -> Result<(Vec<(String, Done)>, Vec<String>), Unavailable> {
        let others = nodes.into_iter().filter(|node| *node != self.node);
        let asked: Vec<String> = others.collect();
        if asked.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let channel = self.redis.key("control");
        let answers = self.ask_over(&channel, order, asked.clone()).await?;
        let has_answered: HashSet<&str> = answers.iter().map(|(by, _)| by.as_str()).collect();
        let silent = asked
            .iter()
            .filter(|node| !has_answered.contains(node.as_str()))
            .cloned()
            .collect();
        Ok((answers, silent))
    }

    /// An error says that surely nobody was asked.
    async fn ask_over(
        &self,
        channel: &str,
        order: &Order,
        asked: Vec<String>,
    ) -> Result<Vec<(String, Done)>, Unavailable> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let count = asked.len();
        let (answers, mut answered) = mpsc::channel(count);
        {
            let mut pending = self.pending.lock();
            if pending.len() >= PENDING_MAX {
                return Err(Unavailable("too many orders wait for answers".into()));
            }
            pending.insert(number, Waiting { asked, answers });
        }
        let _forget = Forget(self, number);
        let letter = Letter::Order {
            from: self.node.clone(),
            number,
            order: order.clone(),
        };
        let deadline = Instant::now() + self.timeout;
        self.deliver(channel, &letter, deadline).await?;
        let mut answers = Vec::new();
        while answers.len() < count {
            match tokio::time::timeout_at(deadline, answered.recv()).await {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    /// Publishes until somebody gets it, or the time is over. Who is not subscribed, as after an interruption, has surely
    /// not got it before. An error says that surely nobody has got it.
    async fn deliver(
        &self,
        channel: &str,
        letter: &Letter,
        deadline: Instant,
    ) -> Result<(), Unavailable> {
        let text = serde_json::to_string(letter).unwrap_or_default();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(text);
        let unavailable = |error: RedisError| Unavailable(error.to_string());
        let mut backoff = Backoff::default();
        loop {
            let connection = self.redis.connection_by(deadline).await;
            let connection = connection.map_err(unavailable)?;
            let answer = self.redis.send_over(connection, &publish, deadline).await;
            let reached = match answer {
                Ok(count) => usize::from_redis_value(count).unwrap_or(0),
                // Redis itself refuses it.
                Err(error) if error.code().is_some() => return Err(unavailable(error)),
                // Nobody knows: whoever has got it will answer.
                Err(_) => return Ok(()),
            };
            let pause = backoff.pause();
            // In a Cluster only who listens to the same server is counted, so nobody may still be somebody.
            if reached > 0 || self.redis.is_cluster() || Instant::now() + pause > deadline {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Takes an order off the list of those that wait, also where nobody waits any more.
struct Forget<'a>(&'a Control, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.pending.lock().remove(&self.1);
    }
}

async fn listen(
    control: std::sync::Weak<Control>,
    servant: std::sync::Weak<impl Servant>,
    mut messages: mpsc::Receiver<Message>,
) {
    let room = Arc::new(Semaphore::new(ANSWERS_MAX));
    while let Some(message) = messages.recv().await {
        let (Some(control), Some(servant)) = (control.upgrade(), servant.upgrade()) else {
            return;
        };
        let Message::Data { payload, .. } = message else {
            continue;
        };
        match serde_json::from_slice(&payload) {
            // What one asks of all one does oneself without being asked.
            Ok(Letter::Order { from, .. }) if from == control.node => {}
            Ok(Letter::Order {
                from,
                number,
                order,
            }) => {
                let answer = Letter::Answer {
                    from: control.node.clone(),
                    to: number,
                    done: servant.carry_out(order),
                };
                let channel = control.redis.key(&format!("control:{from}"));
                let Ok(room) = room.clone().acquire_owned().await else {
                    return;
                };
                // Not waited for, so that one order does not hold up the next.
                tokio::spawn(async move {
                    let _room = room;
                    let deadline = Instant::now() + control.timeout;
                    if let Err(error) = control.deliver(&channel, &answer, deadline).await {
                        tracing::debug!(%error, "an order can't be answered");
                    }
                });
            }
            Ok(Letter::Answer { from, to, done }) => {
                let mut pending = control.pending.lock();
                if let Some(waiting) = pending.get_mut(&to)
                    && let Some(at) = waiting.asked.iter().position(|asked| *asked == from)
                {
                    waiting.asked.swap_remove(at);
                    // There is room for one of each node that was asked.
                    let _ = waiting.answers.try_send((from, done));
                }
            }
            Err(error) => tracing::warn!(%error, "a message on the control channel is none"),
        }
    }
}
