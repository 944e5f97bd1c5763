//! The disk broker's folder over the life of processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::{history, hub, tidewire};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("00000000000000000001.log")
}

#[test]
fn a_second_process_on_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(folder.path());
    let second = tidewire(&["serve"], folder.path());
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    let holder = format!("process id {}", hub.pid());
    assert!(said.contains("in use") && said.contains(&holder), "{said}");
    let repair = tidewire(&["repair", folder.path().to_str().unwrap()], folder.path());
    assert_eq!(repair.status.code(), Some(1));
    assert!(text(&repair.stderr).contains("in use"), "{repair:?}");
    hub.publish("a", &json!(1));
}

#[test]
fn a_hub_that_is_asked_to_end_leaves_the_folder_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/when/missing");
    let mut hub = hub(&path);
    let id = hub.publish("a", &json!(1));
    hub.publish("a", &json!(2));
    hub.terminate();
    assert_eq!(hub.wait_for_exit(Duration::from_secs(20)).code(), Some(0));
    let state = fs::read_to_string(path.join("state")).unwrap();
    assert!(state.starts_with("clean=true\n"), "{state}");
    hub.restart();
    let mut stream = hub.stream_with("/events?topic=a", &[("Last-Event-ID", &id)]);
    assert_eq!(stream.event().data, "2");
}

#[test]
fn a_folder_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = tidewire(&["serve"], &file);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("can't be made"),
        "{refused:?}"
    );
    let missing = tidewire(&["repair", "/nonexistent"], &file);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("no such folder"),
        "{missing:?}"
    );
}

#[test]
fn damage_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut hub = hub(folder.path());
    let ids: Vec<_> = (0..5).map(|n| hub.publish("a", &json!(n))).collect();
    hub.terminate();
    hub.wait_for_exit(Duration::from_secs(20));
    let clean = tidewire(&["repair", path], folder.path());
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    let mut bytes = fs::read(segment(folder.path())).unwrap();
    bytes[200] ^= 1;
    fs::write(segment(folder.path()), &bytes).unwrap();

    let refused = tidewire(&["serve"], folder.path());
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains(&format!("tidewire repair {path}")), "{said}");
    let look = tidewire(&["repair", path], folder.path());
    assert_eq!(look.status.code(), Some(1));
    let said = text(&look.stdout);
    assert!(
        said.contains("lost is event 2") && said.contains("--yes"),
        "{said}"
    );
    assert_eq!(
        fs::read(segment(folder.path())).unwrap(),
        bytes,
        "only looked at"
    );
    let repaired = tidewire(&["repair", path, "--yes"], folder.path());
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let copy = folder.path().join("00000000000000000001.log.damaged");
    assert!(
        text(&repaired.stdout).contains(copy.to_str().unwrap()),
        "{repaired:?}"
    );
    assert_eq!(fs::read(copy).unwrap(), bytes);

    hub.restart();
    assert_eq!(history(&hub, "a"), ["0", "2", "3", "4"]);
    let mut stream = hub.stream_with("/events?topic=a", &[("Last-Event-ID", &ids[0])]);
    assert_eq!(stream.event().event, "gap");
}
