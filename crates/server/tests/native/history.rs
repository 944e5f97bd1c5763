//! `GET /topics/{topic}/events`: history as JSON.

use serde_json::{Value, json};

use crate::problem;
use crate::support::Hub;

#[test]
fn an_event_in_history_shows_all_of_itself() {
    let hub = Hub::spawn(&[], &[]);
    hub.post_json(
        &json!({"topics": ["a/b", "c"], "event": "made", "data": "x\ny", "id": "own", "retry": 5}),
    );
    let page = hub.get("/topics/a%2Fb/events").json();
    let published_at = page["events"][0]["published_at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        published_at.starts_with("20") && published_at.ends_with('Z'),
        "{published_at}"
    );
    let event = json!({"id": "own", "topics": ["a/b", "c"], "event": "made", "data": "x\ny", "published_at": published_at});
    assert_eq!(
        page,
        json!({"topic": "a/b", "events": [event], "gap": false, "next": null})
    );
    let empty = hub.get("/topics/nothing/events").json();
    assert_eq!(
        empty,
        json!({"topic": "nothing", "events": [], "gap": false, "next": null})
    );
}

#[test]
fn pages_follow_each_other_without_loss_or_repetition() {
    let hub = Hub::spawn(&[], &[]);
    let ids: Vec<String> = (0..7)
        .map(|n| {
            hub.publish("other", &json!(n));
            hub.publish("a", &json!(n))
        })
        .collect();
    let mut got = Vec::new();
    let mut since = "earliest".to_owned();
    let mut pages = 0;
    loop {
        let page = hub
            .get(&format!("/topics/a/events?limit=3&since={since}"))
            .json();
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 3 && page["gap"] == false, "{page}");
        got.extend(
            events
                .iter()
                .map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        match &page["next"] {
            Value::String(next) => since.clone_from(next),
            next => {
                assert!(next.is_null(), "{page}");
                break;
            }
        }
    }
    assert_eq!((got, pages), (ids.clone(), 3));
    let cases = [
        (String::new(), 7),
        ("since=5m".to_owned(), 7),
        (format!("since={}", ids[4]), 2),
        (format!("since={}", ids[6]), 0),
    ];
    for (query, count) in cases {
        let page = hub.get(&format!("/topics/a/events?{query}")).json();
        assert_eq!(
            page["events"].as_array().unwrap().len(),
            count,
            "{query}: {page}"
        );
        assert_eq!(
            (&page["gap"], &page["next"]),
            (&json!(false), &Value::Null),
            "{query}"
        );
    }
    let unknown = hub.get("/topics/a/events?since=nope").json();
    assert_eq!(
        (unknown["events"].as_array().unwrap().len(), &unknown["gap"]),
        (7, &json!(true))
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    let hub = Hub::spawn(&[], &[]);
    let cases = [
        ("/topics/a/events?limit=0", 422, "bad_parameter"),
        ("/topics/a/events?limit=1001", 422, "bad_parameter"),
        ("/topics/a/events?limit=x", 422, "bad_parameter"),
        ("/topics/a/events?limt=1", 422, "bad_parameter"),
        ("/topics/a*/events", 422, "bad_topic"),
        ("/topics/%C3/events", 400, "bad_query"),
        ("/topics/a/events?since=%C3", 400, "bad_query"),
    ];
    for (path, status, code) in cases {
        problem(&hub.get(path), status, code);
    }
}

#[test]
fn rules_shorten_the_history_of_their_topics() {
    let config = "[[history.rules]]\npattern = \"last:*\"\nevents_max = 2\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidewire.toml");
    std::fs::write(&path, config).unwrap();
    let hub = Hub::spawn(&["--config", path.to_str().unwrap()], &[]);
    for topic in ["last:a", "all:a"] {
        for n in 0..4 {
            hub.publish(topic, &json!(n));
        }
    }
    assert_eq!(crate::history(&hub, "last:a"), ["2", "3"]);
    assert_eq!(crate::history(&hub, "all:a"), ["0", "1", "2", "3"]);
    let mut stream = hub.stream("/events?topic=last:a&since=earliest");
    assert_eq!(stream.data(2), ["2", "3"]);
}
