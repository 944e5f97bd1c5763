//! The conformance suite. Each case is given a broker and must not know which one.

use std::collections::HashMap;
use std::time::Duration;

use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tidewire::core::decode::Decoder;
use tidewire::core::filter::FilterSpec;
use tidewire::core::id::NativeId;
use tidewire::core::log::{Refused, Retention};
use tidewire::core::subscribe::Start;
use tidewire::hub::Opened;
use tidewire::stream::StreamOptions;
use tidewire::{Event, EventStream, Hub, PublishError};

use crate::world::*;

pub(crate) async fn a_batch_is_stored_whole_and_in_order(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let first = hub.publish_all(&batch("a", 0, 100), None).await.unwrap();
    let rich = Event::text("l1\nl2").named("n").with_retry_ms(7);
    let two = [event("a", rich), event("b", "x")];
    let second = hub.publish_all(&two, None).await.unwrap();
    let ids = [texts(&first), texts(&second[..1])].concat();
    let held = history(&hub, "a");
    assert_eq!(
        held.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
        ids
    );
    assert_eq!(held[99].1, "99");
    assert_eq!(held[100].1, "l1\nl2");
    let offsets: Vec<_> = ids
        .iter()
        .map(|id| NativeId::parse(id).unwrap().offset)
        .collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert_eq!(hub.publish_all(&[], None).await.unwrap().len(), 0);
    assert_eq!(hub.ready(), Ok(()));
}

pub(crate) async fn a_refused_batch_leaves_nothing(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    hub.close_topic(topic("closed")).await.unwrap();
    let twice = [
        event("a", "1"),
        event("a", Event::text("2").with_id("x")),
        event("b", Event::text("3").with_id("x")),
    ];
    let closed = [event("a", "1"), event("closed", "2")];
    let taken = PublishError::Refused(Refused::IdTaken("x".into()));
    let ended = PublishError::Refused(Refused::TopicClosed(topic("closed")));
    for (batch, index, error) in [(&twice[..], 2, taken), (&closed[..], 1, ended)] {
        let error = Box::new(error);
        assert_eq!(
            hub.publish_all(batch, None).await,
            Err(PublishError::InBatch { index, error })
        );
    }
    assert_eq!(data(&hub, "a"), [""; 0]);
    publish(&hub, "a", "next").await.unwrap();
    assert_eq!(data(&hub, "a"), ["next"]);
}

pub(crate) fn stream(hub: &Hub, name: &str, start: &Start) -> EventStream {
    let filter = FilterSpec {
        topics: vec![topic(name)],
        ..FilterSpec::default()
    };
    match hub.open(&filter, start, StreamOptions::default()) {
        Opened::Stream(stream) => stream,
        _ => panic!("no stream"),
    }
}

/// Reads so many events off a stream: id and data.
pub(crate) async fn read(stream: EventStream, count: usize) -> Vec<(String, String)> {
    let mut stream = stream.into_response().into_body();
    let mut decoder = Decoder::new(1 << 20);
    let mut events = Vec::new();
    while events.len() < count {
        let frame = tokio::time::timeout(WAIT_MAX, stream.frame()).await;
        let frame = frame.expect("in time").expect("goes on").unwrap();
        decoder.push(&frame.into_data().unwrap());
        while let Some(event) = decoder.next_event().unwrap() {
            events.push((event.id, event.data));
        }
    }
    events
}

pub(crate) async fn many_publishers_get_one_order_that_readers_see(subject: &impl Subject) {
    const PUBLISHERS: usize = 16;
    const BATCHES: usize = 20;
    const EVENTS: usize = 3;
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let total = PUBLISHERS * BATCHES * EVENTS;
    let live = tokio::spawn(read(stream(&hub, "a", &Start::Live), total));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let hub = hub.clone();
            tokio::spawn(async move {
                let mut answered = Vec::new();
                for n in 0..BATCHES {
                    let events: Vec<_> = (0..EVENTS)
                        .map(|part| event("a", format!("{publisher} {n} {part}")))
                        .collect();
                    let ids = hub.publish_all(&events, None).await.unwrap();
                    // Whoever is answered finds the event.
                    let seen = after(&hub, "a", &ids[0].to_string());
                    assert!(!seen.gap && seen.events.len() >= EVENTS - 1);
                    answered.extend(texts(&ids));
                }
                answered
            })
        })
        .collect();
    let mut answered = Vec::new();
    for publisher in publishers {
        answered.extend(publisher.await.unwrap());
    }
    let seen = live.await.unwrap();
    assert_eq!(seen, history(&hub, "a"), "live and from history");
    let mut ids: Vec<_> = seen.iter().map(|(id, _)| id.clone()).collect();
    let offsets: Vec<_> = ids
        .iter()
        .map(|id| NativeId::parse(id).unwrap().offset)
        .collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    ids.sort();
    answered.sort();
    assert_eq!(ids, answered, "answered and seen");
    let mut next: HashMap<usize, usize> = HashMap::new();
    for events in seen.chunks(EVENTS) {
        let parts: Vec<Vec<usize>> = events
            .iter()
            .map(|(_, data)| data.split(' ').map(|n| n.parse().unwrap()).collect())
            .collect();
        let next = next.entry(parts[0][0]).or_default();
        for (part, event) in parts.iter().enumerate() {
            assert_eq!(
                event[..],
                [parts[0][0], *next, part],
                "nothing between, nothing before"
            );
        }
        *next += 1;
    }
}

