//! The routes.

use serde_json::{Value, json};

use crate::support::{Hub, Stream};
use crate::{AT, hub, notify, titles, until};

pub(crate) fn data(stream: &mut Stream) -> Value {
    serde_json::from_str(&stream.event().data).unwrap()
}

pub(crate) fn connected(hub: &Hub, user: &str, last: Option<&str>) -> Stream {
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
fn more_than_a_page_that_was_missed_comes_in_pages_and_nothing_is_left_out() {
    const COUNT: usize = 1_203;
    let mut hub = hub();
    let first = notify(&hub, "ann", "first")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for n in 0..COUNT {
        notify(&hub, "ann", &n.to_string());
    }
    // The log has forgotten them all.
    hub.restart();
    let (mut last, mut seen) = (first, Vec::new());
    let mut pages = 0;
    let mut stream = loop {
        let mut stream = connected(&hub, "ann", Some(&last));
        pages += 1;
        while seen.len() < COUNT
            && let Some(event) = stream.next()
        {
            let document: Value = serde_json::from_str(&event.data).unwrap();
            seen.push(document["title"].as_str().unwrap().to_owned());
            last = event.id;
        }
        if seen.len() == COUNT {
            break stream;
        }
    };
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
    notify(&hub, "ann", "live");
    assert_eq!(data(&mut stream)["title"], "live");
}

#[test]
fn who_loses_the_connection_before_the_missed_ones_came_still_gets_them() {
    let mut hub = hub();
    let first = notify(&hub, "ann", "first")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    notify(&hub, "ann", "missed");
    hub.restart();
    let headers = [("Last-Event-ID", first.as_str())];
    let mut stream = hub.stream_with(&format!("{AT}/subscribe?user=ann"), &headers);
    // Neither the head nor the greeting may lead past what comes after them.
    assert_eq!(stream.header("Last-Event-ID"), Some(first.as_str()));
    let greeting = stream.event();
    assert_eq!(
        (greeting.event.as_str(), greeting.id.as_str()),
        ("connected", first.as_str())
    );
    assert_eq!(data(&mut stream)["title"], "missed");
}

#[test]
fn a_token_says_whose_notifications_they_are_and_nothing_else_does() {
    use crate::issuer::{Issuer, SECRET};
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let hub = Hub::spawn(&[], &[("TIDEWIRE_AUTH__ISSUERS", &issuers)]);
    let bearer = |claims: &Value| format!("Bearer {}", Issuer::with_secret().token(claims));
    let service = bearer(&json!({"sub": "service", "tidewire": {"publish": ["notification:**"]}}));
    let [ann, bob] = ["ann", "bob"].map(|user| bearer(&json!({ "sub": user })));
    let ask = |method: &str, path: &str, who: &str, body: &str| {
        let headers = [("Authorization", who), ("Content-Type", "application/json")];
        hub.send(method, &format!("{AT}{path}"), &headers, body.as_bytes())
    };
    let create = |who: &str, user: &str| {
        let document = json!({"recipient_id": user, "type": "t", "title": format!("for {user}")});
        ask("POST", "", who, &document.to_string())
    };
    let subscribe = |who: &str, query: &str| {
        let path = format!("{AT}/subscribe{query}");
        let mut stream = hub.stream_with(&path, &[("Authorization", who)]);
        (stream.event().data, stream)
    };
    // Who says that they are somebody else is not heard.
    let (greeting, mut stream) = subscribe(&bob, "?user=ann");
    assert_eq!(greeting, json!({"user": "bob"}).to_string());
    let of_ann = create(&service, "ann");
    assert_eq!(of_ann.status, 201, "{of_ann:?}");
    assert_eq!(create(&service, "bob").status, 201);
    assert_eq!(data(&mut stream)["title"], "for bob");
    assert_eq!(create(&bob, "ann").status, 403, "users notify nobody");
    let id = of_ann.json()["id"].as_str().unwrap().to_owned();
    let list = |who: &str, query: &str| ask("GET", query, who, "").json()["notifications"].clone();
    assert_eq!(list(&ann, "").as_array().unwrap().len(), 1);
    for query in [
        "?user=ann",
        &format!("?cursor={id}g"),
        "?cursor=ffffffff-ffff-7fff-bfff-ffffffffffff",
    ] {
        let listed = list(&bob, query);
        assert!(
            listed
                .as_array()
                .into_iter()
                .flatten()
                .all(|row| row["recipient_id"] == "bob"),
            "{listed}"
        );
    }
    for (method, path) in [
        ("POST", format!("/{id}/read?user=ann")),
        ("DELETE", format!("/{id}?user=ann")),
    ] {
        assert_eq!(ask(method, &path, &bob, "").status, 404, "{method} {path}");
    }
    // Nor by resuming from somebody else's, nor by another door.
    let path = format!("{AT}/subscribe");
    let mut resumed = hub.stream_with(&path, &[("Authorization", &bob), ("Last-Event-ID", &id)]);
    assert_eq!(resumed.event().event, "connected");
    assert_eq!(data(&mut resumed)["title"], "for bob");
    for topic in ["notification:ann", "notification:*", "notification:**"] {
        let answer = Stream::open(
            hub.port(),
            &format!("/events?topic={topic}"),
            &[("Authorization", &bob)],
        );
        assert_eq!(answer.status(), 403, "{topic}");
    }
    assert_eq!(ask("GET", "/unread-count", &ann, "").json()["unread"], 1);
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
        // Not a notification by the order of its fields.
        json!(["ann", "t", "title", null, null, null]),
        json!({"recipient_id": "ann", "type": "t"}),
        json!({"recipient_id": "ann", "type": "t", "title": " "}),
        json!({"recipient_id": "a*", "type": "t", "title": "t"}),
        json!({"recipient_id": "ann", "type": "t", "title": "t", "colour": "red"}),
        json!({"recipient_id": "ann", "type": "t", "title": 7}),
        json!({"recipient_id": "ann", "type": "t", "title": "a\0b"}),
        json!({"recipient_id": "ann", "type": "t\0", "title": "t"}),
        json!({"recipient_id": "ann", "type": "t", "title": "t", "body": "\0"}),
        json!({"recipient_id": "ann", "type": "t", "title": "t", "link": "/\0"}),
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
    let post_with = |title: &str, body: Option<&str>, data: &Value| {
        let document =
            json!({"recipient_id": "ann", "type": "t", "title": title, "body": body, "data": data});
        let document = document.to_string();
        let headers = [
            ("Content-Type", "application/json"),
            ("Idempotency-Key", "k"),
        ];
        hub.send("POST", AT, &headers, document.as_bytes())
    };
    let post = |title: &str| post_with(title, Some("b"), &json!({"n": 0.1, "big": 1e21}));
    let (first, again) = (post("a"), post("a"));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json(), again.json());
    for other in [
        post("b"),
        post_with("a", Some("c"), &json!({"n": 0.1, "big": 1e21})),
        post_with("a", Some("b"), &json!({"n": 0.2, "big": 1e21})),
    ] {
        assert_eq!(
            (other.status, other.json()["code"].as_str()),
            (422, Some("key_reused"))
        );
    }
    assert_eq!(titles(&hub, "ann"), ["a"]);
    let id = first.json()["id"].as_str().unwrap().to_owned();
    let deleted = hub.send("DELETE", &format!("{AT}/{id}?user=ann"), &[], b"");
    assert_eq!(deleted.status, 204);
    let again = post("a");
    assert_eq!((again.status, &again.json()["id"]), (201, &json!(id)));
    assert_eq!(titles(&hub, "ann"), [""; 0], "what was deleted stays so");
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
    // What is no id is nobody's, and not what the database is asked for.
    let unknown = hub.send("POST", &format!("{AT}/%00/read?user=ann"), &[], b"");
    assert_eq!(unknown.status, 404, "{unknown:?}");
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

/// Before, it was stored, tried again every two seconds for ever, and 500 of them held up all others.
#[test]
fn what_can_not_be_published_is_refused_or_stays_in_the_list() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "1KiB")]);
    let document =
        json!({"recipient_id": "ann", "type": "t", "title": "t", "body": "x".repeat(1_000)});
    let refused = hub.request(
        "POST",
        AT,
        Some(("application/json", &document.to_string())),
    );
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (413, Some("event_too_large"))
    );
    assert_eq!(titles(&hub, "ann"), [""; 0]);
    let closed = hub.send("POST", "/topics/notification%3Aann/close", &[], b"");
    assert_eq!(closed.status, 200);
    notify(&hub, "ann", "after the end");
    assert_eq!(titles(&hub, "ann"), ["after the end"]);
    assert!(
        hub.output().contains("can't be published"),
        "once, and aloud"
    );
}

