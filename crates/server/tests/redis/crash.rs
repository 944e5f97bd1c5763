//! Nodes and their Redis end at random moments, with publishers and subscribers who go on over all of them.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::acked::{Figures, Load};
use crate::support::netns::Namespace;
use crate::support::{Hub, RedisServer, WAIT_MAX};
use crate::{node, node_at};

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
    report_figures(times, what, started, &load.finish());
}

fn report_figures(times: usize, what: &str, started: Instant, figures: &Figures) {
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

/// What was answered is gone then; but whoever has missed some of it is told, and no id is given twice.
#[test]
fn what_redis_forgets_is_behind_a_gap() {
    let mut redis = RedisServer::start();
    let nodes = [node(&redis), node(&redis)];
    let load = Load::start(&nodes.each_ref().map(Hub::port));
    let (started, times) = (Instant::now(), times(4));
    for _ in 0..times {
        live_on();
        redis.kill();
        redis.forget();
        live_on();
        redis.run();
        // Else there would be no load between two.
        wait_until_ready(&nodes);
    }
    let figures = load.finish_after_losses();
    report_figures(times, "Redis started again without data", started, &figures);
}

fn wait_until_ready(nodes: &[Hub]) {
    let deadline = Instant::now() + WAIT_MAX;
    while nodes.iter().any(|node| node.get("/readyz").status != 200) {
        assert!(Instant::now() < deadline, "not ready in time");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_answered_survives_every_cut_between_a_node_and_redis() {
    let namespace = Namespace::with_lines(2);
    let (redis, urls) = namespace.redis();
    let nodes: [Hub; 2] = urls.map(|url| node_at(&url, &[]));
    let load = Load::start(&nodes.each_ref().map(Hub::port));
    let (started, times) = (Instant::now(), times(4));
    for n in 0..times {
        live_on();
        let line = fastrand::usize(..2);
        namespace.cut(line);
        live_on();
        if n % 10 == 0 {
            // Longer than a node waits for an answer.
            thread::sleep(Duration::from_secs(6));
        }
        namespace.heal(line);
        wait_until_ready(&nodes);
    }
    report(times, "a node cut off from Redis", started, load);
    drop(redis);
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
