//! Reading by pattern, by several topics, and page by page.

mod hub;

use hub::{Hub, patterns, topic, topics};
use tidewire_core::event::Event;
use tidewire_core::log::{HistoryPage, Retention};
use tidewire_core::subscribe::Start;
use tidewire_core::topic::Topic;

#[test]
fn a_pattern_reads_what_came_before_its_first_use() {
    let mut hub = Hub::default();
    hub.publish(&["room:1"], "one");
    hub.publish(&["other"], "noise");
    hub.publish(&["room:2"], "two");
    let id = hub.id(1);
    assert_eq!(hub.after(&patterns(&["room:*"]), &id), ["two"]);
    assert_eq!(
        hub.read(&patterns(&["room:*"]), &Start::Earliest),
        ["one", "two"]
    );
}

#[test]
fn a_pattern_with_an_id_of_a_former_life_reads_all_that_is_held() {
    let mut hub = Hub::default();
    hub.publish(&["room:1"], "lost");
    let id = hub.id(1);
    hub.restart();
    hub.publish(&["room:1"], "one");
    let gap = format!("gap {id} unknown_id");
    assert_eq!(hub.after(&patterns(&["room:*"]), &id), [&gap, "one"]);
}

/// The chain of `**` took the events to everyone for its own, and kept them when the log no longer did.
#[test]
fn a_pattern_for_all_topics_does_not_hold_events_to_everyone() {
    let mut hub = Hub::new(Retention {
        ttl_ms: 1_000,
        ..Retention::default()
    });
    hub.log
        .append_to_everyone(&Event::text("hello"), hub.now_ms);
    let all = hub.log.acquire_filter(&patterns(&["**"]));
    assert_eq!(hub.read(&patterns(&["**"]), &Start::Earliest), [""; 0]);
    hub.pass(2_000);
    hub.publish(&["room:1"], "one");
    assert_eq!(hub.read(&patterns(&["**"]), &Start::Earliest), ["one"]);
    hub.pass(2_000);
    assert_eq!(hub.log.stats().memory_bytes, 0);
    hub.log.release_filter(all);
}

#[test]
fn an_event_of_several_topics_is_delivered_once() {
    let mut hub = Hub::default();
    hub.publish(&["a:1", "a:2", "b"], "one");
    let mut spec = patterns(&["a:*", "**"]);
    spec.topics = topics(&["a:1", "b"]).topics;
    assert_eq!(hub.read(&spec, &Start::Earliest), ["one"]);
}

#[test]
fn reserved_topics_are_reached_only_by_patterns_that_begin_so() {
    let mut hub = Hub::default();
    let reserved = ["user:1", "notification:1", "connection:1", "presence:1"];
    for name in reserved {
        hub.publish(&[name], name);
    }
    for text in ["**", "*", "*:*", "us**"] {
        assert_eq!(
            hub.read(&patterns(&[text]), &Start::Earliest),
            [""; 0],
            "{text}"
        );
    }
    assert_eq!(
        hub.read(&patterns(&["user:*"]), &Start::Earliest),
        ["user:1"]
    );
}

#[test]
fn history_comes_in_pages_that_join_without_a_seam() {
    let mut hub = Hub::default();
    for n in 0..7 {
        hub.publish(&["orders", "all"], &n.to_string());
        hub.publish(&["other"], "noise");
    }
    let orders = topic("orders");
    let (mut start, mut read, mut sizes) = (Start::Earliest, Vec::new(), Vec::new());
    loop {
        let page = history(&mut hub, &orders, &start, 3, usize::MAX);
        assert!(!page.gap);
        sizes.push(page.events.len());
        read.extend(page.events.into_iter().map(|event| event.data));
        match page.next {
            Some(next) => start = Start::After(next.to_string()),
            None => break,
        }
    }
    assert_eq!(read, ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(hub.log.stats().filters, 0);
}

#[test]
fn history_says_what_was_published_and_what_is_missing() {
    let mut hub = Hub::new(Retention {
        ttl_ms: 1_000,
        ..Retention::default()
    });
    hub.publish(&["orders"], "lost");
    hub.pass(2_000);
    let event = Event::text("a\nb").named("created").with_id("order 1");
    hub.publish_event(&["orders", "all"], &event);
    hub.log
        .append_transient(&[topic("orders")], &Event::text("typing"), hub.now_ms);
    let start = Start::After(hub.id(0));
    let page = history(&mut hub, &topic("orders"), &start, 10, usize::MAX);
    assert!(page.gap);
    assert_eq!(page.next, None);
    let [event] = &page.events[..] else {
        panic!("one event is stored and held: {page:?}");
    };
    assert_eq!(
        (&*event.id, &*event.event, &*event.data),
        ("order 1", "created", "a\nb")
    );
    assert_eq!(event.topics, ["orders", "all"]);
    assert_eq!(event.published_at_ms, hub.now_ms);
}

#[test]
fn a_page_of_history_has_about_as_many_bytes_as_asked_for() {
    let mut hub = Hub::default();
    for _ in 0..4 {
        hub.publish(&["orders"], &"x".repeat(100));
    }
    let page = history(&mut hub, &topic("orders"), &Start::Earliest, 10, 150);
    assert_eq!(page.events.len(), 2);
    assert!(page.next.is_some());
}

#[test]
fn the_listing_of_topics_has_each_once_whatever_the_page() {
    let mut hub = Hub::default();
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        hub.publish(&[name], name);
    }
    hub.end("e");
    let filter = hub.log.acquire_filter(&topics(&["b", "read only"]));
    for limit in 1..8 {
        let (mut listed, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let (page, next) = hub.log.topics(at, limit, hub.now_ms);
            assert!(page.len() <= limit);
            listed.extend(page);
            cursor = next;
        }
        listed.sort_by(|a, b| a.topic.cmp(&b.topic));
        let found: Vec<_> = listed
            .iter()
            .map(|info| (&*info.topic, info.events, info.subscribers, info.closed))
            .collect();
        assert_eq!(
            found,
            [
                ("a", 1, 0, false),
                ("b", 1, 1, false),
                ("c", 1, 0, false),
                ("d", 1, 0, false),
                ("e", 2, 0, true),
                ("read only", 0, 1, false),
            ]
        );
    }
    assert_eq!(hub.log.subscribers_of("b"), 1);
    hub.log.release_filter(filter);
    assert_eq!(hub.log.stats().topics, names.len());
}

fn history(
    hub: &mut Hub,
    topic: &Topic,
    start: &Start,
    events_max: usize,
    bytes_max: usize,
) -> HistoryPage {
    let start = hub.log.find_history(topic, start, hub.now_ms);
    hub.log
        .history(topic, &start, events_max, bytes_max, &|_| true)
}
