//! Who comes to a topic, and who leaves: events `join` and `leave` on `presence:{topic}`, for topics that are configured.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tidewire_core::event::Event;
use tidewire_core::pattern::Pattern;
use tokio::sync::mpsc;

use super::Inner;
use crate::connections::{Connection, ConnectionId};
use crate::hub::{Hub, Shared, Watcher};

/// Comings and goings that wait to be published. Beyond that they are left out, and logged: the list of who is there
/// (`presence`) is never wrong by it.
pub(super) const NEWS_MAX: usize = 16 * 1024;

/// What the topics of presence events begin with.
const TOPIC: &str = "presence:";

/// Somebody has come, or left.
pub(super) struct News {
    name: &'static str,
    topic: String,
    connection: ConnectionId,
    user: Option<String>,
}

/// Is told by the hub.
pub(super) struct Reporter {
    pub(super) inner: Weak<Inner>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) news: mpsc::Sender<News>,
    /// Whether the last piece of news was left out.
    pub(super) is_full: AtomicBool,
}

impl Reporter {
    fn tell(&self, name: &'static str, connection: &Connection, topics: Vec<String>) {
        let is_told = |topic: &String| self.patterns.iter().any(|pattern| pattern.matches(topic));
        for topic in topics.into_iter().filter(is_told) {
            let news = News {
                name,
                topic,
                connection: connection.id,
                user: connection.user().map(str::to_owned),
            };
            let is_full = self.news.try_send(news).is_err();
            // Once, and not for each.
            if is_full && !self.is_full.swap(is_full, Ordering::Relaxed) {
                tracing::warn!("presence events are left out, as too many wait");
            } else if !is_full {
                self.is_full.store(false, Ordering::Relaxed);
            }
        }
    }
}

impl Watcher for Reporter {
    fn wants_topics(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn opened(&self, connection: &Connection, topics: Vec<String>) {
        self.tell("join", connection, topics);
    }

    fn ended(&self, connection: &Connection, topics: Vec<String>) {
        if let Some(inner) = self.inner.upgrade() {
            inner.local.end(connection.id);
        }
        self.tell("leave", connection, topics);
    }
}

/// Publishes them in their order, for as long as the hub lives.
pub(super) async fn publish(shared: Weak<Shared>, node: String, mut told: mpsc::Receiver<News>) {
    while let Some(news) = told.recv().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let hub = Hub { shared };
        let data = json!({
            "topic": news.topic,
            "connection": news.connection,
            "user": news.user,
            "node": node,
        });
        let topic = format!("{TOPIC}{}", news.topic);
        let event = Event::text(data.to_string()).named(news.name);
        if let Err(error) = hub.publish(&topic, event).await {
            tracing::warn!(%error, topic, "a presence event is not published");
        }
    }
}
