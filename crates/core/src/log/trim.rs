//! How events leave the log: by age, and for want of room.

use super::retention::Mark;
use super::store::{Kind, Seq};
use super::{Log, TopicKey, own_id_memory};
use crate::encode::id_of;

impl Log {
    /// Drops what is too old. To be called now and then, also when nothing is published.
    pub fn expire(&mut self, now_ms: u64) {
        let horizon = now_ms.saturating_sub(self.retention.ttl_ms);
        while self
            .store
            .oldest()
            .is_some_and(|entry| entry.at_ms < horizon)
        {
            self.pop();
        }
        self.index_bytes -= self.patterns.expire(now_ms);
    }

    pub(super) fn trim(&mut self) {
        let horizon = self.last_ms.saturating_sub(self.retention.ttl_ms);
        let too_much =
            |log: &Self| log.memory() > log.retention.memory_bytes && log.store.len() > 1;
        while too_much(self)
            || self
                .store
                .oldest()
                .is_some_and(|entry| entry.at_ms < horizon)
        {
            self.pop();
        }
    }

    pub(super) fn pop(&mut self) {
        if let Some(entry) = self.store.oldest()
            && entry.kind == Kind::StoredWithOwnId
            && let Some(id) = id_of(self.store.bytes_of(entry))
            // A broker may have taken the same id twice; then the younger event has it.
            && self.own_ids.get(id) == Some(&self.store.base())
            && self.own_ids.remove(id).is_some()
        {
            self.index_bytes -= own_id_memory(id);
        }
        let Some((seq, entry)) = self.store.pop() else {
            return;
        };
        if entry.kind != Kind::Transient {
            self.tail = entry.offset;
        }
        for &key in entry.topics.as_slice() {
            if entry.kind != Kind::Transient {
                let mark = Mark {
                    offset: entry.offset,
                    at_ms: entry.at_ms,
                };
                self.trimmed
                    .record(self.topics[key.0 as usize].name(), mark);
            }
            self.unlink(key, seq, entry.kind);
        }
    }

    fn unlink(&mut self, key: TopicKey, seq: Seq, kind: Kind) {
        let state = &mut self.topics[key.0 as usize];
        self.index_bytes -= state.chain.trim(seq, kind);
        if state.end == Some(seq) {
            state.end = None;
        }
        state.refresh_patterns(&self.patterns);
        for &pattern in &state.patterns {
            self.index_bytes -= self.patterns.get_mut(pattern).chain.trim(seq, kind);
        }
        if state.chain.seqs.is_empty() {
            self.index_bytes -= state.memory();
        }
        self.free_if_unused(key);
    }
}
