//! A browser, and the Python client that users of such services have: they listen to messages without a name, and know
//! nothing of the hub.

use serde_json::{Value, json};

use super::{EVENTS, broadcast, hub_with};
use crate::support::{Client, Hub, Kind, Proxy};

/// A hub whose clients come back soon.
fn hub() -> Hub {
    hub_with(&[("TIDEWIRE_STREAM__RETRY", "200ms")])
}

/// Waits for an envelope of this type.
fn wait_for(client: &mut Client, event_type: &str) -> Value {
    let envelope = |line: &Value| {
        let data = line["data"]
            .as_str()
            .filter(|_| line["event"] == "message")?;
        serde_json::from_str::<Value>(data).ok()
    };
    let is_wanted = |line: &Value| envelope(line).is_some_and(|data| data["type"] == event_type);
    envelope(&client.wait_for(event_type, is_wanted)).unwrap()
}

fn follows_a_stream_over_losses_and_restarts(kind: Kind) {
    let mut hub = hub();
    let proxy = Proxy::spawn(hub.port());
    let mut client = Client::spawn(kind, &proxy.url(&format!("{EVENTS}/stream/orders")));
    assert_eq!(wait_for(&mut client, "connection")["stream_id"], "orders");

    proxy.set_down(true);
    proxy.drop_all();
    client.wait_for("the loss", |line| line["kind"] == "error");
    let say = |hub: &Hub, event_type: &str| {
        let data = json!({"text": "ä € 😀\nand\ttwo"});
        let body = json!({"stream_id": "orders", "type": event_type, "message": "m", "data": data});
        broadcast(hub, &body);
    };
    say(&hub, "while_it_was_away");
    proxy.set_down(false);
    let missed = wait_for(&mut client, "while_it_was_away");
    assert_eq!(missed["data"]["text"], "ä € 😀\nand\ttwo");
    broadcast(&hub, &json!({"type": "to_all", "message": "m"}));
    assert_eq!(wait_for(&mut client, "to_all").get("stream_id"), None);

    hub.restart();
    let gap = wait_for(&mut client, "gap");
    assert_eq!(gap["data"]["reason"], "unknown_id");
    say(&hub, "after_the_gap");
    wait_for(&mut client, "after_the_gap");
    assert!(client.events().all(|line| line["event"] == "message"));
    let connections = client.events().filter(|line| {
        line["data"]
            .as_str()
            .is_some_and(|data| data.contains("\"type\":\"connection\""))
    });
    assert_eq!(connections.count(), 3, "each time it was greeted");
}

#[test]
fn chromium() {
    follows_a_stream_over_losses_and_restarts(Kind::Chromium);
}

#[test]
fn sseclient_py() {
    follows_a_stream_over_losses_and_restarts(Kind::SseclientPy);
}
