//! One stream's generator: a task that says something now and then.
//!
//! ```text
//!            pause            stop, start
//! Running ──────────▶ Paused ─────────────▶ Stopped
//!    ▲ ◀────────────── │                       ▲
//!    │      resume                             │
//!    └─────────────────────────────────────────┘
//! ```
//!
//! The task looks at the state in each turn before it speaks. Who changes the state waits for the end of the turn under way:
//! after that, a generator that was paused or stopped says nothing more. Where its source panics, the stream is told in an `error` event and another
//! source is made, after a while that doubles with each failure in a row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::Broadcaster;
use tokio::sync::{Mutex, watch};

/// The longest wait before a source that failed is made anew.
const BACK_OFF_MAX: Duration = Duration::from_mins(1);

/// What a generator has to say.
pub(super) struct Sample {
    pub(super) event_type: &'static str,
    pub(super) message: String,
    pub(super) data: Value,
}

/// Where a generator's events come from.
pub(super) type Source = Box<dyn FnMut() -> Sample + Send>;

/// Makes the source of a stream.
pub(super) type MakeSource = fn(stream_id: &str) -> Source;

/// What a generator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It speaks.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It is over.
    Stopped,
}

/// A generator, as its task and those who manage it see it.
pub(super) struct Generator {
    state: watch::Sender<State>,
    /// Held while the task speaks.
    turn: Mutex<()>,
}

impl Generator {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(State::Running),
            turn: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Does something else from the next turn on, if it does what is expected.
    pub(super) fn change(&self, from: State, to: State) -> bool {
        self.state.send_if_modified(|state| {
            let is_expected = *state == from;
            if is_expected {
                *state = to;
            }
            is_expected
        })
    }

    /// Ends it with the turn under way, whatever it does.
    pub(super) fn stop(&self) {
        self.state.send_replace(State::Stopped);
    }

    /// Waits for the end of the turn under way.
    pub(super) async fn settled(&self) {
        drop(self.turn.lock().await);
    }

    /// The task.
    pub(super) async fn run(
        self: Arc<Self>,
        id: String,
        broadcaster: Broadcaster,
        interval: Duration,
        make_source: MakeSource,
    ) {
        tracing::debug!(stream = id, "generator started");
        let mut state = self.state.subscribe();
        let mut voice = Voice::new(id, broadcaster, interval, make_source);
        loop {
            // The sender is `self`, so this ends with a state.
            if state
                .wait_for(|state| *state != State::Paused)
                .await
                .is_err()
            {
                return;
            }
            let turn = self.turn.lock().await;
            let pause = match self.state() {
                State::Running => voice.speak().await,
                State::Paused => continue,
                State::Stopped => break,
            };
            drop(turn);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = state.wait_for(|state| *state == State::Stopped) => {}
            }
        }
        tracing::debug!(stream = voice.id, "generator stopped");
    }
}

/// What a generator says, one thing after the other.
struct Voice {
    id: String,
    broadcaster: Broadcaster,
    interval: Duration,
    make_source: MakeSource,
    source: Option<Source>,
    begun: bool,
    /// How often in a row the source has failed.
    failures: u32,
}

impl Voice {
    fn new(
        id: String,
        broadcaster: Broadcaster,
        interval: Duration,
        make_source: MakeSource,
    ) -> Self {
        Self {
            id,
            broadcaster,
            interval,
            make_source,
            source: None,
            begun: false,
            failures: 0,
        }
    }

    /// Says the next thing; answers how long to be silent then.
    async fn speak(&mut self) -> Duration {
        if !std::mem::replace(&mut self.begun, true) {
            let started = Sample {
                event_type: "stream_started",
                message: format!("Stream '{}' started", self.id),
                data: json!({ "interval_ms": self.interval.as_millis() as u64 }),
            };
            self.broadcast(started).await;
            return jittered(self.interval);
        }
        let make = || {
            self.source
                .get_or_insert_with(|| (self.make_source)(&self.id))()
        };
        if let Ok(sample) = catch_unwind(AssertUnwindSafe(make)) {
            self.failures = 0;
            self.broadcast(sample).await;
            return jittered(self.interval);
        }
        // Its state may be any.
        self.source = None;
        let pause = back_off(self.interval, self.failures);
        self.failures = self.failures.saturating_add(1);
        tracing::error!(
            stream = self.id,
            ?pause,
            "generator failed; it is restarted"
        );
        let failed = Sample {
            event_type: "error",
            message: "The generator of this stream failed and is restarted".into(),
            data: json!({ "restart_in_ms": pause.as_millis() as u64 }),
        };
        self.broadcast(failed).await;
        pause
    }

    async fn broadcast(&mut self, sample: Sample) {
        let Sample {
            event_type,
            message,
            data,
        } = sample;
        let sent = self
            .broadcaster
            .broadcast(&self.id, event_type, &message, data);
        if let Err(error) = sent.await {
            // A sample more or less: the next one may go again.
            tracing::debug!(stream = self.id, %error, "a sample event was not stored");
        }
    }
}

/// Half as long to one and a half times as long, by chance, so that streams don't speak in step.
fn jittered(interval: Duration) -> Duration {
    let longest_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let by_chance = Duration::from_millis(fastrand::u64(0..=longest_ms));
    (interval / 2).saturating_add(by_chance)
}

/// How long to wait after a failure when there were so many before it in a row.
fn back_off(interval: Duration, failures: u32) -> Duration {
    let doubled = interval.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(BACK_OFF_MAX.max(interval))
}

#[cfg(test)]
mod tests;
