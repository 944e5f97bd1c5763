//! The ways to a Redis: TLS, a user with few rights, Sentinel, Cluster.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;
use tidewire_core::decode::Decoded;

use crate::support::{Hub, RedisServer, Stream, WAIT_MAX, free_port};
use crate::{node_at, until};

/// Events, keys and ends go through.
fn works(url: &str, more: &[(&str, &str)]) -> Hub {
    let (a, b) = (node_at(url, more), node_at(url, more));
    let mut stream = b.stream("/events?topic=t");
    let id = a.publish("t", &json!(1));
    assert_eq!(stream.event().id, id);
    let keyed = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "k"),
    ];
    let publish = |node: &Hub| {
        node.send("POST", "/events", &keyed, br#"{"topic":"t","data":"2"}"#)
            .json()
    };
    assert_eq!(publish(&a), publish(&b));
    assert_eq!(stream.event().data, "2");
    let mut client = a.stream("/sse/connect/c");
    assert_eq!(b.send("POST", "/sse/send/c", &[], b"x").status, 200);
    assert_eq!(client.event().data, "x");
    assert_eq!(a.request("POST", "/topics/t/close", None).status, 200);
    assert_eq!(stream.event().event, "end");
    a
}

#[test]
fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let key =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
            .unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cert = file("cert.pem", key.cert.pem());
    let private = file("key.pem", key.signing_key.serialize_pem());
    let port = free_port();
    let redis = RedisServer::start_with(&[
        "--save",
        "",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &private,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
        "--user",
        "tidewire",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
    ]);
    // The system's authorities are those of this file.
    let trusted = [("SSL_CERT_FILE", cert.as_str())];
    let hub = works(
        &format!("rediss://tidewire:secret@127.0.0.1:{port}"),
        &trusted,
    );
    let who = redis.command(&["CLIENT", "LIST"]);
    assert!(who.contains("user=tidewire"), "{who}");
    drop(hub);
}

/// Makes a user as the guide does.
fn make_user_of_guide(redis: &RedisServer, name: &str) {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/brokers.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let begin = format!("ACL SETUSER {name} ");
    let (_, rule) = guide.split_once(&begin).unwrap();
    let (rule, _) = rule.split_once("```").unwrap();
    let (rule, _) = rule.split_once("ACL SETUSER").unwrap_or((rule, ""));
    let words: Vec<&str> = begin
        .split_whitespace()
        .chain(rule.split_whitespace())
        .collect();
    assert_eq!(redis.command(&words), "+OK\r\n");
}

