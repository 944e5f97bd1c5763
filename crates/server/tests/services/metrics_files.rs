//! `docs/api/*.http`: each request is sent as it stands there, and answered with the status that is written beside it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{Hub, Stream};

/// The address in the files.
const HUB: &str = "http://127.0.0.1:8089";

#[test]
fn requests_to_metrics_are_answered_as_they_say() {
    send_all("metrics.http");
}

#[test]
fn requests_to_readings_are_answered_as_they_say() {
    send_all("metric-readings.http");
}

/// One request of a file.
struct Request {
    title: String,
    name: Option<String>,
    status: u16,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn send_all(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/api")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut parts = text.split("\n### ");
    let mut variables = variables(parts.next().unwrap());
    assert_eq!(variables["hub"], HUB, "the address of `make run-server`");

    let hub = Hub::spawn(&[], &[]);
    let mut sent = 0;
    for part in parts {
        let request = Request::parse(part, &variables);
        let (status, body) = send(&hub, &request);
        assert_eq!(status, request.status, "{file}: {}: {body}", request.title);
        if let Some(name) = request.name {
            let document: serde_json::Value = serde_json::from_str(&body).unwrap();
            for (key, value) in document.as_object().unwrap() {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                variables.insert(format!("{name}.response.body.$.{key}"), value);
            }
        }
        sent += 1;
    }
    assert!(sent > 4, "{file}: {sent} requests");
}

/// The `@name = value` lines.
fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix('@')?.split_once('='));
    lines
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

impl Request {
    fn parse(text: &str, variables: &BTreeMap<String, String>) -> Self {
        let mut text = text.to_owned();
        for (name, value) in variables {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        assert!(
            !text.contains("{{"),
            "a variable that nothing gives: {text}"
        );
        let (title, rest) = text.split_once('\n').unwrap();
        let comment = |start: &str| {
            let mut lines = rest.lines().take_while(|line| line.starts_with('#'));
            lines.find_map(|line| Some(line.strip_prefix(start)?.trim().to_owned()))
        };
        let lines: Vec<_> = rest
            .lines()
            .skip_while(|line| line.starts_with('#'))
            .collect();
        let (method, address) = lines[0].split_once(' ').unwrap();
        let head = lines[1..]
            .iter()
            .take_while(|line| !line.is_empty())
            .count();
        let header = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self {
            title: title.to_owned(),
            name: comment("# @name "),
            status: comment("# Answers ").expect("a status").parse().unwrap(),
            method: method.to_owned(),
            path: address
                .strip_prefix(HUB)
                .expect("an address of the hub")
                .to_owned(),
            headers: lines[1..=head].iter().map(header).collect(),
            body: lines[1 + head..].join("\n").trim().to_owned(),
        }
    }
}

fn send(hub: &Hub, request: &Request) -> (u16, String) {
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    if request.path.starts_with("/events/watch") {
        let stream = Stream::open(hub.port(), &request.path, &headers); // it has no end to wait for
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        return (stream.status(), stream.head().to_owned());
    }
    let answer = hub.send(
        &request.method,
        &request.path,
        &headers,
        request.body.as_bytes(),
    );
    (answer.status, answer.body)
}
