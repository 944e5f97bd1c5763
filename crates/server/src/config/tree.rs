//! Settings as they were written, before anyone knows their types: a tree whose every node remembers where it is from.
//!
//! Each layer (file, environment, flags) becomes such a tree; merged, they are what the schema is read from. That a
//! node knows its origin is what lets an error name the line to change.

use std::fmt;
use std::sync::Arc;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nowhere: the built-in default.
    Default,
    /// A configuration file and the line in it, from 1.
    File(Arc<str>, usize),
    /// An environment variable, by its name.
    Environment(String),
    /// A command line flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "the default"),
            Self::File(path, line) => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value and where it is from.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// What a file, a variable or a flag can say.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A YAML key with nothing after it.
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// Text that was written as text.
    Text(String),
    /// Text from the environment or a flag, which has no types: the schema decides what it is.
    Untyped(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a [`Value::Map`]. It has an origin of its own, for a table's value begins on a later line than its name.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) node: Node,
}

impl Node {
    /// A tree without a setting.
    pub(crate) fn empty() -> Self {
        Self {
            value: Value::Map(Vec::new()),
            origin: Origin::Default,
        }
    }

    /// Puts a value at a dotted key, as the environment and flags name them.
    pub(crate) fn insert(&mut self, key: &str, node: Node) {
        let (name, rest) = key
            .split_once('.')
            .map_or((key, None), |(name, rest)| (name, Some(rest)));
        let origin = node.origin.clone();
        let child = match rest {
            None => node,
            Some(rest) => {
                let mut child = Self {
                    value: Value::Map(Vec::new()),
                    origin: origin.clone(),
                };
                child.insert(rest, node);
                child
            }
        };
        let entry = Entry {
            name: name.to_owned(),
            origin,
            node: child,
        };
        self.merge(Self {
            value: Value::Map(vec![entry]),
            origin: self.origin.clone(),
        });
    }

    /// Lays `later` over this tree: tables are joined, anything else is replaced.
    pub(crate) fn merge(&mut self, later: Self) {
        match (&mut self.value, later.value) {
            (Value::Map(entries), Value::Map(later_entries)) => {
                for entry in later_entries {
                    match entries.iter_mut().find(|known| known.name == entry.name) {
                        Some(known) => {
                            known.origin = entry.origin;
                            known.node.merge(entry.node);
                        }
                        None => entries.push(entry),
                    }
                }
            }
            (value, later_value) => {
                *value = later_value;
                self.origin = later.origin;
            }
        }
    }

    /// Where the value at a key such as `history.rules[0].ttl` was written.
    pub(crate) fn origin_of(&self, key: &str) -> Origin {
        let mut node = self;
        for step in key.split(['.', '[']) {
            let next = match (&node.value, step.strip_suffix(']')) {
                (Value::List(items), Some(index)) => {
                    index.parse().ok().and_then(|i: usize| items.get(i))
                }
                (Value::Map(entries), None) => entries
                    .iter()
                    .find(|entry| entry.name == step)
                    .map(|entry| &entry.node),
                // An inline list or table in a variable: all of it has that variable's origin.
                (Value::Untyped(_), _) => return node.origin.clone(),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return Origin::Default,
            }
        }
        node.origin.clone()
    }
}

/// Longest part of a value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "nothing"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) | Self::Untyped(value) => {
                let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
                let cut = if shown.len() < value.len() { "…" } else { "" };
                write!(f, "{shown:?}{cut}")
            }
            Self::List(_) => write!(f, "a list"),
            Self::Map(_) => write!(f, "a table"),
        }
    }
}
