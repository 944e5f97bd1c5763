//! The routes.

use serde_json::{Value, json};

use crate::support::{Hub, Stream};
use crate::{AT, hub, notify, titles, until};

fn data(stream: &mut Stream) -> Value {
    serde_json::from_str(&stream.event().data).unwrap()
}

fn connected(hub: &Hub, user: &str, last: Option<&str>) -> Stream {
    let headers: Vec<_> = last.map(|id| ("Last-Event-ID", id)).into_iter().collect();
    let mut stream = hub.stream_with(&format!("{AT}/subscribe?user={user}"), &headers);
    let first = stream.event();
    assert_eq!(
        (first.event.as_str(), first.data),
        ("connected", json!({"user": user}).to_string())
    );
    stream
}

#[test]
fn a_notification_reaches_every_tab_of_its_user_and_nobody_else() {
    let hub = hub();
    let mut tabs = [connected(&hub, "ann", None), connected(&hub, "ann", None)];
    let mut other = connected(&hub, "bob", None);
    let created = notify(&hub, "ann", "one");
    for tab in &mut tabs {
        let event = tab.event();
        assert_eq!(event.event, "message", "so that `onmessage` gets it");
        assert_eq!(
            event.id,
            created["id"].as_str().unwrap(),
            "its own id is the event's"
        );
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), created);
    }
    notify(&hub, "bob", "two");
    assert_eq!(data(&mut other)["title"], "two");
    // Nor by another door.
    let mut everything = hub.stream("/events?topic=**&since=earliest");
    notify(&hub, "ann", "three");
    hub.publish("public", &json!(1));
    assert_eq!(everything.event().data, "1");
}

