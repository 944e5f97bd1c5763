//! The second service, which is written on the library's `Broadcaster` alone.

use serde_json::json;

use super::{DEMO, EVENTS, broadcast, done, envelope, hub, open, post, row, streams};

#[test]
fn it_has_a_stream_of_its_own_and_those_that_clients_ask_for() {
    let hub = hub();
    assert_eq!(
        streams(&hub, DEMO),
        json!({"demo-notifications": row(0, false, false)})
    );
    let mut client = hub.stream(&format!("{DEMO}/stream/demo-notifications"));
    let greeting = envelope(&mut client);
    assert_eq!(
        (&greeting["type"], &greeting["stream_id"]),
        (&json!("connection"), &json!("demo-notifications"))
    );
    let body =
        json!({"stream_id": "demo-notifications", "type": "t", "message": "m", "data": {"a": 1}});
    let said = done(&post(&hub, &format!("{DEMO}/broadcast"), &body));
    assert_eq!(said, "Event broadcasted to stream: demo-notifications");
    assert_eq!(envelope(&mut client)["data"], json!({"a": 1}));
    let id = client.last_event_id().to_owned();
    drop(client);
    done(&post(
        &hub,
        &format!("{DEMO}/broadcast"),
        &json!({"type": "all", "message": "m"}),
    ));
    let path = format!("{DEMO}/stream/demo-notifications");
    let mut client = hub.stream_with(&path, &[("Last-Event-ID", &id)]);
    envelope(&mut client);
    let missed = envelope(&mut client);
    assert_eq!(
        (&missed["type"], missed.get("stream_id")),
        (&json!("all"), None)
    );
}

#[test]
fn the_streams_of_the_two_services_have_nothing_to_do_with_each_other() {
    let hub = hub();
    let mut ours = open(&hub, "shared");
    let mut demo = hub.stream(&format!("{DEMO}/stream/shared"));
    envelope(&mut demo);
    assert!(streams(&hub, EVENTS).get("demo-notifications").is_none());
    assert!(streams(&hub, DEMO).get("default").is_none());
    for to in ["", "shared"] {
        let body = |event_type: &str| json!({"stream_id": to, "type": event_type, "message": "m"});
        broadcast(&hub, &body("ours"));
        done(&post(&hub, &format!("{DEMO}/broadcast"), &body("demo")));
        assert_eq!(envelope(&mut ours)["type"], "ours");
        assert_eq!(envelope(&mut demo)["type"], "demo");
    }
}
