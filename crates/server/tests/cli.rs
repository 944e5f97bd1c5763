//! `tidewire watch` and `tidewire publish` with the hub that they are made for.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod scripted;
mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use scripted::Tidewire;
use serde_json::{Value, json};
use support::{Hub, Proxy};

/// The next event that `watch --json` printed.
fn event(watch: &Tidewire) -> Value {
    serde_json::from_str(&watch.out()).unwrap()
}

/// Publishes until the watcher, which may not be connected yet, shows an event; returns the last one published.
fn follow(hub: &Hub, watch: &Tidewire, n: u64) {
    hub.publish("orders", &json!(n));
    let shown = event(watch);
    assert_eq!(
        (&shown["topics"], &shown["data"]),
        (&json!(["orders"]), &json!(n.to_string()))
    );
}

#[test]
fn watch_goes_on_over_lost_connections_and_a_restart_and_ends_with_its_topic() {
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_STREAM__RETRY", "100ms")]);
    let proxy = Proxy::spawn(hub.port());
    let url = proxy.url("");
    let watch = Tidewire::run(&[
        "watch", "orders", "--json", "--since", "earliest", "--url", &url,
    ]);
    for n in 0..3 {
        follow(&hub, &watch, n);
        proxy.drop_all();
        // While it is away.
        follow(&hub, &watch, n + 10);
    }

    hub.restart();
    hub.publish("orders", &json!("after"));
    assert_eq!(
        event(&watch)["event"],
        "gap",
        "the new hub does not know what the old one had"
    );
    assert_eq!(event(&watch)["data"], "after");

    assert_eq!(
        hub.request("POST", "/topics/orders/close", None).status,
        200
    );
    assert_eq!(event(&watch)["event"], "end");
    assert_eq!(watch.end().0, 0);
}

#[test]
fn publish_sends_each_line_and_tells_how_many_went_out() {
    let hub = Hub::spawn(&[], &[]);
    let url = hub.url("");
    let mut publish = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["publish", "orders", "--event", "line", "--url", &url])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = (0..2_500).map(|n| format!("line {n}")).collect();
    let mut stdin = publish.stdin.take().unwrap();
    stdin
        .write_all((lines.join("\n") + "\n").as_bytes())
        .unwrap();
    drop(stdin);
    let output = publish.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && told.contains("published 2500 events to orders"),
        "{told}"
    );

    let mut stored = Vec::new();
    let mut since = "earliest".to_owned();
    loop {
        let page = hub
            .get(&format!("/topics/orders/events?limit=1000&since={since}"))
            .json();
        stored.extend(page["events"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        since = next.to_owned();
    }
    let stored: Vec<_> = stored
        .iter()
        .map(|event| event["data"].as_str().unwrap())
        .collect();
    assert_eq!(stored, lines);
}