/// Before, SQLite's word that it could not commit went unheard: the answer was 201, and nothing was stored.
#[test]
fn what_a_full_disk_does_not_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("n.db").display());
    let env = [("TIDEWIRE_NOTIFICATIONS__DATABASE", url.as_str())];
    // A file that may not grow is an error to it, and no signal that ends it.
    let mut hub = Hub::spawn_under(&["env", "--ignore-signal=XFSZ"], &[], &env);
    let document =
        json!({"recipient_id": "ann", "type": "t", "title": "t", "body": "x".repeat(9_000)});
    let post = |hub: &Hub| {
        hub.request(
            "POST",
            AT,
            Some(("application/json", &document.to_string())),
        )
        .status
    };
    assert_eq!(post(&hub), 201);
    // Files of the hub can't grow beyond this from now on.
    let pid = hub.pid().to_string();
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=262144"])
        .status();
    assert!(limited.unwrap().success());
    let mut stored = 1;
    let refused = loop {
        match post(&hub) {
            201 => stored += 1,
            other => break other,
        }
        assert!(stored < 1_000, "nothing is refused");
    };
    assert_eq!(refused, 503);
    hub.restart();
    assert_eq!(
        titles(&hub, "ann").len(),
        stored,
        "what was answered is there"
    );
}

