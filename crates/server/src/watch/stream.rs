//! One event stream that is read for as long as it goes on, over any number of connections.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use tidewire_core::decode::{DecodeError, Decoded, Decoder};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::seconds;
use crate::client::{Backoff, Problem, causes, distrust, notice, retry_after, shown};

/// Largest event that is taken from a server: eight times what a hub allows unless told otherwise.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The wait before reconnecting, where a server has not said.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// The head of an answer must be there after this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a stream is read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The server said that there is no more: 204.
    Ended,
    /// The server refused for good; the user was told.
    Refused,
    /// Nobody wants the events any more.
    Unread,
}

/// Why one connection is over.
enum Lost {
    /// For good.
    For(End),
    /// It can be tried again: why, and after how long where the server said.
    Retry(String, Option<Duration>),
    /// The server ended the stream in good order; only asking again tells whether there is more.
    Finished,
}

/// A stream and the place to go on from.
pub(super) struct Stream {
    client: Client,
    /// What to ask while no event id is known, and once one is.
    first_address: Url,
    address: Url,
    last_event_id: String,
    idle_timeout: Duration,
    backoff: Backoff,
    connected: bool,
    /// Whether it was, on any connection so far.
    was_ever_connected: bool,
    /// Since when there is no connection, after a first attempt to make one.
    lost_at: Option<Instant>,
}

impl Stream {
    /// A stream that begins at `first_address`, and at `address` once there is an id to resume from.
    pub(super) fn new(
        client: Client,
        first_address: Url,
        address: Url,
        last_event_id: &str,
        idle_timeout: Duration,
    ) -> Self {
        let backoff = Backoff::new(RETRY_DEFAULT);
        let last_event_id = last_event_id.to_owned();
        Self {
            client,
            first_address,
            address,
            last_event_id,
            idle_timeout,
            backoff,
            connected: false,
            was_ever_connected: false,
            lost_at: None,
        }
    }

    /// Reads and resumes until there is nothing more to read.
    pub(super) async fn run(mut self, events: mpsc::Sender<Vec<Decoded>>) -> End {
        loop {
            let lost = self.connection(&events).await;
            let was_connected = std::mem::take(&mut self.connected);
            let (what, asked) = match lost {
                Lost::For(end) => return end,
                Lost::Finished => ("the server ended the stream".to_owned(), None),
                Lost::Retry(why, asked) if was_connected => {
                    (format!("connection lost ({why})"), asked)
                }
                Lost::Retry(why, asked) => {
                    let mut address = shown(&self.address);
                    // It may have a token in it.
                    address.set_query(None);
                    (format!("no connection to {address} ({why})"), asked)
                }
            };
            let wait = self.backoff.next_wait().max(asked.unwrap_or_default());
            self.lost_at.get_or_insert_with(Instant::now);
            notice(format_args!("{what}, reconnecting in {}", seconds(wait)));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = events.closed() => return End::Unread,
            }
        }
    }

    /// One connection, from the request to its loss.
    async fn connection(&mut self, events: &mpsc::Sender<Vec<Decoded>>) -> Lost {
        let response = match timeout(HEAD_TIMEOUT, self.request().send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return match distrust(&error).filter(|_| !self.was_ever_connected) {
                    Some(why) => {
                        notice(format_args!("error: {}: {why}", shown(&self.address)));
                        Lost::For(End::Refused)
                    }
                    None => Lost::Retry(causes(&error), None),
                };
            }
            Err(_) => return Lost::Retry("no answer".to_owned(), None),
        };
        if let Err(lost) = self.check(&response) {
            return match lost {
                Some(lost) => lost,
                None => self.refused(response).await,
            };
        }
        self.connected = true;
        self.was_ever_connected = true;
        if let Some(lost_at) = self.lost_at.take() {
            let what = if self.last_event_id.is_empty() {
                "connected"
            } else {
                "connected, resumed"
            };
            notice(format_args!("{what} after {}", seconds(lost_at.elapsed())));
        }
        self.read(response, events).await
    }

    fn request(&self) -> reqwest::RequestBuilder {
        let address = if self.last_event_id.is_empty() {
            &self.first_address
        } else {
            &self.address
        };
        let mut address = address.clone();
        let mut resume = None;
        if !self.last_event_id.is_empty() {
            match HeaderValue::from_bytes(self.last_event_id.as_bytes()) {
                Ok(id) => resume = Some(id),
                // A control character, which an id may have and a header may not.
                Err(_) => {
                    address
                        .query_pairs_mut()
                        .append_pair("last_event_id", &self.last_event_id);
                }
            }
        }
        let request = self
            .client
            .get(address)
            .header(ACCEPT, "text/event-stream")
            .header("cache-control", "no-store");
        match resume {
            Some(id) => request.header(HeaderName::from_static("last-event-id"), id),
            None => request,
        }
    }

    /// Whether the answer is a stream; if not, what it is, or `None` for a problem that is still to be read.
    fn check(&self, response: &Response) -> Result<(), Option<Lost>> {
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Err(Some(Lost::For(End::Ended)));
        }
        if status != StatusCode::OK {
            return Err(None);
        }
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if kind
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
        {
            return Ok(());
        }
        let kind = if kind.is_empty() {
            "without a type"
        } else {
            kind
        };
        notice(format_args!(
            "error: {} is no event stream: its answer is {kind}",
            shown(&self.address)
        ));
        Err(Some(Lost::For(End::Refused)))
    }

    /// An answer that is no stream: a server in trouble is tried again, one that says no is believed.
    async fn refused(&self, response: Response) -> Lost {
        let asked = retry_after(&response);
        let status = response.status();
        let problem = Problem::read(response).await;
        let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        if later || status.is_server_error() {
            return Lost::Retry(problem.to_string(), asked);
        }
        notice(format_args!("error: {}: {problem}", shown(&self.address)));
        Lost::For(End::Refused)
    }

    /// Reads events until the connection ends, is dead, or nobody wants them.
    async fn read(&mut self, mut response: Response, events: &mpsc::Sender<Vec<Decoded>>) -> Lost {
        let mut decoder = Decoder::new(EVENT_BYTES_MAX);
        loop {
            let chunk = tokio::select! {
                chunk = timeout(self.idle_timeout, response.chunk()) => chunk,
                () = events.closed() => return Lost::For(End::Unread),
            };
            let chunk = match chunk {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Lost::Finished,
                Ok(Err(error)) => return Lost::Retry(causes(&error), None),
                Err(_) => {
                    return Lost::Retry(
                        format!("nothing came for {}", seconds(self.idle_timeout)),
                        None,
                    );
                }
            };
            self.backoff.succeeded();
            decoder.push(&chunk);
            let (batch, failed) = take_events(&mut decoder);
            if let Some(retry_ms) = decoder.retry_ms() {
                self.backoff.set_base(Duration::from_millis(retry_ms));
            }
            if !batch.is_empty() && events.send(batch).await.is_err() {
                return Lost::For(End::Unread);
            }
            if !decoder.last_event_id().is_empty() {
                decoder.last_event_id().clone_into(&mut self.last_event_id);
            }
            if let Some(error) = failed {
                // The same event would come again and again.
                notice(format_args!("error: {}: {error}", shown(&self.address)));
                return Lost::For(End::Refused);
            }
        }
    }
}

fn take_events(decoder: &mut Decoder) -> (Vec<Decoded>, Option<DecodeError>) {
    let mut batch = Vec::new();
    loop {
        match decoder.next_event() {
            Ok(Some(event)) => batch.push(event),
            Ok(None) => return (batch, None),
            Err(error) => return (batch, Some(error)),
        }
    }
}
