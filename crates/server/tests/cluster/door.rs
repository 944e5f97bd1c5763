//! The door on a single node with the memory broker.

use serde_json::json;

use crate::support::{Hub, Stream};
use crate::{count, send, until};

fn hub() -> Hub {
    Hub::spawn(&[], &[("TIDEWIRE_NODE__ID", "alone")])
}

fn code(hub: &Hub, method: &str, path: &str) -> (u16, String) {
    let answer = hub.send(method, path, &[], b"");
    let code = answer.json()["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, code)
}

#[test]
fn a_client_is_reached_by_its_id() {
    let hub = hub();
    let mut stream = hub.stream("/sse/connect/user@example.com:tab-1");
    let sent = send(&hub, "user@example.com:tab-1", "hello\nthere");
    assert_eq!(
        (sent.status, sent.json()),
        (200, json!({"delivered": true, "node": "alone"}))
    );
    let event = stream.event();
    assert_eq!(
        (event.event.as_str(), event.data.as_str(), event.id.as_str()),
        ("message", "hello\nthere", "")
    );
    let named = hub.send(
        "POST",
        "/sse/send/user@example.com:tab-1?event=tick",
        &[],
        b"{\"n\":1}",
    );
    assert_eq!(named.status, 200);
    let event = stream.event();
    assert_eq!(
        (event.event.as_str(), event.data.as_str()),
        ("tick", "{\"n\":1}")
    );
    assert_eq!(
        code(&hub, "POST", "/sse/send/nobody"),
        (404, "not_connected".into())
    );
}

#[test]
fn a_second_connection_takes_over_and_the_first_does_not_come_back() {
    let hub = hub();
    let mut first = hub.stream("/sse/connect/c");
    let mut second = hub.stream("/sse/connect/c");
    let farewell = first.rest().pop().unwrap();
    assert_eq!(farewell.event, "replaced");
    send(&hub, "c", "x");
    assert_eq!(second.event().data, "x");
    let back = Stream::open(
        hub.port(),
        "/sse/connect/c",
        &[("Last-Event-ID", &farewell.id)],
    );
    assert_eq!(back.status(), 204, "it must not steal the place back");
    send(&hub, "c", "y");
    assert_eq!(second.event().data, "y");
    assert_eq!(count(&hub, "cluster"), 1);
}

#[test]
fn what_was_answered_as_delivered_is_sent_before_the_farewell() {
    let hub = hub();
    // More than goes out at a time, and an event that is larger than what lies in sockets.
    for (bytes, events) in [(20_000, 60), (900_000, 1)] {
        for farewell in ["closed", "replaced"] {
            let client = format!("{farewell}-{bytes}");
            let path = format!("/sse/connect/{client}");
            let mut stream = hub.stream(&path);
            let body = "x".repeat(bytes);
            for _ in 0..events {
                assert_eq!(send(&hub, &client, &body).status, 200);
            }
            let _successor = if farewell == "replaced" {
                Some(hub.stream(&path))
            } else {
                assert_eq!(hub.send("DELETE", &path, &[], b"").status, 204);
                None
            };
            let seen: Vec<_> = stream
                .rest()
                .into_iter()
                .map(|event| (event.event, event.data.len()))
                .collect();
            let mut expected = vec![("message".to_owned(), bytes); events];
            expected.push((farewell.to_owned(), 2));
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn everyone_is_reached_and_closed() {
    let hub = hub();
    let mut streams: Vec<_> = (0..3)
        .map(|n| hub.stream(&format!("/sse/connect/c{n}")))
        .collect();
    let mut other = hub.stream("/events?topic=t");
    for scope in ["", "?scope=local", "?scope=cluster"] {
        let answer = hub.send("POST", &format!("/sse/broadcast{scope}"), &[], b"to all");
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"connections": 3}))
        );
        for stream in &mut streams {
            assert_eq!(stream.event().data, "to all");
        }
    }
    assert_eq!((count(&hub, "local"), count(&hub, "cluster")), (3, 3));
    let status = hub.get("/sse/status/c1").json();
    assert_eq!(
        status,
        json!({"client_id": "c1", "connected": true, "node": "alone"})
    );

    assert_eq!(hub.send("DELETE", "/sse/connect/c1", &[], b"").status, 204);
    let farewell = streams[1].rest().pop().unwrap();
    assert_eq!(farewell.event, "closed");
    let back = Stream::open(
        hub.port(),
        "/sse/connect/c1",
        &[("Last-Event-ID", &farewell.id)],
    );
    assert_eq!(back.status(), 204);
    until("it is gone", || {
        hub.get("/sse/status/c1").json()["connected"] == json!(false)
    });
    assert_eq!(
        code(&hub, "DELETE", "/sse/connect/c1"),
        (404, "not_connected".into())
    );

    let all = hub.send("DELETE", "/sse/connect?scope=local", &[], b"");
    assert_eq!(all.json(), json!({"connections": 2}));
    for at in [0, 2] {
        assert_eq!(streams[at].rest().pop().unwrap().event, "closed");
    }
    until("all are gone", || count(&hub, "cluster") == 0);
    hub.publish("t", &json!("still there"));
    assert_eq!(other.event().data, "still there");
}

#[test]
fn a_client_that_goes_away_is_gone_everywhere() {
    let hub = hub();
    let stream = hub.stream("/sse/connect/c");
    assert_eq!(count(&hub, "cluster"), 1);
    drop(stream);
    until("it is not counted", || count(&hub, "cluster") == 0);
    assert_eq!(send(&hub, "c", "x").status, 404);
    assert!(hub.get("/metrics").body.contains("tidewire_clients 0"));
}

