//! `POST /events` with `application/x-ndjson`: a document a line, of any length, committed as it comes.

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, BytesMut};
use jiff::Timestamp;
use serde_json::json;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::{EventId, ExpiresAt, Publication, PublishError, Rights};

use super::{Door, body, document, publish};
use crate::guard::Publishing;

/// Most events of one commit.
const CHUNK_EVENTS_MAX: usize = 1_000;

/// Who sends the lines.
#[derive(Clone, Default)]
pub(super) struct Sender<'a> {
    pub(super) rights: Option<&'a Rights>,
    pub(super) publishing: Option<Publishing>,
    /// A stream of lines has no end, and the credential that it began with may have one.
    pub(super) expires: Option<ExpiresAt>,
}

/// Publishes a stream of lines. What has arrived is committed at the latest when the sender pauses.
pub(super) async fn publish(
    door: &Door,
    query: &Query<'_>,
    sender: Sender<'_>,
    mut body: Body,
) -> Result<Response, Problem> {
    let mut lines = Lines {
        door,
        sender,
        topics: query.all("topic").collect(),
        ..Lines::new(door)
    };
    match lines.publish_all(&mut body).await {
        Ok(()) => Ok(Json(lines.summary()).into_response()),
        Err(problem) => {
            let line = lines.failed_line.unwrap_or(lines.line);
            let mut problem = problem.with("line", line);
            for (name, value) in lines.summary().as_object().into_iter().flatten() {
                problem = problem.with(name, value.clone());
            }
            Err(problem)
        }
    }
}

/// A stream of lines on its way.
struct Lines<'a> {
    door: &'a Door,
    sender: Sender<'a>,
    topics: Vec<&'a str>,
    buffer: BytesMut,
    held: body::Held,
    /// Up to here the buffer has no line end.
    searched: usize,
    /// Lines read, empty ones included.
    line: u64,
    /// Read, but not committed yet; and the number of the line that each stood on.
    pending: Vec<Publication>,
    pending_numbers: Vec<u64>,
    failed_line: Option<u64>,
    count: u64,
    first_id: Option<EventId>,
    last_id: Option<EventId>,
}

impl<'a> Lines<'a> {
    fn new(door: &'a Door) -> Self {
        Self {
            door,
            sender: Sender::default(),
            topics: Vec::new(),
            buffer: BytesMut::new(),
            held: body::Held::default(),
            searched: 0,
            line: 0,
            pending: Vec::new(),
            pending_numbers: Vec::new(),
            failed_line: None,
            count: 0,
            first_id: None,
            last_id: None,
        }
    }

    fn summary(&self) -> serde_json::Value {
        let id = |id: &Option<EventId>| id.as_ref().map(ToString::to_string);
        json!({ "count": self.count, "first_id": id(&self.first_id), "last_id": id(&self.last_id) })
    }

    async fn publish_all(&mut self, body: &mut Body) -> Result<(), Problem> {
        let result = self.read_all(body).await;
        // What came before a bad line is good.
        self.commit().await?;
        result
    }

    async fn read_all(&mut self, body: &mut Body) -> Result<(), Problem> {
        while let Some(chunk) = body::next_chunk(body, &self.door.limits).await? {
            let len = self.buffer.len() + chunk.len();
            self.held.set(len, &self.door.limits)?;
            self.buffer.extend_from_slice(&chunk);
            while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                self.read_line(&line)?;
                if self.pending.len() >= CHUNK_EVENTS_MAX {
                    self.commit().await?;
                }
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.door.limits.body_bytes_max {
                self.line += 1;
                let detail = format!(
                    "a line may have {} bytes (`limits.body_bytes_max`)",
                    self.door.limits.body_bytes_max
                );
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            self.commit().await?;
            self.held.set(self.buffer.len(), &self.door.limits)?;
        }
        let last = self.buffer.split();
        if last.is_empty() {
            Ok(())
        } else {
            self.read_line(&last)
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.line += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let publication = document::parse_one(line, &self.topics)?;
        publish::check(self.door, &publication, self.sender.rights)?;
        self.pending.push(publication);
        self.pending_numbers.push(self.line);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Problem> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.pending);
        let lines = std::mem::take(&mut self.pending_numbers);
        if let Some(publishing) = &self.sender.publishing {
            // A stream has no end, so it is slowed down rather than refused.
            publishing.wait(batch.len()).await;
        }
        if let Err(problem) = self.check_credential() {
            self.failed_line = lines.first().copied();
            return Err(problem);
        }
        match self.door.hub.publish_all(&batch, None).await {
            Ok(ids) => {
                self.committed(&ids);
                Ok(())
            }
            // Nothing of the batch is stored; one by one shows which line is refused.
            Err(PublishError::InBatch { .. }) => self.commit_one_by_one(&batch, &lines).await,
            Err(error) => {
                self.failed_line = lines.first().copied();
                Err(error.into())
            }
        }
    }

    fn check_credential(&self) -> Result<(), Problem> {
        let now_ms = Timestamp::now().as_millisecond().max(0).cast_unsigned();
        match self.sender.expires {
            Some(ExpiresAt(at_ms)) if at_ms <= now_ms => {
                let detail =
                    "the credential ended before this line; send the rest with a newer one";
                Err(Problem::new(Code::BadCredential, detail).with("check", "expired"))
            }
            _ => Ok(()),
        }
    }

    async fn commit_one_by_one(
        &mut self,
        batch: &[Publication],
        lines: &[u64],
    ) -> Result<(), Problem> {
        for (publication, line) in batch.iter().zip(lines) {
            match self
                .door
                .hub
                .publish_all(std::slice::from_ref(publication), None)
                .await
            {
                Ok(ids) => self.committed(&ids),
                Err(error) => {
                    self.failed_line = Some(*line);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self, ids: &[EventId]) {
        self.count += ids.len() as u64;
        self.first_id = self.first_id.take().or_else(|| ids.first().cloned());
        self.last_id = ids.last().cloned().or(self.last_id.take());
    }
}
