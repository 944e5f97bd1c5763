//! Domain events from a Redis Stream.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::RedisServer;
use crate::{AT, assign, consuming, titles, until};

/// How often a node is killed.
const KILLS: &str = "TIDEWIRE_TEST_KILLS";
const KILLS_USUAL: usize = 6;
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
    redis.command(&["XADD", "events", "*", "what", "ever"]);
    assign(&redis, "bob", 1);
    until("the good one is there", || titles(&hub, "bob").len() == 1);
    until("the bad ones are put aside", || {
        redis.command(&["XLEN", "events:dead"]) == ":2\r\n"
    });
    let dead = redis.command(&["XRANGE", "events:dead", "-", "+"]);
    assert!(
        dead.contains("assignee") && dead.contains("no field `type`"),
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
            .contains("tidewire_domain_events_dead_total 2")
    );
}

#[test]
fn each_event_makes_one_notification_whatever_is_killed() {
    let kills = std::env::var(KILLS).map_or(KILLS_USUAL, |n| n.parse().unwrap());
    let events = kills * EVENTS;
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = ["a", "b"].map(|name| consuming(&redis, &folder, name, &[]));
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
                    last = event.id.clone();
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
        "{kills} kills in {:.0?}: {events} domain events, each one notification",
        started.elapsed()
    );
}
