//! Redis Pub/Sub: what other programs publish on `user-notifications:{user id}` goes to the user's connections, and what is
//! created here is published there for listeners of such programs.
//!
//! Pub/Sub keeps nothing: what is published while Redis or the node is away is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::redis::{Channels, Message, Redis};
use tidewire::{Event, Hub};

use super::delivery::TOPIC;
use super::domain::Notification;

/// What a channel's name begins with.
const CHANNEL: &str = "user-notifications:";
/// A member of what is published here, so that it is not taken in again.
const MARK: &str = "_tidewire";
/// How often it is looked which users are connected.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes created notifications for listeners outside.
pub(super) struct Announcer(pub(super) Arc<Redis>);

impl Announcer {
    pub(super) async fn announce(&self, notification: &Notification) {
        let mut document = json!(notification);
        document[MARK] = Value::Bool(true);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{CHANNEL}{}", notification.recipient_id));
        publish.arg(document.to_string());
        if let Err(error) = self.0.send(&publish, ANNOUNCE_TIMEOUT).await {
            tracing::debug!(%error, "a notification is not published over Pub/Sub");
        }
    }
}

/// Follows the channels of those who are connected, until the hub ends.
pub(super) async fn follow(hub: Hub, redis: Arc<Redis>, bytes_max: usize) {
    hub.follow_readers(TOPIC);
    let (channels, mut messages) = Channels::open(redis, [], []);
    let mut followed: HashSet<String> = HashSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            _ = look.tick() => {
                let connected = connected(&hub);
                for user in followed.difference(&connected) {
                    channels.remove(&format!("{CHANNEL}{user}"));
                }
                for user in connected.difference(&followed) {
                    channels.add(&format!("{CHANNEL}{user}"));
                }
                followed = connected;
                continue;
            }
        };
        let Some(message) = message else {
            return;
        };
        if let Message::Data { channel, payload } = message {
            let user = channel.strip_prefix(CHANNEL).unwrap_or_default();
            if let Err(why) = take_in(&hub, user, payload, bytes_max) {
                tracing::warn!(channel, why, "a message is no notification");
            }
        }
    }
}

/// The users with a stream of notifications on this node.
fn connected(hub: &Hub) -> HashSet<String> {
    hub.read_topics(TOPIC).into_iter().collect()
}

fn take_in(hub: &Hub, user: &str, payload: Vec<u8>, bytes_max: usize) -> Result<(), String> {
    let text = String::from_utf8(payload).map_err(|_| "not UTF-8".to_owned())?;
    let document: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if document.get(MARK).is_some() {
        return Ok(());
    }
    // As it is: numbers may change when they are read and written. But on one line, as what is created here.
    let is_one_line = !text.contains(['\n', '\r']);
    let event = Event::text(if is_one_line {
        text
    } else {
        document.to_string()
    });
    event
        .validate(bytes_max)
        .map_err(|error| error.to_string())?;
    hub.send_to_topic(&format!("{TOPIC}{user}"), event)
        .map_err(|error| error.to_string())?;
    Ok(())
}
