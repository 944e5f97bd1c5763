//! Domain events from a Redis Stream.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::RedisServer;
use crate::{AT, assign, consuming, titles, until};

/// How often a node is killed.
const KILLS: &str = "TIDEWIRE_TEST_KILLS";
const KILLS_USUAL: usize = 4;
/// Domain events for each of them.
const EVENTS: usize = 100;

#[test]
fn a_domain_event_becomes_what_the_rules_say() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let hub = consuming(&redis, &folder, "a", &[]);
    let mut tab = hub.stream(&format!("{AT}/subscribe?user=bob"));
    assert_eq!(tab.event().event, "connected");
    redis.command(&["XADD", "events", "*", "type", "story.renamed", "data", "{}"]);
    assign(&redis, "bob", 7);
    let made: Value = serde_json::from_str(&tab.event().data).unwrap();
    assert_eq!(
        [
            &made["title"],
            &made["type"],
            &made["link"],
            &made["data"]["story"]["id"]
        ],
        [
            &json!("Ann assigned you \"S7\""),
            &json!("story_assigned"),
            &json!("/stories/7"),
            &json!(7)
        ]
    );
    until("all is acknowledged", || {
        redis
            .command(&["XPENDING", "events", "tidewire"])
            .starts_with("*4\r\n:0\r\n")
    });
    until("the figures say so", || {
        let metrics = hub.get("/metrics").body;
        metrics.contains("tidewire_domain_events_total 2")
            && metrics.contains("tidewire_domain_events_lag 0")
    });
}

#[test]
fn an_event_that_makes_no_notification_ends_among_the_dead_letters() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let hub = consuming(&redis, &folder, "a", &[]);
    redis.command(&[
        "XADD",
        "events",
        "*",
        "type",
        "story.assigned",
        "data",
        "{\"by\":\"Ann\"}",
    ]);
    // More than a script can hand over, and the character that PostgreSQL has no place for: neither holds up the others.
    let mut fields = vec!["XADD", "events", "*"];
    fields.resize(3 + 2 * 5_000, "what");
    redis.command(&fields);
    let nul = r#"{"assignee":"bob","by":"A\u0000n","story":{"id":1,"title":"t"}}"#;
    redis.command(&["XADD", "events", "*", "type", "story.assigned", "data", nul]);
    assign(&redis, "bob", 1);
    until("the good one is there", || titles(&hub, "bob").len() == 1);
    until("the bad ones are put aside", || {
        redis.command(&["XLEN", "events:dead"]) == ":3\r\n"
    });
    let dead = redis.command(&["XRANGE", "events:dead", "-", "+"]);
    assert!(
        dead.contains("assignee") && dead.contains("no field `type`") && dead.contains("NUL"),
        "{dead}"
    );
    until("nothing is left", || {
        redis
            .command(&["XPENDING", "events", "tidewire"])
            .starts_with("*4\r\n:0\r\n")
    });
    assert!(
        hub.get("/metrics")
            .body
            .contains("tidewire_domain_events_dead_total 3")
    );
}

/// Before, each attempt came as soon after the last one as the first.
#[test]
fn the_pauses_between_attempts_grow() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("TIDEWIRE_NOTIFICATIONS__ATTEMPTS_MAX", "4"),
        ("TIDEWIRE_NOTIFICATIONS__RETRY_AFTER", "700ms"),
    ];
    let _hub = consuming(&redis, &folder, "a", &settings);
    let started = Instant::now();
    redis.command(&["XADD", "events", "*", "what", "ever"]);
    until("the event is put aside", || {
        redis.command(&["XLEN", "events:dead"]) == ":1\r\n"
    });
    let least = Duration::from_millis(700 + 1_400 + 2_800);
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
}

/// Before, every start without a `node.id` left a consumer in the group for ever.
#[test]
fn what_a_consumer_that_is_gone_had_is_taken_over_and_its_name_removed() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    redis.command(&["XGROUP", "CREATE", "events", "tidewire", "0", "MKSTREAM"]);
    assign(&redis, "bob", 1);
    let read = [
        "XREADGROUP",
        "GROUP",
        "tidewire",
        "ghost",
        "STREAMS",
        "events",
        ">",
    ];
    assert!(redis.command(&read).contains("story.assigned"));
    redis.command(&["XGROUP", "CREATECONSUMER", "events", "tidewire", "idler"]);
    let hub = consuming(&redis, &folder, "a", &[]);
    until("its event is handled", || titles(&hub, "bob").len() == 1);
    until("only the node is in the group", || {
        let consumers = redis.command(&["XINFO", "CONSUMERS", "events", "tidewire"]);
        !consumers.contains("ghost") && !consumers.contains("idler")
    });
    assign(&redis, "bob", 2);
    until("the node goes on", || titles(&hub, "bob").len() == 2);
}

