//! What connections cost Redis. For figures: `TIDEWIRE_TEST_CLIENTS=10000 cargo test -p tidewire-server --test cluster cost
//! -- --nocapture`.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::support::RedisServer;
use crate::{count, node_with, until};

/// Entries that one call renews.
const PORTION: usize = 500;

/// How often each command was called, and how long Redis took for it, in µs.
fn commands(redis: &RedisServer) -> BTreeMap<String, (u64, u64)> {
    let info = redis.command(&["INFO", "commandstats"]);
    let lines = info.lines().filter_map(|line| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let figure = |key: &str| {
            let of_key = |pair: &str| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
            figures.split(',').find_map(of_key)
        };
        Some((name.to_owned(), (figure("calls")?, figure("usec")?)))
    });
    lines.collect()
}

#[test]
fn a_connection_costs_one_call_and_a_heartbeat_one_for_many() {
    let clients: usize =
        std::env::var("TIDEWIRE_TEST_CLIENTS").map_or(1_200, |n| n.parse().unwrap());
    let ttl_s: usize = if clients > 2_000 { 30 } else { 3 };
    let redis = RedisServer::start();
    let a = node_with(
        &redis,
        "a",
        &[
            ("TIDEWIRE_CLUSTER__TTL", &format!("{ttl_s}s")),
            ("TIDEWIRE_CLUSTER__CHECK_INTERVAL", "0s"),
            ("TIDEWIRE_CLUSTER__SWEEP_INTERVAL", "0s"),
            ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "20000"),
        ],
    );
    until("it has joined", || count(&a, "cluster") == 0);
    let calls = |redis: &RedisServer| commands(redis).get("evalsha").map_or(0, |at| at.0);
    let portions = clients.div_ceil(PORTION);
    let before = calls(&redis);
    let started = std::time::Instant::now();
    let streams: Vec<_> = (0..clients)
        .map(|n| a.stream(&format!("/sse/connect/c{n}")))
        .collect();
    let connected = started.elapsed();
    let beats = |time: Duration| time.as_secs() as usize * 3 / ttl_s + 2;
    let to_connect = (calls(&redis) - before) as usize;
    println!("{clients} clients connected in {connected:?} with {to_connect} calls");
    assert!(to_connect <= clients + beats(connected) * (1 + portions));

    redis.command(&["CONFIG", "RESETSTAT"]);
    let started = std::time::Instant::now();
    thread::sleep(Duration::from_secs(2 * ttl_s as u64));
    let (idle, took) = (commands(&redis), started.elapsed());
    for (name, (calls, us)) in &idle {
        println!("{took:?}: {name}: {calls} calls, {us} µs");
    }
    let (calls, _) = idle["evalsha"];
    assert!(
        calls as usize <= beats(took) * (1 + portions),
        "{calls} calls in {took:?}"
    );
    assert!(!idle.contains_key("keys") && !idle.contains_key("scan"));
    drop(streams);
}
