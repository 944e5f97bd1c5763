//! `tidewire publish`: one event, or each line of standard input as one (`lines`).
//!
//! Every request carries an `Idempotency-Key` and is repeated with it until there is an answer, so that it does not
//! matter where a connection broke: the hub stores the events once. Requests go out one after the other, which keeps
//! the order of the lines.

mod lines;

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use self::lines::{Batches, Line};
use crate::cli::PublishArgs;
use crate::client::{
    Backoff, Problem, causes, client, distrust, notice, on_hub, parse_url, retry_after, shown,
};
use crate::exit::Exit;

/// The first wait after a failed request, and the longest: a hub that restarts is back soon.
const WAIT_FIRST: Duration = Duration::from_millis(250);
const WAIT_LONGEST: Duration = Duration::from_secs(5);

/// A request without an answer after this long is repeated. A hub whose store is silent answers much earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Publishes what was given or what comes in.
pub(crate) async fn run(args: PublishArgs) -> Exit {
    let data = args.data.as_deref().filter(|data| *data != "-");
    if data.is_none() && args.id.is_some() {
        notice("error: --id is one event's, and can't be used with standard input");
        return Exit::Usage;
    }
    let mut publisher = match Publisher::new(&args) {
        Ok(publisher) => publisher,
        Err(problem) => {
            notice(format_args!("error: {problem}"));
            return Exit::Usage;
        }
    };
    let result = match data {
        Some(data) => publisher.publish_one(data).await,
        None => publisher.publish_lines().await,
    };
    match result {
        Ok(()) => {
            notice(publisher.summary());
            Exit::Ok
        }
        Err(problem) => {
            notice(format_args!("error: {problem}"));
            if data.is_none() {
                notice(publisher.summary());
            }
            Exit::Failure
        }
    }
}

/// An event as the hub takes it.
#[derive(Serialize)]
struct Document<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// In milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

/// What the hub answers: the ids of the events, in their order.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    One { id: String },
    Many { ids: Vec<String> },
}

/// What became of one attempt to send a request.
enum Attempt {
    Stored(Vec<String>),
    /// The hub said no, in these words.
    Refused(String),
    /// As many events as that, and no more, may be published by one request.
    TooMany(usize),
    /// Nobody knows, or not now: why, and when to come back where the hub said.
    Again(String, Option<Duration>),
}

/// Why a request was not fulfilled.
enum Failed {
    /// In these words.
    Refused(String),
    /// It has more events than this.
    TooMany(usize),
}

struct Publisher<'a> {
    args: &'a PublishArgs,
    /// Events of one request.
    batch_events_max: usize,
    client: Client,
    address: Url,
    published: u64,
    first_id: Option<String>,
    last_id: Option<String>,
}

impl<'a> Publisher<'a> {
    fn new(args: &'a PublishArgs) -> Result<Self, String> {
        // A redirected POST would become a GET, and that is a stream.
        let client = client(Some(&args.hub), Policy::none())?;
        let address = on_hub(&parse_url(&args.hub.url)?, "events");
        Ok(Self {
            args,
            batch_events_max: usize::MAX,
            client,
            address,
            published: 0,
            first_id: None,
            last_id: None,
        })
    }

    async fn publish_one(&mut self, data: &str) -> Result<(), String> {
        let body = serde_json::to_vec(&self.document(data)).expect("text is JSON");
        self.send(body).await.map_err(|failed| match failed {
            Failed::Refused(problem) => problem,
            Failed::TooMany(max) => format!("no more than {max} events may be published at a time"),
        })
    }

