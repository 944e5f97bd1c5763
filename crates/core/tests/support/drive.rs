//! How the world drives its clients: who connects where, who is polled and how much of it is sent, and what may be
//! expected of each answer.

use tidewire_core::decode::Decoder;
use tidewire_core::encode;
use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{NativeId, Offset};
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{CloseReason, GapReason, Poll, SlowClient};

use super::client::{Client, Connection};
use super::model::Record;
use super::script::{Frame, From, Publish, Take};
use super::world::World;
use super::{Checked, ensure};

/// More than a gap has, for the ids that occur here.
const GAP_BYTES_MAX: usize = 200;
const EVENT_BYTES_MAX: usize = 1_000_000;
/// No client has so many batches to read.
const POLLS_MAX: usize = 10_000;

/// What the model says a start must lead to.
struct Expected {
    seen: usize,
    gap: Option<GapReason>,
    /// Patterns share one mark of what was trimmed, so a gap may be told where nothing was lost.
    false_gap_allowed: bool,
}

impl World {
    pub(super) fn connect(
        &mut self,
        client: usize,
        spec: &FilterSpec,
        from: From,
        policy: SlowClient,
    ) -> Checked {
        self.disconnect(client);
        self.clients[client].spec = spec.clone();
        self.clients[client].policy = policy;
        self.clients[client].excused = 0;
        let start = self.start(from);
        self.open(client, &start, true)
    }

    pub(super) fn resume(&mut self, client: usize) -> Checked {
        let reader = &self.clients[client];
        if reader.connection.is_some() || reader.last_id.is_empty() {
            return Ok(());
        }
        let start = Start::After(reader.last_id.clone());
        self.open(client, &start, false)
    }

    fn start(&self, from: From) -> Start {
        let native = |offset| self.log.id_at(Offset::counted(offset)).to_string();
        match from {
            From::Live => Start::Live,
            From::Earliest => Start::Earliest,
            From::Since { ago_ms } => Start::Since(self.now_ms.saturating_sub(ago_ms)),
            From::After { record } => {
                let at = record % self.model.len().max(1);
                let record = self.model.records.get(at);
                let id = record.and_then(|r| r.id.clone());
                Start::After(id.unwrap_or_else(|| native(record.map_or(0, |r| r.offset))))
            }
            From::Unknown => Start::After("nobody's".into()),
            From::Future => Start::After(native(self.offset + 1_000_000)),
        }
    }

    fn open(&mut self, client: usize, start: &Start, is_new: bool) -> Checked {
        let policy = self.clients[client].policy;
        let filter = self.log.acquire_filter(&self.clients[client].spec);
        let own = self.log.hold_topic(&self.clients[client].own);
        let subscribed = self.log.subscribe(filter, start, policy, self.now_ms);
        self.see_trimmed();
        let is_over = self.is_over(client, start);
        let Subscribed::Stream {
            subscription,
            starts_after,
            gap,
            ..
        } = subscribed
        else {
            ensure!(is_over, "over: a stream that goes on was refused");
            self.log.release_filter(filter);
            self.log.release_topic(own);
            self.clients[client].last_id.clear();
            return Ok(());
        };
        ensure!(!is_over, "over: a stream that is over began again");
        let expected = self.expected(client, start);
        ensure!(
            gap == expected.gap || (expected.false_gap_allowed && gap == Some(GapReason::Expired)),
            "gap: {gap:?} instead of {:?} after {start:?}",
            expected.gap
        );
        let client = &mut self.clients[client];
        client.opened = expected.seen;
        if is_new {
            // Where a gap is due, only the gap itself tells the client where it is: else it could lose that unread.
            client.last_id = gap.map_or(starts_after.to_string(), |_| match start {
                Start::After(id) => id.clone(),
                _ => String::new(),
            });
            client.seen = expected.seen;
        }
        if gap == Some(GapReason::UnknownId) {
            client.seen = self.model.place_after(starts_after.offset.minor);
        }
        if let Some(end) = self.model.last_end(&client.spec, self.now_ms) {
            client.seen = client.seen.min(end);
        }
        client.connection = Some(Connection {
            filter,
            own,
            subscription,
            decoder: Decoder::new(EVENT_BYTES_MAX),
            live_from: self.model.len(),
            gap_due: gap,
            ids: [starts_after.to_string()].into(),
            needs_poll: true,
            control_bytes: GAP_BYTES_MAX,
            end_seen: None,
        });
        Ok(())
    }

