//! Topics: the names that events are published to, and which of those names are reserved.
//!
//! The rules of a name live here once, for published topics and for the patterns that subscribe to them, so that no
//! entry (HTTP, a broker, a Rust call) can let in a name that another one refuses.

use std::borrow::Borrow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::limits::TOPIC_BYTES_MAX;

/// What the names begin with that only a pattern beginning in the same way can reach.
pub const RESERVED_PREFIXES: [&str; 4] = ["user:", "notification:", "connection:", "presence:"];

/// A name that events are published to, for example `orders` or `user:42`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks `name` and keeps it.
    ///
    /// # Errors
    /// A [`TopicError`] if `name` is empty, longer than [`TOPIC_BYTES_MAX`], or holds a control character or a `*`.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check_name(name)?;
        if name.contains('*') {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(Arc::from(name)))
    }

    /// The topic as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of the reserved names, see [`is_reserved`].
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", self.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Whether `name` begins with one of [`RESERVED_PREFIXES`].
pub fn is_reserved(name: &str) -> bool {
    reserved_prefix(name).is_some()
}

/// The reserved prefix that `name` begins with. No prefix begins another one, so there is one answer at most.
pub(crate) fn reserved_prefix(name: &str) -> Option<&'static str> {
    RESERVED_PREFIXES
        .into_iter()
        .find(|prefix| name.starts_with(prefix))
}

/// The rules that topics and patterns share: everything but the `*`.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    // Before the characters are looked at, so that a huge name costs nothing.
    if name.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: name.len() });
    }
    match name
        .char_indices()
        .find(|(_, character)| character.is_control())
    {
        Some((offset, character)) => Err(TopicError::ControlCharacter { character, offset }),
        None => Ok(()),
    }
}

/// Why a text is not a topic, or not a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicError {
    /// There is no text at all.
    Empty,
    /// The text is longer than [`TOPIC_BYTES_MAX`].
    TooLong {
        /// How long it is, in bytes of UTF-8.
        bytes: usize,
    },
    /// The text holds a control character (Unicode category Cc).
    ControlCharacter {
        /// The first one.
        character: char,
        /// Where it is, in bytes from the start.
        offset: usize,
    },
    /// The text has a `*`, which only a pattern may have.
    Wildcard,
}

impl TopicError {
    /// A stable name for this kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "topic_empty",
            Self::TooLong { .. } => "topic_too_long",
            Self::ControlCharacter { .. } => "topic_control_character",
            Self::Wildcard => "topic_wildcard",
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(
                f,
                "the topic is empty; allowed are 1 to {TOPIC_BYTES_MAX} bytes of UTF-8"
            ),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "the topic has {bytes} bytes; allowed are 1 to {TOPIC_BYTES_MAX} bytes of UTF-8"
                )
            }
            Self::ControlCharacter { character, offset } => write!(
                f,
                "the topic has the control character U+{:04X} at byte {offset}; allowed is text without control characters",
                u32::from(*character)
            ),
            Self::Wildcard => {
                f.write_str("the topic has a `*`; that is allowed in a subscription's pattern only")
            }
        }
    }
}

impl Error for TopicError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_names_of_the_documentation_are_topics() {
        for name in [
            "orders", "user:42", "order:7", "room:a/b", "grüße", "a b", "{order}",
        ] {
            assert_eq!(
                Topic::new(name).map(|topic| topic.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn what_is_not_a_topic_is_refused_with_its_reason() {
        let control = |character, offset| TopicError::ControlCharacter { character, offset };
        let cases = [
            ("", TopicError::Empty, "topic_empty"),
            ("a\nb", control('\n', 1), "topic_control_character"),
            ("é\0", control('\0', 2), "topic_control_character"),
            ("\u{7f}", control('\u{7f}', 0), "topic_control_character"),
            ("\u{85}", control('\u{85}', 0), "topic_control_character"),
            ("order:*", TopicError::Wildcard, "topic_wildcard"),
        ];
        for (name, error, code) in cases {
            assert_eq!(Topic::new(name), Err(error.clone()), "{name:?}");
            assert_eq!(error.code(), code);
            assert!(error.to_string().contains("allowed"), "{error}");
        }
    }

    #[test]
    fn the_length_is_counted_in_bytes() {
        assert!(Topic::new(&"é".repeat(TOPIC_BYTES_MAX / 2)).is_ok());
        let error =
            Topic::new(&"é".repeat(TOPIC_BYTES_MAX / 2 + 1)).expect_err("two bytes too long");
        assert_eq!(error, TopicError::TooLong { bytes: 1_026 });
        assert_eq!(error.code(), "topic_too_long");
        assert!(
            error.to_string().contains("1026") && error.to_string().contains("1024"),
            "{error}"
        );
    }

    #[test]
    fn reserved_names_are_those_with_a_reserved_prefix() {
        for prefix in RESERVED_PREFIXES {
            assert!(is_reserved(prefix) && is_reserved(&format!("{prefix}42")));
            assert!(!is_reserved(&prefix[..prefix.len() - 1]));
            assert!(!is_reserved(&format!("x{prefix}42")));
        }
        assert!(!is_reserved("User:42"));
        assert!(Topic::new("user:42").expect("a topic").is_reserved());
    }

    #[test]
    fn a_set_of_topics_is_searched_with_a_str() {
        let topics = HashSet::from([Topic::new("orders").expect("a topic")]);
        assert!(topics.contains("orders") && !topics.contains("order"));
    }
}
