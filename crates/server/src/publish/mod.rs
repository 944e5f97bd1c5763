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

use self::lines::Batches;
use crate::cli::PublishArgs;
use crate::client::{
    Backoff, Problem, causes, client, notice, on_hub, parse_url, retry_after, shown,
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
    /// Nobody knows, or not now: why, and when to come back where the hub said.
    Again(String, Option<Duration>),
}

struct Publisher<'a> {
    args: &'a PublishArgs,
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
            client,
            address,
            published: 0,
            first_id: None,
            last_id: None,
        })
    }

    async fn publish_one(&mut self, data: &str) -> Result<(), String> {
        let body = serde_json::to_vec(&self.document(data)).expect("text is JSON");
        self.send(body).await
    }

    async fn publish_lines(&mut self) -> Result<(), String> {
        let mut batches = Batches::of_stdin();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let documents: Vec<Document<'_>> =
                batch.iter().map(|line| self.document(&line.text)).collect();
            let body = serde_json::to_vec(&documents).expect("text is JSON");
            self.send(body).await.map_err(|problem| {
                let [first, last] =
                    [batch.first(), batch.last()].map(|line| line.map_or(0, |line| line.number));
                let lines = if first == last {
                    format!("line {first}")
                } else {
                    format!("lines {first} to {last}")
                };
                format!("{lines}: {problem}")
            })?;
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
    async fn send(&mut self, body: Vec<u8>) -> Result<(), String> {
        // The same key for every attempt is what makes repeating safe.
        let key = Uuid::now_v7().to_string();
        let body = bytes::Bytes::from(body);
        let mut backoff = Backoff::new(WAIT_FIRST);
        let mut failing_since = None;
        loop {
            let (why, asked) = match self.attempt(&key, body.clone()).await {
                Attempt::Stored(ids) => {
                    if let Some(since) = failing_since {
                        notice(format_args!(
                            "the hub answers again after {:.1?}",
                            Instant::now() - since
                        ));
                    }
                    self.count(ids);
                    return Ok(());
                }
                Attempt::Refused(problem) => return Err(problem),
                Attempt::Again(why, asked) => (why, asked),
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            let wait = backoff
                .next_wait()
                .min(WAIT_LONGEST)
                .max(asked.unwrap_or_default());
            if since.elapsed() + wait > self.args.give_up_after {
                return Err(format!("gave up after {:.1?}: {why}", since.elapsed()));
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
    Attempt::Refused(problem.to_string())
}
