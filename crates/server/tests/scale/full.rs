//! One connection more than there may be.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Crowd, End, Hub, Seen, WAIT_MAX, http, process, wait_for_all};
use crate::{FULL, alone, descriptors_when_idle, publish};

/// What a client that there is no room for is told to wait, in milliseconds.
const FAR_RETRY_MS: std::ops::RangeInclusive<u64> = 30_000..=60_000;

fn path(n: usize) -> String {
    format!("/events?topic=room:{n}")
}

#[test]
fn the_oldest_makes_room() {
    let _alone = alone();
    let hub = Hub::spawn(&[], &[]);
    let crowd = Crowd::new(hub.port());
    let oldest = crowd.join(1, |_| path(0));
    let others = crowd.join(FULL - 1, |n| path(n + 1));
    assert_eq!(hub.stats()["connections"], FULL);
    assert!(
        !oldest[0].seen().has_ended(),
        "there was room for all of these"
    );

    let newest = crowd.join(1, |_| path(FULL));
    wait_for_all(&oldest, "the end of the oldest", Seen::has_ended);
    let stats = hub.stats();
    assert_eq!(stats["connections"], FULL);
    assert_eq!(stats["closes"]["evicted"], 1, "{stats}");
    {
        let seen = oldest[0].seen();
        assert_eq!(seen.end.as_ref().map(|(end, _)| end), Some(&End::Whole));
        let retry_ms = seen
            .last_retry_ms
            .expect("the evicted is told when to come back");
        assert!(FAR_RETRY_MS.contains(&retry_ms), "{retry_ms}");
    }
    for reader in others.iter().chain(&newest) {
        assert!(!reader.seen().has_ended(), "only the oldest had to go");
    }
}

#[test]
fn the_newest_is_refused() {
    let _alone = alone();
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__AT_CAPACITY", "reject")]);
    let crowd = Crowd::new(hub.port());
    let readers = crowd.join(FULL, path);

    let accept = [("Accept", "text/event-stream")];
    let request = http::request_bytes(hub.port(), "GET", &path(FULL), &accept, b"");
    let answer = http::exchange(hub.port(), &request).expect("an answer");
    assert_eq!(
        answer.status, 200,
        "an EventSource gives up on any other: {answer:?}"
    );
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let retry = answer
        .body
        .strip_prefix("retry: ")
        .and_then(|text| text.trim_end().parse().ok());
    assert!(
        retry.is_some_and(|ms: u64| FAR_RETRY_MS.contains(&ms)),
        "{answer:?}"
    );

    let answer = hub.get(&path(FULL));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let seconds = answer
        .header("retry-after")
        .and_then(|text| text.parse().ok());
    assert!(
        seconds.is_some_and(|s: u64| (30..=60).contains(&s)),
        "{answer:?}"
    );
    assert_eq!(answer.json()["code"], "at_capacity");

    let stats = hub.stats();
    assert_eq!(stats["connections"], FULL);
    assert_eq!(stats["closes"]["rejected"], 2, "{stats}");
    assert!(readers.iter().all(|reader| !reader.seen().has_ended()));

    // Whoever leaves makes room.
    readers[17].hang_up();
    hub.wait_for_stats("room for one", |stats: &Value| {
        stats["connections"] == FULL - 1
    });
    crowd.join(1, |_| path(FULL));
    assert_eq!(hub.stats()["connections"], FULL);
}

/// How many connections a small hub takes.
const ROOM: usize = 20;

/// The evicted are no connections any more, and those that don't read can't be told so; their sockets must go all the
/// same.
#[test]
fn evicted_clients_that_do_not_read_do_not_pile_up() {
    let _alone = alone();
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "20"),
            ("TIDEWIRE_LIMITS__STALL_TIMEOUT", "3s"),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let before = descriptors_when_idle(&hub, &crowd);
    let stalled = crowd.join_slow(ROOM, |_| "/events?topic=bulk".to_owned());
    for reader in &stalled {
        reader.pause();
    }
    publish(&hub, "bulk", 0..500, 8 * 1024);
    let _newer = crowd.join(ROOM, path);

    let deadline = Instant::now() + 3 * WAIT_MAX;
    loop {
        let now = process::descriptors(hub.pid());
        if now <= before + ROOM {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{now} descriptors, {before} before, for {ROOM} connections"
        );
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(hub.stats()["connections"], ROOM);
}
