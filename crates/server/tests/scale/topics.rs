//! A topic of its own for each client.

use std::time::Instant;

use serde_json::json;

use crate::support::{Crowd, Hub, process, wait_for_all};
use crate::{FULL, alone, publish};

const CLIENTS: usize = 2_000;

#[test]
fn an_event_reaches_the_client_of_its_topic_alone() {
    let _alone = alone();
    let hub = Hub::spawn(&[], &[]);
    let crowd = Crowd::new(hub.port());
    let readers = crowd.join(CLIENTS, |n| format!("/events?topic=own:{n}"));
    for n in (0..CLIENTS).step_by(97) {
        publish(&hub, &format!("own:{n}"), 0..3, 20);
    }
    for (n, reader) in readers.iter().enumerate() {
        let expected = if n % 97 == 0 { 3 } else { 0 };
        let (reader, topic) = (std::slice::from_ref(reader), format!("own:{n}"));
        wait_for_all(reader, "its events", |seen| seen.count(&topic) == expected);
    }
    // A last event to each: whatever came to the wrong one would have come before.
    for n in 0..CLIENTS {
        hub.publish(&format!("own:{n}"), &json!("last 1"));
    }
    wait_for_all(&readers, "the last", |seen| seen.count("last") == 1);
    for (n, reader) in readers.iter().enumerate() {
        let series = reader.seen().series.len();
        assert_eq!(series, 1 + usize::from(n % 97 == 0), "{:?}", reader.seen());
    }
    let delivered = CLIENTS + 3 * CLIENTS.div_ceil(97);
    hub.wait_for_stats("all are counted", |stats| stats["delivered"] == delivered);
}

#[test]
fn idle_clients_of_other_topics_cost_a_publish_nothing() {
    let _alone = alone();
    let hub = Hub::spawn(&[], &[]);
    let crowd = Crowd::new(hub.port());
    let reader = crowd.join(1, |_| "/events?topic=busy".to_owned());
    let cost = |numbers: std::ops::Range<u64>| {
        let (cpu, started) = (process::cpu_time(hub.pid()), Instant::now());
        let last = numbers.end - 1;
        for number in numbers {
            publish(&hub, "busy", number..number + 1, 100);
        }
        wait_for_all(&reader, "all", |seen| seen.last("busy") == Some(last));
        let cpu = process::cpu_time(hub.pid()).saturating_sub(cpu);
        (cpu, started.elapsed())
    };
    let alone = cost(0..1_000);
    let idle = crowd.join(FULL - 1, |n| format!("/events?topic=idle:{n}"));
    let among_many = cost(1_000..2_000);
    // Times are for whoever reads them: a busy machine makes them differ by chance.
    println!(
        "1,000 publishes (processor time, time): {alone:?} alone, {among_many:?} among {FULL}"
    );
    hub.wait_for_stats("all are counted", |stats| stats["delivered"] == 2_000);
    for reader in &idle {
        assert!(reader.seen().series.is_empty(), "{:?}", reader.seen());
    }
}
