//! What the design promises of the log and its subscriptions, case by case. Each test is named after the behaviour.
//! The interleavings are in `invariants.rs`.

mod hub;

use hub::{Hub, patterns, topic, topics};
use tidewire_core::event::Event;
use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{NativeId, Tombstone};
use tidewire_core::log::{Refused, Retention, RetentionRule};
use tidewire_core::pattern::Pattern;
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{Batch, CloseReason, Poll, SlowClient};

fn rule(pattern: &str, ttl_ms: Option<u64>, events_max: Option<usize>) -> RetentionRule {
    RetentionRule {
        pattern: Pattern::new(pattern).expect("a pattern"),
        ttl_ms,
        events_max,
    }
}

fn with_rules(rules: impl Into<Vec<RetentionRule>>) -> Hub {
    Hub::new(Retention {
        rules: rules.into(),
        ..Retention::default()
    })
}

/// A hub that keeps what was published in the last second.
fn of_one_second() -> Hub {
    Hub::new(Retention {
        ttl_ms: 1_000,
        ..Retention::default()
    })
}

#[test]
fn an_id_that_nobody_knows_is_answered_with_a_gap_and_the_whole_history() {
    let mut hub = Hub::default();
    hub.publish(&["orders"], "one");
    let spec = topics(&["orders"]);
    assert_eq!(
        hub.after(&spec, "nobody's"),
        ["gap nobody's unknown_id", "one"]
    );
    let future = hub.id(9);
    assert_eq!(
        hub.after(&spec, &future),
        [&format!("gap {future} unknown_id"), "one"]
    );
}

#[test]
fn an_id_of_a_former_life_is_answered_with_a_gap() {
    let mut hub = Hub::default();
    hub.publish(&["orders"], "lost");
    let id = hub.id(1);
    hub.restart();
    hub.publish(&["orders"], "one");
    assert_eq!(
        hub.after(&topics(&["orders"]), &id),
        [&format!("gap {id} unknown_id"), "one"]
    );
}

#[test]
fn an_id_whose_successor_has_expired_is_answered_with_a_gap() {
    let mut hub = of_one_second();
    hub.publish(&["orders"], "one");
    hub.publish(&["orders"], "two");
    hub.pass(2_000);
    hub.publish(&["orders"], "three");
    let spec = topics(&["orders"]);
    let (seen, last) = (hub.id(1), hub.id(2));
    assert_eq!(
        hub.after(&spec, &seen),
        [&format!("gap {seen} expired"), "three"]
    );
    assert_eq!(hub.after(&spec, &last), ["three"]);
}

#[test]
fn an_old_id_of_a_quiet_topic_is_no_gap_where_only_other_topics_were_trimmed() {
    let mut hub = of_one_second();
    hub.publish(&["quiet"], "one");
    hub.publish(&["busy"], "noise");
    hub.pass(2_000);
    hub.publish(&["quiet"], "two");
    let id = hub.id(1);
    assert_eq!(hub.after(&topics(&["quiet"]), &id), ["two"]);
    // Patterns share one mark: rather a gap too many than a loss that nobody is told of.
    let gap = format!("gap {id} expired");
    assert_eq!(hub.after(&patterns(&["quiet*"]), &id), [&gap, "two"]);
}

#[test]
fn a_client_resumes_from_a_publishers_own_id_while_that_is_in_history() {
    let mut hub = of_one_second();
    hub.publish_event(&["orders"], &Event::text("one").with_id("order 1"));
    hub.publish(&["orders"], "two");
    let spec = topics(&["orders"]);
    assert_eq!(hub.after(&spec, "order 1"), ["two"]);
    hub.pass(2_000);
    hub.publish(&["orders"], "three");
    assert_eq!(
        hub.after(&spec, "order 1"),
        ["gap order 1 unknown_id", "three"]
    );
}

#[test]
fn an_own_id_is_taken_until_it_leaves_the_history() {
    let mut hub = of_one_second();
    let event = Event::text("one").with_id("order 1");
    hub.publish_event(&["orders"], &event);
    let check = |hub: &Hub| hub.log.check(&[topic("orders")], &event, hub.now_ms);
    assert_eq!(check(&hub), Err(Refused::IdTaken("order 1".into())));
    hub.pass(2_000);
    assert_eq!(check(&hub), Ok(()));
}

/// A broker that decides elsewhere may deliver one id twice. The memory of the first was then counted for ever, and the
/// younger event lost its id with the older one.
#[test]
fn an_own_id_that_came_twice_is_the_younger_events_and_counted_once() {
    let mut hub = of_one_second();
    for data in ["one", "two"] {
        hub.publish_event(&["orders"], &Event::text(data).with_id("order 1"));
        hub.pass(600);
    }
    hub.publish(&["orders"], "three");
    assert_eq!(hub.after(&topics(&["orders"]), "order 1"), ["three"]);
    hub.pass(2_000);
    assert_eq!(hub.log.stats().memory_bytes, 0);
}

