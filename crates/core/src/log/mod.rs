//! The log: every event encoded once, one order, bounded in bytes and time, readable through a filter without a scan.
//!
//! ```text
//! store     | e1 e2 e3 e4 e5 e6 … |   entries and their bytes, oldest first     (store.rs)
//! chains    orders: 1 4 6             sequence numbers by topic and by pattern  (chain.rs, patterns.rs)
//!           a:*   : 2 3 5
//! filters   {orders, a:*}             interned; what subscriptions share        (../filter.rs)
//! ```
//!
//! Appending costs the event's own topics and the patterns that match them. A chain with readers that got an event is
//! noted once in a list of touched chains; whoever drives the log takes that list and wakes the readers.

mod chain;
mod history;
mod patterns;
mod restore;
mod retention;
mod store;
mod topics;
mod trim;

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

pub(crate) use self::chain::Chain;
pub use self::history::{HistoryEvent, HistoryPage, HistoryStart, TopicInfo};
pub(crate) use self::patterns::{PatternKey, PatternState, Patterns};
pub(crate) use self::retention::Mark;
use self::retention::TrimTable;
pub use self::retention::{Retention, RetentionRule};
pub(crate) use self::store::{Entry, Kind, Seq, Store, Topics};
pub(crate) use self::topics::TopicState;
use crate::coalesce::CoalesceRule;
use crate::encode::encode;
use crate::event::Event;
use crate::filter::{FilterKey, Filters};
use crate::id::{Epoch, NativeId, Offset, Tombstone, topic_hash};
use crate::namespace::Namespace;
use crate::pattern::Pattern;
use crate::topic::Topic;

/// A topic's place in the log's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicKey(pub(crate) u32);

/// The chain that is in every filter: events to each and every connection.
pub(crate) const EVERYONE: TopicKey = TopicKey(0);

/// Why the log takes no such publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The topic has ended, and its end is still in history.
    TopicClosed(Topic),
    /// The publisher's id is in history already.
    IdTaken(String),
}

impl Refused {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TopicClosed(_) => "topic_closed",
            Self::IdTaken(_) => "id_taken",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TopicClosed(topic) => {
                write!(
                    f,
                    "topic `{topic}` is closed; it takes events again when its end has left the history"
                )
            }
            Self::IdTaken(id) => write!(
                f,
                "an event with id `{id}` is in history already; ids must be unique"
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// Figures about a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Events held.
    pub events: usize,
    /// Memory that counts against the budget, in bytes.
    pub memory_bytes: usize,
    /// Topics with an event or a reader.
    pub topics: usize,
    /// Distinct filters in use.
    pub filters: usize,
    /// Events that were appended since the start.
    pub appended: u64,
}

/// One node's log. See the [module's documentation](self).
#[derive(Debug)]
pub struct Log {
    epoch: Epoch,
    retention: Retention,
    pub(crate) coalescing: Vec<CoalesceRule>,
    pub(crate) store: Store,
    pub(crate) topics: Slab<TopicState>,
    names: HashMap<Arc<str>, TopicKey>,
    pub(crate) patterns: Patterns,
    pub(crate) filters: Filters,
    own_ids: HashMap<Box<str>, Seq>,
    trimmed: TrimTable,
    /// Offset of the newest stored event ever appended.
    head: Offset,
    /// Offset of the newest stored event that was trimmed.
    tail: Offset,
    last_ms: u64,
    /// Index memory beside the store: chains, own ids, topics without readers; in bytes.
    index_bytes: usize,
    pub(crate) touched_topics: Vec<TopicKey>,
    pub(crate) touched_patterns: Vec<PatternKey>,
    id_scratch: Vec<u8>,
    pub(crate) namespaces: Vec<Namespace>,
}

impl Log {
    /// An empty log of a history that starts now.
    pub fn new(epoch: Epoch, retention: Retention) -> Self {
        let mut log = Self {
            epoch,
            retention,
            coalescing: Vec::new(),
            store: Store::new(),
            topics: Slab::new(),
            names: HashMap::new(),
            patterns: Patterns::default(),
            filters: Filters::default(),
            own_ids: HashMap::new(),
            trimmed: TrimTable::new(),
            head: Offset::ZERO,
            tail: Offset::ZERO,
            last_ms: 0,
            index_bytes: 0,
            touched_topics: Vec::new(),
            touched_patterns: Vec::new(),
            id_scratch: Vec::new(),
            namespaces: Vec::new(),
        };
        // Nameless, so that nothing can be published to it by name; never freed.
        let mut state = TopicState::new("");
        state.holds = 1;
        let everyone = log.topics.insert(state);
        debug_assert_eq!(everyone, EVERYONE.0 as usize);
        log
    }

