//! The `Broadcaster`: what its streams carry, who counts as a client, and that any series of calls keeps its books right.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::json;
use tidewire::broadcaster::STREAM_ID_BYTES_MAX;
use tidewire::core::filter::FilterSpec;
use tidewire::core::log::Retention;
use tidewire::core::subscribe::Start;
use tidewire::core::subscription::SlowClient;
use tidewire::hub::Opened;
use tidewire::stream::StreamOptions;
use tidewire::{BroadcastError, Broadcaster, EventData, Hub, HubBuilder, StreamClient, Topic};

fn broadcaster(settings: HubBuilder) -> (Hub, Broadcaster) {
    let hub = settings.build();
    let broadcaster = Broadcaster::new(&hub, "stream").unwrap();
    (hub, broadcaster)
}

async fn next(client: &mut StreamClient) -> EventData {
    let next = tokio::time::timeout(Duration::from_secs(20), client.recv());
    next.await.expect("in time").expect("the stream is open")
}

fn nothing_waits_for(client: &mut StreamClient) -> bool {
    client.recv().now_or_never().is_none()
}

#[tokio::test]
async fn events_reach_the_clients_of_their_stream_in_order() {
    let (_hub, all) = broadcaster(Hub::builder());
    let mut clients = [all.subscribe("a").unwrap(), all.subscribe("a").unwrap()];
    let mut other = all.subscribe("b").unwrap();
    for n in 0..3 {
        let sent = all
            .broadcast("a", "tick", &format!("number {n}"), json!({ "n": n }))
            .await
            .unwrap();
        assert_eq!(sent.stream_id.as_deref(), Some("a"));
        for client in &mut clients {
            assert_eq!(next(client).await, sent);
        }
    }
    assert!(nothing_waits_for(&mut other));
    assert_eq!((other.stream_id(), clients[0].stream_id()), ("b", "a"));
}

#[tokio::test]
async fn a_waiting_client_is_woken() {
    let (_hub, all) = broadcaster(Hub::builder());
    let mut client = all.subscribe("a").unwrap();
    let waiting = tokio::spawn(async move { client.recv().await });
    tokio::task::yield_now().await;
    all.broadcast("a", "t", "m", None).await.unwrap();
    let event = waiting.await.unwrap().unwrap();
    assert_eq!((event.message.as_str(), event.data), ("m", None));
}

#[tokio::test]
async fn an_event_to_all_comes_once_also_to_a_client_of_several_streams() {
    let (hub, all) = broadcaster(Hub::builder());
    let mut clients: Vec<_> = (0..300)
        .map(|n| all.subscribe(&format!("s{n}")).unwrap())
        .collect();
    let filter = FilterSpec {
        topics: ["s5", "s6"].map(|id| all.topic(id).unwrap()).into(),
        ..FilterSpec::default()
    };
    let Opened::Stream(both) = hub.open(&filter, &Start::Live, StreamOptions::default()) else {
        panic!("there is room")
    };
    assert_eq!((all.total_clients(), all.stream_count()), (301, 300));
    let sent = all.broadcast_to_all("t", "m", None).await.unwrap();
    assert_eq!(sent.stream_id, None);
    for client in &mut clients {
        assert_eq!(next(client).await, sent);
        assert!(nothing_waits_for(client));
    }
    assert_eq!(hub.stats().log.events, 3, "one for each 128 streams");
    let row = |id: &str| all.stream_clients(id).len();
    assert_eq!((row("s5"), row("s7"), row("s300"), row("*")), (2, 1, 0, 0));
    drop(both);
    assert_eq!(all.total_clients(), 300);
}

#[tokio::test]
async fn an_event_to_all_of_no_streams_is_stored_nowhere() {
    let (hub, all) = broadcaster(Hub::builder());
    all.broadcast_to_all("t", "m", None).await.unwrap();
    assert_eq!(hub.stats().log.events, 0);
    all.keep_active("kept").unwrap();
    all.broadcast_to_all("t", "m", None).await.unwrap();
    assert_eq!(hub.stats().log.events, 1);
    assert_eq!(
        all.active_streams(),
        BTreeMap::from([("kept".to_owned(), 0)])
    );
    assert!(all.is_stream_active("kept") && !all.is_stream_active("other"));
    all.release("kept");
    assert!(!all.is_stream_active("kept"));
}

