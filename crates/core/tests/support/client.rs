//! A client: it reads the stream through the decoder and holds each event against the model.

use std::collections::HashSet;

use serde_json::Value;
use tidewire_core::decode::{Decoded, Decoder};
use tidewire_core::filter::{FilterKey, FilterSpec};
use tidewire_core::id::NativeId;
use tidewire_core::log::TopicKey;
use tidewire_core::subscription::{GapReason, SlowClient, Subscription};
use tidewire_core::topic::Topic;

use super::model::{Kind, Model, Reader, Record};
use super::{Checked, ensure};

/// What lives as long as a connection.
pub(crate) struct Connection {
    pub(crate) filter: FilterKey,
    pub(crate) own: TopicKey,
    pub(crate) subscription: Subscription,
    pub(crate) decoder: Decoder,
    /// Transient events before this place are not for this connection.
    pub(crate) live_from: usize,
    /// The gap that has to come before anything else.
    pub(crate) gap_due: Option<GapReason>,
    /// Ids that were sent: events', and those of gaps and checkpoints.
    pub(crate) ids: HashSet<String>,
    /// The filter was touched, or the last poll was not idle.
    pub(crate) needs_poll: bool,
    /// At most so many bytes of control frames are not sent yet.
    pub(crate) control_bytes: usize,
    /// Where the last `end` stands that came on this connection.
    pub(crate) end_seen: Option<usize>,
}

pub(crate) struct Client {
    pub(crate) spec: FilterSpec,
    pub(crate) own: Topic,
    pub(crate) policy: SlowClient,
    pub(crate) connection: Option<Connection>,
    /// What it sends as `Last-Event-ID`.
    pub(crate) last_id: String,
    /// The events before this place are accounted for.
    pub(crate) seen: usize,
    /// Where its connection began.
    pub(crate) opened: usize,
    /// Transient events before this place may be missing, as a gap went before.
    pub(crate) excused: usize,
}

impl Client {
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader {
            spec: &self.spec,
            own: &self.own,
        }
    }

    /// Reads bytes that were sent. Answers how many events of the log were complete with them.
    pub(crate) fn receive(&mut self, model: &Model, bytes: &[u8]) -> Checked<usize> {
        let mut received = 0;
        let Some(connection) = &mut self.connection else {
            return Ok(0);
        };
        connection.decoder.push(bytes);
        while let Some(event) = self.decoded()? {
            if event.event == "gap" {
                self.take_gap(model, &event)?;
            } else {
                self.take_event(model, &event)?;
                received += 1;
            }
        }
        Ok(received)
    }

    fn decoded(&mut self) -> Checked<Option<Decoded>> {
        match &mut self.connection {
            Some(connection) => connection.decoder.next_event().map_err(|e| e.to_string()),
            None => Ok(None),
        }
    }

    fn take_event(&mut self, model: &Model, event: &Decoded) -> Checked {
        let at = find(model, event)?;
        let record = &model.records[at];
        self.check_content(record, event)?;
        ensure!(
            self.reader().matches(record),
            "filter: event {at} is not for this client"
        );
        ensure!(
            at >= self.seen,
            "order, once: event {at} came after those before {}",
            self.seen
        );
        let Some(connection) = &mut self.connection else {
            return Err("a closed connection got an event".into());
        };
        ensure!(
            record.kind != Kind::Transient || at >= connection.live_from,
            "transient: event {at} was replayed"
        );
        if record.kind == Kind::End {
            connection.end_seen = Some(at);
        }
        connection.ids.insert(event.id.clone());
        self.check_complete(model, at)?;
        self.seen = at + 1;
        Ok(())
    }

    /// The bytes say what was published, no more and no less.
    fn check_content(&self, record: &Record, event: &Decoded) -> Checked {
        ensure!(
            event.data == record.data && event.event == record.name,
            "content: {event:?} is not {record:?}"
        );
        match (&record.id, &self.connection) {
            (Some(id), _) => ensure!(*id == event.id, "id: {} instead of {id}", event.id),
            (None, Some(connection)) => ensure!(
                event.id.is_empty() || connection.ids.contains(&event.id),
                "transient: the event has an id, {}",
                event.id
            ),
            (None, None) => {}
        }
        let asked_for = |topic: &&Topic| self.spec.topic_lines && self.reader().asked_for(topic);
        let topics = record.topics.iter().filter(asked_for);
        let mut expected: Vec<_> = topics.map(Topic::as_str).collect();
        expected.sort_unstable();
        expected.dedup();
        let mut topics: Vec<_> = event.topics.iter().map(String::as_str).collect();
        topics.sort_unstable();
        ensure!(
            topics == expected,
            "topic lines: {topics:?} instead of {expected:?}"
        );
        Ok(())
    }

    fn take_gap(&mut self, model: &Model, event: &Decoded) -> Checked {
        let data: Value = serde_json::from_str(&event.data).map_err(|e| e.to_string())?;
        let id = NativeId::parse(&event.id).ok_or("a gap has a native id")?;
        let Some(connection) = &mut self.connection else {
            return Err("a closed connection got a gap".into());
        };
        connection.ids.insert(event.id.clone());
        let reason = data["reason"].as_str().unwrap_or_default();
        match connection.gap_due.take() {
            Some(due) => ensure!(due.as_str() == reason, "gap: {reason} instead of {due:?}"),
            None => ensure!(
                reason == "lagged" && self.policy == SlowClient::Skip,
                "gap: {reason} came from nowhere"
            ),
        }
        let place = model.place_after(id.offset.minor);
        if reason == GapReason::Lagged.as_str() {
            let until = place.max(model.trimmed);
            ensure!(self.may_have_lost(model, until), "gap: nothing was lost");
        }
        let again = reason == GapReason::UnknownId.as_str();
        self.seen = if again { place } else { self.seen.max(place) };
        self.excused = model.place_beyond(id.offset.minor);
        Ok(())
    }

    /// Whether the log has a reason to think that the client lost something. A client is not told of private events that
    /// are not for it, so when it comes back it begins before them.
    pub(crate) fn may_have_lost(&self, model: &Model, until: usize) -> bool {
        let reader = self.reader();
        let records = |from: usize| model.records.get(from..until).unwrap_or_default().iter();
        records(self.seen).any(|record| reader.matches(record))
            || records(self.seen.min(self.opened))
                .any(|record| reader.reads(record) && !reader.matches(record))
    }

    /// Every event before a place was received, or is excused.
    pub(crate) fn check_complete(&self, model: &Model, until: usize) -> Checked {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        ensure!(
            connection.gap_due.is_none(),
            "gap: it was not told before event {until}"
        );
        let excused = connection.live_from.max(self.excused);
        let missing = (self.seen..until).find(|at| {
            let record = &model.records[*at];
            self.reader().matches(record) && (record.kind != Kind::Transient || *at >= excused)
        });
        match missing {
            Some(at) => Err(format!(
                "loss: event {at} was not received, {until} is reached"
            )),
            None => Ok(()),
        }
    }
}

/// The event in the model. Data begins with the event's place; an `end` is found by its id.
fn find(model: &Model, event: &Decoded) -> Checked<usize> {
    let at = if event.event == "end" {
        let is_it = |r: &Record| r.kind == Kind::End && r.id.as_ref() == Some(&event.id);
        model.records.iter().position(is_it)
    } else {
        let number = event.data.split('|').next().unwrap_or_default();
        number.parse().ok().filter(|at| *at < model.len())
    };
    at.ok_or_else(|| format!("content: nobody published {event:?}"))
}
