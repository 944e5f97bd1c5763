//! What the contract of registries promises, held against each of them by random histories and a model of a few lines.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod redis_server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis_server::RedisServer;
use tidewire::cluster::{
    MemoryRegistry, NodeInfo, Place, RedisRegistry, Registry, Renewed, RetryOptions,
};
use tidewire::redis::{Channels, Message, Redis};
use uuid::Uuid;

/// Longer than any of these tests.
const TTL: Duration = Duration::from_mins(10);

/// What is done to a registry. Nodes, clients and connections are numbers.
#[derive(Clone, Debug)]
enum Step {
    /// The last number is the node's clock: ids of connections do not rise from one node to the next.
    Register(usize, usize, u8),
    /// Gives back what this client has, or had, on this node.
    Unregister(usize, usize),
    Renew(usize),
    /// Renews the connection that this client had on this node before its last one.
    RenewFormer(usize, usize),
    Leave(usize),
    Forget(usize, usize),
    Sweep,
}

const NODES: usize = 3;
const CLIENTS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let (node, client) = (0..NODES, 0..CLIENTS);
    prop_oneof![
        4 => (node.clone(), client.clone(), any::<u8>()).prop_map(|(n, c, at)| Step::Register(n, c, at)),
        2 => (node.clone(), client.clone()).prop_map(|(n, c)| Step::Unregister(n, c)),
        2 => node.clone().prop_map(Step::Renew),
        1 => (node.clone(), client.clone()).prop_map(|(n, c)| Step::RenewFormer(n, c)),
        1 => node.clone().prop_map(Step::Leave),
        1 => (node, client).prop_map(|(n, c)| Step::Forget(n, c)),
        1 => Just(Step::Sweep),
    ]
}

/// What the registry should say.
#[derive(Default)]
struct Model {
    places: BTreeMap<usize, (usize, Uuid)>,
    /// All who have had a client's place since there is one.
    had: BTreeMap<usize, Vec<Uuid>>,
    /// What each node believes to hold.
    held: [BTreeMap<usize, Uuid>; NODES],
    /// What it held before that.
    former: [BTreeMap<usize, Uuid>; NODES],
}

fn client(n: usize) -> String {
    format!("client:{n}")
}

fn node(n: usize) -> String {
    format!("node-{n}")
}

/// An id of a connection that a node makes by its clock.
fn connection_at(clock: u8) -> Uuid {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed) as u128;
    Uuid::from_u128((u128::from(clock) << 100) | made)
}

async fn beat(registry: &dyn Registry, n: usize) {
    let info = NodeInfo {
        node: node(n),
        ..NodeInfo::default()
    };
    registry.beat(&info).await.unwrap();
}

async fn run(registry: &dyn Registry, steps: &[Step]) {
    let mut model = Model::default();
    for n in 0..NODES {
        beat(registry, n).await;
    }
    for step in steps {
        apply(registry, &mut model, step).await;
        for c in 0..CLIENTS {
            let found = registry.find(&client(c)).await.unwrap();
            let expected = model.places.get(&c).map(|(n, connection)| Place {
                node: node(*n),
                connection: *connection,
            });
            assert_eq!(found, expected, "{step:?}");
        }
        model.had.retain(|c, _| model.places.contains_key(c));
        let count = registry.count().await.unwrap();
        assert_eq!(count, model.places.len(), "{step:?}");
        for n in 0..NODES {
            let (mut entries, cursor) = registry.entries(&node(n), 0).await.unwrap();
            entries.sort();
            let of_node = model.places.iter().filter(|(_, (of, _))| *of == n);
            let expected: Vec<_> = of_node.map(|(c, _)| client(*c)).collect();
            assert_eq!((entries, cursor), (expected, 0), "{step:?}");
        }
    }
}

