//! A subscription: a filter and a position. Everything a client is sent comes from reading on from the position.
//!
//! ```text
//! subscribe ── Subscription ──▶ poll(log) ─▶ Data    bytes are in the batch; say with `sent` how many went out
//!                  ▲                      ├▶ Idle    nothing to send; wait until the filter is touched
//!                  └────── sent(n) ◀──────┘▶ Close   the reason why this client must go
//! ```
//!
//! A write may take any number of bytes: the position then lies in the middle of an event, and the next poll carries on
//! there. Control frames (a greeting, a heartbeat, a gap) are per connection and go out between events only.

use std::borrow::Cow;
use std::ops::Range;

pub use crate::batch::Batch;
use crate::batch::{ChainKey, Cursor};
use crate::dialect::{Notice, write_rendered};
use crate::encode;
use crate::filter::FilterKey;
use crate::id::{NativeId, Offset};
use crate::log::{Chain, Entry, Kind, Log, Seq, TopicKey};
pub use crate::reason::{CloseReason, GapReason, SlowClient};

/// What to do after a [`Subscription::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// There are bytes in the batch.
    Data,
    /// Nothing to send until the filter is touched.
    Idle,
    /// The client must go.
    Close(CloseReason),
}

/// One client's place in the log. See the [module's documentation](self).
#[derive(Debug)]
pub struct Subscription {
    filter: FilterKey,
    slow_client: SlowClient,
    /// The next event to look at.
    next: Seq,
    /// Bytes of that event which were sent already.
    sent_of_next: u32,
    /// The offset of the position, for the `from` of a gap.
    offset: Offset,
    /// Where the subscription began: what ended before this was not told here.
    began: Seq,
    /// Transient events before this were not meant for this connection.
    live_from: Seq,
    control: Option<Box<Control>>,
}

#[derive(Debug, Default)]
struct Control {
    bytes: Vec<u8>,
    sent: usize,
    /// Where in the bytes the last `gap` for being slow stands, and the position before it.
    gap: Option<(Range<usize>, Offset)>,
}

impl Control {
    /// Queues a `gap`, or widens the one of which nothing was sent: a client that takes no bytes shall not make this
    /// grow with each loss. Answers whether the client is told of one more.
    fn push_gap(
        &mut self,
        log: &Log,
        filter: FilterKey,
        mut from: Offset,
        resumed: NativeId,
    ) -> bool {
        let mut is_new = true;
        if let Some((at, earlier)) = self.gap.take()
            && self.sent <= at.start
        {
            self.bytes.drain(at);
            from = earlier;
            is_new = false;
        }
        let start = self.bytes.len();
        let from_id = log.id_at(from).to_string();
        let (out, from_id) = (&mut self.bytes, Some(from_id.as_str()));
        log.write_gap(
            out,
            filter,
            resumed,
            from_id,
            GapReason::Lagged,
            log.last_ms(),
        );
        self.gap = Some((start..self.bytes.len(), from));
        is_new
    }
}

impl Subscription {
    pub(crate) fn new(
        filter: FilterKey,
        slow_client: SlowClient,
        next: Seq,
        offset: Offset,
        live_from: Seq,
    ) -> Self {
        Self {
            filter,
            slow_client,
            next,
            sent_of_next: 0,
            offset,
            began: next,
            live_from,
            control: None,
        }
    }

    /// The filter that the subscription reads.
    pub fn filter(&self) -> FilterKey {
        self.filter
    }

    /// What happens if its position falls off the log.
    pub fn slow_client(&self) -> SlowClient {
        self.slow_client
    }

    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// The place in the node's log that is looked at next; counts from 1.
    pub fn place(&self) -> u64 {
        self.next
    }

    /// The id of the position: a client that has it has everything before.
    pub fn position(&self, log: &Log) -> NativeId {
        log.id_at(self.offset)
    }

