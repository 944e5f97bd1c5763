//! Storing what waits: one call of a script for all of it, several calls under way at a time.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::append::Batch;
use super::queue::{Answer, Job, Work};
use crate::broker::Publication;
use crate::publish::PublishError;
use crate::redis::{Backoff, Connection, Redis, Script};

/// Calls under way at a time: Redis has the next one to do while the answer to one travels.
const CALLS_MAX: usize = 4;

/// Codes of errors after which nothing was done, and that may pass.
const PASSING: [&str; 8] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "MOVED",
    "ASK",
];
/// Codes of errors after which nothing was done, and that somebody has to see to.
const LASTING: [&str; 7] = [
    "OOM",
    "NOPERM",
    "NOAUTH",
    "WRONGPASS",
    "MISCONF",
    "NOREPLICAS",
    "WRONGTYPE",
];
/// Texts of such errors that have no code of their own: the stream's last id can't be surpassed; and before Redis 7.2, the
/// user may not do what the script does.
const LASTING_TEXTS: [&str; 3] = [
    "exhausted the last possible ID",
    "equal or smaller than",
    "The user executing the script can't",
];

/// Stores until the queue is over.
pub(super) async fn run(shared: Arc<Shared>) {
    let script = Arc::new(Script::new(include_str!("append.lua")));
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    if let Some(group) = shared.queue.next_group().await {
        // Alone: a Redis that does not know the script yet would do the next call before it is told.
        store(&shared, &script, group).await;
    }
    while let Some(group) = shared.queue.next_group().await {
        // The semaphore is never closed.
        let Ok(call) = calls.clone().acquire_owned().await else {
            return;
        };
        let (shared, script) = (shared.clone(), script.clone());
        let mut stored = Box::pin(async move {
            store(&shared, &script, group).await;
            drop(call);
        });
        // Begun here, so that calls leave in the order of the queue.
        if poll_fn(|cx| Poll::Ready(stored.as_mut().poll(cx).is_pending())).await {
            tokio::spawn(stored);
        }
    }
    // What is under way is finished before the broker has ended.
    let _ = calls.acquire_many(CALLS_MAX as u32).await;
    shared.note_stored_all();
}

/// What is stored as one batch, and who waits for it.
struct Call {
    batch: Batch,
    /// The events of several who wait; none where one waits for the whole batch.
    events: Vec<Publication>,
    answers: Vec<oneshot::Sender<Answer>>,
}

impl Call {
    fn of(
        shared: &Shared,
        events: Vec<Publication>,
        answers: Vec<oneshot::Sender<Answer>>,
    ) -> Option<Self> {
        match shared.batch(&events, None) {
            Ok(batch) => Some(Self {
                batch,
                events,
                answers,
            }),
            Err(error) => {
                tell(answers, &Err(error));
                None
            }
        }
    }

    /// One for each who waits.
    fn apart(self, shared: &Shared) -> impl Iterator<Item = Self> {
        let each = self.events.into_iter().zip(self.answers);
        each.filter_map(|(event, answer)| Self::of(shared, vec![event], vec![answer]))
    }
}

/// Answers those who wait for events that follow each other. Whoever waited may be gone.
fn tell(answers: Vec<oneshot::Sender<Answer>>, result: &Answer) {
    for (n, waiting) in (0..).zip(answers) {
        let _ = waiting.send(result.clone().map(|placed| placed.of(n)));
    }
}

/// What waits, as few batches as may be, in its order.
fn calls_of(shared: &Shared, group: Vec<Job>) -> Vec<Call> {
    let mut calls = Vec::new();
    let (mut events, mut answers) = (Vec::new(), Vec::new());
    for Job { work, answer } in group {
        match work {
            Work::Plain(event) => {
                events.push(event);
                answers.push(answer);
            }
            Work::Batch(batch) => {
                let before = (std::mem::take(&mut events), std::mem::take(&mut answers));
                if !before.0.is_empty() {
                    calls.extend(Call::of(shared, before.0, before.1));
                }
                calls.push(Call {
                    batch,
                    events: Vec::new(),
                    answers: vec![answer],
                });
            }
        }
    }
    if !events.is_empty() {
        calls.extend(Call::of(shared, events, answers));
    }
    calls
}

/// What to do after an attempt.
enum Next {
    /// These are left: some that were refused together.
    Go(Vec<Call>),
    /// Nothing was stored: try again if there is time, else say this.
    Again(Vec<Call>, String),
}

