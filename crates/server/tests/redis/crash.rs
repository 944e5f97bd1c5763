//! Nodes and their Redis end at random moments, with publishers and subscribers who go on over all of them.

use std::thread;
use std::time::{Duration, Instant};

use crate::node;
use crate::support::acked::Load;
use crate::support::{Hub, RedisServer};

/// How often it happens in each case, where that is not to be the usual number of the case.
const KILLS: &str = "TIDEWIRE_TEST_KILLS";
/// The longest time between two, in milliseconds.
const LIFE_MS_MAX: u64 = 300;

fn times(usual: usize) -> usize {
    std::env::var(KILLS).map_or(usual, |n| n.parse().unwrap())
}

/// A random moment is what these tests are about.
fn live_on() {
    thread::sleep(Duration::from_millis(fastrand::u64(0..LIFE_MS_MAX)));
}

fn report(times: usize, what: &str, started: Instant, load: Load) {
    let figures = load.finish();
    println!(
        "{times} × {what} in {:.0?}: {} events answered, {} unknown, {} seen by each subscriber",
        started.elapsed(),
        figures.answered,
        figures.unknown,
        figures.seen.len()
    );
    assert!(
        figures.answered > 5 * times,
        "hardly any load: {}",
        figures.answered
    );
}

#[test]
fn what_was_answered_survives_every_kill_of_a_node() {
    let redis = RedisServer::start();
    let mut nodes = [node(&redis), node(&redis), node(&redis)];
    let load = Load::start(&nodes.each_ref().map(Hub::port));
    let (started, times) = (Instant::now(), times(8));
    for _ in 0..times {
        live_on();
        nodes[fastrand::usize(..3)].restart();
    }
    report(times, "a node killed", started, load);
}

#[test]
fn what_was_answered_survives_every_kill_of_redis() {
    let mut redis = RedisServer::start_durable();
    let nodes = [node(&redis), node(&redis)];
    let load = Load::start(&nodes.each_ref().map(Hub::port));
    let (started, times) = (Instant::now(), times(4));
    for _ in 0..times {
        live_on();
        redis.kill();
        live_on();
        redis.run();
    }
    report(times, "Redis killed and started again", started, load);
}

#[test]
fn what_was_answered_survives_every_silence_of_redis() {
    let redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    let load = Load::start(&nodes.each_ref().map(Hub::port));
    let (started, times) = (Instant::now(), times(4));
    for n in 0..times {
        live_on();
        if n % 2 == 0 {
            redis.pause();
            live_on();
            redis.resume();
        } else {
            redis.command(&["CLIENT", "PAUSE", "200", "ALL"]);
            // Else the next one would come within this one's time.
            thread::sleep(Duration::from_millis(200));
        }
    }
    report(times, "Redis silent", started, load);
}
