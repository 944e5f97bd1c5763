//! Figures, listings, closing connections, health, and what every address answers.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::problem;
use crate::support::{Hub, Stream, WAIT_MAX};

fn wait_for_connections(hub: &Hub, count: u64) -> Value {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let stats = hub.get("/api/v1/stats").json();
        if stats["connections"] == count {
            return stats;
        }
        assert!(
            Instant::now() < deadline,
            "not {count} connections: {stats}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn figures_count_what_happened() {
    let hub = Hub::spawn(&[], &[]);
    let mut streams = [hub.stream("/events?topic=a"), hub.stream("/events?topic=a")];
    hub.stream_with("/events?topic=a", &[("Last-Event-ID", "nope")]);
    for n in 0..3 {
        hub.publish("a", &json!(n));
    }
    for stream in &mut streams {
        stream.data(3);
    }
    wait_for_connections(&hub, 2);
    // What is sent and closed is counted after it is seen.
    let stats = hub.wait_for_stats("all is counted", |stats| {
        stats["delivered"].as_u64() >= Some(6) && stats["closes"]["client_gone"] == 1
    });
    let expected = [
        ("topics", json!(1)),
        ("filters", json!(1)),
        ("events", json!(3)),
        ("published", json!(3)),
        ("gaps", json!(1)),
        ("drops", json!(1)),
        ("broker", json!("memory")),
        ("ready", json!(true)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
    ];
    for (member, value) in expected {
        assert_eq!(stats[member], value, "{member}: {stats}");
    }
    assert!(stats["memory_bytes"].as_u64() > Some(0), "{stats}");
    drop(streams);
    wait_for_connections(&hub, 0);
}

#[test]
fn topics_are_listed_in_pages() {
    let hub = Hub::spawn(&[], &[]);
    for n in 0..5 {
        hub.publish(&format!("t{n}"), &json!(n));
    }
    let last = hub.publish("t3", &json!(1));
    let _stream = hub.stream("/events?topic=t3&topic=quiet");
    hub.request("POST", "/topics/t4/close", None);
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = hub.get(&format!("/api/v1/topics?limit=4{cursor}")).json();
        rows.extend(page["topics"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let mut names: Vec<_> = rows
        .iter()
        .map(|row| row["topic"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["quiet", "t0", "t1", "t2", "t3", "t4"]);
    let row = |name: &str| rows.iter().find(|row| row["topic"] == name).unwrap();
    assert_eq!(
        row("t3"),
        &json!({"topic": "t3", "events": 2, "subscribers": 1, "closed": false, "last_id": last})
    );
    assert_eq!(
        (&row("t4")["closed"], &row("quiet")["last_id"]),
        (&json!(true), &Value::Null)
    );
}

#[test]
fn connections_are_listed_in_pages_and_closed_by_id() {
    let hub = Hub::spawn(&[], &[]);
    let mut streams: Vec<_> = (0..5)
        .map(|n| hub.stream(&format!("/events?topic=t{n}&topic=p:*")))
        .collect();
    let ids: Vec<_> = streams.iter().map(Stream::connection).collect();
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = hub
            .get(&format!("/api/v1/connections?limit=2{cursor}"))
            .json();
        rows.extend(page["connections"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(
        rows.iter()
            .map(|row| row["id"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ids,
        "oldest first"
    );
    assert_eq!(
        (&rows[1]["topics"], &rows[1]["patterns"]),
        (&json!(["t1"]), &json!(["p:*"]))
    );
    assert!(
        rows[1]["remote"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:"),
        "{}",
        rows[1]
    );
    assert!(
        rows[1]["connected_at"].as_str().unwrap().ends_with('Z'),
        "{}",
        rows[1]
    );

    let closed = hub.request("DELETE", &format!("/api/v1/connections/{}", ids[1]), None);
    assert_eq!((closed.status, closed.body.as_str()), (204, ""));
    let events = streams[1].rest();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].event.as_str(), events[0].data.as_str()),
        ("closed", "{}")
    );
    let headers = [("Last-Event-ID", events[0].id.as_str())];
    assert_eq!(
        hub.send("GET", "/events?topic=t1&topic=p:*", &headers, b"")
            .status,
        204
    );
    let figures = wait_for_connections(&hub, 4);
    assert_eq!(figures["closes"]["closed"], 1);
    for id in [ids[1].as_str(), "x", "%FF"] {
        let again = hub.request("DELETE", &format!("/api/v1/connections/{id}"), None);
        let (status, code) = if id == "%FF" {
            (400, "bad_query")
        } else {
            (404, "no_such_connection")
        };
        problem(&again, status, code);
    }
    hub.publish("p:1", &json!("others stay"));
    assert_eq!(streams[0].event().data, "others stay");
}

#[test]
fn pages_that_are_not_understood_are_refused() {
    let hub = Hub::spawn(&[], &[]);
    for path in [
        "topics?limit=0",
        "topics?cursor=x",
        "connections?limit=1001",
        "connections?cursor=x",
        "topics?limit=",
    ] {
        problem(&hub.get(&format!("/api/v1/{path}")), 422, "bad_parameter");
    }
}

#[test]
fn health_readiness_and_metrics_are_for_machines() {
    let hub = Hub::spawn(&[], &[]);
    let mut stream = hub.stream("/events?topic=a");
    hub.publish("a", &json!(1));
    stream.event();
    hub.wait_for_stats("it is counted", |stats| stats["delivered"] == 1);
    assert_eq!(hub.get("/healthz").json(), json!({"status": "ok"}));
    assert_eq!(
        hub.get("/readyz").json(),
        json!({"status": "ready", "broker": "memory"})
    );
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let metrics = hub.send("GET", "/metrics", &[("Accept", accept)], b"");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let body = metrics.body.strip_suffix("# EOF\n");
    let samples = samples(body.expect("OpenMetrics ends in # EOF"));
    let value = |name: &str| {
        samples
            .iter()
            .find(|(sample, _)| sample == name)
            .map(|(_, value)| *value)
    };
    assert_eq!(value("tidewire_connections"), Some(1.0), "{}", metrics.body);
    assert_eq!(
        value("tidewire_published_total"),
        Some(1.0),
        "{}",
        metrics.body
    );
    assert_eq!(
        value("tidewire_delivered_total"),
        Some(1.0),
        "{}",
        metrics.body
    );
    assert_eq!(
        value("tidewire_closes_total{reason=\"evicted\"}"),
        Some(0.0),
        "{}",
        metrics.body
    );
    assert!(
        !metrics.body.contains("topic=\""),
        "no label has a topic's name"
    );
}

/// The older form describes each family by the very name of its samples.
#[test]
fn who_does_not_ask_for_openmetrics_gets_what_everything_reads() {
    let hub = Hub::spawn(&[], &[]);
    for headers in [&[][..], &[("Accept", "*/*")], &[("Accept", "text/plain")]] {
        let metrics = hub.send("GET", "/metrics", headers, b"");
        assert_eq!(
            metrics.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let described: Vec<_> = metrics
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        let found = samples(&metrics.body);
        assert!(found.len() > 10, "{}", metrics.body);
        for (sample, _) in found {
            let name = sample.split('{').next().unwrap();
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            assert!(
                described.contains(&(name, kind)),
                "{name}: {}",
                metrics.body
            );
            let help = format!("# HELP {name} ");
            assert!(metrics.body.contains(&help), "{name}: {}", metrics.body);
        }
    }
}

/// Reads an exposition strictly: every line is a comment of a known kind or a sample of a family that was described.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut family = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(
                ["HELP", "TYPE", "UNIT"].contains(&kind) && words.next().is_some(),
                "{line}"
            );
            name.clone_into(&mut family);
            continue;
        }
        let (sample, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no sample: {line}"));
        assert!(
            sample.starts_with(&family) && family.starts_with("tidewire_"),
            "{line} is not of {family}"
        );
        found.push((
            sample.to_owned(),
            value
                .parse()
                .unwrap_or_else(|_| panic!("no number: {line}")),
        ));
    }
    found
}

#[test]
fn every_address_answers_wrong_methods_and_preflights() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        ("/", "DELETE", "GET"),
        ("/events", "PUT", "POST"),
        ("/events", "DELETE", "GET"),
        ("/topics/a/close", "GET", "POST"),
        ("/topics/a/events", "POST", "GET"),
        ("/api/v1/stats", "POST", "GET"),
        ("/api/v1/topics", "PATCH", "GET"),
        ("/api/v1/connections", "DELETE", "GET"),
        ("/api/v1/connections/x", "GET", "DELETE"),
        ("/healthz", "POST", "GET"),
        ("/readyz", "POST", "GET"),
        ("/metrics", "BREW", "GET"),
    ];
    for (path, method, allowed) in cases {
        let answer = hub.request(method, path, None);
        problem(&answer, 405, "wrong_method");
        let allow = answer
            .header("allow")
            .unwrap_or_else(|| panic!("no Allow: {answer:?}"));
        assert!(
            allow.split(',').any(|method| method == allowed),
            "{path}: {allow}"
        );
        let headers = [
            ("Origin", "https://example.com"),
            ("Access-Control-Request-Method", allowed),
        ];
        let preflight = hub.send("OPTIONS", path, &headers, b"");
        assert_eq!(preflight.status, 200, "{path}: {preflight:?}");
        assert_eq!(
            preflight.header("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        let methods = preflight.header("access-control-allow-methods").unwrap();
        assert!(methods.contains(allowed), "{path}: {methods}");
    }
    for path in [
        "/nothing",
        "/events/",
        "/api/v1",
        "/topics/a",
        "/api/v1/connections/a/b",
    ] {
        let document = problem(&hub.get(path), 404, "not_found");
        assert!(
            document["detail"].as_str().unwrap().contains(path),
            "{document}"
        );
        assert_eq!(hub.request("OPTIONS", path, None).status, 200, "{path}");
    }
    for path in ["/", "/docs"] {
        let page = hub.get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8"))
        );
        let policy = page.header("content-security-policy").unwrap();
        assert!(
            policy.contains("script-src 'sha256-") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
    }
    // What somebody published is never to be taken for a page.
    hub.publish("a", &serde_json::json!("<script>alert(1)</script>"));
    for path in ["/", "/topics/a/events", "/nothing/%3Cscript%3E", "/metrics"] {
        let answer = hub.get(path);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
    }
    let stream = hub.stream("/events");
    assert_eq!(stream.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn the_document_of_all_addresses_has_those_of_the_doors_that_are_open() {
    let paths_of = |hub: &Hub| {
        let answer = hub.get("/openapi.json");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json"))
        );
        let document = answer.json();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        document["paths"].clone()
    };
    let open = paths_of(&Hub::spawn(&[], &[]));
    assert_eq!(open["/events"]["post"]["tags"][0], "Hub");
    assert!(open["/metrics/{id}"]["get"].is_object());
    let shut = paths_of(&Hub::spawn(&[], &[("TIDEWIRE_SERVICES__METRICS", "false")]));
    assert!(shut["/metrics"]["get"].is_object());
    assert!(
        shut["/metrics"]["post"].is_null() && shut["/metrics/{id}"].is_null(),
        "{shut}"
    );
}
