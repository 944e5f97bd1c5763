//! A disk that is slow, full, fails or loses its power.

use std::sync::Arc;
use std::time::Duration;

use tidewire::{Hub, PublishError};

use crate::storage::Faulty;
use crate::world::*;

async fn faulty() -> (tempfile::TempDir, Arc<Faulty>, Hub) {
    let folder = folder();
    let disk = Arc::new(Faulty::default());
    let hub = start(&Disk::on(&disk), folder.path()).await;
    (folder, disk, hub)
}

fn spawn(hub: &Hub, data: &str) -> tokio::task::JoinHandle<Result<String, PublishError>> {
    let (hub, data) = (hub.clone(), data.to_owned());
    tokio::spawn(async move { publish(&hub, "a", &data).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_and_the_event_wait_for_the_disk_and_nobody_else_does() {
    let (_folder, disk, hub) = faulty().await;
    publish(&hub, "a", "0").await.unwrap();
    let before = disk.syncs();
    disk.hold_syncs(true);
    let waiting: Vec<_> = (1..=20).map(|n| spawn(&hub, &n.to_string())).collect();
    until("the disk is asked", || disk.syncs() > before).await;
    // Reading, sending and subscribing go on.
    assert_eq!(data(&hub, "a"), ["0"], "not shown before it is safe");
    hub.broadcast("hello").unwrap();
    assert!(
        !waiting.iter().any(tokio::task::JoinHandle::is_finished),
        "answered before it is safe"
    );
    disk.hold_syncs(false);
    for publisher in waiting {
        publisher.await.unwrap().unwrap();
    }
    assert_eq!(data(&hub, "a").len(), 21);
    let syncs = disk.syncs() - before;
    assert!(
        syncs < 20,
        "{syncs} syncs for 20 publishers who waited together"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_under_way_is_said_to_be() {
    let (_folder, disk, hub) = faulty().await;
    let before = disk.syncs();
    disk.hold_syncs(true);
    let first = {
        let hub = hub.clone();
        tokio::spawn(async move { hub.publish_all(&batch("a", 0, 1), Some(key("k", 1))).await })
    };
    until("the disk is asked", || disk.syncs() > before).await;
    let again = hub.publish_all(&batch("a", 0, 1), Some(key("k", 1))).await;
    assert_eq!(again, Err(PublishError::KeyInFlight));
    let other = hub.publish_all(&batch("a", 7, 1), Some(key("k", 2))).await;
    assert_eq!(other, Err(PublishError::KeyReused));
    disk.hold_syncs(false);
    let ids = first.await.unwrap().unwrap();
    assert_eq!(
        hub.publish_all(&batch("a", 0, 1), Some(key("k", 1)))
            .await
            .unwrap(),
        ids
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_disk_is_an_unknown_outcome_that_a_key_clears_up() {
    let folder = folder();
    let disk = Arc::new(Faulty::default());
    let subject = Disk::on(&disk).with(|o| o.answer_timeout = Duration::from_millis(50));
    let hub = start(&subject, folder.path()).await;
    disk.hold_syncs(true);
    let silent = hub.publish_all(&batch("a", 0, 1), Some(key("k", 1))).await;
    assert!(
        matches!(silent, Err(PublishError::OutcomeUnknown(_))),
        "{silent:?}"
    );
    disk.hold_syncs(false);
    until("it is stored after all", || data(&hub, "a") == ["0"]).await;
    hub.publish_all(&batch("a", 0, 1), Some(key("k", 1)))
        .await
        .unwrap();
    assert_eq!(data(&hub, "a"), ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_all_storing_and_is_not_tried_again() {
    let (folder, disk, hub) = faulty().await;
    publish(&hub, "a", "0").await.unwrap();
    disk.fail_syncs();
    let lost = hub.publish_all(&batch("a", 1, 1), Some(key("k", 1))).await;
    assert!(
        matches!(lost, Err(PublishError::OutcomeUnknown(_))),
        "{lost:?}"
    );
    let syncs = disk.syncs();
    let refused = publish(&hub, "a", "2").await;
    assert!(
        matches!(refused, Err(PublishError::NotStored(_))),
        "{refused:?}"
    );
    let again = hub.publish_all(&batch("a", 1, 1), Some(key("k", 1))).await;
    assert_eq!(again, Err(PublishError::KeyInFlight), "still nobody knows");
    assert!(
        hub.ready().unwrap_err().contains("restart"),
        "{:?}",
        hub.ready()
    );
    assert_eq!(data(&hub, "a"), ["0"], "what may not be safe is not shown");
    hub.stop().await;
    assert_eq!(disk.syncs(), syncs, "no second try");
    drop(hub);
    let hub = start(&Disk::default(), folder.path()).await;
    assert_eq!(data(&hub, "a"), ["0"]);
    publish(&hub, "a", "3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_until_there_is_room() {
    let (folder, disk, hub) = faulty().await;
    publish(&hub, "a", "0").await.unwrap();
    for room in [0, 1, 40, 60, 90] {
        disk.set_room(Some(room));
        let full = hub.publish_all(&batch("a", 1, 1), Some(key("k", 1))).await;
        assert!(
            matches!(full, Err(PublishError::StorageFull(_))),
            "{room}: {full:?}"
        );
        assert_eq!(hub.ready(), Ok(()), "streams go on");
        assert_eq!(data(&hub, "a"), ["0"]);
    }
    assert_eq!(hub.broker_figures().refused_full, 5);
    // A long one that is cut in its middle, and a short one after it: nothing of the first may be left behind that.
    disk.set_room(Some(1_000));
    let full = publish(&hub, "a", &"x".repeat(2_000)).await;
    assert!(
        matches!(full, Err(PublishError::StorageFull(_))),
        "{full:?}"
    );
    disk.set_room(None);
    hub.publish_all(&batch("a", 1, 1), Some(key("k", 1)))
        .await
        .unwrap();
    hub.stop().await;
    drop(hub);
    let hub = start(&Disk::default(), folder.path()).await;
    assert_eq!(data(&hub, "a"), ["0", "1"]);
    assert_eq!(
        hub.broker_figures().tail_bytes_cut,
        0,
        "no remains of what was refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_for_a_new_segment_is_missed_like_any_other() {
    let folder = folder();
    let disk = Arc::new(Faulty::default());
    // Segments of 1 KiB.
    let subject = Disk::on(&disk).with(|options| options.bytes_max = 8 * 1024);
    let hub = start(&subject, folder.path()).await;
    let mut stored = 0;
    disk.set_room(Some(0));
    for room in (0..4_000).step_by(37) {
        disk.set_room(Some(room % 300));
        let data = stored.to_string().repeat(100);
        match publish(&hub, "a", &data).await {
            Ok(_) => stored += 1,
            Err(error) => assert!(matches!(error, PublishError::StorageFull(_)), "{error}"),
        }
    }
    disk.set_room(None);
    let seen = data(&hub, "a");
    assert!(stored > 5 && seen.len() == stored, "{stored}");
    hub.stop().await;
    drop(hub);
    let hub = start(&Disk::default(), folder.path()).await;
    assert_eq!(data(&hub, "a"), seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_slow_disk_is_bounded() {
    let (_folder, disk, hub) = faulty().await;
    let before = disk.syncs();
    disk.hold_syncs(true);
    let first = spawn(&hub, "first");
    until("the disk is asked", || disk.syncs() > before).await;
    let big = "x".repeat(1_000_000);
    let waiting: Vec<_> = (0..40).map(|_| spawn(&hub, &big)).collect();
    until("some are refused", || {
        waiting.iter().any(tokio::task::JoinHandle::is_finished)
    })
    .await;
    disk.hold_syncs(false);
    first.await.unwrap().unwrap();
    let mut refused = 0;
    for publisher in waiting {
        match publisher.await.unwrap() {
            Ok(_) => {}
            Err(PublishError::NotStored(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // 32 MiB hold 33 of them.
    assert!((1..=7).contains(&refused), "{refused} of 40 refused");
    assert_eq!(data(&hub, "a").len(), 41 - refused);
}

/// The power fails at every byte of a run; what was answered is there afterwards, and nothing else but what was under
/// way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_fails_at_any_byte_loses_no_answered_event() {
    let mut reached = 0;
    for power in (0..).step_by(5) {
        let folder = folder();
        let disk = Arc::new(Faulty::default());
        disk.set_power(power);
        // Segments of 1 KiB, so that the run has several.
        let subject = Disk::on(&disk).with(|options| options.bytes_max = 8 * 1024);
        let mut answered: Vec<String> = Vec::new();
        let hub = try_start(&subject, folder.path()).await;
        if let Ok(hub) = &hub {
            for n in 0..40 {
                let data = format!("{n} {}", "x".repeat(n * 7 % 90));
                let Ok(_) = publish(hub, "a", &data).await else {
                    break;
                };
                answered.push(data);
            }
            hub.stop().await;
        }
        let survived = answered.len() == 40;
        reached = reached.max(answered.len());
        drop(hub);
        let hub = start(&Disk::default(), folder.path()).await;
        let mut seen = data(&hub, "a");
        seen.truncate(answered.len());
        assert_eq!(seen, answered, "power for {power} bytes");
        assert!(data(&hub, "a").len() <= answered.len() + 1);
        publish(&hub, "a", "goes on").await.unwrap();
        if survived {
            break;
        }
    }
    assert_eq!(reached, 40);
}
