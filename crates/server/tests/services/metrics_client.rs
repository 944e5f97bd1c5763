//! `examples/node-client`, run as its users run it: it prints what happens, carries on after a lost connection, and
//! comes back to a hub that was restarted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Hub, Proxy, WAIT_MAX};

struct NodeClient {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl NodeClient {
    fn spawn(url: &str) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut process = Command::new(project.join(".tools/bin/node"))
            .arg(project.join("examples/node-client/client.mjs"))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no Node: {error}; run `make setup`"));
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line); // the test may have seen enough
            }
        });
        Self {
            process,
            lines,
            seen: Vec::new(),
        }
    }

    /// Reads up to the next line that begins so and has this in it.
    fn wait_for(&mut self, start: &str, part: &str) -> String {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                let seen = self.seen.join("\n");
                panic!("{error} before {start:?} with {part:?}; it printed:\n{seen}")
            });
            self.seen.push(line.clone());
            if line.starts_with(start) && line.contains(part) {
                return line;
            }
        }
    }

    /// How many lines so far have this in them.
    fn count(&self, part: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(part)).count()
    }
}

impl Drop for NodeClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn create(hub: &Hub, path: &str, document: &Value) -> Value {
    let answer = hub.request(
        "POST",
        path,
        Some(("application/json", &document.to_string())),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

/// A hub whose clients come back soon.
fn hub() -> Hub {
    Hub::spawn(&[], &[("TIDEWIRE_STREAM__RETRY", "200ms")])
}

#[test]
fn the_node_client_shows_both_events_and_misses_nothing() {
    let hub = hub();
    let proxy = Proxy::spawn(hub.port());
    let mut client = NodeClient::spawn(&proxy.url("/events/watch"));
    client.wait_for("connected to", "/events/watch");

    let metric = create(
        &hub,
        "/metrics",
        &json!({"name": "temperature", "unit": "°C"}),
    );
    let id = metric["id"].as_str().unwrap();
    client.wait_for("metric_created temperature in °C", id);
    create(
        &hub,
        "/metrics/readings",
        &json!({"metric_id": id, "value": 21.5}),
    );
    client.wait_for("metric_reading_created 21.5 at", id);

    proxy.set_down(true);
    proxy.drop_all();
    client.wait_for("connection lost", "");
    for value in [22.5, 23.5] {
        create(
            &hub,
            "/metrics/readings",
            &json!({"metric_id": id, "value": value}),
        );
    }
    proxy.set_down(false);
    client.wait_for("connected again", "going on after ~");
    client.wait_for("metric_reading_created 22.5", id);
    client.wait_for("metric_reading_created 23.5", id);
    assert_eq!(
        (client.count("metric_"), client.count("gap")),
        (4, 0),
        "{:?}",
        client.seen
    );
}

#[test]
fn the_node_client_comes_back_to_a_restarted_hub() {
    let mut hub = hub();
    let mut client = NodeClient::spawn(&hub.url("/events/watch"));
    client.wait_for("connected to", "/events/watch");
    create(&hub, "/metrics", &json!({"name": "before"}));
    client.wait_for("metric_created before", "");

    hub.restart(); // its memory was the history
    client.wait_for("connected again", "");
    client.wait_for("gap after ~", "unknown_id");
    create(&hub, "/metrics", &json!({"name": "after"}));
    client.wait_for("metric_created after", "");
}
