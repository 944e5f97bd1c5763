//! `tidewire publish` against a hub that breaks connections, is in trouble and refuses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod scripted;

use scripted::{Hub, Tidewire};
use serde_json::json;

#[test]
fn data_is_sent_verbatim_with_what_was_asked_for() {
    let hub = Hub::start();
    let url = hub.url();
    let args = [
        "publish",
        "orders",
        "{\"a\": 1}",
        "--event",
        "made",
        "--id",
        "x",
        "--retry",
        "2s",
        "--url",
        &url,
    ];
    let publish = Tidewire::run(&args);
    let request = hub.request();
    assert_eq!(request.line(), "POST /events");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.header("idempotency-key").is_some());
    let expected =
        json!({"topic": "orders", "event": "made", "data": "{\"a\": 1}", "id": "x", "retry": 2000});
    assert_eq!(request.json(), expected);
    request.answer_json(&json!({"id": "x"}));
    let (code, out, notices) = publish.end();
    assert_eq!(
        (code, out.as_str(), notices.as_str()),
        (0, "", "published 1 event to orders (id x)")
    );
}

#[test]
fn a_redirect_is_not_followed_and_a_token_is_sent() {
    let hub = Hub::start();
    let publish = Tidewire::run(&["publish", "a", "x", "--token", "t", "--url", &hub.url()]);
    let request = hub.request();
    assert_eq!(request.header("authorization"), Some("Bearer t"));
    request.answer("302 Found", "location: /elsewhere\r\n", "");
    let (code, _, notices) = publish.end();
    assert_eq!((code, notices.as_str()), (1, "error: 302 Found"));
}

#[test]
fn a_line_goes_out_while_the_next_is_not_there_yet() {
    let hub = Hub::start();
    let mut publish = Tidewire::run(&["publish", "logs", "-", "--url", &hub.url()]);
    publish.write("one\r\n\n");
    let request = hub.request();
    assert_eq!(request.json(), json!([{"topic": "logs", "data": "one"}]));
    request.answer_json(&json!({"ids": ["1"]}));
    publish.write("two");
    publish.close_stdin();
    let request = hub.request();
    assert_eq!(request.json(), json!([{"topic": "logs", "data": "two"}]));
    request.answer_json(&json!({"ids": ["2"]}));
    let (code, _, notices) = publish.end();
    assert_eq!(
        (code, notices.as_str()),
        (0, "published 2 events to logs (first id 1, last id 2)")
    );
}

#[test]
fn fast_lines_go_out_in_order_and_many_at_a_time() {
    let hub = Hub::start();
    let mut publish = Tidewire::run(&["publish", "logs", "--url", &hub.url()]);
    let writer = std::thread::spawn(move || {
        let lines: Vec<String> = (0..2_500).map(|i| format!("{i}\n")).collect();
        publish.write(&lines.concat());
        publish.close_stdin();
        publish
    });
    let (mut received, mut requests, mut keys) = (Vec::new(), 0, std::collections::HashSet::new());
    while received.len() < 2_500 {
        let request = hub.request();
        keys.insert(request.header("idempotency-key").unwrap().to_owned());
        let documents = request.json();
        let documents = documents.as_array().unwrap();
        assert!(documents.len() <= 1_000);
        let ids: Vec<String> = documents
            .iter()
            .map(|document| document["data"].as_str().unwrap().to_owned())
            .collect();
        received.extend(ids.clone());
        requests += 1;
        request.answer_json(&json!({ "ids": ids }));
    }
    let expected: Vec<String> = (0..2_500).map(|i| i.to_string()).collect();
    assert_eq!(received, expected);
    assert!(requests < 100, "{requests}");
    assert_eq!(keys.len(), requests);
    let (code, _, notices) = writer.join().unwrap().end();
    assert_eq!(
        (code, notices.as_str()),
        (
            0,
            "published 2500 events to logs (first id 0, last id 2499)"
        )
    );
}

#[test]
fn a_request_whose_answer_is_lost_is_repeated_with_its_key() {
    let hub = Hub::start();
    let mut publish = Tidewire::run(&["publish", "logs", "--url", &hub.url()]);
    publish.write("one\n");
    let first = hub.request();
    let (key, body) = (
        first.header("idempotency-key").unwrap().to_owned(),
        first.body.clone(),
    );
    drop(first);
    let repeated = |request: &scripted::Request| {
        assert_eq!(request.header("idempotency-key"), Some(key.as_str()));
        assert_eq!(request.body, body);
    };
    // The first attempt may not be over, the hub may be in trouble: neither is the end.
    let second = hub.request();
    repeated(&second);
    second.problem("409 Conflict", "key_in_flight", "repeat it a little later");
    let third = hub.request();
    repeated(&third);
    third.problem("503 Service Unavailable", "not_stored", "the disk is full");
    let fourth = hub.request();
    repeated(&fourth);
    fourth.answer_json(&json!({"ids": ["1"]}));
    publish.close_stdin();
    let (code, _, notices) = publish.end();
    assert_eq!(code, 0, "{notices}");
    let notices: Vec<&str> = notices.lines().collect();
    assert_eq!(notices.len(), 5, "{notices:?}");
    assert!(
        notices[2].starts_with(
            "not published yet (503 No (not_stored): the disk is full), trying again in"
        )
    );
    assert!(notices[3].starts_with("the hub answers again after"));
    assert_eq!(notices[4], "published 1 event to logs (id 1)");
}

#[test]
fn a_refusal_tells_the_lines_and_what_went_out_before() {
    let hub = Hub::start();
    let mut publish = Tidewire::run(&["publish", "logs", "--url", &hub.url()]);
    publish.write("one\n");
    hub.request().answer_json(&json!({"ids": ["1"]}));
    publish.write("\ntwo\n");
    hub.request()
        .problem("409 Conflict", "topic_closed", "the topic logs has ended");
    let (code, _, notices) = publish.end();
    let expected = "error: line 3: 409 No (topic_closed): the topic logs has ended\npublished 1 event to logs (id 1)";
    assert_eq!((code, notices.as_str()), (1, expected));
}

#[test]
fn a_hub_that_stays_away_is_given_up() {
    let address = Hub::start().address();
    let (code, _, notices) = Tidewire::run(&[
        "publish",
        "logs",
        "x",
        "--give-up-after",
        "400ms",
        "--url",
        &address,
    ])
    .end();
    assert_eq!(code, 1);
    let notices: Vec<&str> = notices.lines().collect();
    assert!(
        notices[0].starts_with("not published yet (http://"),
        "{notices:?}"
    );
    assert!(
        notices.last().unwrap().starts_with("error: gave up after"),
        "{notices:?}"
    );
}

#[test]
fn an_id_is_for_one_event() {
    let (code, _, notices) = Tidewire::run(&["publish", "logs", "--id", "x"]).end();
    assert_eq!(
        (code, notices.as_str()),
        (
            2,
            "error: --id is one event's, and can't be used with standard input"
        )
    );
}
