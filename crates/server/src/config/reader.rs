//! Reads the schema from a tree of settings: a serde deserializer whose errors know the key, the origin and what is
//! allowed.
//!
//! Text from the environment and from flags takes the type that the schema asks for: `10000` is a number where one is
//! wanted, `a,b` a list. A list can also be written there as TOML: `[{pattern = "a", ttl = "1m"}]`.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::ConfigError;
use super::fault::{Fault, Kind, Place};
use super::files::parse_toml_value;
use super::tree::{Entry, Node, Value};

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
        Fault { kind, place: None }.at(&self.key, self.node)
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
                left: entries.iter(),
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
                left: [].iter(),
                current: None,
            }),
            _ => self.visit_any(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_any(visitor)
            .map_err(|fault| fault.at(&self.key, self.node))
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
        self.visit_number(visitor)
            .map_err(|fault| fault.at(&self.key, self.node))
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
        list.visit_any(visitor)
            .map_err(|fault| fault.at(&self.key, self.node))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.visit_table(visitor)
            .map_err(|fault| fault.at(&self.key, self.node))
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
        self.visit_table(visitor)
            .map_err(|fault| fault.at(&self.key, self.node))
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
                visitor
                    .visit_enum(text)
                    .map_err(|fault| fault.at(&self.key, self.node))
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
    left: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.left.next();
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
