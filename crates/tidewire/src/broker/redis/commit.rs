//! Storing what waits: one call of a script for all of it, several calls under way at a time.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Shared;
use super::queue::Job;
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
/// Texts with which `XADD` refuses when the stream's last id can't be surpassed.
const EXHAUSTED: [&str; 2] = ["exhausted the last possible ID", "equal or smaller than"];

/// Stores until the queue is over.
pub(super) async fn run(shared: Arc<Shared>) {
    let script = Arc::new(Script::new(include_str!("append.lua")));
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(group) = shared.queue.next_group().await {
        // The semaphore is never closed.
        let Ok(call) = calls.clone().acquire_owned().await else {
            return;
        };
        let (shared, script) = (shared.clone(), script.clone());
        tokio::spawn(async move {
            store(&shared, &script, group).await;
            drop(call);
        });
    }
    // What is under way is finished before the broker has ended.
    let _ = calls.acquire_many(CALLS_MAX as u32).await;
    shared.note_stored_all();
}

/// What to do after an attempt.
enum Next {
    Done,
    /// Nothing was stored: try again if there is time, else say this.
    Again(Vec<Job>, String),
}

async fn store(shared: &Shared, script: &Script, mut group: Vec<Job>) {
    let deadline = Instant::now() + shared.options.retry_for;
    let mut backoff = Backoff::default();
    loop {
        match attempt(shared, script, group).await {
            Next::Done => return,
            Next::Again(jobs, why) => {
                let pause = backoff.pause();
                if Instant::now() + pause > deadline {
                    return answer_all(jobs, &PublishError::NotStored(why));
                }
                group = jobs;
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt(shared: &Shared, script: &Script, group: Vec<Job>) -> Next {
    let mut connection = match shared.connection().await {
        Ok(connection) => connection,
        Err(error) => return Next::Again(group, format!("Redis can't be reached: {error}")),
    };
    let epoch = shared.epoch();
    let count = group.len().to_string();
    let own = [shared.redis.prefix(), epoch.as_str(), &count].map(str::as_bytes);
    let keys = [shared.stream.as_str(), shared.epoch_key.as_str()];
    let longest = shared.options.answer_timeout;
    let answer = script
        .run_on(&mut connection, &keys, &arguments(own, &group), longest)
        .await;
    let answers = match answer {
        Ok(Value::Array(answers)) => answers,
        Ok(_) => {
            shared.look_again.notify_one();
            return Next::Again(
                group,
                "Redis has lost its history and begins a new one".into(),
            );
        }
        Err(error) => return failed(&connection, &error, group),
    };
    shared.note_commit();
    let lacking = replicas_lacking(shared, &mut connection).await;
    for (job, answer) in group.into_iter().zip(answers) {
        let mut answer = job.batch.understand(answer, epoch);
        if let (Ok(_), Some(why)) = (&answer, &lacking) {
            answer = Err(PublishError::OutcomeUnknown(why.clone()));
        }
        // Whoever waited may be gone.
        let _ = job.answer.send(answer);
    }
    Next::Done
}

fn arguments<'a>(own: [&'a [u8]; 3], group: &'a [Job]) -> Vec<&'a [u8]> {
    let batches = group.iter().flat_map(|job| &job.batch.arguments);
    own.into_iter().chain(batches.map(Vec::as_slice)).collect()
}

fn failed(connection: &Connection, error: &RedisError, group: Vec<Job>) -> Next {
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
        return Next::Again(group, format!("Redis can't store now: {text}"));
    }
    if says(&LASTING) || EXHAUSTED.iter().any(|known| text.contains(known)) {
        tracing::warn!(%error, "Redis refuses to store events");
        answer_all(
            group,
            &PublishError::NotStored(format!("Redis refuses: {text}")),
        );
        return Next::Done;
    }
    answer_all(
        group,
        &PublishError::OutcomeUnknown(format!("Redis: {text}")),
    );
    Next::Done
}

fn answer_all(group: Vec<Job>, error: &PublishError) {
    for job in group {
        let _ = job.answer.send(Err(error.clone()));
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
