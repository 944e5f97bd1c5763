//! A publisher that goes on while connections are lost, and what its subscribers must have received of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, publish};

/// Publishes events numbered from 1 on, one every few milliseconds.
pub(crate) struct Publisher {
    newest: Arc<AtomicU64>,
    stop: Sender<()>,
    thread: JoinHandle<Vec<(u64, String)>>,
}

impl Publisher {
    const PAUSE: Duration = Duration::from_millis(5);

    pub(crate) fn spawn(port: u16) -> Self {
        let newest = Arc::<AtomicU64>::default();
        let (stop, stopped) = channel();
        let thread = thread::spawn({
            let newest = Arc::clone(&newest);
            move || {
                let mut published = Vec::new();
                while stopped.recv_timeout(Self::PAUSE) == Err(RecvTimeoutError::Timeout) {
                    let n = published.len() as u64 + 1;
                    published.push((n, publish(port, "t", &json!({"n": n, "z": "padding"}))));
                    newest.store(n, Ordering::SeqCst);
                }
                published
            }
        });
        Self {
            newest,
            stop,
            thread,
        }
    }

    /// The number of the event that was published last.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Stops, and sees to it that a client has received each event once, in order, and nothing else.
    pub(crate) fn assert_all_received_by(self, client: &mut Client) {
        let newest = self.newest();
        client.wait_for("an event after the last loss", |line| {
            number(line) > Some(newest)
        });
        let sent = self.stop();
        let last = sent.last().map(|(n, _)| *n);
        if client.events().last().and_then(number) != last {
            client.wait_for("the last event", |line| number(line) == last);
        }
        assert_received(client, &sent);
    }

    /// Stops, and returns the number and the id of each event.
    fn stop(self) -> Vec<(u64, String)> {
        drop(self.stop);
        self.thread.join().expect("publishing went well")
    }
}

/// Each of these once and in this order, with its id, and nothing else: no gap, no message that is empty.
pub(crate) fn assert_received(client: &Client, published: &[(u64, String)]) {
    let events: Vec<_> = client.events().collect();
    for (event, (n, id)) in events.iter().zip(published) {
        assert_eq!(
            (number(event), event["id"].as_str()),
            (Some(*n), Some(&**id)),
            "the first that differs: {event}"
        );
    }
    assert_eq!(
        events.len(),
        published.len(),
        "the last received: {:?}",
        events.last()
    );
}

/// The `n` in the data of a `tick`.
pub(crate) fn number(line: &Value) -> Option<u64> {
    let data = line["data"].as_str().filter(|_| line["event"] == "tick")?;
    serde_json::from_str::<Value>(data).ok()?["n"].as_u64()
}
