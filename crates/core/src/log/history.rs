//! Reading a topic's history page by page, for those who want JSON rather than a stream.

use super::{Kind, Log, Seq, TopicKey};
use crate::decode::Decoder;
use crate::filter::FilterSpec;
use crate::id::NativeId;
use crate::subscribe::{Start, Subscribed};
use crate::subscription::SlowClient;
use crate::topic::Topic;

/// Private events of others that are passed over for one page. Stops whoever may read none of them from keeping the log's lock
/// for long.
const PASSED_OVER_MAX: usize = 10_000;

/// An event as it stands in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEvent {
    /// The id that it has on the wire.
    pub id: String,
    /// The topics that it was published to.
    pub topics: Vec<String>,
    /// Its name; `message` where the publisher gave none.
    pub event: String,
    /// Its data.
    pub data: String,
    /// When it was published, in milliseconds since the Unix epoch.
    pub published_at_ms: u64,
}

/// One page of a topic's history, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<HistoryEvent>,
    /// Whether events between the asked-for start and this page are missing.
    pub gap: bool,
    /// The position behind the page: where to go on. `None` where the page reaches the end.
    pub next: Option<NativeId>,
}

/// Where a page of history begins. Finding it changes the log's tables; reading on from there does not.
#[derive(Clone, Copy, Debug)]
pub struct HistoryStart {
    from: Seq,
    gap: bool,
}

/// What a listing tells of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: String,
    /// Events held, transient ones included.
    pub events: usize,
    /// Subscriptions that name it; those that reach it by a pattern are not counted.
    pub subscribers: usize,
    /// Whether its end is in history.
    pub closed: bool,
    /// The position of its newest event.
    pub last: Option<NativeId>,
}

impl Log {
    /// Up to `limit` topics from a cursor on, and the cursor of the next page. The order is that of the log's table:
    /// a topic that lives through a whole listing is in it once.
    pub fn topics(
        &self,
        cursor: usize,
        limit: usize,
        now_ms: u64,
    ) -> (Vec<TopicInfo>, Option<usize>) {
        let named = (cursor.max(1)..self.topics.capacity())
            .filter_map(|at| Some((at, self.topics.get(at)?)));
        let mut page = Vec::new();
        for (at, state) in named {
            if page.len() == limit {
                return (page, Some(at));
            }
            let last = state.chain.seqs.back().and_then(|seq| self.store.get(*seq));
            page.push(TopicInfo {
                topic: state.name().to_owned(),
                events: state.chain.seqs.len(),
                subscribers: state
                    .chain
                    .filters
                    .iter()
                    .map(|key| self.filters.holds(*key) as usize)
                    .sum(),
                closed: self.is_closed(state.name(), now_ms),
                last: last.map(|entry| self.id_at(entry.offset)),
            });
        }
        (page, None)
    }

    /// How many subscriptions name a topic.
    pub fn subscribers_of(&self, topic: &str) -> usize {
        let Some(key) = self.find_topic(topic) else {
            return 0;
        };
        self.subscribers_of_key(key)
    }

    /// Whether an event with this id, of a publisher's own, is held.
    pub fn knows(&self, id: &str) -> bool {
        self.own_id(id).is_some()
    }

    pub(crate) fn subscribers_of_key(&self, key: TopicKey) -> usize {
        let filters = self.topic(key).chain.filters.iter();
        filters.map(|key| self.filters.holds(*key) as usize).sum()
    }

    /// Finds where a page of a topic's history begins.
    pub fn find_history(&mut self, topic: &Topic, start: &Start, now_ms: u64) -> HistoryStart {
        let filter = self.acquire_filter(&FilterSpec {
            topics: vec![topic.clone()],
            ..FilterSpec::default()
        });
        let subscribed = self.subscribe(filter, start, SlowClient::Close, now_ms);
        self.release_filter(filter);
        match subscribed {
            Subscribed::Stream {
                subscription, gap, ..
            } => HistoryStart {
                from: subscription.next(),
                gap: gap.is_some(),
            },
            Subscribed::Over => HistoryStart {
                from: self.store.next(),
                gap: false,
            },
        }
    }

    /// Up to `events_max` events of a topic, or about `bytes_max` of them, from a start on. A private event is among them if one of
    /// its topics is one that `may_read_private` says yes to; where it is not, neither the page's end nor its number of events
    /// tells of it.
    pub fn history(
        &self,
        topic: &Topic,
        start: &HistoryStart,
        events_max: usize,
        bytes_max: usize,
        may_read_private: &dyn Fn(&str) -> bool,
    ) -> HistoryPage {
        let mut page = HistoryPage {
            gap: start.gap,
            ..HistoryPage::default()
        };
        let Some(key) = self.find_topic(topic.as_str()) else {
            return page;
        };
        let chain = &self.topic(key).chain;
        let (mut bytes, mut passed_over) = (0, 0);
        for &seq in chain.seqs.iter().skip(chain.lower_bound(start.from)) {
            if passed_over < PASSED_OVER_MAX && !self.is_for(seq, may_read_private) {
                passed_over += 1;
                continue;
            }
            let is_full = page.events.len() >= events_max || (bytes >= bytes_max && bytes > 0);
            if is_full || passed_over == PASSED_OVER_MAX {
                page.next = Some(self.id_before(seq));
                break;
            }
            if let Some((event, len)) = self.history_event(seq) {
                bytes += len;
                page.events.push(event);
            }
        }
        page
    }

    fn is_for(&self, seq: Seq, may_read_private: &dyn Fn(&str) -> bool) -> bool {
        let hidden = self.store.get(seq).filter(|entry| entry.private);
        hidden.is_none_or(|entry| {
            let mut topics = entry.topics.as_slice().iter();
            topics.any(|key| may_read_private(self.topic(*key).name()))
        })
    }

    fn history_event(&self, seq: Seq) -> Option<(HistoryEvent, usize)> {
        let entry = self
            .store
            .get(seq)
            .filter(|entry| entry.kind != Kind::Transient)?;
        let bytes = self.store.bytes_of(entry);
        // What is in history was encoded here, so it decodes.
        let mut decoder = Decoder::new(bytes.len() + 1);
        decoder.push(bytes);
        let read = decoder.next_event().ok().flatten()?;
        let topics = entry
            .topics
            .as_slice()
            .iter()
            .map(|key| self.topic(*key).name().to_owned())
            .collect();
        let event = HistoryEvent {
            id: read.id,
            topics,
            event: read.event,
            data: read.data,
            published_at_ms: entry.at_ms,
        };
        Some((event, bytes.len()))
    }
}