#[test]
fn a_subscription_to_a_topic_that_ends_is_closed_after_the_end() {
    let mut hub = Hub::default();
    hub.publish(&["job"], "working");
    let id = hub.end("job").to_string();
    let spec = topics(&["job"]);
    let end = r#"end {"topic":"job"}"#;
    assert_eq!(hub.after(&spec, &hub.id(1)), [end, "closed ended"]);
    // Also one that comes later is told.
    assert_eq!(hub.read(&spec, &Start::Live), [end, "closed ended"]);
    assert_eq!(hub.after(&spec, &id), ["over"]);
    let refused = hub
        .log
        .check(&[topic("job")], &Event::text("more"), hub.now_ms);
    assert_eq!(refused, Err(Refused::TopicClosed(topic("job"))));
}

#[test]
fn a_subscription_to_several_topics_is_closed_when_the_last_has_ended() {
    let mut hub = Hub::default();
    let first = hub.end("a").to_string();
    let spec = topics(&["a", "b"]);
    hub.publish(&["b"], "still here");
    assert_eq!(hub.after(&spec, &first), ["still here"]);
    let last = hub.end("b").to_string();
    assert_eq!(
        hub.after(&spec, &first),
        ["still here", r#"end {"topic":"b"}"#, "closed ended"]
    );
    assert_eq!(hub.after(&spec, &last), ["over"]);
    assert_eq!(
        hub.after(&topics(&["a", "b", "c"]), &last),
        [""; 0],
        "a topic is open"
    );
    assert_eq!(
        hub.after(&patterns(&["*"]), &last),
        [""; 0],
        "a pattern never ends"
    );
}

#[test]
fn a_topic_opens_again_when_its_end_has_left_the_history() {
    let mut hub = of_one_second();
    let id = hub.end("job").to_string();
    hub.pass(2_000);
    let spec = topics(&["job"]);
    hub.publish(&["job"], "anew");
    assert_eq!(hub.read(&spec, &Start::Earliest), ["anew"]);
    assert_eq!(
        hub.after(&spec, &id),
        ["over"],
        "the tombstone says so itself"
    );
}

/// A rule had taken the end out of history while the log still held it: whoever subscribed then was closed at once, and
/// came back, and was closed.
#[test]
fn a_topic_that_is_open_again_by_a_rule_does_not_close_its_subscribers() {
    let mut hub = with_rules([rule("job", Some(1_000), None)]);
    hub.end("job");
    hub.pass(2_000);
    let spec = topics(&["job"]);
    assert_eq!(hub.read(&spec, &Start::Live), [""; 0]);
    hub.publish(&["job"], "anew");
    assert_eq!(hub.read(&spec, &Start::Earliest), ["anew"]);
}

#[test]
fn who_was_closed_or_replaced_is_not_let_in_again_with_that_id() {
    let mut hub = Hub::default();
    hub.publish(&["orders"], "one");
    let id = NativeId::parse(&hub.id(1)).expect("a native id");
    hub.restart();
    for tombstone in [Tombstone::Closed, Tombstone::Replaced] {
        let id = id.with_tombstone(tombstone).to_string();
        assert_eq!(hub.after(&topics(&["orders"]), &id), ["over"]);
    }
}

#[test]
fn since_a_time_whose_history_is_lost_begins_with_a_gap_from_null() {
    let mut hub = of_one_second();
    hub.publish(&["orders"], "one");
    hub.pass(2_000);
    hub.publish(&["orders"], "two");
    let spec = topics(&["orders"]);
    let since = |ago_ms| Start::Since(hub::EPOCH_MS + 2_000 - ago_ms);
    assert_eq!(hub.read(&spec, &since(500)), ["two"]);
    assert_eq!(hub.read(&spec, &since(2_000)), ["gap null expired", "two"]);
}

/// Time 0 was that of the marks which nothing had set.
#[test]
fn since_the_beginning_of_time_is_no_gap_where_nothing_was_trimmed() {
    let mut hub = Hub::default();
    hub.publish(&["orders"], "one");
    assert_eq!(hub.read(&topics(&["orders"]), &Start::Since(0)), ["one"]);
}

#[test]
fn a_rule_hides_the_older_events_from_who_subscribes() {
    let mut hub = with_rules([
        rule("chat:*", None, Some(2)),
        rule("price", Some(500), None),
    ]);
    for data in ["one", "two", "three"] {
        hub.publish(&["chat:1", "price"], data);
        hub.pass(300);
    }
    let read = |hub: &mut Hub, topic| hub.read(&topics(&[topic]), &Start::Earliest);
    assert_eq!(read(&mut hub, "chat:1"), ["two", "three"]);
    assert_eq!(read(&mut hub, "price"), ["three"]);
    let id = hub.id(1);
    assert_eq!(
        hub.after(&topics(&["price"]), &id),
        [&format!("gap {id} expired"), "three"]
    );
    assert_eq!(hub.after(&topics(&["chat:1"]), &id), ["two", "three"]);
}

#[test]
fn the_longest_rule_counts_for_several_topics() {
    let mut hub = with_rules([
        rule("short", Some(500), None),
        rule("long", Some(5_000), None),
    ]);
    hub.publish(&["short"], "one");
    hub.publish(&["long"], "two");
    hub.pass(1_000);
    let read = |hub: &mut Hub, names| hub.read(&topics(names), &Start::Earliest);
    assert_eq!(read(&mut hub, &["short"]), [""; 0]);
    assert_eq!(read(&mut hub, &["short", "long"]), ["one", "two"]);
}

/// Transient events are no history, but took the places of those that are.
#[test]
fn a_rule_counts_stored_events_only() {
    let mut hub = with_rules([rule("chat", None, Some(2))]);
    hub.publish(&["chat"], "one");
    hub.publish(&["chat"], "two");
    for _ in 0..3 {
        let typing = Event::text("typing");
        hub.log
            .append_transient(&[topic("chat")], &typing, hub.now_ms);
    }
    assert_eq!(
        hub.read(&topics(&["chat"]), &Start::Earliest),
        ["one", "two"]
    );
}

fn lagging(hub: &mut Hub, slow_client: SlowClient) -> tidewire_core::subscription::Subscription {
    let filter = hub.log.acquire_filter(&topics(&["orders"]));
    let subscribed = hub
        .log
        .subscribe(filter, &Start::Live, slow_client, hub.now_ms);
    let Subscribed::Stream { subscription, .. } = subscribed else {
        panic!("nothing has ended");
    };
    subscription
}

#[test]
fn a_client_that_fell_off_the_log_is_closed_or_told_by_policy() {
    for slow_client in [SlowClient::Close, SlowClient::Skip] {
        let mut hub = of_one_second();
        let mut subscription = lagging(&mut hub, slow_client);
        hub.publish(&["orders"], "one");
        hub.pass(2_000);
        hub.publish(&["orders"], "two");
        let from = hub.id(0);
        match slow_client {
            SlowClient::Close => {
                assert_eq!(hub.drain(&mut subscription), ["closed lagged"]);
            }
            SlowClient::Skip => {
                let gap = format!("gap {from} lagged");
                assert_eq!(hub.drain(&mut subscription), [&gap, "two"]);
            }
        }
    }
}

/// Each poll after a loss queued one more gap, for as long as the client took no bytes; and later counted one more, of which
/// the client was never told.
#[test]
fn gaps_do_not_pile_up_for_a_client_that_takes_nothing() {
    let mut hub = of_one_second();
    let mut subscription = lagging(&mut hub, SlowClient::Skip);
    let mut batch = Batch::default();
    let mut new_gaps = 0;
    for _ in 0..50 {
        hub.publish(&["orders"], "lost");
        hub.pass(2_000);
        let answer = subscription.poll(&hub.log, None, 1_000, &mut batch);
        assert_eq!(answer, Poll::Data);
        assert_eq!(subscription.sent(&batch, 0), 0);
        new_gaps += usize::from(batch.has_new_gap());
    }
    assert_eq!(new_gaps, 1);
    let from = hub.id(0);
    assert_eq!(hub.drain(&mut subscription), [format!("gap {from} lagged")]);
}

/// A transient event of before the connection, trimmed unread, closed a client that had lost nothing.
#[test]
fn a_transient_event_of_before_the_connection_is_no_loss() {
    let mut hub = of_one_second();
    hub.publish(&["orders"], "one");
    hub.log
        .append_transient(&[topic("orders")], &Event::text("gone"), hub.now_ms);
    let filter = hub.log.acquire_filter(&topics(&["orders"]));
    let start = Start::After(hub.id(0));
    let subscribed = hub
        .log
        .subscribe(filter, &start, SlowClient::Close, hub.now_ms);
    let Subscribed::Stream {
        mut subscription, ..
    } = subscribed
    else {
        panic!("nothing has ended");
    };
    let mut batch = Batch::default();
    assert_eq!(
        subscription.poll(&hub.log, None, 1_000, &mut batch),
        Poll::Data
    );
    assert_eq!(subscription.sent(&batch, batch.bytes().len()), 1);
    hub.pass(2_000);
    let answer = subscription.poll(&hub.log, None, 1_000, &mut batch);
    assert_ne!(answer, Poll::Close(CloseReason::Lagged));
}

#[test]
fn a_limit_of_no_bytes_at_all_still_loses_nothing() {
    let mut hub = Hub::default();
    let mut subscription = lagging(&mut hub, SlowClient::Close);
    hub.publish(&["orders"], "one");
    let mut batch = Batch::default();
    let answer = subscription.poll(&hub.log, None, 0, &mut batch);
    assert_eq!((answer, batch.bytes().len()), (Poll::Data, 1));
    assert_eq!(hub.drain(&mut subscription), ["one"]);
}

#[test]
fn lines_tell_only_the_topics_that_the_client_asked_for() {
    let mut hub = Hub::default();
    hub.publish(&["a", "b", "secret"], "one");
    let spec = FilterSpec {
        topic_lines: true,
        ..topics(&["a", "b"])
    };
    assert_eq!(hub.read(&spec, &Start::Earliest), ["[a b] one"]);
}