pub(crate) async fn reading_goes_on_from_any_position(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let ids = hub.publish_all(&batch("a", 0, 10), None).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        let page = after(&hub, "a", &id.to_string());
        assert!(!page.gap);
        let expected: Vec<_> = (n + 1..10).map(|n| n.to_string()).collect();
        let seen: Vec<_> = page.events.iter().map(|event| event.data.clone()).collect();
        assert_eq!(seen, expected);
        let start = Start::After(id.to_string());
        let streamed = read(stream(&hub, "a", &start), expected.len()).await;
        assert_eq!(
            streamed
                .into_iter()
                .map(|(_, data)| data)
                .collect::<Vec<_>>(),
            expected
        );
    }
}

pub(crate) async fn what_is_too_old_is_gone_and_a_gap_says_so(subject: &impl Subject) {
    let folder = folder();
    let retention = Retention {
        ttl_ms: 100,
        ..Retention::default()
    };
    let hub = start_with(subject, folder.path(), retention).await.unwrap();
    let own = event("a", Event::text("own").with_id("own"));
    let old = hub
        .publish_all(&[event("a", "0"), own.clone()], None)
        .await
        .unwrap();
    hub.close_topic(topic("b")).await.unwrap();
    // Time passes: the events' age is what this is about.
    tokio::time::sleep(Duration::from_millis(150)).await;
    publish(&hub, "b", "open again").await.unwrap();
    hub.publish_all(&[own], None).await.unwrap();
    assert_eq!(data(&hub, "a"), ["own"]);
    assert!(after(&hub, "a", &old[0].to_string()).gap);
}

pub(crate) async fn an_unknown_id_is_a_gap(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let id = publish(&hub, "a", "1").await.unwrap();
    for unknown in ["nobody's", "~00000000-1", &format!("{id}0")] {
        let page = after(&hub, "a", unknown);
        assert!(page.gap, "{unknown}");
        assert_eq!(page.events.len(), 1, "{unknown}");
    }
    assert!(!after(&hub, "a", &id).gap);
}

pub(crate) async fn an_own_id_is_taken_once(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let own = Event::text("1").with_id("own-1");
    assert_eq!(
        hub.publish("a", own.clone()).await.unwrap().to_string(),
        "own-1"
    );
    let taken = Err(PublishError::Refused(Refused::IdTaken("own-1".into())));
    assert_eq!(hub.publish("b", own.clone()).await, taken);
    publish(&hub, "a", "2").await.unwrap();
    let page = after(&hub, "a", "own-1");
    assert!(!page.gap);
    assert_eq!(page.events[0].data, "2");
    // Many at once: one gets it.
    let tries = (0..16).map(|_| {
        let hub = hub.clone();
        tokio::spawn(async move { hub.publish("c", Event::text("x").with_id("own-2")).await })
    });
    let mut stored = 0;
    for attempt in tries.collect::<Vec<_>>() {
        stored += usize::from(attempt.await.unwrap().is_ok());
    }
    assert_eq!(stored, 1);
    assert_eq!(data(&hub, "c"), ["x"]);
}

pub(crate) async fn a_key_is_answered_again_and_stores_once(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let events = batch("a", 0, 3);
    let first = hub.publish_all(&events, Some(key("k", 1))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(
            hub.publish_all(&events, Some(key("k", 1))).await.unwrap(),
            first
        );
    }
    let reused = hub.publish_all(&events, Some(key("k", 2))).await;
    assert_eq!(reused, Err(PublishError::KeyReused));
    let mut other = key("k", 2);
    other.publisher = "q".into();
    assert_ne!(
        hub.publish_all(&events[..1], Some(other)).await.unwrap(),
        first
    );
    assert_eq!(data(&hub, "a"), ["0", "1", "2", "0"]);
}

pub(crate) async fn a_refused_request_frees_its_key(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    hub.close_topic(topic("closed")).await.unwrap();
    let refused = hub
        .publish_all(&batch("closed", 0, 1), Some(key("k", 1)))
        .await;
    assert!(
        matches!(refused, Err(PublishError::Refused(_))),
        "{refused:?}"
    );
    hub.publish_all(&batch("a", 0, 1), Some(key("k", 2)))
        .await
        .unwrap();
}

pub(crate) async fn a_key_is_used_once_by_many_at_once(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let tries: Vec<_> = (0..32)
        .map(|_| {
            let hub = hub.clone();
            tokio::spawn(async move { hub.publish_all(&batch("a", 0, 2), Some(key("k", 1))).await })
        })
        .collect();
    let mut answers = Vec::new();
    for attempt in tries {
        match attempt.await.unwrap() {
            Ok(ids) => answers.push(ids),
            Err(error) => assert_eq!(error, PublishError::KeyInFlight),
        }
    }
    assert!(!answers.is_empty() && answers.iter().all(|ids| *ids == answers[0]));
    assert_eq!(data(&hub, "a"), ["0", "1"]);
}

