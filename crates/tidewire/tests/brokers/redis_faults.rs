//! A Redis that is slow, falls silent, or ends while a batch is on its way. What the disk's faults are to the disk broker.

use std::time::Duration;

use tidewire::core::log::Refused;
use tidewire::{Hub, PublishError};

use crate::world::*;

fn spawn(
    hub: &Hub,
    first: usize,
    count: usize,
) -> tokio::task::JoinHandle<Result<(), PublishError>> {
    let hub = hub.clone();
    tokio::spawn(async move {
        let events = batch("a", first, count);
        hub.publish_all(&events, None).await.map(drop)
    })
}

fn unanswered<T>(requests: &[tokio::task::JoinHandle<T>]) -> bool {
    !requests.iter().any(tokio::task::JoinHandle::is_finished)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_and_the_event_wait_for_a_slow_redis_and_nobody_else_does() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    publish(&hub, "a", "0").await.unwrap();
    let commits = hub.broker_figures().commits;
    redis.server.pause();
    let waiting: Vec<_> = (1..=200).map(|n| spawn(&hub, n, 1)).collect();
    // Reading, sending and subscribing go on.
    assert_eq!(data(&hub, "a"), ["0"]);
    hub.broadcast("hello").unwrap();
    assert!(unanswered(&waiting), "answered before it is stored");
    redis.server.resume();
    for publisher in waiting {
        publisher.await.unwrap().unwrap();
    }
    assert_eq!(data(&hub, "a").len(), 201);
    let commits = hub.broker_figures().commits - commits;
    assert!(
        commits < 100,
        "{commits} calls for 200 publishers who waited together"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_redis_is_an_unknown_outcome_that_a_key_clears_up() {
    let folder = folder();
    let redis = Redis::start().with(|o| o.answer_timeout = Duration::from_millis(50));
    let hub = start(&redis, folder.path()).await;
    publish(&hub, "a", "before").await.unwrap();
    redis.server.pause();
    let silent = hub.publish_all(&batch("a", 0, 3), Some(key("k", 1))).await;
    assert!(
        matches!(silent, Err(PublishError::OutcomeUnknown(_))),
        "{silent:?}"
    );
    redis.server.resume();
    // Stored by the first request or by this one.
    let ids = loop {
        match hub.publish_all(&batch("a", 0, 3), Some(key("k", 1))).await {
            Ok(ids) => break ids,
            // The test's Redis may be slower than its limit.
            Err(PublishError::OutcomeUnknown(_) | PublishError::NotStored(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let last = ids[2].to_string();
    until("the node has followed", || {
        history(&hub, "a").last().is_some_and(|(id, _)| *id == last)
    })
    .await;
    assert_eq!(data(&hub, "a"), ["before", "0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_slow_redis_is_bounded() {
    let folder = folder();
    let redis = Redis::start().with(|o| o.answer_timeout = WAIT_MAX);
    let hub = start(&redis, folder.path()).await;
    publish(&hub, "a", "0").await.unwrap();
    redis.server.pause();
    let big = "x".repeat(1_000_000);
    let waiting: Vec<_> = (0..80)
        .map(|_| {
            let (hub, big) = (hub.clone(), big.clone());
            tokio::spawn(async move { publish(&hub, "a", &big).await })
        })
        .collect();
    until("some are refused", || !unanswered(&waiting)).await;
    redis.server.resume();
    let mut refused = 0;
    for publisher in waiting {
        match publisher.await.unwrap() {
            Ok(_) => {}
            Err(PublishError::NotStored(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // 32 MiB hold 33 of them; four calls of 4 each are on their way.
    assert!((20..=47).contains(&refused), "{refused} of 80 refused");
    let figures = hub.stats();
    assert_eq!(figures.log.appended, 81 - refused);
}

/// Batches are on their way when Redis ends: each is there whole or not at all, and those that were answered are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_ends_in_the_middle_of_batches_has_each_whole_or_not_at_all() {
    const BATCH: usize = 600;
    let folder = folder();
    let mut redis = Redis::start_durable();
    let hub = start(&redis, folder.path()).await;
    let (mut sent, mut answered, mut refused) = (0, Vec::new(), Vec::new());
    for round in 0..6 {
        let waiting: Vec<_> = (0..8)
            .map(|n| (sent + n, spawn(&hub, (sent + n) * BATCH, BATCH)))
            .collect();
        sent += waiting.len();
        // At any moment: before, between and after the calls for these.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(..4_000) * round)).await;
        redis.server.kill();
        redis.server.run();
        for (n, publisher) in waiting {
            match publisher.await.unwrap() {
                Ok(()) => answered.push(n),
                Err(PublishError::NotStored(_)) => refused.push(n),
                Err(PublishError::OutcomeUnknown(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    until("Redis is followed again", || hub.ready().is_ok()).await;
    let last = loop {
        if let Ok(id) = publish(&hub, "a", "last").await {
            break id;
        }
    };
    let late = start(&redis, folder.path()).await;
    for hub in [&hub, &late] {
        let mut seen = history(hub, "a");
        assert_eq!(seen.pop().unwrap().0, last);
        let mut stored = Vec::new();
        for events in seen.chunks(BATCH) {
            let first: usize = events[0].1.parse().unwrap();
            let expected: Vec<_> = (first..first + BATCH).map(|n| n.to_string()).collect();
            let data: Vec<_> = events.iter().map(|(_, data)| data.clone()).collect();
            assert_eq!(data, expected, "whole, with nothing in between");
            stored.push(first / BATCH);
        }
        stored.sort_unstable();
        assert!(stored.is_sorted_by(|a, b| a < b), "one twice: {stored:?}");
        assert!(
            answered.iter().all(|n| stored.contains(n)),
            "answered and gone"
        );
        assert!(
            refused.iter().all(|n| !stored.contains(n)),
            "refused and there"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_ends_stores_what_waits() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    redis.server.pause();
    let waiting: Vec<_> = (0..50).map(|n| spawn(&hub, n, 1)).collect();
    let stopping = {
        let hub = hub.clone();
        tokio::spawn(async move { hub.stop().await })
    };
    redis.server.resume();
    let mut stored = 0;
    for publisher in waiting {
        match publisher.await.unwrap() {
            Ok(()) => stored += 1,
            // Who came after the end had begun.
            Err(PublishError::NotStored(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    stopping.await.unwrap();
    let late = start(&redis, folder.path()).await;
    assert_eq!(data(&late, "a").len(), stored);
}

/// Single events that wait at the same time are stored together, and each is answered for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_together_are_few_entries_and_have_answers_of_their_own() {
    let folder = folder();
    let redis = Redis::start().with(|o| o.answer_timeout = WAIT_MAX);
    let hub = start(&redis, folder.path()).await;
    hub.close_topic(topic("closed")).await.unwrap();
    for is_one_closed in [false, true] {
        let before = entries(&redis, folder.path());
        redis.server.pause();
        let waiting: Vec<_> = (0..200)
            .map(|n| {
                let hub = hub.clone();
                let is_closed = is_one_closed && n == 77;
                let name = if is_closed { "closed" } else { "a" };
                tokio::spawn(async move { publish(&hub, name, &n.to_string()).await })
            })
            .collect();
        redis.server.resume();
        let mut ids = Vec::new();
        for (n, publisher) in waiting.into_iter().enumerate() {
            match publisher.await.unwrap() {
                Ok(id) => ids.push((id, n.to_string())),
                Err(error) => {
                    let closed = Refused::TopicClosed(topic("closed"));
                    assert_eq!((n, error), (77, PublishError::Refused(closed)));
                }
            }
        }
        assert_eq!(ids.len(), 200 - usize::from(is_one_closed));
        let seen = history(&hub, "a");
        assert!(ids.iter().all(|answered| seen.contains(answered)));
        if !is_one_closed {
            let entries = entries(&redis, folder.path()) - before;
            assert!(entries < 100, "{entries} entries for 200 events");
        }
    }
    assert_eq!(data(&hub, "a").len(), 399, "each once");
}

fn entries(redis: &Redis, folder: &std::path::Path) -> usize {
    let length = redis.server.command(&["XLEN", &Redis::log(folder)]);
    length.trim().trim_start_matches(':').parse().unwrap()
}