/// Before, only who had seen a notification was sent of the database what came while they were away.
#[test]
fn who_has_seen_nothing_yet_gets_what_came_meanwhile() {
    let mut hub = hub();
    notify(&hub, "ann", "before");
    let greeted = hub.stream(&format!("{AT}/subscribe?user=ann")).event().id;
    notify(&hub, "ann", "missed");
    let mut from_the_log = connected(&hub, "ann", Some(&greeted));
    assert_eq!(data(&mut from_the_log)["title"], "missed");
    hub.restart();
    let mut from_the_store = connected(&hub, "ann", Some(&greeted));
    // What came just before may come again, as clocks of nodes differ.
    until("what was missed comes", || {
        data(&mut from_the_store)["title"] == "missed"
    });
    notify(&hub, "ann", "live");
    assert_eq!(data(&mut from_the_store)["title"], "live");
}

/// Before, a tab that had last seen what another tab did was told of a gap.
#[test]
fn who_last_saw_what_another_tab_did_gets_what_came_meanwhile() {
    let mut hub = hub();
    let id = notify(&hub, "ann", "read")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut tab = connected(&hub, "ann", None);
    hub.send("POST", &format!("{AT}/{id}/read?user=ann"), &[], b"");
    let read = tab.event();
    assert_eq!(read.event, "notification.read");
    notify(&hub, "ann", "missed");
    hub.restart();
    // What else the address asks for counts as before, too.
    let path = format!("{AT}/subscribe?user=ann&fields=topic");
    let mut tab = hub.stream_with(&path, &[("Last-Event-ID", &read.id)]);
    assert_eq!(tab.event().event, "connected");
    assert_eq!(data(&mut tab)["title"], "missed");
    notify(&hub, "ann", "live");
    assert_eq!(data(&mut tab)["title"], "live");
    assert!(
        tab.text().contains("topic: notification:ann"),
        "{}",
        tab.text()
    );
}

