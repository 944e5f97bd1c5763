//! Publishes that are refused: each says why, and stores nothing.

use serde_json::json;

use crate::support::{Hub, http};
use crate::{encoded, events_held, problem};

#[test]
#[allow(clippy::too_many_lines, reason = "it is a table")]
fn a_bad_document_is_refused_with_its_reason() {
    let hub = Hub::spawn(&[], &[]);
    let deep = format!("{{\"topic\":\"a\",\"data\":{}", "[".repeat(100_000));
    let long = "x".repeat(1_025);
    let huge = "ä".repeat(500_000);
    let huge_field = format!("{{\"topic\":\"a\",\"data\":1,\"{huge}\":1}}");
    let huge_text = format!("{{\"topic\":\"a\",\"data\":1,\"retry\":\"{huge}\"}}");
    let huge_topic = format!("{{\"topic\":\"{huge}\",\"data\":1}}");
    let cases: Vec<(String, u16, &str, &str)> = [
        ("", 400, "bad_json", "EOF"),
        ("{", 400, "bad_json", "EOF"),
        ("{\"topic\":\"a\",\"data\":1}}", 400, "bad_json", "trailing"),
        ("{'topic':'a','data':1}", 400, "bad_json", "column"),
        ("{\"topic\":\"a\",\"data\":nul}", 400, "bad_json", "column"),
        (
            "{\"topic\":\"a\",\"data\":\"\\ud800\"}",
            400,
            "bad_json",
            "data",
        ),
        (
            "{\"topic\":\"a\",\"data\":\"a\nb\"}",
            400,
            "bad_json",
            "control character",
        ),
        ("{\"topic\":1,\"data\":1,", 400, "bad_json", "EOF"),
        (&deep, 400, "bad_json", ""),
        (&huge_field, 422, "bad_document", "unknown field"),
        (&huge_text, 422, "bad_document", "invalid type"),
        (&huge_topic, 422, "bad_topic", "1000000"),
        ("1", 422, "bad_document", "JSON object"),
        ("\"text\"", 422, "bad_document", "JSON object"),
        ("null", 422, "bad_document", "JSON object"),
        ("{}", 422, "bad_document", "data"),
        ("{\"topic\":\"a\"}", 422, "bad_document", "data"),
        ("{\"topic\":1,\"data\":1}", 422, "bad_document", "string"),
        (
            "{\"topic\":[\"a\"],\"data\":1}",
            422,
            "bad_document",
            "string",
        ),
        (
            "{\"topics\":\"a\",\"data\":1}",
            422,
            "bad_document",
            "sequence",
        ),
        ("{\"topics\":[1],\"data\":1}", 422, "bad_document", "string"),
        (
            "{\"topic\":\"a\",\"data\":1,\"event\":1}",
            422,
            "bad_document",
            "string",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":1}",
            422,
            "bad_document",
            "string",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"retry\":-1}",
            422,
            "bad_document",
            "u64",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"retry\":\"1\"}",
            422,
            "bad_document",
            "u64",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"private\":1}",
            422,
            "bad_document",
            "boolean",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"data\":2}",
            422,
            "bad_document",
            "duplicate",
        ),
        (
            "{\"topic\":\"a\",\"topics\":[\"b\"],\"data\":1}",
            422,
            "bad_document",
            "not both",
        ),
        ("{\"temperature\":21.5}", 422, "bad_document", "text/plain"),
        ("{\"data\":1}", 422, "topic_missing", "topic"),
        ("{\"topics\":[],\"data\":1}", 422, "topic_missing", "topic"),
        ("{\"topic\":\"\",\"data\":1}", 422, "bad_topic", "empty"),
        ("{\"topic\":\"a:*\",\"data\":1}", 422, "bad_topic", "`*`"),
        (
            "{\"topic\":\"a\\nb\",\"data\":1}",
            422,
            "bad_topic",
            "U+000A",
        ),
        (
            "{\"topic\":\"a\\u0000\",\"data\":1}",
            422,
            "bad_topic",
            "U+0000",
        ),
        (
            "{\"topics\":[\"a\",\"\\u007f\"],\"data\":1}",
            422,
            "bad_topic",
            "U+007F",
        ),
        (
            &json!({"topic": long, "data": 1}).to_string(),
            422,
            "bad_topic",
            "1025",
        ),
        (
            &json!({"topics": (0..129).map(|n| n.to_string()).collect::<Vec<_>>(), "data": 1})
                .to_string(),
            422,
            "too_many_topics",
            "128",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"\"}",
            422,
            "bad_event",
            "id",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"x\\u0000y\"}",
            422,
            "bad_event",
            "NUL",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"x\\ny\"}",
            422,
            "bad_event",
            "LF",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"id\":\"~k3f09x2m-7\"}",
            422,
            "bad_event",
            "reserved",
        ),
        (
            &json!({"topic": "a", "data": 1, "id": "x".repeat(257)}).to_string(),
            422,
            "bad_event",
            "257",
        ),
        (
            "{\"topic\":\"a\",\"data\":1,\"event\":\"x\\ry\"}",
            422,
            "bad_event",
            "CR",
        ),
        (
            &json!({"topic": "a", "data": 1, "event": "x".repeat(257)}).to_string(),
            422,
            "bad_event",
            "257",
        ),
        (
            &json!({"topic": "a", "data": "x".repeat(1024 * 1024 + 1)}).to_string(),
            413,
            "event_too_large",
            "1048576",
        ),
    ]
    .map(|(body, status, code, detail)| (body.to_owned(), status, code, detail))
    .into();
    for (body, status, code, detail) in &cases {
        let answer = hub.request("POST", "/events", Some(("application/json", body)));
        let shown = body.chars().take(100).collect::<String>();
        let document = problem(&answer, *status, code);
        assert!(
            document["detail"].as_str().unwrap().contains(detail),
            "{shown}: {document}"
        );
        assert!(
            answer.body.len() < 2_000,
            "an answer repeats no megabyte: {shown}"
        );
        assert_eq!(events_held(&hub), 0, "{shown}");
    }
}