    /// The epoch that this log's ids carry.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the newest stored event is.
    pub fn head(&self) -> Offset {
        self.head
    }

    /// The id of a position.
    pub fn id_at(&self, offset: Offset) -> NativeId {
        NativeId::new(self.epoch, offset)
    }

    /// Figures, cheap to take.
    pub fn stats(&self) -> LogStats {
        LogStats {
            events: self.store.len(),
            memory_bytes: self.memory(),
            topics: self.topics.len() - 1,
            filters: self.filters.len(),
            appended: self.store.next() - 1,
        }
    }

    fn memory(&self) -> usize {
        self.store.memory() + self.index_bytes
    }

    /// Whether a publication could be appended now. Brokers that decide elsewhere don't ask.
    ///
    /// # Errors
    /// [`Refused`] says which rule is in the way.
    pub fn check(&self, topics: &[Topic], event: &Event, now_ms: u64) -> Result<(), Refused> {
        if let Some(topic) = topics
            .iter()
            .find(|topic| self.is_closed(topic.as_str(), now_ms))
        {
            return Err(Refused::TopicClosed(topic.clone()));
        }
        match &event.id {
            Some(id) if self.own_ids.contains_key(id.as_str()) => Err(Refused::IdTaken(id.clone())),
            _ => Ok(()),
        }
    }

    /// Whether a topic's end is in its history.
    pub fn is_closed(&self, topic: &str, now_ms: u64) -> bool {
        self.end_of(topic, now_ms).is_some()
    }

    /// The id of a topic's final event, while that is in history.
    pub fn end_of(&self, topic: &str, now_ms: u64) -> Option<NativeId> {
        let state = self.topic(*self.names.get(topic)?);
        let entry = self.store.get(state.end?)?;
        let in_history = entry.at_ms.saturating_add(self.ttl_ms_of(topic)) >= now_ms;
        in_history.then(|| {
            self.id_at(entry.offset)
                .with_tombstone(Tombstone::End(topic_hash(topic)))
        })
    }

    /// Appends an event that its broker has committed at `offset`, which must be greater than every one before.
    pub fn append(&mut self, topics: &[Topic], event: &Event, offset: Offset, now_ms: u64) {
        debug_assert!(offset > self.head, "a broker's offsets only grow");
        self.head = offset;
        let kind = if event.id.is_some() {
            Kind::StoredWithOwnId
        } else {
            Kind::Stored
        };
        let keys = self.keys_of(topics);
        self.push(kind, keys, event, offset, now_ms);
    }

    /// Appends the final event of a topic. Answers its id.
    pub fn append_end(&mut self, topic: &Topic, offset: Offset, now_ms: u64) -> NativeId {
        debug_assert!(offset > self.head, "a broker's offsets only grow");
        self.head = offset;
        let key = self.topic_key(topic.as_str());
        let event = Event {
            event: Some("end".into()),
            data: crate::encode::end_data(topic.as_str()),
            ..Event::default()
        };
        let seq = self.push(Kind::End, Topics::One(key), &event, offset, now_ms);
        self.topics[key.0 as usize].end = Some(seq);
        self.id_at(offset)
            .with_tombstone(Tombstone::End(topic_hash(topic.as_str())))
    }