    /// Queues control bytes, which go out before the next event that has not begun.
    pub fn push_control(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.control.get_or_insert_default().bytes);
    }

    /// As [`push_control`](Self::push_control), ahead of what is queued already. For a greeting; nothing was sent yet.
    pub fn push_control_first(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let control = self.control.get_or_insert_default();
        let queued = std::mem::take(&mut control.bytes);
        write(&mut control.bytes);
        control.bytes.extend_from_slice(&queued);
    }

    /// The filter and the place, where these alone decide what a poll gathers: subscriptions for which they are equal
    /// may send the same batch.
    pub fn shared_position(&self) -> Option<(FilterKey, u64)> {
        let alone = self.control.is_none() && self.sent_of_next == 0 && self.live_from <= self.next;
        alone.then_some((self.filter, self.next))
    }

    /// Whether control bytes are waiting or an event is half sent: the position is then ahead of, or behind, what the
    /// client knows, and must not be told.
    pub fn has_pending(&self) -> bool {
        self.control.is_some() || self.sent_of_next > 0
    }

    /// Whether the client has seen the beginning of an event and not its end: nothing else may be sent now.
    pub fn is_within_event(&self) -> bool {
        self.sent_of_next > 0
    }

    /// Gathers up to about `bytes_max` of what the client lacks into the batch. Whole events where possible: only one
    /// that is larger than `bytes_max` by itself is cut.
    ///
    /// `own` is the connection's own topic, where it has one.
    ///
    /// # Panics
    /// If a chain holds an event that the log doesn't, which is a bug of the log.
    pub fn poll(
        &mut self,
        log: &Log,
        own: Option<TopicKey>,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> Poll {
        batch.clear();
        // An empty batch would be taken for nothing to send.
        let bytes_max = bytes_max.max(1);
        if self.next < log.store.base()
            && let Some(close) = self.handle_loss(log, own, batch)
        {
            return Poll::Close(close);
        }
        if self.sent_of_next == 0 {
            self.add_control(batch);
        }
        self.find_cursors(log, own, batch);
        while let Some(seq) = batch.cursors.iter().map(|cursor| cursor.seq).min() {
            let entry = log
                .store
                .get(seq)
                .expect("a chain holds only what the store holds");
            let skipped = (entry.kind == Kind::Transient && seq < self.live_from)
                || (entry.private && !log.may_be_read(self.filter, own, entry.topics.as_slice()));
            if !skipped && !self.add_event(log, seq, entry, bytes_max, batch) {
                batch.full = true;
                break;
            }
            batch.advance_past(log, seq);
        }
        if !batch.bytes.is_empty() {
            return Poll::Data;
        }
        self.next = log.store.next();
        self.offset = log.head();
        if self.has_ended(log) {
            Poll::Close(CloseReason::Ended)
        } else {
            Poll::Idle
        }
    }

    /// Moves the position to the log's end if nothing that the client lacks lies before it.
    pub fn skip_if_idle(&mut self, log: &Log, own: Option<TopicKey>) {
        let (next, live_from) = (self.next, self.live_from);
        let is_news = |key| {
            let chain = log.chain(key);
            chain.lost_since(next, live_from) || chain.seqs.back().is_some_and(|&last| last >= next)
        };
        if !self.has_pending() && !self.chain_keys(log, own).any(is_news) {
            self.next = log.store.next();
            self.offset = log.head();
        }
    }

    /// Moves the position on by the first `n` bytes of the batch that the last poll filled. Answers how many events
    /// went out completely with them.
    ///
    /// # Panics
    /// If `n` is more than the batch has.
    pub fn sent(&mut self, batch: &Batch, n: usize) -> usize {
        if batch.control_len > 0 && n > batch.control_at {
            self.control_sent((n - batch.control_at).min(batch.control_len));
        }
        let complete = batch.ends.partition_point(|&(end, ..)| end <= n);
        let mut start = 0;
        if let Some(&(end, seq, offset)) = complete.checked_sub(1).map(|last| &batch.ends[last]) {
            start = end;
            self.next = seq + 1;
            self.offset = offset;
            self.sent_of_next = 0;
        }
        // Control bytes may lie between the last complete event and the one that has begun.
        if batch.control_len > 0 && batch.control_at == start {
            start = (batch.control_at + batch.control_len).min(n);
        }
        if n > start {
            let seq = batch
                .ends
                .get(complete)
                .map(|&(_, seq, _)| seq)
                .or(batch.cut.map(|(seq, _)| seq));
            self.next = seq.expect("bytes beyond the last event belong to one that was cut");
            self.sent_of_next += (n - start) as u32;
        }
        complete
    }

    fn control_sent(&mut self, n: usize) {
        if let Some(control) = &mut self.control {
            control.sent += n;
            if control.sent >= control.bytes.len() {
                self.control = None;
            }
        }
    }

    fn add_control(&self, batch: &mut Batch) {
        if let Some(control) = &self.control {
            batch.control_at = batch.bytes.len();
            batch
                .bytes
                .extend_from_slice(&control.bytes[control.sent..]);
            batch.control_len = batch.bytes.len() - batch.control_at;
        }
    }

    /// Events may have been trimmed before they were read. A reason to close, or `None` to go on.
    fn handle_loss(
        &mut self,
        log: &Log,
        own: Option<TopicKey>,
        batch: &mut Batch,
    ) -> Option<CloseReason> {
        let base = log.store.base();
        if self.sent_of_next > 0 {
            // The rest of an event that has begun is gone: whatever came next would be read as part of it.
            return Some(CloseReason::Lagged);
        }
        let mut chains = self.chain_keys(log, own);
        if chains.any(|key| log.chain(key).lost_since(self.next, self.live_from)) {
            if self.slow_client == SlowClient::Close {
                return Some(CloseReason::Lagged);
            }
            let control = self.control.get_or_insert_default();
            batch.gap = control.push_gap(log, self.filter, self.offset, log.id_before(base));
        }
        self.next = base;
        self.offset = log.offset_before(base);
        None
    }

    fn chain_keys<'a>(
        &self,
        log: &'a Log,
        own: Option<TopicKey>,
    ) -> impl Iterator<Item = ChainKey> + use<'a> {
        let filter = log.filters.get(self.filter);
        let topics = filter
            .topics
            .iter()
            .copied()
            .chain(own)
            .map(ChainKey::Topic);
        topics.chain(filter.patterns.iter().copied().map(ChainKey::Pattern))
    }

    fn find_cursors(&self, log: &Log, own: Option<TopicKey>, batch: &mut Batch) {
        batch.cursors.clear();
        for key in self.chain_keys(log, own) {
            let chain = log.chain(key);
            // Most chains of most clients have no news.
            if chain.seqs.back().is_some_and(|&last| last >= self.next) {
                let index = chain.lower_bound(self.next);
                batch.cursors.push(Cursor {
                    chain: key,
                    index,
                    seq: chain.seqs[index],
                });
            }
        }
    }

    /// Adds an event, or as much of it as may be. False if the batch is full.
    fn add_event(
        &self,
        log: &Log,
        seq: Seq,
        entry: &Entry,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> bool {
        let already_sent = if seq == self.next {
            self.sent_of_next as usize
        } else {
            0
        };
        let bytes = log.bytes_for(self.filter, entry);
        let start = batch.bytes.len();
        if start > 0 && start + bytes.len() > bytes_max {
            return false;
        }
        if log.filters.get(self.filter).topic_lines {
            self.add_topic_lines(log, entry, batch);
        }
        // What is still to be sent begins in the topic lines or behind them.
        let lines_len = batch.bytes.len() - start;
        batch
            .bytes
            .drain(start..start + already_sent.min(lines_len));
        let rest = &bytes[already_sent.saturating_sub(lines_len)..];
        let room = bytes_max.saturating_sub(batch.bytes.len());
        if start == 0 && rest.len() > room {
            batch.bytes.extend_from_slice(&rest[..room]);
            batch.bytes.truncate(bytes_max);
            batch.cut = Some((seq, bytes_max));
            return false;
        }
        batch.bytes.extend_from_slice(rest);
        batch.end |= entry.kind == Kind::End;
        batch.ends.push((batch.bytes.len(), seq, entry.offset));
        if already_sent > 0 {
            // Only now is the line between two events where control bytes may go.
            self.add_control(batch);
        }
        true
    }

    fn add_topic_lines(&self, log: &Log, entry: &Entry, batch: &mut Batch) {
        let filter = log.filters.get(self.filter);
        for key in entry.topics.as_slice() {
            let topic = log.topic(*key);
            // Topics that the client did not ask for are none of its business.
            let matches = || {
                filter
                    .patterns
                    .iter()
                    .any(|pattern| log.pattern(*pattern).pattern.matches(topic.name()))
            };
            if !topic.name().is_empty() && (filter.topics.binary_search(key).is_ok() || matches()) {
                batch.bytes.extend_from_slice(topic.line().as_bytes());
            }
        }
    }

    /// Whether everything that the subscription reads has ended, and the client has been told so. An end before the
    /// subscription began may be no history any more, by a rule, and its topic open again.
    fn has_ended(&self, log: &Log) -> bool {
        let filter = log.filters.get(self.filter);
        if !filter.patterns.is_empty() {
            return false;
        }
        let mut ends = filter.topics[1..].iter().map(|key| log.topic(*key).end);
        ends.try_fold(0, |last, end| Some(end?.max(last)))
            .is_some_and(|last| last >= self.began)
    }
}