    async fn publish_lines(&mut self) -> Result<(), String> {
        let mut batches = Batches::of_stdin();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let mut left = &batch[..];
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(self.batch_events_max));
                let documents: Vec<Document<'_>> =
                    now.iter().map(|line| self.document(&line.text)).collect();
                let body = serde_json::to_vec(&documents).expect("text is JSON");
                match self.send(body).await {
                    Ok(()) => left = later,
                    // Nothing of it was published. Smaller ones pass, as fast as the hub lets them.
                    Err(Failed::TooMany(max)) if (1..now.len()).contains(&max) => {
                        self.batch_events_max = max;
                    }
                    Err(failed) => return Err(of_lines(now, &failed)),
                }
            }
        }
        Ok(())
    }

    fn document<'d>(&'d self, data: &'d str) -> Document<'d> {
        let retry = self
            .args
            .retry
            .map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX));
        let (event, id) = (self.args.event.as_deref(), self.args.id.as_deref());
        Document {
            topic: &self.args.topic,
            event,
            data,
            id,
            retry,
        }
    }

    /// Sends a request until it is answered, or until it is time to give up.
    async fn send(&mut self, body: Vec<u8>) -> Result<(), Failed> {
        // The same key for every attempt is what makes repeating safe.
        let key = Uuid::now_v7().to_string();
        let body = bytes::Bytes::from(body);
        let mut backoff = Backoff::new(WAIT_FIRST);
        let began = Instant::now();
        let mut is_first = true;
        loop {
            let (why, asked) = match self.attempt(&key, body.clone()).await {
                Attempt::Stored(ids) => {
                    if !is_first {
                        let waited = began.elapsed().as_secs_f64();
                        notice(format_args!("the hub answers again after {waited:.1}s"));
                    }
                    self.count(ids);
                    return Ok(());
                }
                Attempt::Refused(problem) => return Err(Failed::Refused(problem)),
                Attempt::TooMany(max) => return Err(Failed::TooMany(max)),
                Attempt::Again(why, asked) => (why, asked),
            };
            is_first = false;
            let wait = backoff
                .next_wait()
                .min(WAIT_LONGEST)
                .max(asked.unwrap_or_default());
            let left = self.args.give_up_after.saturating_sub(began.elapsed());
            // The last attempt is at the end of the time.
            let wait = if asked.is_some_and(|asked| asked > left) {
                Duration::ZERO
            } else {
                wait.min(left)
            };
            if wait.is_zero() {
                let waited = began.elapsed().as_secs_f64();
                return Err(Failed::Refused(format!(
                    "gave up after {waited:.1}s: {why}"
                )));
            }
            notice(format_args!(
                "not published yet ({why}), trying again in {:.1}s",
                wait.as_secs_f64()
            ));
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, key: &str, body: bytes::Bytes) -> Attempt {
        let request = self
            .client
            .post(self.address.clone())
            .header(CONTENT_TYPE, "application/json");
        let request = request
            .header("idempotency-key", key)
            .timeout(ANSWER_TIMEOUT)
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => return Attempt::Refused(causes(&error)),
            Err(error) => {
                let untrusted = distrust(&error).filter(|_| self.published == 0);
                if let Some(why) = untrusted {
                    return Attempt::Refused(format!("{}: {why}", shown(&self.address)));
                }
                return Attempt::Again(
                    format!("{}: {}", shown(&self.address), causes(&error)),
                    None,
                );
            }
        };
        if response.status().is_success() {
            read_ids(response).await
        } else {
            read_refusal(response).await
        }
    }

    fn count(&mut self, ids: Vec<String>) {
        self.published += ids.len() as u64;
        if self.first_id.is_none() {
            self.first_id = ids.first().cloned();
        }
        self.last_id = ids.into_iter().next_back().or(self.last_id.take());
    }

    fn summary(&self) -> String {
        let (count, topic) = (self.published, &self.args.topic);
        let events = if count == 1 { "event" } else { "events" };
        match (&self.first_id, &self.last_id) {
            (Some(id), _) if count == 1 => format!("published 1 event to {topic} (id {id})"),
            (Some(first), Some(last)) => {
                format!("published {count} {events} to {topic} (first id {first}, last id {last})")
            }
            _ => format!("published {count} {events} to {topic}"),
        }
    }
}

async fn read_ids(response: Response) -> Attempt {
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(error) => return Attempt::Again(causes(&error), None),
    };
    match serde_json::from_slice(&body) {
        Ok(Answer::One { id }) => Attempt::Stored(vec![id]),
        Ok(Answer::Many { ids }) => Attempt::Stored(ids),
        Err(_) => Attempt::Refused("the answer has no ids: is this a Tidewire hub?".to_owned()),
    }
}

async fn read_refusal(response: Response) -> Attempt {
    let asked = retry_after(&response);
    let status = response.status();
    let problem = Problem::read(response).await;
    let unanswered = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    // An earlier attempt whose answer was lost may still be under way.
    if unanswered || problem.is("key_in_flight") {
        return Attempt::Again(problem.to_string(), asked);
    }
    match problem.max {
        Some(max) if problem.is("too_many_events") => Attempt::TooMany(max),
        _ => Attempt::Refused(problem.to_string()),
    }
}

fn of_lines(lines: &[Line], failed: &Failed) -> String {
    let number = |line: Option<&Line>| line.map_or(0, |line| line.number);
    let (first, last) = (number(lines.first()), number(lines.last()));
    let lines = if first == last {
        format!("line {first}")
    } else {
        format!("lines {first} to {last}")
    };
    match failed {
        Failed::Refused(problem) => format!("{lines}: {problem}"),
        Failed::TooMany(max) => {
            format!("{lines}: no more than {max} events may be published at a time")
        }
    }
}
