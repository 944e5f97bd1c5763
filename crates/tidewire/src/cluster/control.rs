//! What nodes say to each other: orders and their answers over Pub/Sub, a channel for each node and one for all.
//!
//! Pub/Sub promises nothing, so every order is answered, and one without an answer in time is reported as such.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::FromRedisValue;
use serde::{Deserialize, Serialize};
use tidewire_core::event::Event;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Present;
use super::registry::Unavailable;
use crate::connections::ConnectionId;
use crate::redis::{Channels, Message, Redis};

/// Orders that wait for answers at a time. Stops a node that is silent from filling the memory of the others.
const PENDING_MAX: usize = 10_000;
/// How long it is waited for a node that listens to nothing at the moment.
const REACH_AGAIN: Duration = Duration::from_millis(50);
/// Nodes whose answers to one order are awaited.
const NODES_MAX: usize = 1_024;

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
    /// Close a client's connection.
    Close { client: String },
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
    pending: Mutex<HashMap<u64, mpsc::Sender<(String, Done)>>>,
    _channels: Channels,
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
        let asked: Vec<String> = others.take(NODES_MAX).collect();
        if asked.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let channel = self.redis.key("control");
        let answers = self.ask_over(&channel, order, asked.clone()).await?;
        let has_answered = |node: &String| answers.iter().any(|(by, _)| by == node);
        let silent = asked
            .into_iter()
            .filter(|node| !has_answered(node))
            .collect();
        Ok((answers, silent))
    }

    async fn ask_over(
        &self,
        channel: &str,
        order: &Order,
        mut asked: Vec<String>,
    ) -> Result<Vec<(String, Done)>, Unavailable> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (answer, mut answered) = mpsc::channel(asked.len());
        {
            let mut pending = self.pending.lock();
            if pending.len() >= PENDING_MAX {
                return Err(Unavailable("too many orders wait for answers".into()));
            }
            pending.insert(number, answer);
        }
        let _forget = Forget(self, number);
        let letter = Letter::Order {
            from: self.node.clone(),
            number,
            order: order.clone(),
        };
        let mut answers = Vec::new();
        let deadline = Instant::now() + self.timeout;
        if !self.deliver(channel, &letter, deadline).await? {
            return Ok(answers);
        }
        while !asked.is_empty() {
            match tokio::time::timeout_at(deadline, answered.recv()).await {
                Ok(Some((node, done))) => {
                    if let Some(at) = asked.iter().position(|asked| *asked == node) {
                        asked.swap_remove(at);
                        answers.push((node, done));
                    }
                }
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    /// Publishes until somebody gets it. Who is not subscribed, as after an interruption, has surely not got it before.
    async fn deliver(
        &self,
        channel: &str,
        letter: &Letter,
        deadline: Instant,
    ) -> Result<bool, Unavailable> {
        while self.publish(channel, letter).await? == 0 {
            if Instant::now() + REACH_AGAIN > deadline {
                return Ok(false);
            }
            tokio::time::sleep(REACH_AGAIN).await;
        }
        Ok(true)
    }

    async fn publish(&self, channel: &str, letter: &Letter) -> Result<usize, Unavailable> {
        let text = serde_json::to_string(letter).unwrap_or_default();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(text);
        let answer = self.redis.send(&publish, self.timeout).await;
        answer
            .and_then(|value| usize::from_redis_value(value).map_err(Into::into))
            .map_err(|error| Unavailable(error.to_string()))
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
                // Not waited for, so that one order does not hold up the next.
                tokio::spawn(async move {
                    let deadline = Instant::now() + control.timeout;
                    if let Err(error) = control.deliver(&channel, &answer, deadline).await {
                        tracing::debug!(%error, "an order can't be answered");
                    }
                });
            }
            Ok(Letter::Answer { from, to, done }) => {
                let pending = control.pending.lock();
                if let Some(waiting) = pending.get(&to) {
                    // There is room for one of each node that was asked.
                    let _ = waiting.try_send((from, done));
                }
            }
            Err(error) => tracing::warn!(%error, "a message on the control channel is none"),
        }
    }
}
