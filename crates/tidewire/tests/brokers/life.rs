//! What one run of the disk broker leaves to the next.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidewire::Hub;
use tidewire::core::log::Retention;
use tidewire::core::subscribe::Start;

use crate::storage::Faulty;
use crate::suite::{read, stream};
use crate::world::*;

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut segments: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments
}

fn bytes(folder: &Path) -> u64 {
    let len = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
    segments(folder).iter().map(len).sum()
}

#[tokio::test]
async fn a_folder_serves_one_hub_at_a_time() {
    let folder = folder();
    let hub = start(&Disk::default(), folder.path()).await;
    let error = try_start(&Disk::default(), folder.path())
        .await
        .err()
        .unwrap()
        .to_string();
    let pid = format!("process id {}", std::process::id());
    assert!(
        error.contains(&pid) && error.contains("broker.path"),
        "{error}"
    );
    hub.stop().await;
    start(&Disk::default(), folder.path()).await;
}

#[tokio::test]
async fn another_format_is_refused_and_left_alone() {
    let folder = folder();
    let hub = start(&Disk::default(), folder.path()).await;
    publish(&hub, "a", "1").await.unwrap();
    hub.stop().await;
    let path = &segments(folder.path())[0];
    let mut file = fs::read(path).unwrap();
    file[8] = 9;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&[0; 8]);
    sum.update(&file[..60]);
    file[60..64].copy_from_slice(&sum.finalize().to_le_bytes());
    fs::write(path, &file).unwrap();
    let error = try_start(&Disk::default(), folder.path())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("format 9") && error.contains("format 1"),
        "{error}"
    );
    assert!(tidewire::broker::repair(folder.path()).is_err());
    assert_eq!(fs::read(path).unwrap(), file);
}

/// What becomes of a folder between two runs.
type Change = fn(&Path);

/// As if the machine had booted since.
fn reboot(folder: &Path) {
    let state = folder.join("state");
    let text = fs::read_to_string(&state).unwrap();
    let boot = text.lines().find(|line| line.starts_with("boot=")).unwrap();
    fs::write(&state, text.replace(boot, "boot=another")).unwrap();
}

/// As `kill -9` leaves it: the files are copied while the hub runs.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = crate::world::folder();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

#[tokio::test]
async fn what_may_be_lost_with_the_machine_begins_a_new_epoch() {
    let often = Disk::interval(Duration::from_millis(10));
    let cases: [(&Disk, Change, bool); 6] = [
        (&often, |_| {}, false),
        (&often, reboot, true),
        (&Disk::default(), |_| {}, false),
        (&Disk::default(), reboot, false),
        (
            &often,
            |folder| fs::remove_file(folder.join("state")).unwrap(),
            true,
        ),
        (
            &often,
            |folder| fs::write(folder.join("state"), "noise").unwrap(),
            true,
        ),
    ];
    for (n, (subject, change, gap)) in cases.into_iter().enumerate() {
        let folder = folder();
        let hub = start(subject, folder.path()).await;
        let id = publish(&hub, "a", "1").await.unwrap();
        let copy = crashed(folder.path());
        change(copy.path());
        let next = start(subject, copy.path()).await;
        assert_eq!(after(&next, "a", &id).gap, gap, "case {n}");
        assert_eq!(data(&next, "a"), ["1"], "case {n}");
        // Also the run after that, and with a new event.
        let new = publish(&next, "a", "2").await.unwrap();
        next.stop().await;
        reboot(copy.path());
        let last = start(subject, copy.path()).await;
        assert_eq!(
            after(&last, "a", &id).gap,
            gap,
            "case {n}, ended in good order"
        );
        assert!(!after(&last, "a", &new).gap, "case {n}");
        assert_eq!(data(&last, "a"), ["1", "2"], "case {n}");
    }
}

#[tokio::test]
async fn an_interval_makes_safe_what_was_answered() {
    let folder = folder();
    let disk = std::sync::Arc::new(crate::storage::Faulty::default());
    let subject = Disk {
        options: tidewire::broker::DiskOptions {
            storage: disk.clone(),
            ..Disk::interval(Duration::from_millis(20)).options
        },
    };
    let hub = start(&subject, folder.path()).await;
    let before = disk.syncs();
    publish(&hub, "a", "1").await.unwrap();
    until("a sync", || disk.syncs() > before).await;
}

#[tokio::test]
async fn retention_by_size_gives_room_back() {
    const BYTES_MAX: u64 = 1024 * 1024;
    let folder = folder();
    let subject = Disk::default().with(|options| options.bytes_max = BYTES_MAX);
    let hub = start(&subject, folder.path()).await;
    let first = publish(&hub, "a", "first").await.unwrap();
    let quiet = publish(&hub, "quiet", "1").await.unwrap();
    let big = "x".repeat(10_000);
    for _ in 0..300 {
        publish(&hub, "a", &big).await.unwrap();
        assert!(
            bytes(folder.path()) <= BYTES_MAX,
            "{}",
            bytes(folder.path())
        );
    }
    let last = publish(&hub, "a", "last").await.unwrap();
    assert!(segments(folder.path()).len() > 3);
    assert!(bytes(folder.path()) > BYTES_MAX / 2);
    hub.stop().await;
    drop(hub);
    let hub = start(&subject, folder.path()).await;
    assert!(after(&hub, "a", &first).gap, "what is gone is said to be");
    assert!(
        after(&hub, "quiet", &quiet).gap,
        "nobody knows of what is gone"
    );
    assert!(!after(&hub, "a", &last).gap);
    assert!(data(&hub, "a").len() > 30);
}

