//! The metrics sample: every address, every refusal, and the events that follow.
//!
//! That many clients are served, the oldest closed first and slow ones dropped, is in `tests/scale`.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Hub, Response, Stream};

fn post(hub: &Hub, path: &str, document: &Value) -> Response {
    let body = document.to_string();
    hub.request("POST", path, Some(("application/json", &body)))
}

fn created(answer: &Response) -> Value {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

fn id_of(document: &Value) -> &str {
    document["id"].as_str().unwrap()
}

/// A refusal, in the project's shape and with the sentence where the Go sample has it.
fn refused(answer: &Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{code}: {answer:?}");
    let content_type = answer.header("content-type");
    assert_eq!(content_type, Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    problem
}

fn assert_is_time(value: &Value) {
    let text = value.as_str().unwrap();
    let time: jiff::Timestamp = text
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let age = jiff::Timestamp::now().duration_since(time).as_secs();
    assert!((-1..60).contains(&age), "{text} is not now");
    assert!(text.ends_with('Z'), "{text}");
}

/// Each event's name and data.
fn events(stream: &mut Stream, count: usize) -> Vec<(String, Value)> {
    let event = |event: tidewire_core::decode::Decoded| {
        (event.event, serde_json::from_str(&event.data).unwrap())
    };
    (0..count).map(|_| event(stream.event())).collect()
}

#[test]
fn what_is_created_is_answered_kept_and_followed() {
    let hub = Hub::spawn(&[], &[]);
    let mut watch = hub.stream("/events/watch");
    assert_eq!(watch.header("content-type"), Some("text/event-stream"));

    let new = json!({"name": "temperature", "unit": "°C", "description": "in the shade"});
    let answer = post(&hub, "/metrics", &new);
    let metric = created(&answer);
    assert_eq!(
        answer.header("location"),
        Some(&*format!("/metrics/{}", id_of(&metric)))
    );
    assert_eq!(id_of(&metric).as_bytes()[14], b'7', "a UUIDv7: {metric}");
    for (key, value) in new.as_object().unwrap() {
        assert_eq!(&metric[key], value);
    }
    assert_is_time(&metric["created_at"]);

    let path = format!("/metrics/{}", id_of(&metric));
    let reading = json!({"metric_id": id_of(&metric), "value": 21.5});
    let reading = created(&post(&hub, "/metrics/readings", &reading));
    assert_eq!(
        (&reading["metric_id"], &reading["value"]),
        (&metric["id"], &json!(21.5))
    );
    assert_eq!(id_of(&reading).as_bytes()[14], b'7', "a UUIDv7: {reading}");
    assert_is_time(&reading["recorded_at"]);

    let mut whole = metric.clone();
    whole["readings"] = json!([reading]);
    let answer = hub.get(&path);
    assert_eq!((answer.status, answer.json()), (200, whole));

    let expected = [
        ("metric_created".to_owned(), metric),
        ("metric_reading_created".to_owned(), reading),
    ];
    assert_eq!(events(&mut watch, 2), expected);
}

#[test]
fn a_metric_needs_a_name_only_and_a_reading_may_have_its_own_time() {
    let hub = Hub::spawn(&[], &[]);
    // As curl and many a client send it: without a fitting Content-Type.
    let metric = created(&hub.send("POST", "/metrics", &[], br#"{"name":"visits","unit":null}"#));
    let mut keys: Vec<_> = metric.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["created_at", "id", "name"]);

    // `timestamp` is what the Go sample calls it.
    for key in ["recorded_at", "timestamp"] {
        let reading =
            json!({"metric_id": metric["id"], "value": -3, key: "2026-01-15T06:00:00.25+01:00"});
        let reading = created(&post(&hub, "/metrics/readings", &reading));
        assert_eq!(reading["value"].as_f64(), Some(-3.0));
        for key in ["recorded_at", "timestamp"] {
            assert_eq!(reading[key], "2026-01-15T05:00:00.25Z", "{reading}");
        }
    }
}

#[test]
fn who_comes_back_gets_what_was_missed() {
    let hub = Hub::spawn(&[], &[]);
    let mut watch = hub.stream("/events/watch");
    let name = |n: u32| json!({ "name": format!("m{n}") });
    created(&post(&hub, "/metrics", &name(1)));
    watch.event();
    let seen = watch.last_event_id().to_owned();
    drop(watch);
    hub.publish("other", &json!(0));
    created(&post(&hub, "/metrics", &name(2)));
    created(&post(&hub, "/metrics", &name(3)));

    let query = format!("/events/watch?last_event_id={seen}");
    let header = hub.stream_with("/events/watch", &[("Last-Event-ID", &seen)]);
    for mut watch in [header, hub.stream(&query)] {
        let names = events(&mut watch, 2)
            .into_iter()
            .map(|(event, data)| (event, data["name"].clone()));
        let missed = ["m2", "m3"].map(|name| ("metric_created".to_owned(), json!(name)));
        assert_eq!(names.collect::<Vec<_>>(), missed);
    }
    // The route stands for one topic, whatever the query says.
    let mut watch = hub.stream("/events/watch?topic=other&since=earliest");
    assert_eq!(events(&mut watch, 1)[0].1["name"], "m1");

    let mut watch = hub.stream_with(
        "/events/watch",
        &[("Last-Event-ID", "01a1fe71-of-the-go-sample")],
    );
    assert_eq!(watch.event().event, "gap");
    assert_eq!(events(&mut watch, 3)[2].1["name"], "m3");
}

/// Status, code, reason, address, body. ID is that of a metric, X51 is 51 letters.
const REFUSED: &str = r#"
400 bad_json - /metrics
400 bad_json - /metrics {"name":"m"
400 bad_json - /metrics name=m
400 bad_json - /metrics/readings {"metric_id":"ID","value":NaN}
422 bad_document - /metrics []
422 bad_document - /metrics ["m",null,null]
422 bad_document - /metrics {}
422 bad_document - /metrics {"name":7}
422 bad_document - /metrics {"name":"m","colour":"red"}
422 bad_document empty /metrics {"name":""}
422 bad_document empty /metrics {"name":" \t"}
422 bad_document too_long /metrics {"name":"X201"}
422 bad_document too_long /metrics {"name":"m","unit":"X51"}
422 bad_document too_long /metrics {"name":"m","description":"X1001"}
422 bad_document - /metrics/readings {"value":1}
422 bad_document - /metrics/readings {"metric_id":"ID"}
422 bad_document - /metrics/readings {"metric_id":"ID","value":"1"}
422 bad_document - /metrics/readings {"metric_id":"ID","value":null}
422 bad_document - /metrics/readings {"metric_id":"ID","value":1e999}
422 bad_document - /metrics/readings {"metric_id":"ID","value":1,"at":"now"}
422 bad_document - /metrics/readings {"metric_id":"ID","value":1,"recorded_at":1763726400}
422 bad_document not_rfc3339 /metrics/readings {"metric_id":"ID","value":1,"recorded_at":"now"}
404 no_such_metric - /metrics/readings {"metric_id":"00000000-0000-7000-8000-000000000000","value":1}
404 no_such_metric - /metrics/readings {"metric_id":"m","value":1}
"#;

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let hub = Hub::spawn(&[], &[]);
    let metric = created(&post(&hub, "/metrics", &json!({"name": "m"})));
    let id = id_of(&metric);
    for line in REFUSED.trim().lines() {
        let mut columns = line.splitn(5, ' ');
        let [status, code, reason, path] = [(); 4].map(|()| columns.next().unwrap());
        let mut body = columns.next().unwrap_or_default().replace("ID", id);
        for bytes in [1001, 201, 51] {
            body = body.replace(&format!("X{bytes}"), &"x".repeat(bytes));
        }
        let answer = hub.request("POST", path, Some(("application/json", &body)));
        let problem = refused(&answer, status.parse().unwrap(), code);
        assert_eq!(problem["error"], problem["detail"], "{problem}");
        assert_eq!(problem["reason"].as_str().unwrap_or("-"), reason, "{line}");
    }
    refused(
        &hub.send("POST", "/metrics", &[], b"{\"name\":\"\xff\"}"),
        400,
        "bad_utf8",
    );
    for id in ["00000000-0000-7000-8000-000000000000", "m"] {
        refused(&hub.get(&format!("/metrics/{id}")), 404, "no_such_metric");
    }
    refused(&hub.get("/metrics/%ff"), 400, "bad_query");

    let kept = hub.get(&format!("/metrics/{id}")).json();
    assert_eq!(kept["readings"], json!([]));
    assert_eq!(hub.stats()["events"], 1);
}

#[test]
fn texts_of_the_longest_length_are_taken() {
    let hub = Hub::spawn(&[], &[]);
    let text = |bytes| "x".repeat(bytes);
    let new = json!({"name": text(200), "unit": text(50), "description": text(1_000)});
    created(&post(&hub, "/metrics", &new));
}

#[test]
fn a_wrong_method_is_told_the_right_ones_and_prometheus_keeps_its_address() {
    let hub = Hub::spawn(&[], &[]);
    for (method, path, allowed) in [
        ("PUT", "/metrics", "GET,HEAD,POST"),
        ("GET", "/metrics/readings", "POST"),
        ("DELETE", "/metrics/1", "GET,HEAD"),
        ("POST", "/events/watch", "GET,HEAD"),
    ] {
        let answer = hub.request(method, path, None);
        refused(&answer, 405, "wrong_method");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
    let prometheus = hub.get("/metrics");
    assert_eq!(prometheus.status, 200);
    assert!(
        prometheus.body.contains("tidewire_connections"),
        "{prometheus:?}"
    );
}

#[test]
fn a_large_body_is_refused() {
    let env = [
        ("TIDEWIRE_LIMITS__BODY_BYTES_MAX", "2KiB"),
        ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "1KiB"),
    ];
    let hub = Hub::spawn(&[], &env);
    let padded = |bytes| format!("{:bytes$}", r#"{"name":"m"}"#);
    for path in ["/metrics", "/metrics/readings"] {
        let answer = hub.send("POST", path, &[], padded(2_049).as_bytes());
        refused(&answer, 413, "body_too_large");
    }
    created(&hub.send("POST", "/metrics", &[], padded(2_048).as_bytes()));
    // An event that the hub does not take: nothing is created.
    let document = json!({"name": "m", "description": "x".repeat(1_000)});
    refused(&post(&hub, "/metrics", &document), 413, "event_too_large");
    assert_eq!(hub.stats()["events"], 1);
}

#[test]
fn what_the_hub_did_not_store_is_not_answered_as_created() {
    let hub = Hub::spawn(&[], &[]);
    let metric = created(&post(&hub, "/metrics", &json!({"name": "m"})));
    assert_eq!(
        hub.request("POST", "/topics/metrics/close", None).status,
        200
    );
    let reading = json!({"metric_id": metric["id"], "value": 1});
    refused(
        &post(&hub, "/metrics/readings", &reading),
        409,
        "topic_closed",
    );
    refused(
        &post(&hub, "/metrics", &json!({"name": "n"})),
        409,
        "topic_closed",
    );
    let kept = hub.get(&format!("/metrics/{}", id_of(&metric))).json();
    assert_eq!(kept["readings"], json!([]));
}

#[test]
fn rights_on_the_topic_are_rights_here() {
    let rights = |subscribe, publish| {
        let env = [
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", subscribe),
            ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", publish),
        ];
        Hub::spawn(&[], &env)
    };
    let reader = rights("metrics", "other");
    // Refused before the body is read: it is not even JSON.
    for path in ["/metrics", "/metrics/readings"] {
        refused(&reader.send("POST", path, &[], b"x"), 403, "not_allowed");
    }
    refused(&reader.get("/metrics/1"), 404, "no_such_metric");
    reader.stream("/events/watch");

    let writer = rights("other", "metrics");
    let metric = created(&post(&writer, "/metrics", &json!({"name": "m"})));
    refused(
        &writer.get(&format!("/metrics/{}", id_of(&metric))),
        403,
        "not_allowed",
    );
    refused(&writer.get("/events/watch"), 403, "not_allowed");
}

/// The rules in what `tidewire config` prints.
fn history_rules(env: &[(&str, &str)], file: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(&path, file).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["config", "--config"])
        .arg(path)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let table: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    serde_json::to_value(&table["history"]["rules"]).unwrap()
}

#[test]
fn history_is_a_minute_unless_the_configuration_says_otherwise() {
    let of = |pattern: &str, ttl: &str| json!({"pattern": pattern, "ttl": ttl});
    let minute = of("metrics", "1m");
    let rule =
        |pattern: &str| format!("[[history.rules]]\npattern = \"{pattern}\"\nttl = \"5m\"\n");
    assert_eq!(history_rules(&[], ""), json!([minute]));
    assert_eq!(
        history_rules(&[("TIDEWIRE_HISTORY__TTL", "20s")], ""),
        json!([of("metrics", "20s")])
    );
    assert_eq!(
        history_rules(&[], &rule("other")),
        json!([of("other", "5m"), minute])
    );
    for pattern in ["metrics", "m*"] {
        assert_eq!(
            history_rules(&[], &rule(pattern)),
            json!([of(pattern, "5m")])
        );
    }
    assert_eq!(
        history_rules(&[("TIDEWIRE_SERVICES__METRICS", "false")], ""),
        json!([])
    );
}

#[test]
fn a_rule_of_the_configuration_counts_on_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    std::fs::write(
        &file,
        "[[history.rules]]\npattern = \"metrics\"\nevents_max = 1\n",
    )
    .unwrap();
    let hub = Hub::spawn(&["--config", file.to_str().unwrap()], &[]);
    for name in ["m1", "m2"] {
        created(&post(&hub, "/metrics", &json!({"name": name})));
    }
    let page = hub.get("/topics/metrics/events").json();
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "{page}");
    let mut watch = hub.stream("/events/watch?since=earliest");
    let kept = std::iter::from_fn(|| Some(watch.event()))
        .find(|event| event.event != "gap")
        .unwrap();
    assert!(kept.data.contains("m2"), "{}", kept.data);
}

#[test]
fn switched_off_it_is_not_there() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_SERVICES__METRICS", "false")]);
    for (method, path) in [
        ("POST", "/metrics/readings"),
        ("GET", "/metrics/1"),
        ("GET", "/events/watch"),
    ] {
        refused(&hub.request(method, path, None), 404, "not_found");
    }
    // Prometheus' address is still there, and takes no POST.
    refused(
        &post(&hub, "/metrics", &json!({"name": "m"})),
        405,
        "wrong_method",
    );
    assert_eq!(hub.get("/metrics").status, 200);
}
