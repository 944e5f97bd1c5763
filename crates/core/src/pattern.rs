//! Patterns: globs over topics. `*` is any run without `:`, `/` and `.`; `**` (or more stars) is any run.
//!
//! Subscribers choose patterns, so a hostile one must cost no more than its length. There is no backtracking: the
//! fixed text at both ends is compared first, and what lies between is an NFA whose states are the bits of a few
//! words. An input byte costs one pass over those words, whatever the pattern: 1,024 bytes against 1,024 bytes is
//! 16,384 word steps. The tables are built on the stack for each match, so a pattern holds no more than its text.
//!
//! Bytes may stand for characters here: separators and `*` are ASCII, and in UTF-8 a character's bytes are found
//! nowhere but at that character, so no literal can match from within one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter;
use std::sync::Arc;

use crate::limits::TOPIC_BYTES_MAX;
use crate::topic::{RESERVED_PREFIXES, TopicError, check_name, reserved_prefix};

/// Words of states for the longest pattern. Patterns with stars have fewer literal bytes than bytes, so there is room
/// for the one state more than literals.
const WORDS_MAX: usize = TOPIC_BYTES_MAX / 64;

/// A glob over topics. Cheap to clone; equal and hashed by its text.
#[derive(Clone)]
pub struct Pattern(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    /// How many bytes there are before the first star: all of them where there is no star.
    prefix_len: usize,
    /// How many bytes there are after the last star; 0 where there is no star.
    suffix_len: usize,
    middle: Middle,
    /// The glob alone would reach reserved topics, which its text does not entitle it to.
    reserved_withheld: bool,
}

/// What stands between the fixed prefix and the fixed suffix.
#[derive(Clone, Copy)]
enum Middle {
    /// Nothing, not even a star: the pattern is one topic.
    Nothing,
    /// One `*`.
    Star,
    /// One `**`.
    DoubleStar,
    /// Several stars with this many literal bytes among them.
    Several { literals: usize },
}

/// One step of a pattern or of a topic; a topic has only bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Byte(u8),
    Star,
    DoubleStar,
}

impl Pattern {
    /// Checks `text` and parses it. Text without a `*` is a pattern too: it matches just that topic.
    ///
    /// # Errors
    /// A [`TopicError`] if `text` is empty, longer than [`TOPIC_BYTES_MAX`], or holds a control character.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check_name(text)?;
        let (prefix_len, suffix_len) = match (text.find('*'), text.rfind('*')) {
            (Some(first), Some(last)) => (first, text.len() - last - 1),
            _ => (text.len(), 0),
        };
        let prefix = &text[..prefix_len];
        let reserved_withheld = prefix_len < text.len()
            && reserved_prefix(text).is_none()
            && RESERVED_PREFIXES
                .iter()
                .any(|reserved| reserved.starts_with(prefix));
        Ok(Self(Arc::new(Parsed {
            text: text.into(),
            prefix_len,
            suffix_len,
            middle: Middle::of(&text[prefix_len..text.len() - suffix_len]),
            reserved_withheld,
        })))
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether the pattern has no star, so that the topic of the same text is the one it matches.
    pub fn is_literal(&self) -> bool {
        matches!(self.0.middle, Middle::Nothing)
    }

    /// The text before the first star. Every topic that the pattern matches begins so.
    pub fn literal_prefix(&self) -> &str {
        &self.0.text[..self.0.prefix_len]
    }

    /// Whether `topic` is one of the topics the pattern stands for.
    ///
    /// A reserved topic is matched only by a pattern whose own text begins with the same reserved prefix: `user:*`
    /// matches `user:42`; `**`, `*:*` and `us**` do not.
    pub fn matches(&self, topic: &str) -> bool {
        let Some(middle) = self.between_ends(topic) else {
            return false;
        };
        if self.0.reserved_withheld && reserved_prefix(topic).is_some() {
            return false;
        }
        match self.0.middle {
            Middle::Nothing => middle.is_empty(),
            Middle::DoubleStar => true,
            Middle::Star => !middle.bytes().any(is_separator),
            Middle::Several { .. } => self.accepts(middle.bytes().map(Symbol::Byte)),
        }
    }

    /// Whether every topic that `other` matches is matched by this pattern too, as a right given for this pattern must
    /// ask of a subscription to `other`.
    ///
    /// `true` is certain; `false` may be too careful, since a star of `other` is taken as covered only where one star of
    /// this pattern takes all that it stands for.
    pub fn covers(&self, other: &Self) -> bool {
        let Some(middle) = self.between_ends(other.as_str()) else {
            return false;
        };
        // A pattern that reaches reserved topics reaches only those of its own prefix.
        let reserved = reserved_prefix(other.as_str());
        if reserved.is_some() && reserved != reserved_prefix(self.as_str()) {
            return false;
        }
        match self.0.middle {
            Middle::Nothing => middle.is_empty(),
            Middle::DoubleStar => true,
            Middle::Star => symbols(middle).all(|symbol| match symbol {
                Symbol::Byte(byte) => !is_separator(byte),
                Symbol::Star => true,
                Symbol::DoubleStar => false,
            }),
            Middle::Several { .. } => self.accepts(symbols(middle)),
        }
    }