#[test]
fn a_bad_topic_is_named() {
    let hub = Hub::spawn(&[], &[]);
    let documents = [
        json!({"topics": ["good", "bad*"], "data": 1}),
        json!([{"topic": "good", "data": 1}, {"topic": "bad*", "data": 1}]),
    ];
    for document in documents {
        let document = problem(&hub.post_json(&document), 422, "bad_topic");
        assert_eq!(
            (&document["topic"], &document["reason"]),
            (&json!("bad*"), &json!("topic_wildcard"))
        );
    }
}

#[test]
fn a_bad_raw_publish_is_refused_with_its_reason() {
    let hub = Hub::spawn(&[], &[]);
    let long = format!("topic={}", encoded(&"é".repeat(513)));
    let large = vec![b'x'; 1024 * 1024 + 1];
    let cases: [(&str, &[u8], u16, &str, &str); 18] = [
        ("event=a", b"x", 422, "topic_missing", "`?topic=`"),
        ("topics=a", b"x", 422, "bad_parameter", "is `topic` what"),
        (
            "topic=a&Private=true",
            b"x",
            422,
            "bad_parameter",
            "is `private` what",
        ),
        ("topic=", b"x", 422, "bad_topic", "empty"),
        ("topic=*", b"x", 422, "bad_topic", "`*`"),
        ("topic=a%0D", b"x", 422, "bad_topic", "U+000D"),
        (&long, b"x", 422, "bad_topic", "1026"),
        ("topic=a&event=x%0Ay", b"x", 422, "bad_event", "event name"),
        ("topic=a&id=x%00y", b"x", 422, "bad_event", "NUL"),
        ("topic=a&id=", b"x", 422, "bad_event", "empty"),
        ("topic=a&id=%20x", b"x", 422, "bad_event", "space"),
        (
            "topic=a&retry=soon",
            b"x",
            422,
            "bad_parameter",
            "milliseconds",
        ),
        ("topic=a&private=yes", b"x", 422, "bad_parameter", "`true`"),
        ("topic=%FF", b"x", 400, "bad_query", "UTF-8"),
        ("topic=a&event=%C3", b"x", 400, "bad_query", "UTF-8"),
        ("topic=a", b"caf\xe9", 400, "bad_utf8", "byte 3"),
        ("topic=a", b"\xff\xfe", 400, "bad_utf8", "byte 0"),
        ("topic=a", &large, 413, "event_too_large", "1048577"),
    ];
    for (query, body, status, code, detail) in cases {
        let answer = hub.send(
            "POST",
            &format!("/events?{query}"),
            &[("Content-Type", "text/plain")],
            body,
        );
        let document = problem(&answer, status, code);
        assert!(
            document["detail"].as_str().unwrap().contains(detail),
            "{query}: {document}"
        );
        assert_eq!(events_held(&hub), 0, "{query}");
    }
    let json = hub.send(
        "POST",
        "/events",
        &[("Content-Type", "application/json")],
        b"{\"topic\":\"\xff\",\"data\":1}",
    );
    problem(&json, 400, "bad_utf8");
}

