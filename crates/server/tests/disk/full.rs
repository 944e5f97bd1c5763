//! A file system that is full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Hub, Response, WAIT_MAX};
use crate::{history, hub};

/// A small file system in memory; needs root. It is gone on drop.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "tidewire-test",
            ])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "a tmpfs can be mounted (as root)");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a hub may still be about to end.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn publish(hub: &Hub, data: &str) -> Response {
    hub.post_json(&json!({"topic": "a", "data": data}))
}

/// Publishes until it is refused for want of room; the data of what was stored.
fn fill(hub: &Hub, name: &str, bytes: usize) -> Vec<String> {
    let mut stored = Vec::new();
    loop {
        let data = format!("{name} {} {}", stored.len(), "x".repeat(bytes));
        let answer = publish(hub, &data);
        if answer.status != 200 {
            let problem = answer.json();
            assert_eq!(answer.status, 507, "{problem}");
            assert_eq!(problem["code"], "storage_full", "{problem}");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            return stored;
        }
        stored.push(data);
    }
}

#[test]
fn a_full_disk_refuses_publishes_and_nothing_else() {
    let disk = SmallDisk::new("4m");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 1_500_000]).unwrap();
    let mut hub = hub(&disk.path().join("log"));
    let mut stream = hub.stream("/events?topic=a");
    let mut stored = fill(&hub, "first", 40_000);
    stored.extend(fill(&hub, "small", 10));
    assert!(stored.len() > 20, "{}", stored.len());
    assert_eq!(stream.data(stored.len()), stored, "streams go on");
    assert_eq!(hub.get("/readyz").status, 200);
    let refused = hub.get("/metrics").body;
    assert!(
        refused.contains("tidewire_broker_refused_full_total 2"),
        "{refused}"
    );
    // Also a start needs no room.
    hub.restart();
    assert_eq!(history(&hub, "a"), stored);
    assert_eq!(publish(&hub, &"x".repeat(40_000)).status, 507);
    let mut stream = hub.stream("/events?topic=a");
    fs::remove_file(&ballast).unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    while publish(&hub, "room").status != 200 {
        assert!(Instant::now() < deadline, "it does not recover");
    }
    stored.push("room".to_owned());
    stored.extend(fill(&hub, "second", 40_000));
    assert_eq!(stream.event().data, "room");
    hub.restart();
    assert_eq!(history(&hub, "a"), stored);
}
