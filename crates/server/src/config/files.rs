//! Configuration files: TOML or YAML text to a tree whose nodes know their lines.

use std::path::Path;
use std::sync::Arc;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::tree::{Entry, Node, Origin, Value};

/// Reads a file, by its ending as TOML or YAML.
pub(super) fn read(path: &Path) -> Result<Node, ConfigError> {
    let name: Arc<str> = path.display().to_string().into();
    let fail = |problem: String| ConfigError::File {
        path: name.clone(),
        line: None,
        problem,
    };
    let parse = match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => parse_toml,
        Some("yaml" | "yml") => parse_yaml,
        _ => {
            return Err(fail(
                "a configuration file is named *.toml, *.yaml or *.yml".to_owned(),
            ));
        }
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let root = parse(&text, &name)?;
    match (root.value, root.origin) {
        (Value::Map(entries), origin) => Ok(Node {
            value: Value::Map(entries),
            origin,
        }),
        (Value::Null, origin) => Ok(Node {
            value: Value::Map(Vec::new()),
            origin,
        }),
        (_, origin) => {
            let line = if let Origin::File(_, line) = origin {
                Some(line)
            } else {
                None
            };
            let problem = "a configuration is a table of settings, `name: value`".to_owned();
            Err(ConfigError::File {
                path: name,
                line,
                problem,
            })
        }
    }
}

/// TOML text to a tree; `name` is what its lines are called in errors.
pub(super) fn parse_toml(text: &str, name: &Arc<str>) -> Result<Node, ConfigError> {
    let lines = Lines::new(text, name);
    let table = DeTable::parse(text).map_err(|error| ConfigError::File {
        path: name.clone(),
        line: error.span().map(|span| lines.number(span.start)),
        problem: error.message().to_owned(),
    })?;
    Ok(Node {
        value: toml_table(table.get_ref(), &|at| lines.origin(at)),
        origin: lines.origin(0),
    })
}

/// A single TOML value, such as an inline table in an environment variable, all of it with one origin.
pub(super) fn parse_toml_value(text: &str, origin: &Origin) -> Result<Node, String> {
    let value = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    Ok(toml_node(&value, &|_| origin.clone()))
}

fn toml_table(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    let entries = table.iter().map(|(key, value)| Entry {
        name: key.get_ref().to_string(),
        origin: origin(key.span().start),
        node: toml_node(value, origin),
    });
    Value::Map(entries.collect())
}

fn toml_node(value: &Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Node {
    let at = origin(value.span().start);
    let value = match value.get_ref() {
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(value) => {
            // One that does not fit is shown as it stands; the schema refuses text where it wants a number.
            i64::from_str_radix(value.as_str(), value.radix())
                .map_or_else(|_| Value::Text(value.to_string()), Value::Integer)
        }
        DeValue::Float(value) => value
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(value.as_str().to_owned()), Value::Float),
        DeValue::String(value) => Value::Text(value.to_string()),
        DeValue::Datetime(value) => Value::Text(value.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| toml_node(item, origin)).collect())
        }
        DeValue::Table(table) => toml_table(table, origin),
    };
    Node { value, origin: at }
}

/// YAML text to a tree; `name` is what its lines are called in errors.
pub(super) fn parse_yaml(text: &str, name: &Arc<str>) -> Result<Node, ConfigError> {
    let fail = |line, problem| ConfigError::File {
        path: name.clone(),
        line,
        problem,
    };
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| fail(Some(error.marker().line()), error.info().to_owned()))?;
    match documents.as_slice() {
        // An empty file, or one of comments only.
        [] => Ok(Node {
            value: Value::Map(Vec::new()),
            origin: Origin::File(name.clone(), 1),
        }),
        [document] => yaml_node(document, name),
        [_, second, ..] => Err(fail(
            Some(second.span.start.line()),
            "a configuration is one YAML document".to_owned(),
        )),
    }
}

fn yaml_node(yaml: &MarkedYaml<'_>, name: &Arc<str>) -> Result<Node, ConfigError> {
    let line = yaml.span.start.line();
    let fail = |problem: &str| ConfigError::File {
        path: name.clone(),
        line: Some(line),
        problem: problem.to_owned(),
    };
    let value = match &yaml.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::Integer(*value),
            Scalar::FloatingPoint(value) => Value::Float(value.into_inner()),
            Scalar::String(value) => Value::Text(value.to_string()),
        },
        YamlData::Sequence(items) => Value::List(
            items
                .iter()
                .map(|item| yaml_node(item, name))
                .collect::<Result<_, _>>()?,
        ),
        YamlData::Mapping(map) => {
            let entries = map.iter().map(|(key, value)| {
                let YamlData::Value(Scalar::String(key_name)) = &key.data else {
                    let problem = "a setting's name is text".to_owned();
                    return Err(ConfigError::File {
                        path: name.clone(),
                        line: Some(key.span.start.line()),
                        problem,
                    });
                };
                let origin = Origin::File(name.clone(), key.span.start.line());
                Ok(Entry {
                    name: key_name.to_string(),
                    origin,
                    node: yaml_node(value, name)?,
                })
            });
            Value::Map(entries.collect::<Result<_, _>>()?)
        }
        YamlData::Tagged(..) => return Err(fail("a configuration has no YAML tags")),
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            return Err(fail("not a YAML value"));
        }
    };
    Ok(Node {
        value,
        origin: Origin::File(name.clone(), line),
    })
}

/// Byte offsets of a text to line numbers.
struct Lines<'a> {
    text: &'a str,
    name: &'a Arc<str>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, name: &'a Arc<str>) -> Self {
        Self { text, name }
    }

    /// The line that the byte at `offset` is on, from 1.
    fn number(&self, offset: usize) -> usize {
        1 + self
            .text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File(self.name.clone(), self.number(offset))
    }
}
