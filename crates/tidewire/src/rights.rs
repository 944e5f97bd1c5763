//! Who may read what: what an application's own authentication says of a request, in its extensions.

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

/// What the sender of a request may do, as topic patterns. Goes into a request's extensions as an `Arc<Rights>`.
///
/// Where a request has neither this extension nor a [`UserId`], whoever put the handler into their router answers for
/// who gets there: it may read every topic, those of users too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Topics that may be read. A user's own needs no mention.
    pub subscribe: Vec<Pattern>,
    /// Topics that may be published to and closed.
    pub publish: Vec<Pattern>,
    /// Whether figures may be read and connections be closed.
    pub admin: bool,
}

impl Rights {
    /// Whether events may be published to a topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether a topic may be read.
    pub fn may_read(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|pattern| pattern.matches(topic))
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
        refuse_first(spec, refused, |pattern| !self.may_read_all_of(pattern))
    }
}

/// Refuses a filter that names what is not public. A pattern reaches a reserved name only if it begins with one.
pub(crate) fn check_public(spec: &FilterSpec) -> Result<(), Problem> {
    refuse_first(spec, is_reserved, |pattern| is_reserved(pattern.as_str()))
}

fn refuse_first(
    spec: &FilterSpec,
    topic_refused: impl Fn(&str) -> bool,
    pattern_refused: impl Fn(&Pattern) -> bool,
) -> Result<(), Problem> {
    let mut topics = spec.topics.iter().map(Topic::as_str);
    let mut patterns = spec.patterns.iter();
    let refused = topics
        .find(|topic| topic_refused(topic))
        .or_else(|| patterns.find(|p| pattern_refused(p)).map(Pattern::as_str));
    match refused {
        Some(name) => Err(Problem::new(
            Code::NotAllowed,
            format!("no right to subscribe to `{name}`"),
        )
        .with("topic", name)),
        None => Ok(()),
    }
}