#[test]
fn what_was_stored_is_listed_counted_read_and_deleted() {
    let hub = hub();
    let ids: Vec<_> = (0..5)
        .map(|n| {
            notify(&hub, "ann", &n.to_string())["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut tab = connected(&hub, "ann", None);
    assert_eq!(titles(&hub, "ann"), ["4", "3", "2", "1", "0"]);
    assert_eq!(titles(&hub, "bob"), [""; 0]);
    let unread =
        |user: &str| hub.get(&format!("{AT}/unread-count?user={user}")).json()["unread"].clone();
    assert_eq!((unread("ann"), unread("bob")), (json!(5), json!(0)));

    let post = |path: &str| hub.send("POST", &format!("{AT}/{path}"), &[], b"");
    let read = post(&format!("{}/read?user=ann", ids[3]));
    assert_eq!(
        (read.status, &read.json()["read"]),
        (200, &json!(true)),
        "{read:?}"
    );
    let told = tab.event();
    assert_eq!(
        (told.event.as_str(), told.data),
        ("notification.read", json!({"id": ids[3]}).to_string())
    );
    assert_eq!(unread("ann"), json!(4));
    let page = hub.get(&format!("{AT}?user=ann&unread=true")).json();
    assert_eq!(page["notifications"].as_array().unwrap().len(), 4);

    // Others learn nothing, and change nothing.
    for (method, path) in [
        ("POST", format!("{}/read", ids[0])),
        ("DELETE", ids[0].clone()),
    ] {
        let refused = hub.send(method, &format!("{AT}/{path}?user=bob"), &[], b"");
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (404, Some("no_such_notification"))
        );
    }
    assert_eq!(post("read-all?user=bob").json(), json!({"updated": 0}));
    let of_ann = hub.get(&format!("{AT}?user=bob&cursor={}", ids[4])).json();
    assert_eq!(of_ann["notifications"], json!([]));

    let deleted = hub.send("DELETE", &format!("{AT}/{}?user=ann", ids[0]), &[], b"");
    assert_eq!(deleted.status, 204);
    let told = tab.event();
    assert_eq!(
        (told.event.as_str(), told.data),
        ("notification.deleted", json!({"id": ids[0]}).to_string())
    );
    assert_eq!(post("read-all?user=ann").json(), json!({"updated": 3}));
    assert_eq!(tab.event().data, json!({"all": true}).to_string());
    assert_eq!((unread("ann"), titles(&hub, "ann").len()), (json!(0), 4));
}

#[test]
fn who_was_away_gets_what_came_meanwhile_once() {
    let mut hub = hub();
    let ids: Vec<_> = (0..4)
        .map(|n| {
            notify(&hub, "ann", &n.to_string())["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let resume = |hub: &Hub, from: usize| {
        let mut stream = connected(hub, "ann", Some(&ids[from]));
        let titles: Vec<_> = (from + 1..4)
            .map(|_| data(&mut stream)["title"].clone())
            .collect();
        let expected: Vec<_> = (from + 1..4).map(|n| json!(n.to_string())).collect();
        assert_eq!(titles, expected);
        stream
    };
    resume(&hub, 1);
    // The hub has forgotten its log, and the database has not.
    hub.restart();
    let mut stream = resume(&hub, 1);
    let mut from_the_start = resume(&hub, 0);
    notify(&hub, "ann", "new");
    for stream in [&mut stream, &mut from_the_start] {
        let event = stream.event();
        assert_eq!(
            serde_json::from_str::<Value>(&event.data).unwrap()["title"],
            "new"
        );
    }
    // From what the database gave it goes on in the log.
    let mut again = connected(&hub, "ann", Some(&ids[2]));
    assert_eq!(
        (
            data(&mut again)["title"].clone(),
            data(&mut again)["title"].clone()
        ),
        (json!("3"), json!("new"))
    );
    notify(&hub, "ann", "newer");
    assert_eq!(data(&mut again)["title"], "newer");
}

#[test]
fn what_is_not_understood_is_refused_and_nothing_stored() {
    let hub = hub();
    let post = |document: &str| {
        let answer = hub.request("POST", AT, Some(("application/json", document)));
        (
            answer.status,
            answer.json()["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    assert_eq!(post("{"), (400, "bad_json".into()));
    for bad in [
        json!({}),
        json!({"recipient_id": "ann", "type": "t"}),
        json!({"recipient_id": "ann", "type": "t", "title": " "}),
        json!({"recipient_id": "a*", "type": "t", "title": "t"}),
        json!({"recipient_id": "ann", "type": "t", "title": "t", "colour": "red"}),
        json!({"recipient_id": "ann", "type": "t", "title": 7}),
        json!({"recipient_id": "ann", "type": "t", "title": "x".repeat(2_000)}),
    ] {
        assert_eq!(
            post(&bad.to_string()),
            (422, "bad_document".into()),
            "{bad}"
        );
    }
    let get = |path: &str| {
        let answer = hub.get(&format!("{AT}{path}"));
        (
            answer.status,
            answer.json()["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    for path in ["", "/unread-count", "/subscribe"] {
        assert_eq!(get(path), (401, "missing_credential".into()), "{path}");
    }
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=x",
        "unread=maybe",
    ] {
        assert_eq!(
            get(&format!("?user=ann&{query}")),
            (422, "bad_parameter".into()),
            "{query}"
        );
    }
    assert_eq!(hub.get(&format!("{AT}/read-all")).status, 405);
    assert_eq!(titles(&hub, "ann"), [""; 0]);
}

#[test]
fn a_repeated_request_makes_one_notification() {
    let hub = hub();
    let post = |title: &str| {
        let document = json!({"recipient_id": "ann", "type": "t", "title": title}).to_string();
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", "k"),
        ];
        hub.send("POST", AT, &headers, document.as_bytes())
    };
    let (first, again) = (post("a"), post("a"));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    let other = post("b");
    assert_eq!(
        (other.status, other.json()["code"].as_str()),
        (422, Some("key_reused"))
    );
    assert_eq!(titles(&hub, "ann"), ["a"]);
}

#[test]
fn with_authentication_nobody_is_taken_at_their_word() {
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
            ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "notification:ann"),
        ],
    );
    for path in ["?user=ann", "/subscribe?user=ann", "/unread-count?user=ann"] {
        let answer = hub.get(&format!("{AT}{path}"));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (401, Some("missing_credential")),
            "{path}"
        );
    }
    notify(&hub, "ann", "allowed");
    let document = json!({"recipient_id": "bob", "type": "t", "title": "t"}).to_string();
    let refused = hub.request("POST", AT, Some(("application/json", &document)));
    assert_eq!(refused.status, 403);
    let peeking = hub.get("/events?topic=notification:ann");
    assert_eq!(
        peeking.status, 403,
        "a pattern does not reach what is reserved"
    );
}

#[test]
fn a_database_that_is_away_loses_nothing() {
    let mut postgres = crate::postgres::Postgres::start();
    let url = postgres.url();
    let hub = Hub::spawn(&[], &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)]);
    let mut tab = connected(&hub, "ann", None);
    notify(&hub, "ann", "before");
    assert_eq!(data(&mut tab)["title"], "before");
    postgres.stop();
    let document = json!({"recipient_id": "ann", "type": "t", "title": "t"}).to_string();
    let refused = hub.request("POST", AT, Some(("application/json", &document)));
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (503, Some("store_unavailable")),
        "{refused:?}"
    );
    assert!(refused.header("retry-after").is_some());
    postgres.run();
    until("it is stored again", || {
        hub.request("POST", AT, Some(("application/json", &document)))
            .status
            == 201
    });
    assert_eq!(data(&mut tab)["title"], "t");
    assert_eq!(titles(&hub, "ann"), ["t", "before"]);
}

#[test]
fn nothing_is_opened_until_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.db");
    let url = format!("sqlite:{}", file.display());
    let hub = Hub::spawn(&[], &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)]);
    hub.publish("t", &json!(1));
    assert!(!file.exists());
    notify(&hub, "ann", "x");
    assert!(file.exists());
}
