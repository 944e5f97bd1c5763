//! A batch is few entries in the stream, most with several events: each of these is a place of its own.

use tidewire::Hub;
use tidewire::core::id::NativeId;
use tidewire::core::subscribe::Start;

use crate::suite::{read, stream};
use crate::world::*;

/// Far more than one entry takes.
const EVENTS: usize = 700;

/// What a client gets that resumes, gaps as such.
async fn resumed(hub: &Hub, id: &str, count: usize) -> Vec<(String, String)> {
    read(stream(hub, "a", &Start::After(id.to_owned())), count).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_batch_is_a_place_to_resume_from() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let ids = hub.publish_all(&batch("a", 0, EVENTS), None).await.unwrap();
    let entries = redis.server.command(&["XLEN", &Redis::log(folder.path())]);
    assert_eq!(entries, ":4\r\n", "the first, and 256, 256 and 187 more");
    let small = small(&redis, folder.path()).await;
    let held = small.stats().log.events;
    assert!((1..EVENTS).contains(&held), "{held}");
    let expected: Vec<_> = texts(&ids)
        .into_iter()
        .zip((0..).map(|n: usize| n.to_string()))
        .collect();
    for at in [0, 1, 2, 255, 256, 257, 300, 511, 512, 513, EVENTS - 2] {
        for hub in [&hub, &small] {
            let seen = resumed(hub, &ids[at].to_string(), EVENTS - 1 - at).await;
            assert_eq!(seen, expected[at + 1..], "after {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_beginning_was_trimmed_is_a_gap_for_those_who_miss_it_alone() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let before = publish(&hub, "a", "before").await.unwrap();
    let ids = hub.publish_all(&batch("a", 0, EVENTS), None).await.unwrap();
    // What is left begins with event 257.
    let log = Redis::log(folder.path());
    redis.server.command(&["XTRIM", &log, "MAXLEN", "2"]);
    let small = small(&redis, folder.path()).await;
    let seen = resumed(&small, &ids[256].to_string(), 1).await;
    assert_eq!(
        seen[0].1, "257",
        "nothing is missing after the last that was trimmed"
    );
    for early in [&before, &ids[0].to_string(), &ids[255].to_string()] {
        let seen = resumed(&small, early, 2).await;
        assert!(seen[0].1.contains("expired"), "{seen:?}");
        assert_eq!(seen[1].1, "257");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_ids_are_left_for_all_of_a_batch_nothing_of_it_is_stored() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let log = Redis::log(folder.path());
    for seq in [u64::MAX - 2, u64::MAX - 1] {
        // Later than any clock, so that Redis counts on from there.
        let id = format!("{}-{seq}", u64::MAX - seq % 2);
        redis
            .server
            .command(&["XADD", &log, &id, "topic", "b", "data", "x"]);
        until("the node has followed", || data(&hub, "b").last().is_some()).await;
        let length = redis.server.command(&["XLEN", &log]);
        let refused = hub.publish_all(&batch("a", 0, 3), Some(key("k", 1))).await;
        assert!(
            matches!(refused, Err(tidewire::PublishError::NotStored(_))),
            "{refused:?}"
        );
        assert_eq!(redis.server.command(&["XLEN", &log]), length);
        assert_eq!(data(&hub, "a"), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_are_long_are_exact() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let log = Redis::log(folder.path());
    // More digits than a script's numbers show by themselves, in a millisecond that is yet to come.
    let (ms, seq) = (4_000_000_000_000_u64, 1_000_000_000_000_000_u64);
    let id = format!("{ms}-{seq}");
    redis
        .server
        .command(&["XADD", &log, &id, "topic", "b", "data", "x"]);
    let ids = hub.publish_all(&batch("a", 0, EVENTS), None).await.unwrap();
    for (id, n) in ids.iter().zip(1..) {
        let offset = NativeId::parse(&id.to_string()).unwrap().offset;
        assert_eq!((offset.major, offset.minor), (ms, seq + n));
    }
    assert_eq!(history(&hub, "a").len(), EVENTS);
}
