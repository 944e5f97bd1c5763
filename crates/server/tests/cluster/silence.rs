//! Redis hangs, or a node is dead and not yet known to be: everyone is answered in time.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{RedisServer, Stream};
use crate::{count, node, node_with, send, until, until_joined};

#[test]
fn while_redis_hangs_everyone_is_answered_in_time() {
    const EACH: usize = 8;
    let redis = RedisServer::start();
    let a = node(&redis, "a");
    until("it has joined", || count(&a, "cluster") == 0);
    redis.pause();
    let (port, started) = (a.port(), Instant::now());
    let mut streams = Vec::new();
    // The first ones give the connection up, the others need a new one.
    for round in 0..2 {
        let connecting: Vec<_> = (0..EACH)
            .map(|n| {
                let path = format!("/sse/connect/c{}", round * EACH + n);
                thread::spawn(move || Stream::open(port, &path, &[]))
            })
            .collect();
        thread::scope(|scope| {
            for n in 0..EACH {
                let a = &a;
                scope.spawn(move || assert_eq!(send(a, &format!("other{n}"), "x").status, 503));
            }
        });
        let connected = connecting.into_iter();
        streams.extend(connected.map(|connecting| connecting.join().unwrap()));
    }
    let took = started.elapsed();
    redis.resume();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Who came meanwhile is reached, and registered when that is possible.
    for (n, stream) in streams.iter_mut().enumerate() {
        assert_eq!(send(&a, &format!("c{n}"), "x").status, 200);
        assert_eq!(stream.event().data, "x");
    }
    until("all are registered", || {
        let answer = a.get("/sse/count");
        answer.status == 200 && answer.json()["count"] == serde_json::json!(2 * EACH)
    });
}

#[test]
fn clients_of_a_dead_node_do_not_wait_for_it_elsewhere() {
    const THREADS: usize = 4;
    const EACH: usize = 10;
    let redis = RedisServer::start();
    let ttl = ("TIDEWIRE_CLUSTER__TTL", "30s");
    let mut nodes = ["a", "b"].map(|name| node_with(&redis, name, &[ttl]));
    until_joined(&nodes);
    let path = |n: usize| format!("/sse/connect/c{n}");
    let before: Vec<_> = (0..THREADS * EACH)
        .map(|n| nodes[1].stream(&path(n)))
        .collect();
    nodes[1].stop();
    let (port, started) = (nodes[0].port(), Instant::now());
    let connecting: Vec<_> = (0..THREADS)
        .map(|t| {
            thread::spawn(move || {
                let each = (t * EACH)..((t + 1) * EACH);
                each.map(|n| Stream::open(port, &path(n), &[]))
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let streams: Vec<_> = connecting
        .into_iter()
        .flat_map(|connecting| connecting.join().unwrap())
        .collect();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(count(&nodes[0], "cluster"), streams.len() as u64);
    drop(before);
}

#[test]
fn a_broadcast_that_is_refused_was_not_sent() {
    let mut redis = RedisServer::start();
    let a = node(&redis, "a");
    let mut stream = a.stream("/sse/connect/c");
    redis.kill();
    for path in ["/sse/connect", "/sse/users/u/connections"] {
        assert_eq!(a.send("DELETE", path, &[], b"").status, 503, "{path}");
    }
    let refused = a.send("POST", "/sse/broadcast", &[], b"refused");
    assert_eq!(refused.status, 503, "{refused:?}");
    let local = a.send("POST", "/sse/broadcast?scope=local", &[], b"local");
    assert_eq!(local.status, 200, "{local:?}");
    assert_eq!(stream.event().data, "local");
}
