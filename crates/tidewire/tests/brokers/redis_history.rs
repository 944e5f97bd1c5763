//! A stream that is not the one it was, or lacks what nobody has read: whoever misses something is told.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tidewire::core::decode::Decoder;
use tidewire::core::id::NativeId;
use tidewire::core::subscribe::Start;
use tidewire::{EventStream, Hub, PublishError};

use crate::suite::{read, stream};
use crate::world::*;

/// Everything until the stream is closed: id, name and data.
async fn rest(stream: EventStream) -> Vec<(String, String, String)> {
    rest_of(stream.into_response()).await
}

async fn rest_of(response: Response) -> Vec<(String, String, String)> {
    let mut body = response.into_body();
    let mut decoder = Decoder::new(1 << 20);
    let mut events = Vec::new();
    while let Some(Ok(frame)) = tokio::time::timeout(WAIT_MAX, body.frame())
        .await
        .expect("closed in time")
    {
        decoder.push(&frame.into_data().unwrap());
        while let Some(event) = decoder.next_event().unwrap() {
            events.push((event.id, event.event, event.data));
        }
    }
    events
}

fn after_id(id: &str) -> Start {
    Start::After(id.to_owned())
}

/// The first event that a client gets who comes back.
async fn first(hub: &Hub, id: &str) -> String {
    read(stream(hub, "a", &after_id(id)), 1).await.remove(0).1
}

