//! What other programs publish over Pub/Sub: a message on the channel `{prefix}topic:{topic}` is an event's data. It goes to
//! whoever is connected, on every node, and is stored nowhere.

use std::sync::Arc;

use tidewire_core::event::Event;
use tidewire_core::topic::Topic;

use super::Shared;
use crate::redis::channels::escape_glob;
use crate::redis::{Channels, Message};

/// Follows the channels until the hub ends.
pub(super) fn follow(shared: &Arc<Shared>) {
    let prefix = shared.redis.key("topic:");
    let pattern = format!("{}*", escape_glob(&prefix));
    let (channels, mut messages) = Channels::open(shared.redis.clone(), [], [pattern]);
    let (tail, bytes_max) = (shared.tail().clone(), shared.options.event_bytes_max);
    let mut ending = shared.ending.subscribe();
    tokio::spawn(async move {
        let _channels = channels;
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            let Some(message) = message else {
                return;
            };
            let Message::Data { channel, payload } = message else {
                continue;
            };
            let name = channel.strip_prefix(&prefix).unwrap_or_default();
            match understand(name, payload, bytes_max) {
                Ok((topic, event)) => {
                    let now_ms = tail.now_ms();
                    let append = |log: &mut tidewire_core::log::Log| {
                        log.append_transient(&[topic], &event, now_ms);
                    };
                    if tail.try_write(append).is_none() {
                        return;
                    }
                }
                Err(why) => tracing::warn!(channel, why, "a message is no event"),
            }
        }
    });
}

fn understand(name: &str, payload: Vec<u8>, bytes_max: usize) -> Result<(Topic, Event), String> {
    let topic = Topic::new(name).map_err(|error| error.to_string())?;
    let data = String::from_utf8(payload).map_err(|_| "not UTF-8".to_owned())?;
    let event = Event::text(data);
    event
        .validate(bytes_max)
        .map_err(|error| error.to_string())?;
    Ok((topic, event))
}
