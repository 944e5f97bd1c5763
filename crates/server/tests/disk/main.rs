//! The disk broker in the real process, on real file systems.
//!
//! | module | what must hold |
//! |---|---|
//! | `crash` | `kill -9` at any moment under load: nothing answered is lost, doubled or out of order |
//! | `full` | a disk that is full refuses publishes and nothing else, and recovers by itself |
//! | `life` | two processes on one folder, ending in good order, damage and its repair |
//!
//! `make crash` runs the first for longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod crash;
mod full;
mod life;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::Hub;

/// A hub whose events are in this folder.
fn hub(folder: &Path) -> Hub {
    let path = folder.to_str().unwrap();
    Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_BROKER__KIND", "disk"),
            ("TIDEWIRE_BROKER__PATH", path),
        ],
    )
}

/// The data of a topic's whole history.
fn history(hub: &Hub, topic: &str) -> Vec<String> {
    let mut since = "earliest".to_owned();
    let mut all = Vec::new();
    loop {
        let page = hub.get(&format!("/topics/{topic}/events?limit=1000&since={since}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        for event in page["events"].as_array().unwrap() {
            all.push(event["data"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut since),
            None => return all,
        }
    }
}

/// Runs a command of the binary to its end.
fn tidewire(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(args)
        .env_clear()
        .env("TIDEWIRE_LISTEN", "127.0.0.1:0")
        .env("TIDEWIRE_BROKER__KIND", "disk")
        .env("TIDEWIRE_BROKER__PATH", folder)
        .output()
        .unwrap()
}
