//! Who gets what is broadcast, and in which form.

use serde_json::{Value, json};

use super::{EVENTS, broadcast, envelope, hub, manage, open, say, streams};

#[test]
fn a_message_is_one_line_of_data_with_an_id_and_no_name() {
    let hub = hub();
    let mut client = open(&hub, "a");
    let data = json!({"priority": "high", "recipients": ["user1", "user2"], "text": "two\nlines \u{1f30a}"});
    broadcast(
        &hub,
        &json!({"stream_id": "a", "type": "custom_event", "message": "Hello", "data": data}),
    );
    let event = envelope(&mut client);
    let members: Vec<_> = event.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["id", "type", "message", "data", "timestamp", "stream_id"]
    );
    assert_eq!(event["data"], data);
    assert_eq!(event["stream_id"], "a");
    let last_block = client.text().trim_end().rsplit("\n\n").next().unwrap();
    let lines: Vec<_> = last_block.lines().collect();
    assert_eq!(lines.len(), 2, "{last_block}");
    assert!(
        lines[0].starts_with("data: {\"id\":\"evt_") && lines[1].starts_with("id: ~"),
        "{lines:?}"
    );
    assert!(!client.text().contains("event:"), "{}", client.text());
}

#[test]
fn data_may_be_any_json() {
    let hub = hub();
    let mut client = open(&hub, "a");
    for data in [
        json!({}),
        json!([1, 2.5]),
        json!("text"),
        json!(7),
        json!(false),
        json!(u64::MAX),
    ] {
        broadcast(
            &hub,
            &json!({"stream_id": "a", "type": "t", "message": "m", "data": data}),
        );
        assert_eq!(envelope(&mut client)["data"], data);
    }
    broadcast(
        &hub,
        &json!({"stream_id": "a", "type": "t", "message": "m", "data": null}),
    );
    assert_eq!(envelope(&mut client).get("data"), None);
}

#[test]
fn only_the_clients_of_its_stream_get_an_event() {
    let hub = hub();
    let (mut a, mut b) = (open(&hub, "a"), open(&hub, "b"));
    say(&hub, "a", "for_a");
    say(&hub, "b", "for_b");
    assert_eq!(envelope(&mut a)["type"], "for_a");
    assert_eq!(envelope(&mut b)["type"], "for_b");
}

#[test]
fn an_event_to_all_reaches_each_client_once_whatever_it_reads() {
    let hub = hub();
    let mut clients = vec![open(&hub, "a"), open(&hub, "b"), open(&hub, "system")];
    clients.push(hub.stream("/events?topic=stream:a&topic=stream:b"));
    let mut page = hub.stream("/events?topic=stream:*");
    let published = hub.stats()["published"].as_u64();
    broadcast(&hub, &json!({"type": "global", "message": "to everyone"}));
    assert_eq!(
        hub.stats()["published"].as_u64(),
        published.map(|n| n + 1),
        "published once"
    );
    for id in ["a", "b", "system"] {
        say(&hub, id, "after");
    }
    let mut ids = Vec::new();
    for client in &mut clients {
        let global = envelope(client);
        assert_eq!(global["type"], "global");
        assert_eq!(global.get("stream_id"), None, "{global}");
        ids.push(global["id"].clone());
        assert_eq!(envelope(client)["type"], "after", "no second one before it");
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "it is the same event for all");
    let seen: Vec<Value> = (0..2).map(|_| envelope(&mut page)).collect();
    assert_eq!(
        (&seen[0]["type"], &seen[1]["type"]),
        (&json!("global"), &json!("after"))
    );
}

#[test]
fn an_event_to_all_waits_in_the_history_of_a_stream_with_a_generator_only() {
    let hub = hub();
    broadcast(&hub, &json!({"type": "global", "message": "m"}));
    let mut late = hub.stream(&format!("{EVENTS}/stream/system?since=earliest"));
    let types: Vec<_> = (0..3)
        .map(|_| envelope(&mut late)["type"].clone())
        .collect();
    assert_eq!(types, ["connection", "stream_started", "global"]);
}

#[test]
fn with_no_stream_active_an_event_to_all_is_stored_nowhere() {
    let hub = hub();
    let names: Vec<_> = streams(&hub, EVENTS)
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    for id in &names {
        manage(&hub, id, "stop");
    }
    assert_eq!(streams(&hub, EVENTS), json!({}));
    let published = hub.stats()["published"].clone();
    let answer = broadcast(&hub, &json!({"type": "t", "message": "m"}));
    assert_eq!(answer, "Event broadcasted to all streams");
    assert_eq!(hub.stats()["published"], published);
}

#[test]
fn a_stream_of_that_name_is_apart_from_a_topic_of_that_name() {
    let hub = hub();
    let mut topic = hub.stream("/events?topic=a");
    let mut stream = open(&hub, "a");
    say(&hub, "a", "to_the_stream");
    hub.publish("a", &json!("to the topic"));
    assert_eq!(envelope(&mut stream)["type"], "to_the_stream");
    assert_eq!(topic.event().data, "to the topic");
}