#[test]
fn what_is_not_understood_is_refused() {
    let hub = hub();
    let long = "x".repeat(129);
    for id in [&long, "a%20b", "%C3%A4", "a%2Fb", "a*"] {
        for (method, path) in [
            ("GET", "connect"),
            ("POST", "send"),
            ("GET", "status"),
            ("DELETE", "connect"),
        ] {
            let path = format!("/sse/{path}/{id}");
            assert_eq!(
                code(&hub, method, &path),
                (400, "bad_client_id".into()),
                "{path}"
            );
        }
    }
    let longest = "x".repeat(128);
    hub.stream(&format!("/sse/connect/{longest}"));
    for path in ["/sse/count?scope=all", "/sse/connect?scope=x"] {
        let method = if path.contains("count") {
            "GET"
        } else {
            "DELETE"
        };
        assert_eq!(code(&hub, method, path), (422, "bad_parameter".into()));
    }
    assert_eq!(
        code(&hub, "GET", "/sse/send/c"),
        (405, "wrong_method".into())
    );
    let _stream = hub.stream("/sse/connect/c");
    let binary = hub.send("POST", "/sse/send/c", &[], &[0xff]);
    assert_eq!(
        (binary.status, binary.json()["code"].as_str()),
        (400, Some("bad_utf8"))
    );
    let name = hub.send("POST", "/sse/send/c?event=a%0Ab", &[], b"x");
    assert_eq!(
        (name.status, name.json()["code"].as_str()),
        (422, Some("bad_event"))
    );
    let nobody = hub.send("POST", "/sse/send/d?event=a%0Ab", &[], b"x");
    assert_eq!(
        (nobody.status, nobody.json()["code"].as_str()),
        (422, Some("bad_event"))
    );
    let large = hub.send("POST", "/sse/send/c", &[], &vec![b'x'; 2 << 20]);
    assert_eq!(
        (large.status, large.json()["code"].as_str()),
        (413, Some("event_too_large"))
    );
    let head = hub.send("HEAD", "/sse/connect/h", &[], b"");
    assert_eq!(head.status, 200);
    assert_eq!(hub.get("/sse/status/h").json()["connected"], json!(false));
}

#[test]
fn rights_are_asked_for() {
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "connection:a*"),
            ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "connection:a*"),
        ],
    );
    let mut stream = hub.stream("/sse/connect/a1");
    assert_eq!(send(&hub, "a1", "x").status, 200);
    assert_eq!(stream.event().data, "x");
    assert_eq!(hub.get("/sse/status/a1").status, 200);
    for (method, path) in [
        ("GET", "/sse/connect/b"),
        ("POST", "/sse/send/b"),
        ("POST", "/sse/broadcast"),
        ("GET", "/sse/status/b"),
        ("GET", "/sse/count"),
        ("DELETE", "/sse/connect/a1"),
        ("DELETE", "/sse/connect"),
        ("DELETE", "/sse/users/u/connections"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/api/v1/presence?topic=t"),
    ] {
        assert_eq!(
            code(&hub, method, path),
            (403, "not_allowed".into()),
            "{method} {path}"
        );
    }
}

#[test]
fn presence_tells_who_reads_a_topic() {
    let hub = hub();
    assert_eq!(
        hub.get("/api/v1/presence?topic=t").json()["count"],
        json!(0)
    );
    let stream = hub.stream("/events?topic=t");
    let _other = hub.stream("/events?topic=u");
    let present = hub.get("/api/v1/presence?topic=t").json();
    assert_eq!(present["count"], json!(1), "{present}");
    assert_eq!(
        present["present"][0]["connection"],
        json!(stream.connection())
    );
    assert_eq!(present["present"][0]["node"], json!("alone"));
    assert_eq!(
        code(&hub, "GET", "/api/v1/presence"),
        (422, "bad_topic".into())
    );
}

#[test]
fn presence_says_that_there_are_more_than_it_lists() {
    const READERS: usize = 1_010;
    let hub = hub();
    let _streams: Vec<_> = (0..READERS)
        .map(|_| hub.stream("/events?topic=t"))
        .collect();
    let present = hub.get("/api/v1/presence?topic=t").json();
    let listed = present["present"].as_array().unwrap().len();
    assert_eq!(
        (&present["count"], &present["truncated"], listed),
        (&json!(READERS), &json!(true), 1_000)
    );
}

#[test]
fn who_comes_and_goes_is_published_where_that_is_wanted() {
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_NODE__ID", "alone"),
            ("TIDEWIRE_CLUSTER__PRESENCE_EVENTS", "room:*"),
        ],
    );
    let mut watching = hub.stream("/events?topic=presence:room:1");
    let visitor = hub.stream("/events?topic=room:1&topic=other");
    let connection = visitor.connection();
    let expected =
        json!({"topic": "room:1", "connection": connection, "user": null, "node": "alone"});
    let joined = watching.event();
    assert_eq!(
        (joined.event.as_str(), joined.data),
        ("join", expected.to_string())
    );
    drop(visitor);
    let left = watching.event();
    assert_eq!(
        (left.event.as_str(), left.data),
        ("leave", expected.to_string())
    );
    // A pattern does not reach what is reserved.
    let mut everything = hub.stream("/events?topic=**&since=earliest");
    hub.publish("public", &json!(1));
    assert_eq!(everything.event().data, "1");
}

#[test]
fn the_door_can_be_shut() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_SERVICES__CLIENTS", "false")]);
    assert_eq!(
        code(&hub, "GET", "/sse/connect/c"),
        (404, "not_found".into())
    );
}
