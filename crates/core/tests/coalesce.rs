//! Which streams may wait for news, and how long.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

use tidewire_core::coalesce::{CoalesceRule, Touched};
use tidewire_core::filter::{FilterKey, FilterSpec};
use tidewire_core::id::{Epoch, Offset};
use tidewire_core::log::{Log, Retention};
use tidewire_core::{Event, Pattern, Topic};

const RULES: [(&str, u32); 4] = [
    ("price:urgent", 0),
    ("price:*", 200),
    ("order:**", 1_000),
    ("user:*", 50),
];

fn log() -> Log {
    let rules = RULES.map(|(pattern, window_ms)| CoalesceRule {
        pattern: Pattern::new(pattern).unwrap(),
        window_ms,
    });
    Log::new(Epoch::from_random(1), Retention::default()).with_coalescing(rules.into())
}

fn acquire(log: &mut Log, names: &[&str]) -> FilterKey {
    let mut spec = FilterSpec::default();
    for name in names {
        let pattern = Pattern::new(name).unwrap();
        if pattern.is_literal() {
            spec.topics.push(Topic::new(name).unwrap());
        } else {
            spec.patterns.push(pattern);
        }
    }
    log.acquire_filter(&spec)
}

fn take(log: &mut Log) -> Vec<Touched> {
    let mut touched = Vec::new();
    log.take_touched(&mut touched);
    touched
}

#[test]
fn a_stream_waits_only_if_all_that_it_names_may_and_as_short_as_any() {
    let cases: [(&[&str], u32); 10] = [
        (&["price:a"], 200),
        (&["price:urgent"], 0),
        (&["price:a", "price:urgent"], 0),
        (&["price:a", "order:a/b"], 200),
        (&["price:a", "news"], 0),
        (&["price:a", "user:1"], 50),
        (&["price:*"], 200),
        (&["price:**"], 0),
        (&["order:*", "order:7"], 1_000),
        (&[], 0),
    ];
    for (names, expected) in cases {
        let mut log = log();
        let filter = acquire(&mut log, names);
        log.append_to_everyone(&Event::text("to all"), 1);
        let touched = take(&mut log);
        let window_ms = expected;
        assert_eq!(touched, [Touched { filter, window_ms }], "{names:?}");
    }
}

#[test]
fn nobody_waits_for_the_end_of_a_topic() {
    let mut log = log();
    let both = acquire(&mut log, &["price:a", "price:b"]);
    let one = acquire(&mut log, &["price:b"]);
    let topics = ["price:a", "price:b"].map(|name| Topic::new(name).unwrap());
    log.append(&topics, &Event::text("1"), Offset::counted(1), 1);
    log.append_end(&topics[0], Offset::counted(2), 1);
    // Touched by its other topic as well, and before.
    let mut touched = take(&mut log);
    touched.sort_by_key(|touched| touched.window_ms);
    let expected = [(both, 0), (one, 200)].map(|(filter, window_ms)| Touched { filter, window_ms });
    assert_eq!(touched, expected);
}
