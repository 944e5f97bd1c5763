//! Files that were truncated or changed: no wrong event, no lost one in silence, and a way out.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidewire::broker::{inspect, repair};
use tidewire::{Event, Hub};

use crate::world::*;

/// A small log of several records, and what is in it.
struct Sample {
    folder: TempDir,
    file: PathBuf,
    bytes: Vec<u8>,
    held: Vec<(String, String)>,
}

async fn sample() -> Sample {
    let folder = folder();
    let hub = start(&Disk::default(), folder.path()).await;
    for n in 0..6 {
        publish(&hub, "a", &n.to_string()).await.unwrap();
    }
    hub.publish_all(&batch("a", 6, 3), Some(key("k", 1)))
        .await
        .unwrap();
    hub.publish("a", Event::text("9").with_id("own"))
        .await
        .unwrap();
    let held = history(&hub, "a");
    hub.stop().await;
    let file = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used + 100);
    Sample {
        folder,
        file,
        bytes,
        held,
    }
}

impl Sample {
    /// The folder anew, with these bytes in place of the segment's.
    fn with(&self, bytes: &[u8]) -> TempDir {
        let folder = folder();
        for file in fs::read_dir(self.folder.path()).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        fs::write(folder.path().join(self.file.file_name().unwrap()), bytes).unwrap();
        folder
    }

    /// Checks that what a hub has is part of what was there, in order, and that nobody who resumes misses an event in
    /// silence.
    fn check(&self, hub: &Hub, case: &str) -> usize {
        let data_of = |events: &[(String, String)]| {
            events
                .iter()
                .map(|(_, data)| data.clone())
                .collect::<Vec<_>>()
        };
        let (seen, all) = (data(hub, "a"), data_of(&self.held));
        let mut rest = all.iter();
        assert!(
            seen.iter().all(|event| rest.any(|other| other == event)),
            "{case}: {seen:?}"
        );
        for (n, (id, _)) in self.held.iter().enumerate() {
            let page = after(hub, "a", id);
            let delivered: Vec<_> = page.events.iter().map(|event| event.data.clone()).collect();
            assert!(
                page.gap || delivered == all[n + 1..],
                "{case}: after event {n} came {delivered:?} without a gap"
            );
        }
        seen.len()
    }

    /// Publishes behind what is left: no client that has seen a lost event may miss the new one.
    async fn check_new(&self, hub: &Hub, case: &str) {
        publish(hub, "a", "new").await.unwrap();
        for (id, _) in &self.held {
            let page = after(hub, "a", id);
            let last = page.events.last().map(|event| event.data.clone());
            assert_eq!(last.as_deref(), Some("new"), "{case}: after {id}");
        }
    }
}

async fn next_run(folder: &Path) -> Result<Hub, String> {
    try_start(&Disk::default(), folder)
        .await
        .map_err(|error| error.to_string())
}

