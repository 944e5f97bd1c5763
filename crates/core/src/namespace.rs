//! Which topics of a namespace are read at the moment, and by how many, kept up to date so that nobody has to scan.
//!
//! A namespace is a prefix that somebody has asked about. A topic enters it with its first reader and leaves with its last;
//! readers in between, and events, cost nothing.

use std::collections::BTreeSet;

use crate::filter::FilterKey;
use crate::log::{Log, TopicKey};

/// The topics with a prefix that have readers.
#[derive(Debug)]
pub(crate) struct Namespace {
    prefix: Box<str>,
    read: BTreeSet<TopicKey>,
}

impl Log {
    /// From now on it is known which topics with this prefix are read.
    pub fn add_namespace(&mut self, prefix: &str) {
        if self.namespace(prefix).is_some() {
            return;
        }
        let topics = self.topics.iter();
        let read = topics
            .filter(|(_, topic)| topic.name().starts_with(prefix))
            .filter(|(_, topic)| !topic.chain.filters.is_empty())
            .map(|(key, _)| TopicKey(key as u32));
        let read = read.collect();
        self.namespaces.push(Namespace {
            prefix: prefix.into(),
            read,
        });
    }

    /// The topics of a namespace that subscriptions name, by what follows the prefix, each with their number. Patterns do
    /// not count.
    pub fn read_in(&self, prefix: &str) -> Vec<(&str, usize)> {
        let read = self.namespace(prefix).into_iter().flat_map(|n| &n.read);
        let row = |&key: &TopicKey| {
            let name = &self.topic(key).name()[prefix.len()..];
            (name, self.subscribers_of_key(key))
        };
        read.map(row).collect()
    }

    /// How many subscriptions name a topic of a namespace, each counted once.
    pub fn subscribers_in(&self, prefix: &str) -> usize {
        let read = self.namespace(prefix).into_iter().flat_map(|n| &n.read);
        let filters: BTreeSet<_> = read.flat_map(|key| self.filters_of_key(*key)).collect();
        let holds = filters.into_iter().map(|key| self.filters.holds(*key));
        holds.map(|holds| holds as usize).sum()
    }

    /// The filters that name a topic.
    pub fn filters_of(&self, topic: &str) -> &[FilterKey] {
        self.find_topic(topic)
            .map_or(&[], |key| self.filters_of_key(key))
    }

    fn filters_of_key(&self, key: TopicKey) -> &[FilterKey] {
        &self.topic(key).chain.filters
    }

    fn namespace(&self, prefix: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|n| *n.prefix == *prefix)
    }

    pub(crate) fn note_first_reader(&mut self, key: TopicKey) {
        let name = self.topics[key.0 as usize].name();
        for namespace in &mut self.namespaces {
            if name.starts_with(&*namespace.prefix) {
                namespace.read.insert(key);
            }
        }
    }

    pub(crate) fn note_last_reader(&mut self, key: TopicKey) {
        for namespace in &mut self.namespaces {
            namespace.read.remove(&key);
        }
    }
}