    /// Appends an event that did not pass the broker: for those who are connected, without an id, never replayed.
    pub fn append_transient(&mut self, topics: &[Topic], event: &Event, now_ms: u64) {
        let keys = self.keys_of(topics);
        self.push(Kind::Transient, keys, event, self.head, now_ms);
    }

    /// Appends a transient event to every connection.
    pub fn append_to_everyone(&mut self, event: &Event, now_ms: u64) {
        self.push(
            Kind::Transient,
            Topics::One(EVERYONE),
            event,
            self.head,
            now_ms,
        );
    }

    fn keys_of(&mut self, topics: &[Topic]) -> Topics {
        match topics {
            [one] => Topics::One(self.topic_key(one.as_str())),
            many => {
                let mut keys: Vec<_> = many
                    .iter()
                    .map(|topic| self.topic_key(topic.as_str()))
                    .collect();
                keys.sort_unstable();
                keys.dedup();
                Topics::Many(keys.into_boxed_slice())
            }
        }
    }

    fn push(
        &mut self,
        kind: Kind,
        keys: Topics,
        event: &Event,
        offset: Offset,
        now_ms: u64,
    ) -> Seq {
        // A clock that is set back must not put a younger event before an older one.
        self.last_ms = self.last_ms.max(now_ms);
        let name = event.event.as_deref();
        let size_hint = event.data.len() + name.map_or(0, str::len) + 128;
        let seq = self.store.next();
        for &key in keys.as_slice() {
            self.link(key, seq);
            if kind != Kind::Transient {
                self.topics[key.0 as usize].end = None;
            }
        }
        self.id_scratch.clear();
        let id = match kind {
            Kind::Transient => None,
            Kind::StoredWithOwnId => event.id.as_deref().map(str::as_bytes),
            Kind::Stored | Kind::End => {
                let mut id = NativeId::new(self.epoch, offset);
                if kind == Kind::End {
                    let topic = self.topics[keys.as_slice()[0].0 as usize].name();
                    id = id.with_tombstone(Tombstone::End(topic_hash(topic)));
                }
                id.write(&mut self.id_scratch);
                Some(self.id_scratch.as_slice())
            }
        };
        self.store.push(
            (kind, event.private),
            self.last_ms,
            offset,
            keys,
            size_hint,
            |out| {
                encode(out, id, name, event.retry_ms, &event.data);
            },
        );
        if kind == Kind::StoredWithOwnId
            && let Some(id) = &event.id
            && self.own_ids.insert(id.as_str().into(), seq).is_none()
        {
            self.index_bytes += own_id_memory(id);
        }
        // Only now, as the budget counts all of the above.
        self.trim();
        seq
    }

    /// Puts an event into its topic's chain and those of the patterns that match.
    fn link(&mut self, key: TopicKey, seq: Seq) {
        let state = &mut self.topics[key.0 as usize];
        if state.chain.seqs.is_empty() {
            self.index_bytes += state.memory();
        }
        self.index_bytes += state.chain.push(seq);
        if state.chain.touch() {
            self.touched_topics.push(key);
        }
        state.refresh_patterns(&self.patterns);
        for &pattern in &state.patterns {
            let chain = &mut self.patterns.get_mut(pattern).chain;
            // An event of several topics may match a pattern more than once.
            if chain.seqs.back() != Some(&seq) {
                self.index_bytes += chain.push(seq);
                if chain.touch() {
                    self.touched_patterns.push(pattern);
                }
            }
        }
    }

    pub(crate) fn free_if_unused(&mut self, key: TopicKey) {
        let state = &self.topics[key.0 as usize];
        if state.chain.seqs.is_empty() && state.chain.filters.is_empty() && state.holds == 0 {
            let state = self.topics.remove(key.0 as usize);
            self.names.remove(state.name());
        }
    }