#[test]
fn a_batch_larger_than_allowed_is_refused() {
    let hub = Hub::spawn(&[], &[]);
    let event = json!({"topic": "a", "data": 1});
    for (count, status) in [(20_001, 422), (10_001, 422), (10_000, 200)] {
        assert_eq!(events_held(&hub), 0);
        let answer = hub.post_json(&vec![event.clone(); count].into());
        if status == 200 {
            assert_eq!(answer.json()["ids"].as_array().unwrap().len(), count);
        } else {
            let document = problem(&answer, status, "too_many_events");
            let detail = document["detail"].as_str().unwrap();
            assert!(
                detail.contains("10000")
                    && detail.contains(&count.to_string())
                    && detail.contains("x-ndjson"),
                "{detail}"
            );
        }
    }
}

#[test]
fn a_refused_event_reaches_nobody() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=**");
    hub.post_json(&json!({"topics": ["a", ""], "data": "bad"}));
    hub.post_json(&json!([{"topic": "a", "data": "bad"}, {"topic": "a"}]));
    hub.send("POST", "/events?topic=a&retry=x", &[], b"bad");
    hub.publish("a", &json!("good"));
    assert_eq!(stream.event().data, "good");
}

#[test]
fn a_body_larger_than_allowed_is_answered_while_it_is_sent() {
    use std::io::Write;
    let hub = Hub::spawn(&[], &[]);
    let megabyte = vec![b' '; 1024 * 1024];
    for chunked in [false, true] {
        let mut socket = http::connect(hub.port()).unwrap();
        let length = (100 * megabyte.len()).to_string();
        let size = if chunked {
            ("Transfer-Encoding", "chunked")
        } else {
            ("Content-Length", length.as_str())
        };
        let head = http::head(
            hub.port(),
            "POST",
            "/events",
            &[("Content-Type", "application/json"), size],
        );
        socket.write_all(&[&head, &b"\r\n"[..]].concat()).unwrap();
        for _ in 0..100 {
            // A client that looks at the answer when it has sent all must find it.
            if chunked {
                write!(socket, "{:x}\r\n", megabyte.len()).unwrap();
            }
            socket.write_all(&megabyte).unwrap();
            if chunked {
                socket.write_all(b"\r\n").unwrap();
            }
        }
        if chunked {
            socket.write_all(b"0\r\n\r\n").unwrap();
        }
        let answer = http::read_answer(socket).unwrap();
        let document = problem(&answer, 413, "body_too_large");
        assert_eq!(document["max"], 8 * 1024 * 1024);
    }
    assert_eq!(events_held(&hub), 0);
}