#[tokio::test]
async fn retention_by_age_gives_room_back_also_when_nothing_is_published() {
    let folder = folder();
    let subject = Disk::default().with(|options| options.retention = Duration::from_millis(200));
    let hub = start(&subject, folder.path()).await;
    let id = publish(&hub, "a", &"x".repeat(100_000)).await.unwrap();
    until("the room is given back", || bytes(folder.path()) < 1_000).await;
    hub.stop().await;
    drop(hub);
    let hub = start(&subject, folder.path()).await;
    assert!(!after(&hub, "a", &id).gap, "it was the last one");
    let next = publish(&hub, "a", "2").await.unwrap();
    assert!(next > id, "{next} after {id}");
}

#[tokio::test]
async fn a_start_reads_no_more_into_memory_than_may_be_there() {
    let folder = folder();
    let hub = start(&Disk::default(), folder.path()).await;
    let quiet = publish(&hub, "quiet", "1").await.unwrap();
    let ids = hub.publish_all(&batch("a", 0, 20_000), None).await.unwrap();
    hub.stop().await;
    drop(hub);
    let small = Retention {
        memory_bytes: 1024 * 1024,
        ..Retention::default()
    };
    let hub = start_with(&Disk::default(), folder.path(), small)
        .await
        .unwrap();
    let log = hub.stats().log;
    assert!(
        log.memory_bytes <= 1024 * 1024 && log.events > 1_000,
        "{log:?}"
    );
    assert!(after(&hub, "a", &ids[0].to_string()).gap);
    assert!(!after(&hub, "a", &ids[19_990].to_string()).gap);
    hub.stop().await;
    drop(hub);
    let short = Retention {
        ttl_ms: 1,
        ..Retention::default()
    };
    // Time passes: the events' age is what this is about.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let hub = start_with(&Disk::default(), folder.path(), short)
        .await
        .unwrap();
    assert_eq!(hub.stats().log.events, 0);
    assert!(after(&hub, "a", &ids[0].to_string()).gap);
    assert!(
        !after(&hub, "quiet", &quiet).gap,
        "a quiet topic has missed nothing"
    );
    assert!(!after(&hub, "a", &ids[19_999].to_string()).gap);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_events_are_read_over_all_segments_that_are_left() {
    let folder = folder();
    // Segments of 2 KiB.
    let disk = Disk::default().with(|options| options.bytes_max = 16 * 1024);
    let hub = small(&disk, folder.path()).await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(
            publish(&hub, "a", &format!("{n} {}", "x".repeat(n % 90)))
                .await
                .unwrap(),
        );
    }
    let number = |data: &str| data.split(' ').next().unwrap().parse::<usize>().unwrap();
    let check = async |hub: &Hub| {
        let resumed = Start::After(ids[0].clone());
        let gap = read(stream(hub, "a", &resumed), 2).await;
        assert!(gap[0].1.contains("expired"), "{gap:?}");
        let oldest = number(&gap[1].1);
        assert!((100..280).contains(&oldest), "{oldest}");
        for at in [oldest, oldest + 1, oldest + 10, 298] {
            let resumed = stream(hub, "a", &Start::After(ids[at].clone()));
            let seen = read(resumed, 299 - at).await;
            let numbers: Vec<_> = seen.iter().map(|(_, data)| number(data)).collect();
            assert_eq!(numbers, (at + 1..300).collect::<Vec<_>>());
            assert!(seen.iter().map(|(id, _)| id).eq(&ids[at + 1..]));
        }
    };
    check(&hub).await;
    hub.stop().await;
    drop(hub);
    check(&small(&disk, folder.path()).await).await;
}

/// What is on the disk and not safe yet is not read either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_events_are_those_that_are_shown() {
    let folder = folder();
    let faulty = Arc::new(Faulty::default());
    let hub = small(&Disk::on(&faulty), folder.path()).await;
    let ids = hub.publish_all(&batch("a", 0, 100), None).await.unwrap();
    let syncs = faulty.syncs();
    faulty.hold_syncs(true);
    let unsafe_yet = {
        let hub = hub.clone();
        tokio::spawn(async move { publish(&hub, "a", "unsafe yet").await })
    };
    until("it is written", || faulty.syncs() > syncs).await;
    let resumed = stream(&hub, "a", &Start::After(ids[0].to_string()));
    let mut reading = tokio::spawn(read(resumed, 100));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut reading).await;
    assert!(early.is_err(), "99 are safe");
    faulty.hold_syncs(false);
    unsafe_yet.await.unwrap().unwrap();
    assert_eq!(reading.await.unwrap()[99].1, "unsafe yet");
}