    /// What `text` has between this pattern's prefix and suffix, if it has both: the quick refusal of most texts.
    fn between_ends<'t>(&self, text: &'t str) -> Option<&'t str> {
        let suffix = &self.0.text[self.0.text.len() - self.0.suffix_len..];
        text.strip_prefix(self.literal_prefix())?
            .strip_suffix(suffix)
    }

    fn accepts(&self, input: impl Iterator<Item = Symbol>) -> bool {
        let middle = &self.0.text[self.0.prefix_len..self.0.text.len() - self.0.suffix_len];
        match self.0.middle {
            Middle::Several { literals } if literals < 64 => Nfa::<1>::new(middle).accepts(input),
            _ => Nfa::<WORDS_MAX>::new(middle).accepts(input),
        }
    }
}

impl Middle {
    fn of(text: &str) -> Self {
        let literals = text.bytes().filter(|byte| *byte != b'*').count();
        match (literals, symbols(text).next()) {
            (_, None) => Self::Nothing,
            (0, Some(Symbol::Star)) => Self::Star,
            (0, Some(_)) => Self::DoubleStar,
            _ => Self::Several { literals },
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b'/' | b'.')
}

/// The symbols of a pattern's text: a run of stars is one symbol.
fn symbols(text: &str) -> impl Iterator<Item = Symbol> {
    let mut rest = text.as_bytes();
    iter::from_fn(move || {
        let first = *rest.first()?;
        let stars = rest.iter().take_while(|byte| **byte == b'*').count();
        rest = &rest[stars.max(1)..];
        Some(match stars {
            0 => Symbol::Byte(first),
            1 => Symbol::Star,
            _ => Symbol::DoubleStar,
        })
    })
}

/// A pattern's middle as an NFA: being in state `n` means that `n` literal bytes have been matched. A literal leads
/// from its state to the next; a star makes its state stay as it is on whatever the star may take.
struct Nfa<const WORDS: usize> {
    /// For each byte, the states whose literal it is.
    leaves_on: [[u64; WORDS]; 256],
    /// The states that stay on everything: those with a `**`.
    stays_on_any: [u64; WORDS],
    /// The states that stay on all but separators: those with a `*` or a `**`.
    stays_in_segment: [u64; WORDS],
    /// The state after the last literal.
    last: usize,
}

impl<const WORDS: usize> Nfa<WORDS> {
    /// `middle` must have fewer than `64 * WORDS` literal bytes.
    fn new(middle: &str) -> Self {
        let mut nfa = Self {
            leaves_on: [[0; WORDS]; 256],
            stays_on_any: [0; WORDS],
            stays_in_segment: [0; WORDS],
            last: 0,
        };
        for symbol in symbols(middle) {
            let (word, bit) = (nfa.last / 64, 1 << (nfa.last % 64));
            match symbol {
                Symbol::Byte(byte) => {
                    nfa.leaves_on[usize::from(byte)][word] |= bit;
                    nfa.last += 1;
                }
                Symbol::Star => nfa.stays_in_segment[word] |= bit,
                Symbol::DoubleStar => {
                    nfa.stays_on_any[word] |= bit;
                    nfa.stays_in_segment[word] |= bit;
                }
            }
        }
        nfa
    }

    /// Whether the whole `input` leads from the first state to the last. A star of the input moves nothing on: it
    /// only leaves alive the states whose own star takes all that it stands for.
    fn accepts(&self, input: impl Iterator<Item = Symbol>) -> bool {
        let mut states = [0_u64; WORDS];
        states[0] = 1;
        for symbol in input {
            let (leaves, stays) = match symbol {
                Symbol::Byte(byte) if is_separator(byte) => {
                    (&self.leaves_on[usize::from(byte)], &self.stays_on_any)
                }
                Symbol::Byte(byte) => (&self.leaves_on[usize::from(byte)], &self.stays_in_segment),
                Symbol::Star => (&[0; WORDS], &self.stays_in_segment),
                Symbol::DoubleStar => (&[0; WORDS], &self.stays_on_any),
            };
            let mut carry = 0;
            let mut alive = 0;
            for ((state, leave), stay) in states.iter_mut().zip(leaves).zip(stays) {
                let leaving = *state & leave;
                *state = (leaving << 1) | carry | (*state & stay);
                carry = leaving >> 63;
                alive |= *state;
            }
            if alive == 0 {
                return false;
            }
        }
        states[self.last / 64] & (1 << (self.last % 64)) != 0
    }
}
