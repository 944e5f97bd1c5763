//! Who may read what: what an application's own authentication says of a request, in its extensions.

use std::net::SocketAddr;

use tidewire_core::filter::FilterSpec;
use tidewire_core::pattern::Pattern;
use tidewire_core::topic::{Topic, is_reserved};

use crate::problem::{Code, Problem};

/// Put into a request's extensions by an application's own authentication: the stream is then subscribed to the
/// user's own topic, `user:{id}`, too.
///
/// A user without [`Rights`] may read every public topic, and of the reserved ones (`user:`, `notification:`,
/// `connection:`, `presence:`) nobody's but their own `user:{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserId(pub String);

/// Put into a request's extensions by an application that knows better than the socket where a request comes from: from
/// the word of a proxy that it trusts, say. Without a port, that is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

/// What the sender of a request may do, as topic patterns. Goes into a request's extensions as an `Arc<Rights>`.
///
/// Where a request has neither this extension nor a [`UserId`], whoever put the handler into their router answers for
/// who gets there: it may read every topic, those of users too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Topics that may be read. A user's own needs no mention.
    pub subscribe: Vec<Pattern>,
    /// Topics whose private events may be read too, as far as `subscribe` covers them: what the sender's own credential
    /// gives, without what is everybody's. A user's own needs no mention.
    pub private: Vec<Pattern>,
    /// Topics that may be published to and closed.
    pub publish: Vec<Pattern>,
    /// Whether figures may be read and connections be closed.
    pub admin: bool,
    /// Whether these are the rights of somebody unknown who could say who they are: a refusal then asks for
    /// credentials (401) instead of being the last word (403).
    pub may_log_in: bool,
}

/// Put into a request's extensions by an authentication whose word is good until then, in milliseconds since the Unix
/// epoch: the stream ends at that time, and its client comes back with a newer credential or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiresAt(pub u64);

impl Rights {
    /// Whether events may be published to a topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether a topic may be read.
    pub fn may_read(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether a topic's private events may be read.
    pub fn may_read_private(&self, topic: &str) -> bool {
        self.may_read(topic) && self.private.iter().any(|pattern| pattern.matches(topic))
    }

    /// What of [`private`](Self::private) counts for a filter: as little as can be, so that the filters of people whose
    /// rights differ elsewhere are equal.
    pub(crate) fn private_of(&self, spec: &FilterSpec) -> Vec<Pattern> {
        let covered = |topic: &&Topic| {
            self.private
                .iter()
                .any(|right| right.matches(topic.as_str()))
        };
        let mut private: Vec<_> = literals(spec.topics.iter().filter(covered)).collect();
        if !spec.patterns.is_empty() {
            let covers_all =
                |right: &&Pattern| spec.patterns.iter().all(|pattern| right.covers(pattern));
            match self.private.iter().find(covers_all) {
                Some(right) => private.push(right.clone()),
                None => private.extend(self.private.iter().cloned()),
            }
        }
        private
    }

    /// The answer to whoever lacks a right.
    pub fn refuse(&self, detail: impl Into<String>) -> Problem {
        let code = if self.may_log_in {
            Code::MissingCredential
        } else {
            Code::NotAllowed
        };
        Problem::new(code, detail)
    }

    /// What may be read of the topics that are nobody's own.
    pub(crate) fn public(&self) -> Vec<Pattern> {
        let patterns = self.subscribe.iter();
        let public = patterns.filter(|pattern| !is_reserved(pattern.as_str()));
        public.cloned().collect()
    }

    /// Whether all that a pattern reaches may be read.
    pub(crate) fn may_read_all_of(&self, pattern: &Pattern) -> bool {
        self.subscribe.iter().any(|right| right.covers(pattern))
    }

    /// Refuses a filter that names what may not be read.
    pub(crate) fn check(&self, spec: &FilterSpec) -> Result<(), Problem> {
        let refused = |name: &str| !self.may_read(name);
        let found = first_refused(spec, refused, |pattern| !self.may_read_all_of(pattern));
        found.map_or(Ok(()), |name| {
            let detail = format!("no right to subscribe to `{name}`");
            Err(self.refuse(detail).with("topic", name))
        })
    }
}

/// Topics as patterns for just these.
pub(crate) fn literals<'a>(
    topics: impl IntoIterator<Item = &'a Topic>,
) -> impl Iterator<Item = Pattern> {
    // A topic has no star, and is no longer than a pattern may be.
    topics
        .into_iter()
        .filter_map(|topic| Pattern::new(topic.as_str()).ok())
}

/// Refuses a filter that names what is not public. A pattern reaches a reserved name only if it begins with one.
pub(crate) fn check_public(spec: &FilterSpec) -> Result<(), Problem> {
    let found = first_refused(spec, is_reserved, |pattern| is_reserved(pattern.as_str()));
    found.map_or(Ok(()), |name| {
        let detail = format!("no right to subscribe to `{name}`");
        Err(Problem::new(Code::NotAllowed, detail).with("topic", name))
    })
}

fn first_refused(
    spec: &FilterSpec,
    topic_refused: impl Fn(&str) -> bool,
    pattern_refused: impl Fn(&Pattern) -> bool,
) -> Option<&str> {
    let mut topics = spec.topics.iter().map(Topic::as_str);
    let mut patterns = spec.patterns.iter();
    topics
        .find(|topic| topic_refused(topic))
        .or_else(|| patterns.find(|p| pattern_refused(p)).map(Pattern::as_str))
}
