//! What each address answers, in each state, to each mistake.

use serde_json::{Value, json};

use super::{
    DEMO, EVENTS, broadcast, done, hub, hub_with, lively_hub, manage, open, post, refused, row,
};
use super::{say, streams, until, wait_for_streams};
use crate::support::Hub;

#[test]
fn four_streams_with_a_generator_each_are_there_from_the_start() {
    let hub = hub();
    let running = row(0, true, false);
    let expected = json!({
        "default": running, "system": running, "user-activity": running, "notifications": running,
    });
    assert_eq!(streams(&hub, EVENTS), expected);
    for id in ["default", "system", "user-activity", "notifications"] {
        let mut history = hub.stream(&format!("{EVENTS}/stream/{id}?since=earliest"));
        assert_eq!(super::envelope(&mut history)["type"], "connection");
        let first = super::envelope(&mut history);
        assert_eq!(
            (&first["type"], &first["stream_id"]),
            (&json!("stream_started"), &json!(id))
        );
    }
}

#[test]
fn a_generator_is_managed_and_the_streams_tell_its_state() {
    let hub = hub();
    let _client = open(&hub, "custom");
    let state = || streams(&hub, EVENTS)["custom"].clone();
    assert_eq!(
        state(),
        row(1, false, false),
        "a client is enough to be active"
    );
    for what in ["stop", "pause", "resume"] {
        refused(&manage(&hub, "custom", what), 404, "no_generator");
    }
    assert_eq!(
        done(&manage(&hub, "custom", "start")),
        "Stream 'custom' started"
    );
    assert_eq!(state(), row(1, true, false));
    refused(&manage(&hub, "custom", "resume"), 409, "wrong_state");
    assert_eq!(
        done(&manage(&hub, "custom", "start")),
        "Stream 'custom' started"
    );
    assert_eq!(
        done(&manage(&hub, "custom", "pause")),
        "Stream 'custom' paused"
    );
    assert_eq!(state(), row(1, true, true));
    refused(&manage(&hub, "custom", "pause"), 409, "wrong_state");
    assert_eq!(
        done(&manage(&hub, "custom", "resume")),
        "Stream 'custom' resumed"
    );
    assert_eq!(state(), row(1, true, false));
    manage(&hub, "custom", "pause");
    assert_eq!(
        done(&manage(&hub, "custom", "start")),
        "Stream 'custom' started"
    );
    assert_eq!(state(), row(1, true, false), "a start resumes too");
    assert_eq!(
        done(&manage(&hub, "custom", "stop")),
        "Stream 'custom' stopped and removed"
    );
    refused(&manage(&hub, "custom", "stop"), 404, "no_generator");
    assert_eq!(state(), row(1, false, false));
}

#[test]
fn clients_are_counted_while_they_are_connected() {
    let hub = hub();
    let both = hub.stream("/events?topic=stream:a&topic=stream:b");
    let clients = [open(&hub, "a"), open(&hub, "a"), open(&hub, "default")];
    let count = |rows: &Value, id: &str| rows[id]["clients"].clone();
    let rows = streams(&hub, EVENTS);
    let counts = ["a", "b", "default", "system"].map(|id| count(&rows, id));
    assert_eq!(counts, [3, 1, 1, 0].map(|n| json!(n)));
    drop(both);
    wait_for_streams(&hub, "b has gone with its client", |rows| {
        rows.get("b").is_none()
    });
    drop(clients);
    wait_for_streams(&hub, "only those with a generator", |rows| {
        rows.get("a").is_none() && rows["default"] == row(0, true, false)
    });
}

#[test]
fn a_broadcast_says_where_it_went() {
    let hub = hub();
    for (stream, message) in [
        (
            json!("notifications"),
            "Event broadcasted to stream: notifications",
        ),
        (
            json!("nobody-is_here:1.0"),
            "Event broadcasted to stream: nobody-is_here:1.0",
        ),
        (json!(""), "Event broadcasted to all streams"),
        (json!(null), "Event broadcasted to all streams"),
    ] {
        let body = json!({"stream_id": stream, "type": "t", "message": "m", "more": 1});
        assert_eq!(broadcast(&hub, &body), message);
    }
    let missing = json!({"type": "t", "message": "m"});
    assert_eq!(
        broadcast(&hub, &missing),
        "Event broadcasted to all streams"
    );
    let path = format!("{EVENTS}/broadcast");
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json",
    ] {
        let answer = hub.request("POST", &path, Some((kind, &missing.to_string())));
        assert_eq!(done(&answer), "Event broadcasted to all streams", "{kind}");
    }
}

#[test]
fn what_is_no_event_is_refused_and_stored_nowhere() {
    let hub = hub();
    let stored = hub.stats()["published"].clone();
    let cases = [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("{\"type\":\"t\",\"message\":\"m\"} x", "bad_json"),
        ("\u{0}", "bad_json"),
        ("null", "bad_event"),
        ("[\"a\",\"t\",\"m\"]", "bad_event"),
        ("{}", "bad_event"),
        ("{\"type\":\"t\"}", "bad_event"),
        ("{\"message\":\"m\"}", "bad_event"),
        ("{\"type\":\"\",\"message\":\"m\"}", "bad_event"),
        ("{\"type\":\"t\",\"message\":\"\"}", "bad_event"),
        ("{\"type\":null,\"message\":\"m\"}", "bad_event"),
        ("{\"type\":1,\"message\":\"m\"}", "bad_event"),
        ("{\"type\":\"t\",\"message\":{}}", "bad_event"),
        (
            "{\"stream_id\":7,\"type\":\"t\",\"message\":\"m\"}",
            "bad_event",
        ),
        (
            "{\"stream_id\":\"a b\",\"type\":\"t\",\"message\":\"m\"}",
            "bad_stream_id",
        ),
        (
            "{\"stream_id\":\"*\",\"type\":\"t\",\"message\":\"m\"}",
            "bad_stream_id",
        ),
    ];
    for service in [EVENTS, DEMO] {
        for (body, error) in cases {
            let path = format!("{service}/broadcast");
            let answer = hub.request("POST", &path, Some(("application/json", body)));
            refused(&answer, 400, error);
        }
    }
    let text = hub.send("POST", &format!("{EVENTS}/broadcast"), &[], b"\xff");
    refused(&text, 400, "bad_json");
    assert_eq!(hub.stats()["published"], stored);
}

