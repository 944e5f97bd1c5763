//! `kill -9` at random moments, with publishers and subscribers who go on over all of them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::acked::{Load, TOPIC};
use crate::{history, hub};

/// How often the hub is killed.
const KILLS: &str = "TIDEWIRE_TEST_KILLS";
const KILLS_USUAL: u64 = 10;
/// The longest life of a hub under load, in milliseconds.
const LIFE_MS_MAX: u64 = 200;

#[test]
fn what_was_answered_survives_every_kill() {
    let kills = std::env::var(KILLS).map_or(KILLS_USUAL, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(folder.path());
    let load = Load::start(&[hub.port()]);
    let started = Instant::now();
    for _ in 0..kills {
        // A random moment is what this is about.
        thread::sleep(Duration::from_millis(fastrand::u64(0..LIFE_MS_MAX)));
        hub.restart();
    }
    let figures = load.finish();
    let data: Vec<_> = figures.seen.into_iter().map(|(data, _)| data).collect();
    let mut held = history(&hub, TOPIC);
    held.pop();
    assert_eq!(data, held, "seen, and what is there at the end");
    println!(
        "{kills} kills in {:.0?}: {} events answered, {} unknown, {} seen by each subscriber",
        started.elapsed(),
        figures.answered,
        figures.unknown,
        held.len()
    );
    assert!(
        figures.answered as u64 > 5 * kills,
        "hardly any load: {}",
        figures.answered
    );
}
