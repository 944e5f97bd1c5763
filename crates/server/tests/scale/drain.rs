//! The end of a hub with clients, and of one without.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Crowd, End, Hub, Reader, Seen, WAIT_MAX, wait_for_all};
use crate::{FULL, alone, publish};

/// Over how long streams are closed here, where there are many.
const DRAIN_TIME: Duration = Duration::from_secs(6);

fn wait_until_not_ready(hub: &Hub) {
    let deadline = Instant::now() + WAIT_MAX;
    while hub.get("/readyz").status != 503 {
        assert!(Instant::now() < deadline, "the hub says that it is ready");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The times of all ends, in order.
fn ends(readers: &[Arc<Reader>]) -> Vec<Instant> {
    let mut ends: Vec<_> = readers
        .iter()
        .map(|reader| {
            let seen = reader.seen();
            let (end, at) = seen.end.as_ref().expect("all have ended");
            assert_eq!(*end, End::Whole, "{seen:?}");
            *at
        })
        .collect();
    ends.sort();
    ends
}

#[test]
fn ten_thousand_streams_are_closed_at_a_pace() {
    let _alone = alone();
    let mut hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_SHUTDOWN__DRAIN_GRACE", "4s"),
            ("TIDEWIRE_SHUTDOWN__DRAIN_TIME", "6s"),
            // One more comes while the hub drains.
            ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "10001"),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let mut readers = crowd.join(FULL, |_| "/events?topic=feed".to_owned());
    hub.terminate();
    wait_until_not_ready(&hub);
    readers.extend(crowd.join(1, |_| "/events?topic=feed".to_owned()));
    // Events that are on their way to everyone while streams are being closed.
    publish(&hub, "feed", 0..50, 200);

    wait_for_all(&readers, "the end", Seen::has_ended);
    let status = hub.wait_for_exit(WAIT_MAX);
    assert!(status.success(), "{status}");

    let ends = ends(&readers);
    let span = ends[FULL] - ends[0];
    println!("{FULL} streams were closed over {span:?}");
    assert!(span > DRAIN_TIME / 2, "all were closed within {span:?}");
    let half = ends.partition_point(|at| *at < ends[0] + span / 2);
    assert!(
        (FULL / 10..FULL * 9 / 10).contains(&half),
        "{half} of {FULL} in the first half"
    );

    let mut retries = HashSet::new();
    for reader in &readers {
        let seen = reader.seen();
        assert_eq!(seen.count("feed"), 50, "each got everything: {seen:?}");
        retries.insert(seen.last_retry_ms.expect("each is told when to come back"));
    }
    assert!(retries.len() > 500, "{} different times", retries.len());
}

#[test]
fn one_client_does_not_take_the_whole_drain_time() {
    let _alone = alone();
    let mut hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_SHUTDOWN__DRAIN_GRACE", "0s"),
            ("TIDEWIRE_SHUTDOWN__DRAIN_TIME", "10m"),
        ],
    );
    let crowd = Crowd::new(hub.port());
    let readers = crowd.join(1, |_| "/events?topic=feed".to_owned());
    hub.terminate();
    assert!(hub.wait_for_exit(WAIT_MAX).success());
    wait_for_all(&readers, "the end", Seen::has_ended);
    ends(&readers);
    assert!(readers[0].seen().last_retry_ms.is_some());
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let _alone = alone();
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_SHUTDOWN__DRAIN_GRACE", "0s")]);
    let crowd = Crowd::new(hub.port());
    let stalled = crowd.join_slow(3, |_| "/events?topic=bulk".to_owned());
    for reader in &stalled {
        reader.pause();
    }
    publish(&hub, "bulk", 0..200, 8 * 1024);
    hub.terminate();
    assert!(hub.wait_for_exit(WAIT_MAX).success());
}

#[test]
fn without_a_client_the_end_is_at_once() {
    let _alone = alone();
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_SHUTDOWN__DRAIN_GRACE", "10m")]);
    hub.terminate();
    assert!(hub.wait_for_exit(WAIT_MAX).success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let _alone = alone();
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_SHUTDOWN__DRAIN_GRACE", "10m")]);
    let crowd = Crowd::new(hub.port());
    let readers = crowd.join(1, |_| "/events?topic=feed".to_owned());
    hub.terminate();
    wait_until_not_ready(&hub);
    assert!(!readers[0].seen().has_ended(), "the grace time is not over");
    hub.terminate();
    assert_eq!(hub.wait_for_exit(WAIT_MAX).code(), Some(1));
}