async fn apply(registry: &dyn Registry, model: &mut Model, step: &Step) {
    match *step {
        Step::Register(n, c, at) => {
            let place = Place {
                node: node(n),
                connection: connection_at(at),
            };
            let before = registry.register(&client(c), &place).await.unwrap();
            let had = model.places.insert(c, (n, place.connection));
            model.had.entry(c).or_default().push(place.connection);
            if let Some(former) = model.held[n].insert(c, place.connection) {
                model.former[n].insert(c, former);
            }
            assert_eq!(
                before.map(|place| (place.node, place.connection)),
                had.map(|(n, connection)| (node(n), connection))
            );
        }
        Step::Unregister(n, c) => {
            let Some(connection) = model.held[n].remove(&c) else {
                return;
            };
            let entry = [(client(c), connection)];
            registry.unregister(&node(n), &entry).await.unwrap();
            if model.places.get(&c) == Some(&(n, connection)) {
                model.places.remove(&c);
            }
        }
        Step::Renew(n) => {
            let entries: Vec<_> = model.held[n]
                .iter()
                .map(|(c, id)| (client(*c), *id))
                .collect();
            let renewed = registry.renew(&node(n), &entries).await.unwrap();
            let mut expected = Renewed::default();
            for (c, connection) in model.held[n].clone() {
                let had = model.had.entry(c).or_default();
                match model.places.get(&c) {
                    Some((of, newer))
                        if *newer != connection
                            && (had.contains(&connection)
                                || had.iter().any(|newer| *newer > connection)) =>
                    {
                        let place = Place {
                            node: node(*of),
                            connection: *newer,
                        };
                        expected.lost.push((client(c), place));
                        model.held[n].remove(&c);
                    }
                    place => {
                        expected.restored += usize::from(place != Some(&(n, connection)));
                        model.places.insert(c, (n, connection));
                        had.push(connection);
                    }
                }
            }
            assert_eq!(renewed, expected);
        }
        Step::RenewFormer(n, c) => {
            let (Some(former), Some((of, newer))) = (model.former[n].get(&c), model.places.get(&c))
            else {
                return;
            };
            // As long as there is a place, whoever has had it has lost it.
            if !model.had[&c].contains(former) || former == newer {
                return;
            }
            let place = Place {
                node: node(*of),
                connection: *newer,
            };
            let entry = [(client(c), *former)];
            let renewed = registry.renew(&node(n), &entry).await.unwrap();
            assert_eq!(renewed.lost, [(client(c), place)]);
        }
        Step::Leave(n) => {
            registry.leave(&node(n)).await.unwrap();
            model.places.retain(|_, (of, _)| *of != n);
            model.held[n].clear();
            // It comes back at once.
            beat(registry, n).await;
        }
        Step::Forget(n, c) => {
            registry.forget(&node(n), &[client(c)]).await.unwrap();
            if model.places.get(&c).is_some_and(|(of, _)| *of == n) {
                model.places.remove(&c);
            }
        }
        Step::Sweep => assert_eq!(registry.sweep().await.unwrap(), 0, "all are alive"),
    }
}

fn check(cases: u32, registry: impl Fn() -> Box<dyn Registry>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
        runtime.block_on(run(&*registry(), &steps));
        Ok(())
    });
    result.unwrap();
}

#[test]
fn the_registry_in_memory_does_what_the_model_does() {
    check(500, || Box::new(MemoryRegistry::new(TTL)));
}

#[test]
fn the_registry_in_redis_does_what_the_model_does() {
    let server = RedisServer::start();
    let made = AtomicUsize::new(0);
    check(60, || {
        let prefix = format!("t{}:", made.fetch_add(1, Ordering::Relaxed));
        let redis = Redis::new(&server.url(), &prefix).unwrap();
        Box::new(RedisRegistry::new(
            Arc::new(redis),
            TTL,
            RetryOptions::default(),
        ))
    });
    // Every key has an end.
    let keys = server.command(&["EVAL", "local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do if redis.call('PTTL', key) < 0 then n = n + 1 end end return n", "0"]);
    assert_eq!(keys, ":0\r\n");
}