pub(crate) async fn a_closed_topic_takes_nothing(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    publish(&hub, "a", "1").await.unwrap();
    let end = hub.close_topic(topic("a")).await.unwrap();
    assert_eq!(
        hub.close_topic(topic("a")).await.unwrap(),
        end,
        "closed once"
    );
    assert!(end.tombstone.is_some());
    let closed = Err(PublishError::Refused(Refused::TopicClosed(topic("a"))));
    assert_eq!(hub.publish("a", "2").await, closed);
    assert_eq!(data(&hub, "a"), ["1", "{\"topic\":\"a\"}"]);
    let closing = (0..16).map(|_| {
        let hub = hub.clone();
        tokio::spawn(async move { hub.close_topic(topic("b")).await.unwrap() })
    });
    let mut ends = Vec::new();
    for end in closing.collect::<Vec<_>>() {
        ends.push(end.await.unwrap());
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

pub(crate) async fn a_dropped_request_takes_nothing_back(subject: &impl Subject) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    for n in 0..50 {
        let events = batch("a", 2 * n, 2);
        let mut request = Box::pin(hub.publish_all(&events, None));
        // Once begun it is the broker's.
        let _ = futures_util::poll!(&mut request);
        drop(request);
    }
    publish(&hub, "a", "last").await.unwrap();
    let mut expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    expected.push("last".into());
    assert_eq!(data(&hub, "a"), expected);
}

pub(crate) async fn who_resumes_from_before_the_log_is_sent_what_the_store_has<S: Subject>(
    subject: &S,
) {
    let folder = folder();
    let hub = small(subject, folder.path()).await;
    let mut ids = texts(&hub.publish_all(&batch("a", 0, 100), None).await.unwrap());
    for n in 100..200 {
        let event = Event::text(n.to_string());
        let own = (n % 7 == 0).then(|| format!("own-{n}"));
        let event = own.map_or(event.clone(), |own| event.with_id(own));
        ids.push(hub.publish("a", event).await.unwrap().to_string());
        publish(&hub, "b", "another's").await.unwrap();
    }
    hub.close_topic(topic("b")).await.unwrap();
    let held = hub.stats().log.events;
    assert!(held < 100, "{held}");
    if !S::DURABLE {
        assert!(after(&hub, "a", &ids[0]).gap);
        return;
    }
    let expected: Vec<_> = ids
        .iter()
        .cloned()
        .zip((0..).map(|n: usize| n.to_string()))
        .collect();
    for at in [0, 1, 50, 98, 99, 100, 120] {
        let resumed = stream(&hub, "a", &Start::After(ids[at].clone()));
        let live = publish(&hub, "a", "live").await.unwrap();
        let lives = ids.len() - 200;
        ids.push(live);
        let seen = read(resumed, 200 - at + lives).await;
        assert_eq!(seen[..199 - at], expected[at + 1..], "after {at}");
        let seen_live: Vec<_> = seen[199 - at..].iter().map(|(id, _)| id).collect();
        assert_eq!(seen_live, ids[200..].iter().collect::<Vec<_>>());
    }
}

pub(crate) async fn a_restart_keeps_what_the_broker_promises<S: Subject>(subject: &S) {
    let folder = folder();
    let hub = start(subject, folder.path()).await;
    let ids = hub
        .publish_all(&batch("a", 0, 10), Some(key("k", 1)))
        .await
        .unwrap();
    hub.publish("a", Event::text("own").with_id("own").private())
        .await
        .unwrap();
    let end = hub.close_topic(topic("b")).await.unwrap();
    let before = page(&hub, "a", &Start::Earliest);
    hub.stop().await;
    drop(hub);
    let hub = start(subject, folder.path()).await;
    let id = ids[4].to_string();
    if !S::DURABLE {
        assert!(after(&hub, "a", &id).gap, "what is forgotten is said to be");
        return;
    }
    assert_eq!(
        page(&hub, "a", &Start::Earliest),
        before,
        "ids, order, time stamps"
    );
    let page = after(&hub, "a", &id);
    assert!(!page.gap);
    assert_eq!(page.events[0].data, "5");
    assert_eq!(
        hub.publish_all(&batch("a", 0, 10), Some(key("k", 1)))
            .await
            .unwrap(),
        ids
    );
    let reused = hub.publish_all(&batch("a", 0, 10), Some(key("k", 2))).await;
    assert_eq!(reused, Err(PublishError::KeyReused));
    let taken = PublishError::Refused(Refused::IdTaken("own".into()));
    assert_eq!(
        hub.publish("a", Event::text("x").with_id("own")).await,
        Err(taken)
    );
    assert_eq!(hub.close_topic(topic("b")).await.unwrap(), end);
    let next = NativeId::parse(&publish(&hub, "a", "next").await.unwrap()).unwrap();
    assert!(next.offset > end.offset && next.epoch == end.epoch);
}