#[test]
fn ids_of_streams_are_checked_wherever_they_stand() {
    let hub = hub();
    let longest = "x".repeat(128);
    for id in ["document_123", "user-activity", "a.b:c", "7", &longest] {
        open(&hub, id);
    }
    let too_long = format!("{longest}x");
    for id in ["a%20b", "%2A", "a%2Fb", "%FF", "%C3%A4", "a%0A", &too_long] {
        let path = format!("{EVENTS}/stream/{id}");
        refused(&hub.get(&path), 400, "bad_stream_id");
        refused(
            &hub.get(&format!("{DEMO}/stream/{id}")),
            400,
            "bad_stream_id",
        );
        for what in ["start", "stop", "pause", "resume"] {
            refused(&manage(&hub, id, what), 400, "bad_stream_id");
        }
    }
}

#[test]
fn wrong_methods_and_addresses_are_refused_in_the_form_of_the_service() {
    let hub = hub();
    for (method, path, allowed) in [
        ("POST", "stream/a", "GET,HEAD"),
        ("GET", "broadcast", "POST"),
        ("DELETE", "streams", "GET,HEAD"),
    ] {
        for service in [EVENTS, DEMO] {
            let answer = hub.request(method, &format!("{service}/{path}"), None);
            refused(&answer, 405, "wrong_method");
            assert_eq!(answer.header("allow"), Some(allowed), "{path}");
        }
    }
    for what in ["start", "stop", "pause", "resume"] {
        let answer = hub.get(&format!("{EVENTS}/stream/a/{what}"));
        refused(&answer, 405, "wrong_method");
    }
    for path in ["nothing", "stream/a/b", "stream", ""] {
        let path = format!("{EVENTS}/{path}");
        let answer = hub.get(&path);
        refused(&answer, 404, "not_found");
        assert!(answer.json()["message"].as_str().unwrap().contains(&path));
    }
    refused(
        &hub.request("POST", &format!("{DEMO}/stream/a/start"), None),
        404,
        "not_found",
    );
    for query in ["heartbeat=x", "padding=-1", "fields=x"] {
        let answer = hub.get(&format!("{EVENTS}/stream/a?{query}"));
        refused(&answer, 422, "bad_parameter");
    }
    refused(
        &hub.get(&format!("{EVENTS}/stream/a?since=%FF")),
        400,
        "bad_query",
    );
}

#[test]
fn every_alias_is_the_same_service() {
    let hub = hub();
    let mut clients = Vec::new(); // held, as their rows would go with them
    for (service, aliases) in [
        (EVENTS, ["/api/v1/events-full", "/events-full"]),
        (DEMO, ["/api/v1/events-util", "/events-util"]),
    ] {
        for (n, alias) in aliases.into_iter().enumerate() {
            clients.push(hub.stream(&format!("{alias}/stream/x{n}")));
            let rows = streams(&hub, service);
            assert_eq!(rows, streams(&hub, alias));
            assert_eq!(rows[format!("x{n}")]["clients"], 1, "{alias}");
            let body = json!({"stream_id": "x", "type": "t", "message": "m"});
            done(&post(&hub, &format!("{alias}/broadcast"), &body));
        }
    }
}

#[test]
fn a_service_that_is_switched_off_is_not_there() {
    let off = Hub::spawn(&[], &[]);
    for service in [EVENTS, DEMO, "/api/v1/events-full", "/events-util"] {
        for path in ["streams", "stream/a"] {
            let answer = off.get(&format!("{service}/{path}"));
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (404, &json!("not_found"))
            );
        }
    }
    let demo_only = Hub::spawn(&[], &[("TIDEWIRE_SERVICES__BROADCAST_DEMO", "true")]);
    assert_eq!(demo_only.get(&format!("{EVENTS}/streams")).status, 404);
    assert_eq!(demo_only.get(&format!("{DEMO}/streams")).status, 200);
}

#[test]
fn the_log_tells_of_clients_broadcasts_and_generators_at_debug_level() {
    let hub = hub_with(&[("TIDEWIRE_LOG__LEVEL", "debug")]);
    let client = open(&hub, "watched");
    say(&hub, "watched", "seen");
    manage(&hub, "watched", "start");
    manage(&hub, "watched", "stop");
    let id = client.connection();
    drop(client);
    for words in [
        &["client connected", &id, "watched"][..],
        &["connection closed", &id, "client_gone"],
        &["broadcast", "watched", "seen"],
        &["generator started", "watched"],
        &["generator stopped", "watched"],
    ] {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        until(&words.join(" "), || hub.output().lines().any(has_all));
    }
}

#[test]
fn generators_do_not_hold_up_the_end() {
    let mut hub = lively_hub();
    let mut client = open(&hub, "default");
    hub.terminate();
    client.rest();
    assert!(hub.wait_for_exit(crate::support::WAIT_MAX).success());
}