    pub(crate) fn topic(&self, key: TopicKey) -> &TopicState {
        &self.topics[key.0 as usize]
    }

    /// The topic's key; its state is made where there was none.
    pub(crate) fn topic_key(&mut self, name: &str) -> TopicKey {
        if let Some(&key) = self.names.get(name) {
            return key;
        }
        let state = TopicState::new(name);
        let key = TopicKey(self.topics.insert(state) as u32);
        self.names.insert(name.into(), key);
        key
    }

    pub(crate) fn topic_mut(&mut self, key: TopicKey) -> &mut TopicState {
        &mut self.topics[key.0 as usize]
    }

    /// Holds a connection's own topic; to be given back with [`release_topic`](Self::release_topic).
    pub fn hold_topic(&mut self, topic: &Topic) -> TopicKey {
        let key = self.topic_key(topic.as_str());
        self.topic_mut(key).holds += 1;
        key
    }

    /// Gives a topic back that was held.
    pub fn release_topic(&mut self, key: TopicKey) {
        self.topic_mut(key).holds -= 1;
        self.free_if_unused(key);
    }

    pub(crate) fn pattern(&self, key: PatternKey) -> &PatternState {
        self.patterns.get(key)
    }

    pub(crate) fn pattern_mut(&mut self, key: PatternKey) -> &mut PatternState {
        self.patterns.get_mut(key)
    }

    pub(crate) fn pattern_key(&mut self, pattern: &Pattern) -> PatternKey {
        self.patterns.key_of(pattern, self.store.next())
    }

    /// Sees to it that the chains of a filter's patterns are complete from the start of the log on.
    ///
    /// A chain begins where its pattern's first reader came; a reader that wants older events pays for the scan, once
    /// for all that come after it.
    pub(crate) fn complete_patterns(&mut self, filter: FilterKey) {
        let base = self.store.base();
        let keys = self.filters.get(filter).patterns.clone();
        for key in keys {
            let state = self.patterns.get(key);
            let until = state.complete_from;
            if until <= base {
                continue;
            }
            let mut matches: HashMap<TopicKey, bool> = HashMap::new();
            let mut is_match = |topic: &TopicKey| {
                *matches
                    .entry(*topic)
                    .or_insert_with(|| self.matches(&state.pattern, *topic))
            };
            let of_pattern = |seq: &Seq| {
                self.store
                    .get(*seq)
                    .is_some_and(|entry| entry.topics.as_slice().iter().any(&mut is_match))
            };
            let older: Vec<Seq> = (base..until).filter(of_pattern).collect();
            let state = self.patterns.get_mut(key);
            self.index_bytes += state.chain.prepend(&older);
            state.complete_from = base;
        }
        self.trim();
    }

    /// Whether a pattern stands for a topic. [`EVERYONE`] is none, though `**` would match its empty name.
    fn matches(&self, pattern: &Pattern, topic: TopicKey) -> bool {
        topic != EVERYONE && pattern.matches(self.topic(topic).name())
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// The latest time that anything was appended at.
    pub(crate) fn last_ms(&self) -> u64 {
        self.last_ms
    }

    pub(crate) fn tail(&self) -> Offset {
        self.tail
    }

    pub(crate) fn own_id(&self, id: &str) -> Option<Seq> {
        self.own_ids.get(id).copied()
    }

    pub(crate) fn trim_mark(&self, topic: &str) -> Mark {
        self.trimmed.topic(topic)
    }

    pub(crate) fn trim_mark_of_all(&self) -> Mark {
        self.trimmed.all()
    }

    pub(crate) fn find_topic(&self, name: &str) -> Option<TopicKey> {
        self.names.get(name).copied()
    }
}

fn own_id_memory(id: &str) -> usize {
    id.len() + size_of::<(Box<str>, Seq)>() + 8
}