async fn a_dead_node_takes_its_entries_with_it(registry: &dyn Registry, ttl: Duration) {
    beat(registry, 0).await;
    let place = Place {
        node: node(0),
        connection: Uuid::now_v7(),
    };
    registry.register("c", &place).await.unwrap();
    assert_eq!(registry.nodes().await.unwrap().len(), 1);
    // Time has to pass: that is what this is about.
    tokio::time::sleep(ttl + Duration::from_millis(100)).await;
    beat(registry, 1).await;
    assert_eq!(registry.find("c").await.unwrap(), None);
    assert_eq!(registry.count().await.unwrap(), 0);
    let nodes = registry.nodes().await.unwrap();
    assert_eq!(
        nodes.iter().map(|info| &info.node).collect::<Vec<_>>(),
        ["node-1"]
    );
    // Whoever comes next is nobody's successor.
    let next = Place {
        node: node(1),
        connection: Uuid::now_v7(),
    };
    assert_eq!(registry.register("c", &next).await.unwrap(), None);
}

#[tokio::test]
async fn a_dead_node_is_forgotten_in_memory_and_in_redis() {
    let ttl = Duration::from_millis(400);
    a_dead_node_takes_its_entries_with_it(&MemoryRegistry::new(ttl), ttl).await;
    let server = RedisServer::start();
    let redis = Arc::new(Redis::new(&server.url(), "t:").unwrap());
    let registry = RedisRegistry::new(redis, ttl, RetryOptions::default());
    a_dead_node_takes_its_entries_with_it(&registry, ttl).await;
}

#[tokio::test]
async fn what_a_dead_node_has_left_is_swept() {
    let ttl = Duration::from_millis(400);
    let server = RedisServer::start();
    let redis = Arc::new(Redis::new(&server.url(), "t:").unwrap());
    let registry = RedisRegistry::new(redis, ttl, RetryOptions::default());
    beat(&registry, 0).await;
    let place = Place {
        node: node(0),
        connection: Uuid::now_v7(),
    };
    for c in 0..3 {
        registry.register(&client(c), &place).await.unwrap();
    }
    // Redis drops them by itself at the same time; these are those that it keeps.
    for key in ["t:clients:node-0", "t:route:client:1", "t:nodes"] {
        assert_eq!(server.command(&["PERSIST", key]), ":1\r\n", "{key}");
    }
    tokio::time::sleep(ttl + Duration::from_millis(100)).await;
    beat(&registry, 1).await;
    assert_eq!(registry.sweep().await.unwrap(), 3);
    assert_eq!(registry.sweep().await.unwrap(), 0);
    let left = server.command(&["EXISTS", "t:clients:node-0", "t:route:client:1"]);
    assert_eq!(left, ":0\r\n");
}

#[tokio::test]
async fn a_script_that_redis_has_forgotten_is_sent_again() {
    let server = RedisServer::start();
    let redis = Arc::new(Redis::new(&server.url(), "t:").unwrap());
    let registry = RedisRegistry::new(redis, TTL, RetryOptions::default());
    beat(&registry, 0).await;
    server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(registry.nodes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_takes_too_little_of_what_is_published_is_told_so() {
    /// A MiB each: more than is kept for somebody.
    const MESSAGES: usize = 160;
    let server = RedisServer::start();
    let redis = Arc::new(Redis::new(&server.url(), "t:").unwrap());
    let (_channels, mut messages) = Channels::open(redis.clone(), ["t:c".to_owned()], []);
    assert_eq!(messages.recv().await, Some(Message::Subscribed));
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("t:c").arg("x".repeat(1 << 20));
    for _ in 0..MESSAGES {
        redis.send(&publish, Duration::from_secs(20)).await.unwrap();
    }
    let mut taken = 0;
    let told = async {
        while messages.recv().await.unwrap() != Message::Subscribed {
            taken += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .expect("an interruption is told");
    assert!(taken < MESSAGES, "{taken}");
}
