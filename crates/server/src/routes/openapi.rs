//! `GET /openapi.json`: everything that this hub serves, as an `OpenAPI` 3.1 document. `GET /docs` shows it.
//!
//! `openapi.json` beside this file has the operations of all doors. The document has those of the routes that are there, so
//! a door that is switched off is not in it; a test holds one against the other.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value};

use super::Door;
use crate::guard::Declared;
use crate::services;

const ALL: &str = include_str!("openapi.json");

/// The document, known once all routes are.
#[derive(Clone, Default)]
pub(super) struct Document(Arc<OnceLock<Bytes>>);

impl Document {
    /// Says what there is.
    pub(super) fn describe(&self, declared: &[Declared]) {
        let mut document: Value = serde_json::from_str(ALL).expect("a test reads it");
        document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
        let all = document["paths"].take();
        let mut paths = Map::new();
        for route in declared {
            let (path, method) = operation_of(route);
            if let Some(operation) = all.get(path).and_then(|path| path.get(&method)) {
                let methods = paths.entry(&route.path);
                methods.or_insert_with(|| Map::new().into())[method] = operation.clone();
            }
        }
        document["paths"] = paths.into();
        let _ = self.0.set(document.to_string().into());
    }
}

/// Where the file has a route: a door's second address has the operations of its first.
fn operation_of(route: &Declared) -> (String, String) {
    let path = services::first_address(&route.path);
    let path = match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    };
    (path, route.method.as_str().to_ascii_lowercase())
}

/// Answers `GET /openapi.json`.
pub(super) async fn document(State(door): State<Door>) -> impl IntoResponse {
    let bytes = door.document.0.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::declared_routes;

    fn operations(document: &Value) -> BTreeSet<(String, String)> {
        let paths = document["paths"].as_object().expect("paths");
        let pairs = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(|method| (path.clone(), method.clone()))
        });
        pairs.collect()
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[tokio::test]
    async fn every_route_has_its_operation_and_every_operation_its_route() {
        let declared = declared_routes();
        let all: Value = serde_json::from_str(ALL).unwrap();
        let routes: BTreeSet<_> = declared.iter().map(operation_of).collect();
        assert_eq!(operations(&all), routes);

        let document = Document::default();
        document.describe(&declared);
        let shown: Value = serde_json::from_slice(document.0.get().unwrap()).unwrap();
        let routes = declared
            .iter()
            .map(|route| (route.path.clone(), operation_of(route).1));
        assert_eq!(operations(&shown), routes.collect());
    }

    #[test]
    fn what_the_document_refers_to_is_in_it() {
        let all: Value = serde_json::from_str(ALL).unwrap();
        let mut found = Vec::new();
        references(&all, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a reference within");
            assert!(all.pointer(pointer).is_some(), "{reference}");
        }
        for (path, methods) in all["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let parameters = operation["parameters"].as_array();
                let in_path = parameters.into_iter().flatten().filter_map(|parameter| {
                    let parameter = all.pointer(&parameter["$ref"].as_str()?[1..])?;
                    (parameter["in"] == "path").then(|| parameter["name"].as_str())?
                });
                let named: BTreeSet<_> = in_path.collect();
                let wanted = path
                    .split('/')
                    .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
                assert_eq!(named, wanted.collect(), "{method} {path}");
                assert!(operation["summary"].is_string() && operation["responses"].is_object());
            }
        }
    }
}