#[tokio::test]
async fn closed_streams_do_not_keep_an_event_from_the_others() {
    let (hub, all) = broadcaster(Hub::builder());
    all.keep_active("closed").unwrap();
    hub.close_topic(all.topic("closed").unwrap()).await.unwrap();
    all.broadcast_to_all("t", "to nobody", None).await.unwrap();
    let mut client = all.subscribe("open").unwrap();
    let sent = all.broadcast_to_all("t", "m", None).await.unwrap();
    assert_eq!(next(&mut client).await, sent);
    let refused = all.broadcast("closed", "t", "m", None).await;
    assert!(
        matches!(refused, Err(BroadcastError::Publish(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn broadcasters_of_two_namespaces_have_nothing_in_common() {
    let (hub, all) = broadcaster(Hub::builder());
    let others = Broadcaster::new(&hub, "other").unwrap();
    let same = Broadcaster::new(&hub, "stream").unwrap();
    let mut client = all.subscribe("a").unwrap();
    assert_eq!(
        (
            all.total_clients(),
            same.total_clients(),
            others.total_clients()
        ),
        (1, 1, 0)
    );
    assert!(!others.unsubscribe(client.id()));
    others.broadcast("a", "t", "m", None).await.unwrap();
    others.broadcast_to_all("t", "m", None).await.unwrap();
    assert!(nothing_waits_for(&mut client));
    let sent = same.broadcast("a", "t", "m", None).await.unwrap();
    assert_eq!(next(&mut client).await, sent);
    for namespace in ["", "a:b", "a b", "ä"] {
        assert!(Broadcaster::new(&hub, namespace).is_err(), "{namespace:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_unsubscribed_is_told_and_gone() {
    let (_hub, all) = broadcaster(Hub::builder());
    let mut client = all.subscribe("a").unwrap();
    assert!(all.unsubscribe(client.id()));
    assert_eq!(next(&mut client).await.event_type, "closed");
    assert_eq!(client.recv().await, None);
    assert_eq!(client.recv().await, None);
    assert!(!all.unsubscribe(client.id()));
    assert!(!all.is_stream_active("a"));
}

#[tokio::test]
async fn a_client_that_may_skip_is_told_of_the_gap_in_an_envelope() {
    let retention = Retention {
        memory_bytes: 1024 * 1024,
        ..Retention::default()
    };
    let settings = Hub::builder().history(retention);
    let (_hub, all) = broadcaster(settings.slow_client(SlowClient::Skip));
    let mut client = all.subscribe("a").unwrap();
    let large = json!("x".repeat(100_000));
    for _ in 0..30 {
        all.broadcast("a", "t", "m", large.clone()).await.unwrap();
    }
    let gap = next(&mut client).await;
    assert_eq!(
        (gap.event_type.as_str(), gap.stream_id.as_deref()),
        ("gap", Some("a"))
    );
    assert_eq!(gap.data.unwrap()["reason"], "lagged");
    assert_eq!(next(&mut client).await.event_type, "t");
}

#[tokio::test]
async fn what_is_no_envelope_comes_as_one() {
    let (hub, all) = broadcaster(Hub::builder());
    let mut client = all.subscribe("a").unwrap();
    let id = hub.publish("stream:a", "plain text").await.unwrap();
    let event = next(&mut client).await;
    assert_eq!(
        (event.event_type.as_str(), event.message.as_str(), event.id),
        ("message", "plain text", id.to_string())
    );
}

#[tokio::test]
async fn ids_and_events_are_checked() {
    let (hub, all) = broadcaster(Hub::builder());
    let longest = "x".repeat(STREAM_ID_BYTES_MAX);
    for id in ["document_123", "user-activity", "a.b:c", "0", &longest] {
        all.broadcast(id, "t", "m", None).await.unwrap();
        assert!(all.route(id).is_ok());
    }
    let too_long = format!("{longest}x");
    for id in ["", "a b", "a/b", "ä", "*", "a\n", &too_long] {
        let refused = all.broadcast(id, "t", "m", None).await;
        assert_eq!(refused, Err(BroadcastError::BadStreamId), "{id:?}");
        assert!(
            all.subscribe(id).is_err() && all.route(id).is_err() && all.keep_active(id).is_err()
        );
        assert!(!all.is_stream_active(id));
    }
    let events = hub.stats().log.events;
    for (event_type, message, missing) in [("", "m", "type"), ("t", "", "message")] {
        let error = Err(BroadcastError::Missing(missing));
        assert_eq!(all.broadcast("a", event_type, message, None).await, error);
        assert_eq!(all.broadcast_to_all(event_type, message, None).await, error);
    }
    assert_eq!(hub.stats().log.events, events);
    let _stranger = hub.open(
        &FilterSpec {
            topics: vec![Topic::new("stream:no id").unwrap()],
            ..FilterSpec::default()
        },
        &Start::Live,
        StreamOptions::default(),
    );
    assert_eq!(
        all.stream_count(),
        0,
        "a topic that is no stream is not listed"
    );
}

#[tokio::test]
async fn a_full_hub_has_no_room_for_a_client() {
    let settings = Hub::builder().max_connections(1);
    let (_hub, all) = broadcaster(settings.at_capacity(tidewire::AtCapacity::Reject));
    let _one = all.subscribe("a").unwrap();
    assert_eq!(all.subscribe("a").err(), Some(BroadcastError::Full));
    assert_eq!(all.total_clients(), 1);
}

/// What may be done, with small numbers for streams and clients.
#[derive(Clone, Debug)]
enum Step {
    Subscribe(u8),
    Drop(u8),
    Keep(u8),
    Release(u8),
    Broadcast(u8),
    ToAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8).prop_map(Step::Subscribe),
        2 => any::<u8>().prop_map(Step::Drop),
        1 => (0..4u8).prop_map(Step::Keep),
        1 => (0..4u8).prop_map(Step::Release),
        3 => (0..4u8).prop_map(Step::Broadcast),
        2 => Just(Step::ToAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Beside the broadcaster a list of clients, each with what it must have been sent.
    #[test]
    fn whatever_is_done_each_client_gets_its_events_once_and_all_are_counted(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (_hub, all) = broadcaster(Hub::builder());
        let mut clients: Vec<(String, StreamClient, Vec<EventData>)> = Vec::new();
        let mut kept = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Subscribe(n) => {
                    let id = format!("s{n}");
                    clients.push((id.clone(), all.subscribe(&id).unwrap(), Vec::new()));
                }
                Step::Drop(n) if !clients.is_empty() => {
                    let n = usize::from(n) % clients.len();
                    clients.swap_remove(n);
                }
                Step::Drop(_) => {}
                Step::Keep(n) => {
                    all.keep_active(&format!("s{n}")).unwrap();
                    kept.insert(format!("s{n}"));
                }
                Step::Release(n) => {
                    all.release(&format!("s{n}"));
                    kept.remove(&format!("s{n}"));
                }
                Step::Broadcast(n) => {
                    let id = format!("s{n}");
                    let sent = all.broadcast(&id, "t", "m", None).now_or_never().unwrap().unwrap();
                    let readers = clients.iter_mut().filter(|(stream, ..)| *stream == id);
                    readers.for_each(|(.., expected)| expected.push(sent.clone()));
                }
                Step::ToAll => {
                    let sent = all.broadcast_to_all("t", "m", None).now_or_never().unwrap().unwrap();
                    for (.., expected) in &mut clients {
                        expected.push(sent.clone());
                    }
                }
            }
            let mut active: BTreeMap<String, usize> = kept.iter().map(|id| (id.clone(), 0)).collect();
            for (id, ..) in &clients {
                *active.entry(id.clone()).or_default() += 1;
            }
            prop_assert_eq!(all.stream_count(), active.len());
            prop_assert_eq!(all.total_clients(), clients.len());
            for n in 0..4 {
                let id = format!("s{n}");
                prop_assert_eq!(all.is_stream_active(&id), active.contains_key(&id));
                let listed = all.stream_clients(&id).len();
                prop_assert_eq!(listed, active.get(&id).copied().unwrap_or_default());
            }
            prop_assert_eq!(all.active_streams(), active);
        }
        for (_, client, expected) in &mut clients {
            let got = std::iter::from_fn(|| client.recv().now_or_never().flatten());
            prop_assert_eq!(&got.collect::<Vec<_>>(), expected);
        }
    }
}
