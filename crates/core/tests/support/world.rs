//! The world: a log, its clients, a clock, and the model, taken through a script step by step. After each step the
//! log's figures are checked, and that nobody sleeps who has something to read.

use std::collections::{BTreeSet, HashSet};

use tidewire_core::encode;
use tidewire_core::event::Event;
use tidewire_core::filter::{FilterKey, FilterSpec};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::{Log, Refused, Retention};
use tidewire_core::pattern::Pattern;
use tidewire_core::subscription::{Batch, SlowClient};
use tidewire_core::topic::Topic;

use super::client::Client;
use super::model::{Kind, Model, Record};
use super::script::{CLIENTS, Op, Publish, To};
use super::{Checked, ensure};

/// Longer than any pattern without readers is kept.
const LONG_MS: u64 = 10_000_000;

pub(crate) struct World {
    pub(super) log: Log,
    pub(super) model: Model,
    pub(super) clients: Vec<Client>,
    /// Filters that are held without a subscription.
    held: Vec<(FilterKey, FilterSpec)>,
    pub(super) batch: Batch,
    pub(super) now_ms: u64,
    last_ms: u64,
    pub(super) offset: u64,
    lives: u64,
    ids: HashSet<String>,
}

impl World {
    pub(crate) fn new(retention: Retention) -> Self {
        let client = |n: usize| Client {
            spec: FilterSpec::default(),
            own: Topic::new(&format!("connection:{n}")).expect("a topic"),
            policy: SlowClient::Close,
            connection: None,
            last_id: String::new(),
            seen: 0,
            opened: 0,
            excused: 0,
        };
        Self {
            log: Log::new(Epoch::from_random(1), retention.clone()),
            model: Model::new(retention),
            clients: (0..CLIENTS).map(client).collect(),
            held: Vec::new(),
            batch: Batch::default(),
            now_ms: 1_000,
            last_ms: 0,
            offset: 0,
            lives: 1,
            ids: HashSet::new(),
        }
    }

    pub(crate) fn step(&mut self, op: &Op) -> Checked {
        match op {
            Op::Publish(publish) => self.publish(publish)?,
            Op::End(topic) => self.end(topic)?,
            Op::Connect {
                client,
                spec,
                from,
                policy,
            } => self.connect(*client, spec, *from, *policy)?,
            Op::Disconnect(client) => self.disconnect(*client),
            Op::Resume(client) => self.resume(*client)?,
            Op::Poll {
                client,
                bytes_max,
                take,
                meanwhile,
            } => self.poll(*client, *bytes_max, *take, meanwhile.as_ref())?,
            Op::Drain(client) => self.drain(*client)?,
            Op::Control(client, frame) => self.push_control(*client, *frame),
            Op::Pass { ms, expire } => self.pass(*ms, *expire)?,
            Op::Wake => self.wake()?,
            Op::HoldFilter(spec) => {
                let key = self.log.acquire_filter(spec);
                self.held.push((key, spec.clone()));
            }
            Op::ReleaseFilter => {
                if let Some((key, _)) = self.held.pop() {
                    self.log.release_filter(key);
                }
            }
            Op::Restart => self.restart(),
        }
        self.check_figures()
    }

    /// Everyone comes back and reads to the end; then all leave, and nothing may be left behind.
    pub(crate) fn finish(&mut self) -> Checked {
        for client in 0..CLIENTS {
            self.resume(client)?;
            self.drain(client)?;
        }
        self.wake()?;
        for client in 0..CLIENTS {
            self.disconnect(client);
        }
        while let Some((key, _)) = self.held.pop() {
            self.log.release_filter(key);
        }
        self.pass(LONG_MS, true)?;
        self.pass(LONG_MS, true)?;
        self.check_figures()?;
        let stats = self.log.stats();
        ensure!(
            (
                stats.events,
                stats.memory_bytes,
                stats.topics,
                stats.filters
            ) == (0, 0, 0, 0),
            "bounded: at the end there is left {stats:?}"
        );
        Ok(())
    }

    pub(super) fn publish(&mut self, publish: &Publish) -> Checked {
        let at_ms = self.now_ms - publish.late_ms;
        let mut event = Event::text(body(self.model.len(), publish.body_chars));
        event.event = publish.name.map(str::to_owned);
        event.private = publish.private;
        let is_stored = publish.to == To::Topics;
        if publish.own_id && is_stored {
            event.id = Some(format!("own {}.{}", self.lives, self.model.len()));
        }
        let own = [self.clients[publish.client].own.clone()];
        let topics = match publish.to {
            To::Topics | To::TopicsTransient => &publish.topics[..],
            To::Connection => &own,
            To::Everyone => &[],
        };
        if is_stored {
            let refused = self.log.check(topics, &event, at_ms);
            let closed = topics
                .iter()
                .find(|t| self.model.end_of(t, at_ms).is_some());
            let expected = closed.map_or(Ok(()), |t| Err(Refused::TopicClosed(t.clone())));
            ensure!(
                refused == expected,
                "closed: {refused:?} instead of {expected:?}"
            );
            if refused.is_err() {
                return Ok(());
            }
            self.offset += 1;
            let offset = Offset::counted(self.offset);
            self.log.append(topics, &event, offset, at_ms);
        } else if publish.to == To::Everyone {
            self.log.append_to_everyone(&event, at_ms);
        } else {
            self.log.append_transient(topics, &event, at_ms);
        }
        let kind = if is_stored {
            Kind::Stored
        } else {
            Kind::Transient
        };
        self.record(kind, topics.to_vec(), event, at_ms)?;
        if publish.to == To::Connection
            && let Some(connection) = &mut self.clients[publish.client].connection
        {
            // A connection's own topic is in no filter: whoever sends to it wakes the connection.
            connection.needs_poll = true;
        }
        Ok(())
    }