    fn is_over(&self, client: usize, start: &Start) -> bool {
        let Start::After(id) = start else {
            return false;
        };
        let spec = &self.clients[client].spec;
        let epoch = self.log.epoch();
        NativeId::parse(id)
            .is_some_and(|id| self.model.is_over(spec, id, epoch.as_str(), self.now_ms))
    }

    fn expected(&self, client: usize, start: &Start) -> Expected {
        let client = &self.clients[client];
        let from = match start {
            Start::Live => Some(self.model.len()),
            Start::Earliest => Some(self.model.history_start(&client.spec, self.now_ms)),
            Start::Since(at_ms) => Some(self.model.records.partition_point(|r| r.at_ms < *at_ms)),
            Start::After(id) => self.known(id).map(|offset| self.model.place_after(offset)),
        };
        let Some(from) = from else {
            return Expected {
                seen: self.model.len(),
                gap: Some(GapReason::UnknownId),
                false_gap_allowed: false,
            };
        };
        let start = self.model.history_start(&client.spec, self.now_ms);
        let is_lost = self.model.has_stored(&client.reader(), from..start);
        let is_trimmed = |r: &Record| r.id.is_some();
        let trimmed = self.model.records.get(from..self.model.trimmed);
        Expected {
            seen: from,
            gap: is_lost.then_some(GapReason::Expired),
            false_gap_allowed: !client.spec.patterns.is_empty()
                && trimmed.unwrap_or_default().iter().any(is_trimmed),
        }
    }

    /// The offset of an id, if the history knows it.
    fn known(&self, id: &str) -> Option<u64> {
        let Some(native) = NativeId::parse(id) else {
            let mut held = self.model.held().iter();
            return held
                .find(|r| r.own_id && r.id.as_deref() == Some(id))
                .map(|r| r.offset);
        };
        let offset = native.offset.minor;
        (native.epoch == self.log.epoch() && offset <= self.offset).then_some(offset)
    }

    pub(super) fn disconnect(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(connection) = client.connection.take() {
            if !connection.decoder.last_event_id().is_empty() {
                connection
                    .decoder
                    .last_event_id()
                    .clone_into(&mut client.last_id);
            }
            self.log.release_filter(connection.filter);
            self.log.release_topic(connection.own);
        }
    }

    pub(super) fn poll(
        &mut self,
        client: usize,
        bytes_max: usize,
        take: Take,
        meanwhile: Option<&Publish>,
    ) -> Checked {
        match take {
            Take::All => self.poll_once(client, bytes_max, |len| len, meanwhile),
            Take::Nothing => self.poll_once(client, bytes_max, |_| 0, meanwhile),
            Take::Part(part) => {
                let part = move |len| len * usize::from(part) / usize::from(u16::MAX);
                self.poll_once(client, bytes_max, part, meanwhile)
            }
            Take::ByteByByte(times) => {
                (0..times).try_for_each(|_| self.poll_once(client, bytes_max, |_| 1, None))
            }
        }
    }

    pub(super) fn drain(&mut self, client: usize) -> Checked {
        self.wake()?;
        for _ in 0..POLLS_MAX {
            let connection = &self.clients[client].connection;
            if !connection.as_ref().is_some_and(|c| c.needs_poll) {
                return Ok(());
            }
            self.poll_once(client, 4_096, |len| len, None)?;
        }
        Err(format!("idle: client {client} never is"))
    }

    fn poll_once(
        &mut self,
        number: usize,
        bytes_max: usize,
        take: impl Fn(usize) -> usize,
        meanwhile: Option<&Publish>,
    ) -> Checked {
        let client = &mut self.clients[number];
        let Some(connection) = client.connection.as_mut().filter(|c| c.needs_poll) else {
            return Ok(());
        };
        let own = Some(connection.own);
        let answer = connection
            .subscription
            .poll(&self.log, own, bytes_max, &mut self.batch);
        match answer {
            Poll::Data => self.send(number, bytes_max, take, meanwhile),
            Poll::Idle => {
                client.check_complete(&self.model, self.model.len())?;
                client.seen = self.model.len();
                client.set_needs_poll(false);
                let end = self.model.last_end(&client.spec, self.now_ms);
                ensure!(
                    end.is_none_or(|_| client.spec.topics.is_empty()),
                    "ended: the client stays, with its end at {end:?}"
                );
                Ok(())
            }
            Poll::Close(reason) => {
                self.check_close(number, reason)?;
                self.disconnect(number);
                Ok(())
            }
        }
    }