/// A file that is shorter has lost its end. A crash can't do that to what is safe, and which events are lost can't be
/// told where a record ends; whatever is left has to be a beginning of what was there.
#[tokio::test]
async fn a_file_cut_at_any_byte_is_a_beginning_of_what_was_there() {
    let sample = sample().await;
    let mut most = 0;
    for len in 0..sample.bytes.len() {
        let folder = sample.with(&sample.bytes[..len]);
        let hub = next_run(folder.path()).await.unwrap();
        let seen = history(&hub, "a");
        let prefix: Vec<_> = sample
            .held
            .iter()
            .map(|(_, data)| data.clone())
            .take(seen.len())
            .collect();
        assert_eq!(
            seen.iter()
                .map(|(_, data)| data.clone())
                .collect::<Vec<_>>(),
            prefix,
            "{len} bytes"
        );
        assert!(seen.len() >= most, "{len} bytes");
        most = seen.len();
        publish(&hub, "a", "new").await.unwrap();
        hub.stop().await;
        drop(hub);
        let hub = next_run(folder.path()).await.unwrap();
        assert_eq!(data(&hub, "a").len(), most + 1, "{len} bytes");
        assert_eq!(
            hub.broker_figures().tail_bytes_cut,
            0,
            "{len} bytes: cut once"
        );
    }
    assert_eq!(most, 10);
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_seen() {
    let sample = sample().await;
    let (mut refused, mut cut, mut whole) = (0, 0, 0);
    for at in 0..sample.bytes.len() {
        let case = format!("byte {at}");
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let folder = sample.with(&bytes);
        match next_run(folder.path()).await {
            Ok(hub) => {
                let seen = sample.check(&hub, &case);
                assert!(
                    seen >= 9,
                    "{case}: more than the last record is cut: {seen}"
                );
                if seen == 10 {
                    whole += 1;
                } else {
                    cut += 1;
                }
                sample.check_new(&hub, &case).await;
            }
            Err(error) => {
                assert!(error.contains("tidewire repair"), "{case}: {error}");
                assert_eq!(
                    fs::read(folder.path().join(sample.file.file_name().unwrap())).unwrap(),
                    bytes,
                    "{case}: left alone"
                );
                refused += 1;
            }
        }
    }
    assert!(
        refused > 500 && cut > 50 && whole > 50,
        "{refused} {cut} {whole}"
    );
}

#[tokio::test]
async fn what_a_repair_leaves_is_right_and_tells_of_the_gap() {
    let sample = sample().await;
    for at in (64..sample.bytes.len() - 200).step_by(7) {
        let case = format!("byte {at}");
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 0x10;
        let folder = sample.with(&bytes);
        assert!(next_run(folder.path()).await.is_err(), "{case}");
        let findings = inspect(folder.path()).unwrap();
        assert_eq!(findings.len(), 1, "{case}: {findings:?}");
        let (first, count) = findings[0].lost.unwrap();
        let repaired = repair(folder.path()).unwrap();
        assert_eq!(
            fs::read(&repaired.copies[0]).unwrap(),
            bytes,
            "{case}: a copy of all"
        );
        assert_eq!(inspect(folder.path()).unwrap(), [], "{case}");
        let hub = next_run(folder.path()).await.unwrap();
        assert_eq!(
            sample.check(&hub, &case) as u64,
            10 - count,
            "{case}: lost {count} from {first}"
        );
        sample.check_new(&hub, &case).await;
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused_and_can_be_done_without() {
    let folder = folder();
    let subject = Disk::default().with(|options| options.bytes_max = 64 * 1024);
    let hub = start(&subject, folder.path()).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(
            publish(&hub, "a", &format!("{n} {}", "x".repeat(1_000)))
                .await
                .unwrap(),
        );
    }
    hub.stop().await;
    drop(hub);
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    fs::remove_file(&files[2]).unwrap();
    let error = next_run(folder.path()).await.err().unwrap();
    assert!(
        error.contains("missing") && error.contains("tidewire repair"),
        "{error}"
    );
    let findings = inspect(folder.path()).unwrap();
    let (first, count) = findings[0].lost.unwrap();
    assert!(findings.len() == 1 && count > 3, "{findings:?}");
    repair(folder.path()).unwrap();
    let hub = next_run(folder.path()).await.unwrap();
    assert_eq!(data(&hub, "a").len() as u64, 40 - count);
    assert!(after(&hub, "a", &ids[first as usize - 2]).gap);
}

/// Data that looks like a record is none: the salt is not known to publishers.
#[tokio::test]
async fn data_that_looks_like_a_record_is_none() {
    let sample = sample().await;
    let record = sample.bytes[64..140].to_vec();
    let text = String::from_utf8_lossy(&record).into_owned();
    let folder = folder();
    let hub = start(&Disk::default(), folder.path()).await;
    publish(&hub, "a", &text).await.unwrap();
    hub.stop().await;
    drop(hub);
    let hub = next_run(folder.path()).await.unwrap();
    assert_eq!(data(&hub, "a").len(), 1);
}