async fn store(shared: &Shared, script: &Script, group: Vec<Job>) {
    let mut calls = calls_of(shared, group);
    let deadline = Instant::now() + shared.options.retry_for;
    let mut backoff = Backoff::default();
    while !calls.is_empty() {
        match attempt(shared, script, calls).await {
            Next::Go(left) => calls = left,
            Next::Again(left, why) => {
                let pause = backoff.pause();
                if Instant::now() + pause > deadline {
                    return answer_all(left, &PublishError::NotStored(why));
                }
                calls = left;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt(shared: &Shared, script: &Script, calls: Vec<Call>) -> Next {
    let mut connection = match shared.connection().await {
        Ok(connection) => connection,
        Err(error) => return Next::Again(calls, format!("Redis can't be reached: {error}")),
    };
    let epoch = shared.epoch();
    let count = calls.len().to_string();
    let own = [shared.redis.prefix(), epoch.as_str(), &count].map(str::as_bytes);
    let keys = [shared.stream.as_str(), shared.epoch_key.as_str()];
    let longest = shared.options.answer_timeout;
    let answer = script
        .run_on(&mut connection, &keys, &arguments(own, &calls), longest)
        .await;
    let answers = match answer {
        Ok(Value::Array(answers)) => answers,
        Ok(_) => {
            shared.look_again.notify_one();
            return Next::Again(
                calls,
                "Redis has lost its history and begins a new one".into(),
            );
        }
        Err(error) => return failed(&connection, &error, calls),
    };
    shared.note_commit();
    let lacking = replicas_lacking(shared, &mut connection).await;
    let mut left = Vec::new();
    for (call, said) in calls.into_iter().zip(answers) {
        let result = call.batch.understand(said, epoch);
        let is_refused = matches!(
            result,
            Err(PublishError::InBatch { .. } | PublishError::Refused(_))
        );
        if is_refused && call.events.len() > 1 {
            // What is in the way of one of them is not in that of the others.
            left.extend(call.apart(shared));
            continue;
        }
        let result = match (&result, &lacking) {
            (Ok(_), Some(why)) => Err(PublishError::OutcomeUnknown(why.clone())),
            _ => result,
        };
        tell(call.answers, &result);
    }
    Next::Go(left)
}

fn arguments<'a>(own: [&'a [u8]; 3], calls: &'a [Call]) -> Vec<&'a [u8]> {
    let batches = calls.iter().flat_map(|call| &call.batch.arguments);
    own.into_iter().chain(batches.map(Vec::as_slice)).collect()
}

fn failed(connection: &Connection, error: &RedisError, calls: Vec<Call>) -> Next {
    Redis::note(connection, error);
    let text = error.to_string();
    let says = |codes: &[&str]| {
        let code = error.code().unwrap_or_default();
        // Redis before 7 has the code of what failed within a script only in the text.
        codes
            .iter()
            .any(|known| code == *known || text.contains(&format!("-{known} ")))
    };
    if says(&PASSING) {
        return Next::Again(calls, format!("Redis can't store now: {text}"));
    }
    if says(&LASTING) || LASTING_TEXTS.iter().any(|known| text.contains(known)) {
        tracing::warn!(%error, "Redis refuses to store events");
        answer_all(
            calls,
            &PublishError::NotStored(format!("Redis refuses: {text}")),
        );
        return Next::Go(Vec::new());
    }
    answer_all(
        calls,
        &PublishError::OutcomeUnknown(format!("Redis: {text}")),
    );
    Next::Go(Vec::new())
}

fn answer_all(calls: Vec<Call>, error: &PublishError) {
    for call in calls {
        tell(call.answers, &Err(error.clone()));
    }
}

/// Waits for so many replicas as are asked for; says why not where they don't have it in time.
async fn replicas_lacking(shared: &Shared, connection: &mut Connection) -> Option<String> {
    let wanted = shared.options.wait_replicas;
    if wanted == 0 {
        return None;
    }
    let longest = shared.options.answer_timeout;
    let mut wait = redis::cmd("WAIT");
    wait.arg(wanted).arg(longest.as_millis() as u64);
    let wait = wait.query_async::<usize>(connection);
    let answer = tokio::time::timeout(longest + Duration::from_secs(1), wait).await;
    match answer {
        Ok(Ok(have)) if have >= wanted => None,
        Ok(Ok(have)) => Some(format!(
            "it is stored, but {have} of {wanted} replicas have it"
        )),
        _ => Some("it is stored, but nobody knows on how many replicas".into()),
    }
}