    fn send(
        &mut self,
        number: usize,
        bytes_max: usize,
        take: impl Fn(usize) -> usize,
        meanwhile: Option<&Publish>,
    ) -> Checked {
        let bytes = self.batch.bytes().to_vec();
        let batch = std::mem::take(&mut self.batch);
        if let Some(publish) = meanwhile {
            self.publish(publish)?;
        }
        let client = &mut self.clients[number];
        let control_bytes = client.connection.as_ref().map_or(0, |c| c.control_bytes);
        let longest = self.model.records.iter().map(wire_bytes_max).max();
        ensure!(
            bytes.len() <= bytes_max + control_bytes + GAP_BYTES_MAX + longest.unwrap_or(0),
            "bounded: a batch of {} bytes for {bytes_max}",
            bytes.len()
        );
        let n = take(bytes.len()).min(bytes.len());
        let received = client.receive(&self.model, &bytes[..n])?;
        if let Some(connection) = &mut client.connection {
            let complete = connection.subscription.sent(&batch, n);
            ensure!(
                complete == received,
                "sent: {complete} events were counted, {received} came"
            );
            if !connection.subscription.has_pending() {
                connection.control_bytes = 0;
            }
        }
        self.batch = batch;
        Ok(())
    }

    fn check_close(&mut self, number: usize, reason: CloseReason) -> Checked {
        let client = &self.clients[number];
        let end_seen = client.connection.as_ref().and_then(|c| c.end_seen);
        match reason {
            CloseReason::Ended => {
                client.check_complete(&self.model, self.model.len())?;
                let end = self.model.last_end(&client.spec, 0);
                ensure!(
                    end.is_some() && end == end_seen,
                    "ended: the client was told of {end_seen:?}, the end is {end:?}"
                );
            }
            CloseReason::Lagged => {
                ensure!(
                    client.may_have_lost(&self.model, self.model.trimmed),
                    "lagged: the client lost nothing"
                );
            }
            other => return Err(format!("close: {other:?} is not the subscription's to say")),
        }
        Ok(())
    }

    /// Wakes those whose filters were touched. Whoever sleeps on has nothing to read.
    pub(super) fn wake(&mut self) -> Checked {
        let mut touched = Vec::new();
        self.log.take_touched(&mut touched);
        let mut touched: Vec<_> = touched.iter().map(|touched| touched.filter).collect();
        ensure!(
            !self.log.has_touched(),
            "touch: some filters were not taken"
        );
        for (number, client) in self.clients.iter_mut().enumerate() {
            let Some(connection) = &mut client.connection else {
                continue;
            };
            connection.needs_poll |= touched.contains(&connection.filter);
            if !connection.needs_poll {
                let complete = client.check_complete(&self.model, self.model.len());
                complete.map_err(|missed| format!("touch: client {number} sleeps; {missed}"))?;
            }
        }
        let before = touched.len();
        touched.sort_unstable();
        touched.dedup();
        ensure!(touched.len() == before, "touch: a filter was told twice");
        Ok(())
    }

    pub(super) fn push_control(&mut self, client: usize, frame: Frame) {
        let Some(connection) = &mut self.clients[client].connection else {
            return;
        };
        let mut bytes = Vec::new();
        match frame {
            Frame::Retry => encode::retry_line(&mut bytes, 1_234),
            Frame::Padding(len) => encode::padding(&mut bytes, len),
            // A checkpoint says where the client is, so nothing may be under way.
            Frame::Checkpoint if !connection.subscription.has_pending() => {
                let id = connection.subscription.position(&self.log).to_string();
                encode::checkpoint(&mut bytes, id.as_bytes());
                connection.ids.insert(id);
            }
            Frame::Heartbeat | Frame::Checkpoint => {
                bytes.extend_from_slice(encode::HEARTBEAT_COMMENT);
            }
        }
        let push = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
        connection.subscription.push_control(push);
        connection.control_bytes += bytes.len();
        connection.needs_poll = true;
    }
}

impl Client {
    fn set_needs_poll(&mut self, needs_poll: bool) {
        if let Some(connection) = &mut self.connection {
            connection.needs_poll = needs_poll;
        }
    }
}

/// At least as many bytes as an event has on the wire.
fn wire_bytes_max(record: &Record) -> usize {
    let lines = 1 + record.data.bytes().filter(|b| *b == b'\n').count();
    let topics = record.topics.iter().map(|t| t.as_str().len() + 8);
    record.data.len() + lines * 7 + record.name.len() + 100 + topics.sum::<usize>()
}
