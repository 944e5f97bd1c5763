//! Reads the schema from a tree of settings: a serde deserializer whose errors know the key, the origin and what is
//! allowed.
//!
//! Text from the environment and from flags takes the type that the schema asks for: `10000` is a number where one is
//! wanted, `a,b` a list. A list can also be written there as TOML: `[{pattern = "a", ttl = "1m"}]`.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
};
use serde::de::{Expected, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::error::{ConfigError, SettingError, did_you_mean, nearest, nearest_keys};
use super::files::parse_toml_value;
use super::secret::mask;
use super::tree::{Entry, Node, Origin, Value};

/// Reads a `T` from the settings in `root`; what is not there is left to the type's defaults.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<T, ConfigError> {
    let reader = Reader {
        node: root,
        key: String::new(),
    };
    T::deserialize(reader).map_err(|fault| ConfigError::Setting(Box::new(fault.explain())))
}

/// A list as the environment may have it.
const EXAMPLE_LIST: &str = "[{pattern = \"orders\", ttl = \"1m\"}]";

/// One node, to be read as whatever the schema wants.
struct Reader<'a> {
    node: &'a Node,
    key: String,
}

impl Reader<'_> {
    fn child<'a>(&self, name: &str, node: &'a Node) -> Reader<'a> {
        let key = if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        };
        Reader { node, key }
    }

    fn fault(&self, kind: Kind) -> Fault {
        Fault { kind, place: None }.at(self)
    }

    /// What untyped text says when a list is wanted.
    fn items(&self, text: &str) -> Result<Node, Fault> {
        let text = text.trim();
        if text.starts_with('[') {
            let bad = |problem| {
                self.fault(Kind::Value(format!(
                    "TOML, such as {EXAMPLE_LIST}: {problem}"
                )))
            };
            return parse_toml_value(text, &self.node.origin).map_err(bad);
        }
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let origin = &self.node.origin;
        let items = parts.map(|part| Node {
            value: Value::Untyped(part.to_owned()),
            origin: origin.clone(),
        });
        Ok(Node {
            value: Value::List(items.collect()),
            origin: origin.clone(),
        })
    }

    fn visit_any<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Untyped(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items {
                reader: self,
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                reader: self,
                entries: entries.iter(),
                current: None,
            }),
        }
    }

    fn visit_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Untyped(text) if let Ok(number) = text.trim().parse() => {
                visitor.visit_i64(number)
            }
            _ => self.visit_any(visitor),
        }
    }

    fn visit_table<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            // A table whose every line is a comment.
            Value::Null => visitor.visit_map(Entries {
                reader: self,
                entries: [].iter(),
                current: None,
            }),
            _ => self.visit_any(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_any(visitor).map_err(|fault| fault.at(&self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if matches!(self.node.value, Value::Null) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let bool = match &self.node.value {
            Value::Bool(value) => Some(*value),
            Value::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        };
        let bool = bool.ok_or_else(|| self.fault(Kind::Value("true or false".to_owned())))?;
        visitor.visit_bool(bool)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_number(visitor).map_err(|fault| fault.at(&self))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) if !text.is_empty() => visitor.visit_str(text),
            _ => Err(self.fault(Kind::Value(
                "text, in quotes where it looks like something else".to_owned(),
            ))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let items;
        let list = match &self.node.value {
            Value::Untyped(text) => {
                items = self.items(text)?;
                Reader {
                    node: &items,
                    key: self.key.clone(),
                }
            }
            Value::List(_) => Reader {
                node: self.node,
                key: self.key.clone(),
            },
            _ => return Err(self.fault(Kind::Value("a list, such as [\"a\", \"b\"]".to_owned()))),
        };
        list.visit_any(visitor).map_err(|fault| fault.at(&self))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_table(visitor).map_err(|fault| fault.at(&self))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let is_table = matches!(self.node.value, Value::Map(_) | Value::Null);
        if !is_table {
            return Err(self.fault(Kind::Value(format!("a table with {}", fields.join(", ")))));
        }
        self.visit_table(visitor).map_err(|fault| fault.at(&self))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) => {
                let text: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(text).map_err(|fault| fault.at(&self))
            }
            _ => Err(self.fault(Kind::Variant(variants))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// The items of a list, each with its index as the last part of its key.
struct Items<'a> {
    reader: &'a Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(Reader {
            node,
            key: format!("{}[{index}]", self.reader.key),
        })
        .map(Some)
    }
}

/// The entries of a table.
struct Entries<'a> {
    reader: &'a Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Fault> = entry.name.as_str().into_deserializer();
        // The fault is in the name, so its place is the name's line and not the value's.
        let key = self.reader.child(&entry.name, &entry.node).key;
        let place = Place {
            key,
            given: None,
            origin: entry.origin.clone(),
        };
        seed.deserialize(name).map(Some).map_err(|fault| Fault {
            place: Some(place),
            ..fault
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry = self.current.expect("serde asks for a value after its key");
        seed.deserialize(self.reader.child(&entry.name, &entry.node))
    }
}

/// A serde error that keeps what serde's own would put into one string.
#[derive(Debug)]
struct Fault {
    kind: Kind,
    place: Option<Place>,
}

#[derive(Debug)]
enum Kind {
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
struct Place {
    key: String,
    given: Option<String>,
    origin: Origin,
}

impl Fault {
    /// Says where it happened, unless somebody deeper did.
    fn at(mut self, reader: &Reader<'_>) -> Self {
        let shown = || match &reader.node.value {
            Value::Text(url) | Value::Untyped(url) if reader.key == "broker.url" => {
                format!("{:?}", mask(url))
            }
            value => value.to_string(),
        };
        self.place.get_or_insert_with(|| Place {
            key: reader.key.clone(),
            given: Some(shown()),
            origin: reader.node.origin.clone(),
        });
        self
    }

    fn explain(self) -> SettingError {
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
