//! The error of reading a setting: serde's, but kept in its parts, so that it can be explained well.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::error::{SettingError, did_you_mean, nearest, nearest_keys};
use super::secret::mask;
use super::tree::{Node, Origin, Value};

/// A serde error that keeps what serde's own would put into one string.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// No such key; these are there.
    Key(&'static [&'static str]),
    /// Not one of these.
    Variant(&'static [&'static str]),
    /// A table without one of its keys.
    Missing(&'static str),
    /// A bad value; this is allowed.
    Value(String),
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) given: Option<String>,
    pub(super) origin: Origin,
}

impl Fault {
    /// Says where it happened, unless somebody deeper did.
    pub(super) fn at(mut self, key: &str, node: &Node) -> Self {
        self.place.get_or_insert_with(|| {
            let shown = match &node.value {
                Value::Text(url) | Value::Untyped(url) if key == "broker.url" => {
                    format!("{:?}", mask(url))
                }
                value => value.to_string(),
            };
            Place {
                key: key.to_owned(),
                given: Some(shown),
                origin: node.origin.clone(),
            }
        });
        self
    }

    /// What the user is told.
    pub(super) fn explain(self) -> SettingError {
        let Place { key, given, origin } = self.place.unwrap_or(Place {
            key: String::new(),
            given: None,
            origin: Origin::Default,
        });
        let (problem, given, allowed, hint) = match self.kind {
            Kind::Key(known) => (
                "unknown setting".to_owned(),
                None,
                known.join(", "),
                did_you_mean(&suggest(&key, known)),
            ),
            Kind::Variant(known) => {
                let suggestions = given
                    .as_deref()
                    .map(|given| nearest(given.trim_matches('"'), known.iter().copied()));
                let hint = suggestions.and_then(|names| did_you_mean(&names));
                ("bad value".to_owned(), given, known.join(", "), hint)
            }
            Kind::Missing(name) => (
                format!("`{name}` is missing"),
                given,
                format!("a table with {name}"),
                None,
            ),
            Kind::Value(allowed) => ("bad value".to_owned(), given, allowed, None),
        };
        SettingError {
            key,
            problem,
            given,
            origin,
            allowed: Some(allowed),
            hint,
        }
    }
}

/// What an unknown key may mean: one of its neighbours, or a setting elsewhere.
fn suggest(key: &str, known: &'static [&'static str]) -> Vec<String> {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let dot = if table.is_empty() { "" } else { "." };
    let neighbours = nearest(name, known.iter().copied());
    if neighbours.is_empty() {
        return nearest_keys(key).into_iter().map(str::to_owned).collect();
    }
    neighbours
        .into_iter()
        .map(|name| format!("{table}{dot}{name}"))
        .collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            kind: Kind::Value(message.to_string()),
            place: None,
        }
    }

    fn invalid_type(_: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        Self::custom(allowed)
    }

    fn invalid_value(_: Unexpected<'_>, allowed: &dyn Expected) -> Self {
        Self::custom(allowed)
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self {
            kind: Kind::Key(known),
            place: None,
        }
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self {
            kind: Kind::Variant(known),
            place: None,
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self {
            kind: Kind::Missing(name),
            place: None,
        }
    }
}
