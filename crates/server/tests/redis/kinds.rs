//! The ways to a Redis: TLS, a user with few rights, Sentinel, Cluster.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::node_at;
use crate::support::{Hub, RedisServer, WAIT_MAX, free_port};

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
    let _redis = RedisServer::start_with(&[
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
    ]);
    // The system's authorities are those of this file.
    works(
        &format!("rediss://127.0.0.1:{port}"),
        &[("SSL_CERT_FILE", &cert)],
    );
}

#[test]
fn as_the_user_of_the_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/brokers.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, rule) = guide.split_once("ACL SETUSER tidewire ").unwrap();
    let (rule, _) = rule.split_once("ACL SETUSER shop").unwrap();
    let redis = RedisServer::start();
    let words: Vec<&str> = ["ACL", "SETUSER", "tidewire"]
        .into_iter()
        .chain(rule.split_whitespace())
        .collect();
    assert_eq!(redis.command(&words), "+OK\r\n");
    let hub = works(
        &format!("redis://tidewire:secret@127.0.0.1:{}", redis.port()),
        &[],
    );
    hub.publish("u", &json!(1));
    assert_eq!(hub.get("/readyz").status, 200);
    let denied = redis.command(&["ACL", "LOG"]);
    assert_eq!(denied, "*0\r\n", "nothing that the hub does is denied");
}

#[test]
fn in_a_cluster() {
    let redis = RedisServer::start_with(&["--save", "", "--cluster-enabled", "yes"]);
    redis.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let deadline = Instant::now() + WAIT_MAX;
    while !redis
        .command(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {
        assert!(Instant::now() < deadline, "the cluster is not there");
        thread::sleep(Duration::from_millis(20));
    }
    works(&format!("redis-cluster://127.0.0.1:{}", redis.port()), &[]);
    assert_eq!(redis.command(&["EXISTS", "{tidewire}:log"]), ":1\r\n");
}

/// A Sentinel; it ends with the value.
struct Sentinel(Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn with_a_sentinel_that_makes_another_one_master() {
    let mut master = RedisServer::start();
    let master_port = master.port().to_string();
    let replica =
        RedisServer::start_with(&["--save", "", "--replicaof", "127.0.0.1", &master_port]);
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "port {port}\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master_port} 1\n\
         sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n",
        folder.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new("redis-server")
        .arg(&config)
        .arg("--sentinel")
        .stdout(Stdio::null())
        .spawn();
    let _sentinel = Sentinel(child.unwrap());
    // It has to know of the replica before it can make it master.
    let deadline = Instant::now() + 3 * WAIT_MAX;
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    until("the replica follows", &|| {
        master
            .command(&["INFO", "replication"])
            .contains("state=online")
    });
    let sentinel = format!("127.0.0.1:{port}");
    let knows = || {
        let output = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "SENTINEL", "REPLICAS", "mymaster"])
            .output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).contains(&replica.port().to_string())
        })
    };
    until("the Sentinel knows the replica", &knows);
    let hub = node_at(&format!("redis-sentinel://{sentinel}/mymaster"), &[]);
    let mut stream = hub.stream("/events?topic=t");
    let before = hub.publish("t", &json!("before"));
    assert_eq!(stream.event().id, before);
    until("the replica has it", &|| {
        replica.command(&["XLEN", "tidewire:log"]) == ":1\r\n"
    });
    master.kill();
    until("it is stored again", &|| {
        hub.post_json(&json!({"topic": "t", "data": "after"}))
            .status
            == 200
    });
    // The replica had everything: the stream goes on, and a client resumes.
    assert_eq!(stream.event().data, "after");
    let mut resumed = hub.stream_with("/events?topic=t", &[("Last-Event-ID", &before)]);
    assert_eq!(resumed.event().data, "after");
}