/// Before, an event that was deleted from the stream made a dead letter without anything in it.
#[test]
fn what_was_deleted_before_it_was_handled_is_no_dead_letter() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    redis.command(&["XGROUP", "CREATE", "events", "tidewire", "0", "MKSTREAM"]);
    assign(&redis, "bob", 1);
    redis.command(&[
        "XREADGROUP",
        "GROUP",
        "tidewire",
        "a",
        "STREAMS",
        "events",
        ">",
    ]);
    redis.command(&["XTRIM", "events", "MAXLEN", "0"]);
    let hub = consuming(
        &redis,
        &folder,
        "a",
        &[("TIDEWIRE_NOTIFICATIONS__ATTEMPTS_MAX", "1")],
    );
    until("it is counted", || {
        hub.get("/metrics")
            .body
            .contains("tidewire_domain_events_dead_total 1")
    });
    assert_eq!(redis.command(&["XLEN", "events:dead"]), ":0\r\n");
    assert!(hub.output().contains("deleted before it was handled"));
}

/// Before, the lag was that from before the outage.
#[test]
fn while_the_database_is_away_events_wait_and_are_counted() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = crate::postgres::Postgres::start();
    let url = postgres.url();
    let hub = consuming(
        &redis,
        &folder,
        "a",
        &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &url)],
    );
    assign(&redis, "bob", 0);
    until("it is handled", || titles(&hub, "bob").len() == 1);
    postgres.stop();
    let lag = |n: usize| {
        let metrics = hub.get("/metrics").body;
        metrics.contains(&format!("tidewire_domain_events_lag {n}\n"))
    };
    assign(&redis, "bob", 1);
    until("the node has failed with it", || lag(1));
    // After one was deleted, Redis does not know how many are waiting.
    let deleted = assign(&redis, "bob", 9);
    assign(&redis, "bob", 2);
    assign(&redis, "bob", 3);
    let id = deleted.lines().nth(1).unwrap();
    assert_eq!(redis.command(&["XDEL", "events", id]), ":1\r\n");
    until("three are waiting", || lag(3));
    postgres.run();
    until("all are handled", || lag(0));
    assert_eq!(
        titles(&hub, "bob"),
        [
            "Ann assigned you \"S3\"",
            "Ann assigned you \"S2\"",
            "Ann assigned you \"S1\"",
            "Ann assigned you \"S0\""
        ]
    );
    assert_eq!(redis.command(&["XLEN", "events:dead"]), ":0\r\n");
}

#[test]
fn each_event_makes_one_notification_whatever_is_killed() {
    kill_nodes("SQLite", &[]);
}

#[test]
fn the_same_holds_with_postgres_whatever_is_killed() {
    let postgres = crate::postgres::Postgres::start();
    kill_nodes(
        "PostgreSQL",
        &[("TIDEWIRE_NOTIFICATIONS__DATABASE", &postgres.url())],
    );
}

fn kill_nodes(database: &str, settings: &[(&str, &str)]) {
    let kills = std::env::var(KILLS).map_or(KILLS_USUAL, |n| n.parse().unwrap());
    let events = kills * EVENTS;
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = ["a", "b"].map(|name| consuming(&redis, &folder, name, settings));
    let port = nodes.each_ref().map(crate::support::Hub::port);
    // One tab, which comes back to any node with the last id that it has seen.
    let reading = thread::spawn(move || {
        let (mut seen, mut last) = (Vec::new(), String::new());
        while seen.len() < events {
            let at = port[fastrand::usize(..2)];
            let headers = [("Last-Event-ID", last.as_str())];
            let headers = if last.is_empty() {
                &[][..]
            } else {
                &headers[..]
            };
            let path = format!("{AT}/subscribe?user=bob&since=earliest");
            let Ok(answer) =
                std::panic::catch_unwind(|| crate::support::Stream::open(at, &path, headers))
            else {
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let mut stream = answer;
            while seen.len() < events
                && let Ok(Some(event)) =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stream.next()))
            {
                if event.event == "message" {
                    last.clone_from(&event.id);
                    seen.push(event.id);
                }
            }
        }
        seen
    });
    let started = Instant::now();
    for n in 0..events {
        assign(&redis, "bob", n);
        if n % EVENTS == EVENTS / 2 {
            nodes[fastrand::usize(..2)].restart();
        }
    }
    until("all are stored", || {
        titles(&nodes[0], "bob").len() >= events
    });
    let stored = titles(&nodes[0], "bob");
    let distinct: HashSet<_> = stored.iter().collect();
    assert_eq!(
        (stored.len(), distinct.len()),
        (events, events),
        "each once"
    );
    let seen = reading.join().unwrap();
    let distinct: HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), events, "each was delivered, and none twice");
    println!(
        "{database}: {kills} kills in {:.0?}, {events} domain events, each one notification",
        started.elapsed()
    );
}