/// What another program with a password is answered.
fn as_user(redis: &RedisServer, login: &str, words: &[&str]) -> String {
    let url = format!("redis://{login}@127.0.0.1:{}", redis.port());
    let output = Command::new("redis-cli")
        .args(["-u", &url, "--no-auth-warning"])
        .args(words)
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The largest possible id blocks the stream, so whoever is not trusted with that may only send messages.
#[test]
fn other_programs_of_the_guide_may_do_what_it_says_and_no_more() {
    let redis = RedisServer::start();
    for name in ["shop", "sensor"] {
        make_user_of_guide(&redis, name);
    }
    let hub = node_at(&redis.url(), &[]);
    let mut stream = hub.stream("/events?topic=t");
    let event = ["topic", "t", "data", "1"];
    let add = |login: &str, id: &str| {
        as_user(
            &redis,
            login,
            &[&["XADD", "tidewire:log", id], &event[..]].concat(),
        )
    };
    let publish = |login: &str| as_user(&redis, login, &["PUBLISH", "tidewire:topic:t", "2"]);
    assert!(add("shop:secret2", "*").contains('-'));
    assert_eq!(stream.event().data, "1");
    until("the node listens", || publish("shop:secret2").trim() == "1");
    assert_eq!(stream.event().data, "2");
    assert_eq!(publish("sensor:secret3").trim(), "1");
    assert_eq!(stream.event().data, "2");
    let largest = "18446744073709551615-18446744073709551615";
    assert!(add("sensor:secret3", largest).contains("NOPERM"));
    for words in [&["DEL", "tidewire:log"][..], &["GET", "tidewire:epoch"]] {
        assert!(as_user(&redis, "shop:secret2", words).contains("NOPERM"));
    }
    hub.publish("t", &json!("stored"));
}

#[test]
fn as_the_user_of_the_guide() {
    let redis = RedisServer::start();
    make_user_of_guide(&redis, "tidewire");
    let hub = works(
        &format!("redis://tidewire:secret@127.0.0.1:{}", redis.port()),
        &[],
    );
    hub.publish("u", &json!(1));
    assert_eq!(hub.get("/readyz").status, 200);
    let denied = redis.command(&["ACL", "LOG"]);
    assert_eq!(denied, "*0\r\n", "nothing that the hub does is denied");
}

/// A node of a Cluster, and its port for the others.
fn cluster_node() -> (RedisServer, String) {
    let bus = free_port().to_string();
    let options = [
        "--save",
        "",
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1500",
        "--cluster-port",
        &bus,
    ];
    (RedisServer::start_with(&options), bus)
}

fn wait_for_cluster(nodes: &[&RedisServer]) {
    until("the cluster is there", || {
        let known = format!("cluster_known_nodes:{}\r", nodes.len());
        nodes.iter().all(|node| {
            let says = node.command(&["CLUSTER", "INFO"]);
            says.contains("cluster_state:ok") && says.contains(&known)
        })
    });
}

#[test]
fn in_a_cluster() {
    let (redis, _) = cluster_node();
    redis.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for_cluster(&[&redis]);
    works(&format!("redis-cluster://127.0.0.1:{}", redis.port()), &[]);
    assert_eq!(redis.command(&["EXISTS", "{tidewire}:log"]), ":1\r\n");
}

/// A stream is in one slot, so on one master; another takes over when that is gone.
#[test]
fn in_a_cluster_of_three_that_loses_the_master_of_the_stream() {
    let ((first, _), (second, second_bus), (third, third_bus)) =
        (cluster_node(), cluster_node(), cluster_node());
    let (replica, replica_bus) = cluster_node();
    let mut masters = [first, second, third];
    let slots = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];
    for ((node, [from, to]), epoch) in masters.iter().zip(slots).zip(["1", "2", "3"]) {
        node.command(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        node.command(&["CLUSTER", "SET-CONFIG-EPOCH", epoch]);
    }
    for (node, bus) in [
        (&masters[1], second_bus),
        (&masters[2], third_bus),
        (&replica, replica_bus),
    ] {
        let port = node.port().to_string();
        masters[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }
    wait_for_cluster(&[&masters[0], &masters[1], &masters[2], &replica]);
    let slot = masters[0].command(&["CLUSTER", "KEYSLOT", "{tidewire}:log"]);
    let slot: usize = slot.trim().trim_start_matches(':').parse().unwrap();
    let owner = slot / 5_461;
    let id = masters[owner].command(&["CLUSTER", "MYID"]);
    let id = id.lines().nth(1).unwrap();
    until("the replica knows its master", || {
        replica.command(&["CLUSTER", "REPLICATE", id]) == "+OK\r\n"
    });
    // One that has another slot tells where the stream is; both nodes are asked, as one may be gone.
    let url = format!(
        "redis-cluster://127.0.0.1:{},127.0.0.1:{}",
        masters[(owner + 1) % 3].port(),
        masters[owner].port()
    );
    let hub = works(&url, &[]);
    let mut stream = hub.stream("/events?topic=u");
    let before = hub.publish("u", &json!("before"));
    assert_eq!(stream.event().id, before);
    let stored = |node: &RedisServer| {
        let says = node.command(&["INFO", "replication"]);
        let (_, offset) = says.split_once("master_repl_offset:").unwrap();
        offset.lines().next().unwrap().to_owned()
    };
    until("the replica has it", || {
        let says = replica.command(&["INFO", "replication"]);
        says.contains("link_status:up") && stored(&replica) == stored(&masters[owner])
    });
    masters[owner].kill();
    let after = loop {
        let answer = hub.post_json(&json!({"topic": "u", "data": "after"}));
        if answer.status == 200 {
            break answer.json()["id"].as_str().unwrap().to_owned();
        }
        // What is sent before the hub has noticed is lost with the connection.
        assert_eq!(answer.status, 503, "{answer:?}");
    };
    assert_eq!(stream.event().id, after);
    let resumed = hub
        .stream_with("/events?topic=u", &[("Last-Event-ID", &before)])
        .event();
    assert_eq!(resumed.id, after);
}

/// A Sentinel; it ends with the value.
struct Sentinel(Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A master, a replica that has caught up, and a Sentinel that makes it master when the other is gone.
struct Pair {
    master: RedisServer,
    replica: RedisServer,
    _sentinel: Sentinel,
    _folder: tempfile::TempDir,
    url: String,
}

impl Pair {
    fn start() -> Self {
        let master = RedisServer::start();
        let master_port = master.port().to_string();
        let replica =
            RedisServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &master_port]);
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds mymaster 1500\nsentinel failover-timeout mymaster 3000\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn();
        let sentinel = Sentinel(child.unwrap());
        until("the replica follows", || {
            let says = master.command(&["INFO", "replication"]);
            says.contains("state=online")
        });
        // It has to know of the replica before it can make it master.
        until("the Sentinel knows the replica", || {
            let output = Command::new("redis-cli")
                .args(["-p", &port.to_string(), "SENTINEL", "REPLICAS", "mymaster"])
                .output();
            output.is_ok_and(|output| {
                String::from_utf8_lossy(&output.stdout).contains(&replica.port().to_string())
            })
        });
        Self {
            master,
            replica,
            _sentinel: sentinel,
            _folder: folder,
            url: format!("redis-sentinel://127.0.0.1:{port}/mymaster"),
        }
    }

    fn wait_for_replica(&self) {
        until("the replica has it", || {
            self.replica.command(&["XLEN", "tidewire:log"]) == ":1\r\n"
        });
    }
}

/// Publishes numbers until one is stored; answers its id. What became of those before may be unknown.
fn publish_in_time(hub: &Hub) -> String {
    let deadline = Instant::now() + 3 * WAIT_MAX;
    for n in 0.. {
        let answer = hub.post_json(&json!({"topic": "t", "data": n}));
        if answer.status == 200 {
            return answer.json()["id"].as_str().unwrap().to_owned();
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(Instant::now() < deadline, "not stored in time");
    }
    unreachable!()
}

/// Reads up to this event.
fn read_to(stream: &mut Stream, id: &str) -> Vec<Decoded> {
    let mut seen = vec![stream.event()];
    while seen.last().is_some_and(|event| event.id != id) {
        seen.push(stream.event());
    }
    seen
}

#[test]
fn with_a_sentinel_that_makes_another_one_master() {
    let mut redis = Pair::start();
    let hub = node_at(&redis.url, &[]);
    let mut stream = hub.stream("/events?topic=t");
    let before = hub.publish("t", &json!("before"));
    assert_eq!(stream.event().id, before);
    redis.wait_for_replica();
    redis.master.kill();
    let after = publish_in_time(&hub);
    // The replica had everything: the stream goes on, and a client resumes.
    let seen = read_to(&mut stream, &after);
    assert!(seen.iter().all(|event| event.event != "gap"), "{seen:?}");
    let mut resumed = hub.stream_with("/events?topic=t", &[("Last-Event-ID", &before)]);
    assert_eq!(read_to(&mut resumed, &after), seen);
}

#[test]
fn a_replica_that_had_less_begins_a_new_epoch() {
    let mut redis = Pair::start();
    let nodes = [node_at(&redis.url, &[]), node_at(&redis.url, &[])];
    let mut stream = nodes[1].stream("/events?topic=t");
    let before = nodes[0].publish("t", &json!("before"));
    assert_eq!(stream.event().id, before);
    redis.wait_for_replica();
    // From now on the replica gets nothing.
    let master = &redis.master;
    master.command(&["ACL", "SETUSER", "default", "-psync", "-sync", "-replconf"]);
    master.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    let lost = nodes[0].publish("t", &json!("lost"));
    assert_eq!(stream.event().id, lost);
    assert_eq!(redis.replica.command(&["XLEN", "tidewire:log"]), ":1\r\n");
    redis.master.kill();
    // What is stored before anyone has noticed is unknown to its publisher.
    let after = publish_in_time(&nodes[0]);
    assert_ne!(after[..9], lost[..9], "another epoch");
    assert!(stream.rest().iter().all(|event| event.id != after));
    for node in &nodes {
        let mut stream = node.stream_with("/events?topic=t", &[("Last-Event-ID", &lost)]);
        let seen = read_to(&mut stream, &after);
        assert!(seen[0].data.contains("unknown_id"), "{seen:?}");
        assert_eq!(seen[1].data, "before");
        assert!(seen.iter().all(|event| event.data != "lost"), "{seen:?}");
    }
}