    fn end(&mut self, topic: &Topic) -> Checked {
        let end = self.model.end_of(topic, self.now_ms);
        ensure!(
            self.log.is_closed(topic.as_str(), self.now_ms) == end.is_some(),
            "closed: {topic} is not {end:?}"
        );
        if end.is_some() {
            return Ok(());
        }
        self.offset += 1;
        let offset = Offset::counted(self.offset);
        let id = self.log.append_end(topic, offset, self.now_ms);
        let event = Event::text(encode::end_data(topic.as_str()))
            .named("end")
            .with_id(id.to_string());
        self.record(Kind::End, vec![topic.clone()], event, self.now_ms)
    }

    fn record(&mut self, kind: Kind, topics: Vec<Topic>, event: Event, at_ms: u64) -> Checked {
        self.last_ms = self.last_ms.max(at_ms);
        let native = || self.log.id_at(Offset::counted(self.offset)).to_string();
        let own_id = kind == Kind::Stored && event.id.is_some();
        let id = (kind != Kind::Transient).then(|| event.id.unwrap_or_else(native));
        if let Some(id) = &id {
            ensure!(
                self.ids.insert(id.clone()),
                "id: {id} was given to another event"
            );
        }
        self.model.records.push(Record {
            kind,
            topics,
            id,
            own_id,
            private: event.private,
            name: event.event.unwrap_or_else(|| "message".into()),
            data: event.data.replace("\r\n", "\n").replace('\r', "\n"),
            at_ms: self.last_ms,
            offset: self.offset,
        });
        self.see_trimmed();
        Ok(())
    }

    pub(super) fn see_trimmed(&mut self) {
        self.model.trimmed = self.model.len() - self.log.stats().events;
    }

    fn pass(&mut self, ms: u64, expire: bool) -> Checked {
        self.now_ms += ms;
        if expire {
            self.log.expire(self.now_ms);
            self.see_trimmed();
            let horizon = self.now_ms.saturating_sub(self.model.retention.ttl_ms);
            ensure!(
                self.model.held().iter().all(|r| r.at_ms >= horizon),
                "bounded: an event is older than the history may be"
            );
        }
        Ok(())
    }

    fn restart(&mut self) {
        for client in 0..CLIENTS {
            self.disconnect(client);
            self.clients[client].seen = 0;
            self.clients[client].excused = 0;
        }
        self.lives += 1;
        self.held.clear();
        self.offset = 0;
        self.last_ms = 0;
        let retention = self.model.retention.clone();
        self.log = Log::new(Epoch::from_random(self.lives), retention.clone());
        self.model = Model::new(retention);
    }

    /// Memory is bounded, and the state of what nobody uses is freed.
    fn check_figures(&self) -> Checked {
        let stats = self.log.stats();
        let budget = self.model.retention.memory_bytes;
        ensure!(
            stats.memory_bytes <= budget || stats.events <= 1,
            "bounded: {stats:?} for {budget} bytes"
        );
        ensure!(
            stats.appended == self.model.len() as u64,
            "appended: {stats:?} after {} events",
            self.model.len()
        );
        let connected = || self.clients.iter().filter(|c| c.connection.is_some());
        let held = self.held.iter().map(|(_, spec)| spec);
        let specs: Vec<_> = held.chain(connected().map(|c| &c.spec)).collect();
        let topics: BTreeSet<&Topic> = specs
            .iter()
            .flat_map(|spec| &spec.topics)
            .chain(self.model.held().iter().flat_map(|r| &r.topics))
            .chain(connected().map(|c| &c.own))
            .collect();
        ensure!(
            stats.topics == topics.len(),
            "bounded: {} topics are known, {} have an event or a reader",
            stats.topics,
            topics.len()
        );
        let filters: BTreeSet<_> = specs.into_iter().map(filter_of).collect();
        ensure!(
            stats.filters == filters.len(),
            "bounded: {} filters are known, {} are in use",
            stats.filters,
            filters.len()
        );
        Ok(())
    }
}

/// What makes two filters equal.
fn filter_of(spec: &FilterSpec) -> impl Ord {
    let topics: BTreeSet<_> = spec.topics.iter().map(ToString::to_string).collect();
    let texts = |patterns: &[Pattern]| -> BTreeSet<String> {
        patterns.iter().map(ToString::to_string).collect()
    };
    let private = spec.private.as_deref().map(texts);
    (topics, texts(&spec.patterns), private, spec.topic_lines)
}

/// Data that begins with the event's place, and has what the wire could stumble over.
fn body(place: usize, chars: usize) -> String {
    let filler = (0..chars).map(|at| match (at * 7 + place) % 23 {
        0 => '\n',
        1 => '\r',
        2 => 'é',
        3 => ':',
        4 => ' ',
        _ => 'x',
    });
    format!("{place}|{}", filler.collect::<String>())
}