/// Adds entries, and removes all but the last of them before anyone can have read the others.
fn add_and_trim(redis: &Redis, log: &str, added: usize, kept: usize) {
    let script = "for n = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'topic', 'a', 'data', n) end \
                  return redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])";
    let (added, kept) = (added.to_string(), kept.to_string());
    redis
        .server
        .command(&["EVAL", script, "1", log, &added, &kept]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_what_came_after_removed_events_is_told_too() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    publish(&hub, "a", "seen").await.unwrap();
    let reader = tokio::spawn(rest(stream(&hub, "a", &Start::Earliest)));
    add_and_trim(&redis, &Redis::log(folder.path()), 5, 2);
    let seen = reader.await.unwrap();
    let data: Vec<_> = seen.iter().map(|(_, _, data)| data.as_str()).collect();
    assert!(data == ["seen"] || data == ["seen", "4", "5"], "{data:?}");
    let last = &seen.last().unwrap().0;
    assert!(first(&hub, last).await.contains("expired"));
    // Who comes afterwards, and what is new, is none of that.
    let next = publish(&hub, "a", "next").await.unwrap();
    publish(&hub, "a", "and on").await.unwrap();
    assert_eq!(first(&hub, &next).await, "and on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_tells_before_it_shows_what_comes_after_removed_events() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let log = Redis::log(folder.path());
    let before = publish(&hub, "a", "before").await.unwrap();
    let reader = tokio::spawn(rest(stream(&hub, "a", &Start::Live)));
    hold_tail(&redis, &hub).await;
    add_and_trim(&redis, &log, 5_000, 3_000);
    redis
        .server
        .command(&["ACL", "SETUSER", "default", "+xread"]);
    let seen = reader.await.unwrap();
    assert_eq!(seen.len(), 0, "nothing from after what is missing");
    assert!(first(&hub, &before).await.contains("expired"));
    until("all that is there is read", || {
        data(&hub, "a").len() == 3_001
    })
    .await;
    // Told once, and not again for the same.
    let last = history(&hub, "a").pop().unwrap().0;
    let on = stream(&hub, "a", &after_id(&last));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    publish(&hub, "a", "on").await.unwrap();
    assert_eq!(read(on, 1).await[0].1, "on");
}

/// Keeps the node from reading the stream; it goes on to store events.
async fn hold_tail(redis: &Redis, hub: &Hub) {
    redis
        .server
        .command(&["ACL", "SETUSER", "default", "-xread"]);
    // The read that is under way is the last.
    until("the node can't follow", || hub.ready().is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_in_a_history_that_is_gone_is_not_said_to_be_there() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    hold_tail(&redis, &hub).await;
    let commits = hub.broker_figures().commits;
    let request = {
        let hub = hub.clone();
        tokio::spawn(async move { publish(&hub, "a", "x").await })
    };
    until("it is stored", || hub.broker_figures().commits > commits).await;
    let log = Redis::log(folder.path());
    let epoch = log.replace(":log", ":epoch");
    redis.server.command(&["DEL", &log, &epoch]);
    redis
        .server
        .command(&["ACL", "SETUSER", "default", "+xread"]);
    let answer = request.await.unwrap();
    assert!(
        matches!(answer, Err(PublishError::OutcomeUnknown(_))),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_place_of_a_deleted_one_is_another_history() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let seen = publish(&hub, "a", "seen").await.unwrap();
    let log = Redis::log(folder.path());
    // Ids carry the time, and within one millisecond it would be the same one.
    tokio::time::sleep(Duration::from_millis(5)).await;
    // In one step, so that the node never finds it missing; its epoch stays.
    let script = "redis.call('DEL', KEYS[1]) return redis.call('XADD', KEYS[1], '*', 'topic', 'a', 'data', 'new')";
    redis.server.command(&["EVAL", script, "1", &log]);
    let epoch = NativeId::parse(&seen).unwrap().epoch;
    until("a new epoch", || {
        let newest = history(&hub, "a").pop();
        newest.is_some_and(|(id, _)| NativeId::parse(&id).unwrap().epoch != epoch)
    })
    .await;
    assert_eq!(data(&hub, "a"), ["new"]);
    assert!(first(&hub, &seen).await.contains("unknown_id"));
}

/// Streams are opened all the time while one history follows another: none goes on from the one to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stream_goes_on_from_one_history_to_the_next() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let log = Redis::log(folder.path());
    let epoch_key = log.replace(":log", ":epoch");
    let mut readers = Vec::new();
    for _ in 0..3 {
        let old = NativeId::parse(&publish(&hub, "a", "old").await.unwrap()).unwrap();
        // Before the place where the node is, so that it sees them only as another history.
        let script = "redis.call('DEL', KEYS[1], KEYS[2]) \
                      for n = 1, 2000 do redis.call('XADD', KEYS[1], ARGV[1] .. n, 'topic', 'a', 'data', n) end";
        let early = format!("{}-", old.offset.major - 5_000);
        redis
            .server
            .command(&["EVAL", script, "2", &log, &epoch_key, &early]);
        while history(&hub, "a")
            .pop()
            .is_none_or(|(id, _)| NativeId::parse(&id).unwrap().epoch == old.epoch)
        {
            let response = stream(&hub, "a", &Start::Live).into_response();
            let place = response.headers()["last-event-id"].to_str().unwrap();
            let place = NativeId::parse(place).unwrap();
            readers.push((place.epoch, tokio::spawn(rest_of(response))));
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        until("the history is there", || data(&hub, "a").len() == 2_000).await;
    }
    assert!(readers.len() > 20, "{}", readers.len());
    hub.close_topic(topic("a")).await.unwrap();
    for (epoch, reader) in readers {
        for (id, ..) in reader.await.unwrap() {
            assert_eq!(NativeId::parse(&id).unwrap().epoch, epoch);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_one_history_are_not_those_of_another() {
    let (folder, redis) = (folder(), Redis::start());
    let log = Redis::log(folder.path());
    let epoch_key = log.replace(":log", ":epoch");
    // The same places, with other events.
    let fill = |data: &str| {
        let filling = data.repeat(100);
        for n in 1..=30 {
            let id = format!("4000000000000-{n}");
            redis
                .server
                .command(&["XADD", &log, &id, "topic", "a", "data", &filling]);
        }
    };
    let hub = small(&redis, folder.path()).await;
    for data in ["x", "y"] {
        fill(data);
        let full = || {
            history(&hub, "a")
                .pop()
                .is_some_and(|(id, d)| id.ends_with(".30") && d.starts_with(data))
        };
        until("the node has it", full).await;
        let last = history(&hub, "a").pop().unwrap().0;
        let early = last.replace(".30", ".1");
        let seen = read(stream(&hub, "a", &after_id(&early)), 29).await;
        assert!(
            seen.iter().all(|(_, d)| d.starts_with(data)),
            "{data}: {seen:?}"
        );
        redis.server.command(&["DEL", &log, &epoch_key]);
        until("the history is gone", || history(&hub, "a").is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_trimmed_while_a_client_reads_it_is_a_gap() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = small(&redis, folder.path()).await;
    let filling = "x".repeat(1_000);
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(publish(&hub, "a", &format!("{n} {filling}")).await.unwrap());
    }
    let mut body = stream(&hub, "a", &after_id(&ids[0]))
        .into_response()
        .into_body();
    let mut decoder = Decoder::new(1 << 20);
    let (mut data, mut trimmed) = (Vec::<String>::new(), false);
    while data.last().is_none_or(|last| !last.starts_with("299 ")) {
        let frame = tokio::time::timeout(WAIT_MAX, body.frame()).await;
        let frame = frame.expect("in time").expect("goes on").unwrap();
        decoder.push(&frame.into_data().unwrap());
        while let Some(event) = decoder.next_event().unwrap() {
            data.push(event.data);
        }
        if !trimmed && !data.is_empty() {
            trimmed = true;
            redis
                .server
                .command(&["XTRIM", &Redis::log(folder.path()), "MAXLEN", "20"]);
        }
    }
    let gap = data.iter().position(|data| data.contains("expired"));
    let gap = gap.expect("it is told");
    assert!(data[gap + 1].starts_with("280 "), "{}", &data[gap + 1][..9]);
    let expected = (1..=gap).chain(280..300).map(|n| format!("{n} {filling}"));
    data.remove(gap);
    assert_eq!(data, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_older_events_are_read_holds_nobody_up() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = small(&redis, folder.path()).await;
    let ids = hub.publish_all(&batch("a", 0, 200), None).await.unwrap();
    redis.server.pause();
    // As many as may read at a time, each from a place of its own.
    for at in [30, 20, 10] {
        let mut body = stream(&hub, "a", &after_id(&ids[at].to_string()))
            .into_response()
            .into_body();
        let waits = tokio::time::timeout(Duration::from_millis(100), async {
            while body.frame().await.is_some() {}
        });
        assert!(waits.await.is_err(), "Redis is silent");
    }
    redis.server.resume();
    let seen = read(stream(&hub, "a", &after_id(&ids[0].to_string())), 199).await;
    assert_eq!(seen[0].1, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_replicas_holds_up_no_reader() {
    let folder = folder();
    let redis = Redis::start().with(|options| {
        options.wait_replicas = 1;
        options.answer_timeout = Duration::from_secs(2);
    });
    let (full, small) = (
        start(&redis, folder.path()).await,
        small(&redis, folder.path()).await,
    );
    let unknown = full.publish_all(&batch("a", 0, 200), None).await;
    assert!(
        matches!(unknown, Err(PublishError::OutcomeUnknown(_))),
        "there are no replicas: {unknown:?}"
    );
    let commits = small.broker_figures().commits;
    let waiting = {
        let hub = small.clone();
        tokio::spawn(async move { publish(&hub, "a", "x").await })
    };
    until("it is stored", || small.broker_figures().commits > commits).await;
    let early = &history(&full, "a")[0].0;
    let seen = read(stream(&small, "a", &after_id(early)), 199).await;
    assert_eq!(seen[0].1, "1");
    assert!(!waiting.is_finished(), "it waits for replicas");
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_more_than_this_node_goes_on_without_a_gap() {
    let (folder, redis) = (folder(), Redis::start());
    let hub = start(&redis, folder.path()).await;
    let own = publish(&hub, "a", "read").await.unwrap();
    let log = Redis::log(folder.path());
    let add = |data: &str| {
        let answer = redis
            .server
            .command(&["XADD", &log, "*", "topic", "a", "data", data]);
        let place = answer.lines().nth(1).unwrap().replace('-', ".");
        format!("{}-{place}", &own[..9])
    };
    hold_tail(&redis, &hub).await;
    // As if another node had shown it before that ended.
    let seen = add("seen elsewhere");
    let quiet = tokio::spawn(read(stream(&hub, "a", &after_id(&seen)), 1));
    let busy = {
        add("next");
        tokio::spawn(read(stream(&hub, "a", &after_id(&seen)), 2))
    };
    // Nobody has seen what is not there.
    let unknown = seen.replace('.', "9.");
    assert!(first(&hub, &unknown).await.contains("unknown_id"));
    redis
        .server
        .command(&["ACL", "SETUSER", "default", "+xread"]);
    until("the node has followed", || data(&hub, "a").len() == 3).await;
    let last = add("last");
    assert_eq!(quiet.await.unwrap()[0].1, "next");
    let busy = busy.await.unwrap();
    assert_eq!(busy[0].1, "next");
    assert_eq!(busy[1], (last, "last".to_owned()));
}