impl Log {
    /// Writes a `gap`. Its id is the position where delivery goes on, so that a client which loses the connection before
    /// the next event isn't told again.
    pub(crate) fn write_gap(
        &self,
        out: &mut Vec<u8>,
        filter: FilterKey,
        resumed: NativeId,
        from: Option<&str>,
        reason: GapReason,
        now_ms: u64,
    ) {
        let data = encode::gap_data(from, reason.as_str());
        self.write_notice(out, filter, &resumed.to_string(), ("gap", &data), now_ms);
    }

    /// An event as the readers of a filter get it: as it is in the log, but for the end of a topic, which is the hub's
    /// own word and said in the dialect that they expect.
    fn bytes_for(&self, filter: FilterKey, entry: &Entry) -> Cow<'_, [u8]> {
        let bytes = self.store.bytes_of(entry);
        if entry.kind != Kind::End {
            return bytes.into();
        }
        let Some(dialect) = self.filters.get(filter).dialect else {
            return bytes.into();
        };
        let topic = self.topic(entry.topics.as_slice()[0]).name();
        let notice = Notice {
            name: "end",
            data: &encode::end_data(topic),
            id: encode::id_of(bytes).unwrap_or_default(),
            topic,
            at_ms: entry.at_ms,
        };
        let mut rendered = Vec::new();
        write_rendered(&mut rendered, dialect, &notice);
        rendered.into()
    }

    /// How many events of a filter are held from a place on. One that several of its topics or patterns match is
    /// counted for each.
    pub fn count_from(&self, filter: FilterKey, place: u64) -> usize {
        let filter = self.filters.get(filter);
        let topics = filter.topics.iter().copied().map(ChainKey::Topic);
        let keys = topics.chain(filter.patterns.iter().copied().map(ChainKey::Pattern));
        keys.map(|key| self.chain(key))
            .map(|chain| chain.seqs.len() - chain.lower_bound(place))
            .sum()
    }

    pub(crate) fn chain(&self, key: ChainKey) -> &Chain {
        match key {
            ChainKey::Topic(key) => &self.topic(key).chain,
            ChainKey::Pattern(key) => &self.pattern(key).chain,
        }
    }

    /// The offset of the last stored event before a place in the log.
    pub(crate) fn offset_before(&self, seq: Seq) -> Offset {
        match seq.checked_sub(1).and_then(|before| self.store.get(before)) {
            Some(entry) => entry.offset,
            None if seq >= self.store.next() => self.head(),
            None => self.tail(),
        }
    }

    pub(crate) fn id_before(&self, seq: Seq) -> NativeId {
        self.id_at(self.offset_before(seq))
    }
}
