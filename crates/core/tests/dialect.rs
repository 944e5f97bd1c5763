//! What the hub itself says on a stream comes in the form that the stream's door has, and which topics of a namespace are
//! read is known at any time.

mod hub;

use hub::{EPOCH_MS, Hub, patterns, topics};
use tidewire_core::dialect::{Dialect, Notice};
use tidewire_core::event::Event;
use tidewire_core::filter::FilterSpec;
use tidewire_core::log::Retention;
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{Batch, Poll, SlowClient};

static SHOUT: Dialect = Dialect {
    name: "shout",
    render: |notice: &Notice<'_>| {
        let Notice {
            name,
            data,
            id,
            topic,
            at_ms,
        } = notice;
        Event::text(format!("{name}! {topic} {at_ms} {id} {data}"))
    },
};

fn in_dialect(spec: FilterSpec) -> FilterSpec {
    FilterSpec {
        dialect: Some(&SHOUT),
        ..spec
    }
}

#[test]
fn a_history_that_was_lost_is_said_in_the_dialect() {
    let mut hub = Hub::default();
    hub.publish(&["a"], "lost");
    let id = hub.id(1);
    hub.restart();
    let told = hub.after(&in_dialect(topics(&["a"])), &id);
    assert!(
        told[0].starts_with("gap! a ") && told[0].contains(&id),
        "{told:?}"
    );
}

#[test]
fn a_gap_at_the_start_is_said_in_the_dialect() {
    let mut hub = Hub::default();
    hub.publish(&["a"], "one");
    let spec = in_dialect(topics(&["a"]));
    let before = hub.id(0);
    let gap = format!("gap! a {EPOCH_MS} {before} {{\"from\":\"x\",\"reason\":\"unknown_id\"}}");
    assert_eq!(hub.after(&spec, "x"), [gap, "one".to_owned()]);
    assert_eq!(
        hub.after(&topics(&["a"]), "x"),
        ["gap x unknown_id", "one"],
        "others have the hub's own form"
    );
    let of_patterns = hub.after(&in_dialect(patterns(&["*"])), "x");
    assert!(of_patterns[0].starts_with("gap!  "), "{of_patterns:?}");
}

#[test]
fn a_gap_for_being_slow_is_said_in_the_dialect() {
    let mut hub = Hub::new(Retention {
        ttl_ms: 1_000,
        ..Retention::default()
    });
    let filter = hub.log.acquire_filter(&in_dialect(topics(&["a"])));
    let subscribed = hub
        .log
        .subscribe(filter, &Start::Live, SlowClient::Skip, hub.now_ms);
    let Subscribed::Stream {
        mut subscription, ..
    } = subscribed
    else {
        panic!("a stream")
    };
    hub.publish(&["a"], "lost");
    hub.pass(2_000);
    let told = hub.drain(&mut subscription);
    assert!(
        told[0].starts_with("gap! a ") && told[0].contains("lagged"),
        "{told:?}"
    );
}

#[test]
fn the_end_of_a_topic_is_said_in_the_dialect_also_in_pieces() {
    let mut hub = Hub::default();
    let end = hub.end("a");
    let spec = in_dialect(topics(&["a"]));
    let expected = format!("end! a {EPOCH_MS} {end} {{\"topic\":\"a\"}}");
    assert_eq!(
        hub.read(&spec, &Start::Live),
        [expected.clone(), "closed ended".to_owned()]
    );
    let filter = hub.log.acquire_filter(&spec);
    let subscribed = hub
        .log
        .subscribe(filter, &Start::Earliest, SlowClient::Close, hub.now_ms);
    let Subscribed::Stream {
        mut subscription, ..
    } = subscribed
    else {
        panic!("a stream")
    };
    let (mut batch, mut wire) = (Batch::default(), Vec::new());
    while subscription.poll(&hub.log, None, 7, &mut batch) == Poll::Data {
        let n = batch.bytes().len().min(3);
        wire.extend_from_slice(&batch.bytes()[..n]);
        subscription.sent(&batch, n);
    }
    assert_eq!(
        String::from_utf8(wire).expect("text"),
        format!("data: {expected}\nid: {end}\n\n")
    );
    assert_eq!(hub.after(&spec, &end.to_string()), ["over"]);
}

#[test]
fn a_namespace_knows_its_topics_with_readers() {
    let mut hub = Hub::default();
    let early = hub.log.acquire_filter(&topics(&["s:a", "t:a"]));
    hub.log.add_namespace("s:");
    hub.log.add_namespace("s:");
    let both = topics(&["s:a", "s:b"]);
    let (one, two) = (hub.log.acquire_filter(&both), hub.log.acquire_filter(&both));
    let alone = hub.log.acquire_filter(&in_dialect(topics(&["s:b"])));
    hub.log.acquire_filter(&patterns(&["s:*"]));
    hub.publish(&["s:c"], "nobody reads it by name");
    let read = |hub: &Hub| {
        let rows = hub.log.read_in("s:").into_iter();
        let mut rows: Vec<_> = rows.map(|(name, n)| (name.to_owned(), n)).collect();
        rows.sort();
        (rows, hub.log.subscribers_in("s:"))
    };
    let rows = |rows: &[(&str, usize)]| -> Vec<(String, usize)> {
        rows.iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    };
    assert_eq!(read(&hub), (rows(&[("a", 3), ("b", 3)]), 4));
    assert_eq!(hub.log.filters_of("s:b").len(), 2);
    hub.log.release_filter(early);
    hub.log.release_filter(one);
    assert_eq!(read(&hub), (rows(&[("a", 1), ("b", 2)]), 2));
    hub.log.release_filter(two);
    assert_eq!(read(&hub), (rows(&[("b", 1)]), 1));
    hub.log.release_filter(alone);
    assert_eq!(read(&hub), (rows(&[]), 0));
    assert!(hub.log.filters_of("s:b").is_empty());
    assert_eq!(
        (hub.log.read_in("x"), hub.log.subscribers_in("x")),
        (vec![], 0)
    );
}
