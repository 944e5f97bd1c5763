//! A client of a stream within this process.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll as TaskPoll};

use tidewire_core::decode::{Decoded, Decoder};
use tidewire_core::subscription::{Batch, Poll};

use super::EventData;
use crate::clock::now_ms;
use crate::connections::ConnectionId;
use crate::live::Live;

/// Bytes that are read from the log at a time.
const READ_BYTES: usize = 16 * 1024;

/// A client of one stream, made by [`Broadcaster::subscribe`](super::Broadcaster::subscribe). It has no queue: like any
/// other client it is a place in the hub's log, and [`recv`](Self::recv) reads on from there. Dropped, it is gone.
pub struct StreamClient {
    id: ConnectionId,
    stream_id: String,
    /// Gone when the stream is over.
    live: Option<Live>,
    decoder: Decoder,
    read: VecDeque<EventData>,
}

impl StreamClient {
    pub(super) fn new(id: ConnectionId, stream_id: String, live: Live) -> Self {
        Self {
            id,
            stream_id,
            live: Some(live),
            decoder: Decoder::new(usize::MAX),
            read: VecDeque::new(),
        }
    }

    /// Its id, for [`Broadcaster::unsubscribe`](super::Broadcaster::unsubscribe).
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The stream.
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// The next event, as soon as there is one. `None` when the client was closed: by `unsubscribe`, with the hub, after
    /// its longest life, or as it has fallen out of the history. It may be dropped while it waits and called again.
    ///
    /// What others published to the stream's topic and is no envelope comes as one, with its text as `message`.
    pub async fn recv(&mut self) -> Option<EventData> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> TaskPoll<Option<EventData>> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return TaskPoll::Ready(Some(event));
            }
            let Some(live) = &mut self.live else {
                return TaskPoll::Ready(None);
            };
            // Before anything is looked at, so that news which comes in between is not missed.
            live.connection().look(cx.waker());
            let mut batch = Batch::default();
            match live.gather(READ_BYTES, &mut batch) {
                Poll::Idle => return TaskPoll::Pending,
                Poll::Data => {
                    self.decoder.push(batch.bytes());
                    live.sent(&batch, batch.bytes().len());
                }
                Poll::Close(reason) => {
                    let last_words = self.live.take().and_then(|live| live.end(reason));
                    self.decoder.push(&last_words.unwrap_or_default());
                }
            }
            while let Ok(Some(decoded)) = self.decoder.next_event() {
                self.read.push_back(self.envelope(decoded));
            }
        }
    }

    fn envelope(&self, decoded: Decoded) -> EventData {
        serde_json::from_str(&decoded.data).unwrap_or_else(|_| EventData {
            id: decoded.id,
            event_type: decoded.event,
            message: decoded.data,
            data: None,
            timestamp: now_ms() / 1_000,
            stream_id: Some(self.stream_id.clone()),
        })
    }
}