/// Before, what was in the log and not yet marked as published was neither in the store's answer nor after it.
#[test]
fn what_is_published_and_not_yet_marked_is_not_left_out() {
    let postgres = crate::postgres::Postgres::start();
    let url = postgres.url();
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)]);
    let first = notify(&hub, "ann", "first")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    hub.restart();
    postgres.sql(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE UPDATE ON notifications FOR EACH ROW EXECUTE FUNCTION skip()",
    );
    notify(&hub, "ann", "unmarked");
    let mut tab = connected(&hub, "ann", Some(&first));
    assert_eq!(data(&mut tab)["title"], "unmarked");
    postgres.sql("DROP TRIGGER skip ON notifications");
    notify(&hub, "ann", "next");
    assert_eq!(data(&mut tab)["title"], "next", "each once");
}

/// Before, a request waited for as long as another program held the table.
#[test]
fn a_locked_database_is_not_waited_for() {
    let postgres = crate::postgres::Postgres::start();
    let url = postgres.url();
    let hub = Hub::spawn(&[], &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)]);
    notify(&hub, "ann", "before");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            postgres.sql("BEGIN; LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(20); COMMIT")
        });
        until("the table is locked", || {
            postgres.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'notifications'::regclass")
                .starts_with('1')
        });
        let document = json!({"recipient_id": "bob", "type": "t", "title": "t"}).to_string();
        let answer = hub.request("POST", AT, Some(("application/json", &document)));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (503, Some("outcome_unknown")),
            "{answer:?}"
        );
    });
    assert_eq!(titles(&hub, "ann"), ["before"]);
}

/// Before, an `EventSource` that came back while the database was away got a 503, and never came back again.
#[test]
fn who_resumes_while_the_database_is_away_is_told_to_come_back() {
    let mut postgres = crate::postgres::Postgres::start();
    let url = postgres.url();
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)]);
    let first = notify(&hub, "ann", "first")["id"]
        .as_str()
        .unwrap()
        .to_owned();
    notify(&hub, "ann", "missed");
    postgres.stop();
    hub.restart();
    let path = format!("{AT}/subscribe?user=ann");
    let last = ("Last-Event-ID", first.as_str());
    let accept = ("Accept", "text/event-stream");
    let mut page = hub.stream_with(&path, &[last, accept]);
    assert_eq!(page.status(), 200);
    assert!(page.next().is_none(), "no event, so that its place stays");
    assert!(page.retry_ms().is_some());
    assert_eq!(hub.send("GET", &path, &[last], b"").status, 503);
    postgres.run();
    until("the stream is back", || {
        let mut stream = hub.stream_with(&path, &[last, accept]);
        stream.next().is_some_and(|event| {
            event.event == "connected" && data(&mut stream)["title"] == "missed"
        })
    });
}

/// Before, the answer waited for a silent Redis for as long as the broker does, 5 s and more.
#[test]
fn a_silent_broker_delays_the_delivery_and_not_the_answer() {
    let redis = crate::support::RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let hub = crate::consuming(&redis, &folder, "a", &[]);
    let mut tab = connected(&hub, "ann", None);
    redis.pause();
    for title in ["one", "two"] {
        let asked = std::time::Instant::now();
        notify(&hub, "ann", title);
        let took = asked.elapsed();
        assert!(took < std::time::Duration::from_millis(4_500), "{took:?}");
    }
    assert_eq!(titles(&hub, "ann"), ["two", "one"], "they are stored");
    let asked = std::time::Instant::now();
    let read = hub.send("POST", &format!("{AT}/read-all?user=ann"), &[], b"");
    assert_eq!(read.json(), json!({"updated": 2}));
    let took = asked.elapsed();
    assert!(took < std::time::Duration::from_millis(4_500), "{took:?}");
    redis.resume();
    let mut late = Vec::new();
    while late.len() < 2 {
        let event = tab.event();
        // Whether the broker still took the other one is its business.
        if event.event == "message" {
            late.push(serde_json::from_str::<Value>(&event.data).unwrap()["title"].clone());
        }
    }
    late.sort_by_key(ToString::to_string);
    assert_eq!(late, [json!("one"), json!("two")]);
    notify(&hub, "ann", "next");
    let mut more = std::iter::repeat_with(|| tab.event());
    let next = more.find(|event| event.event == "message").unwrap();
    assert!(next.data.contains("\"next\""), "each once: {next:?}");
}
