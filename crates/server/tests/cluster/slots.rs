//! A Redis Cluster of two servers, of which one takes over what the other had.

use std::time::Duration;

use crate::support::{RedisServer, free_port};
use crate::{node_at, send, until, until_joined};

/// A server of a cluster, and its port for the others.
fn server() -> (RedisServer, u16) {
    let bus = free_port();
    let options = ["--save", "", "--cluster-enabled", "yes", "--cluster-port"];
    let server = RedisServer::start_with(&[&options[..], &[&bus.to_string()]].concat());
    (server, bus)
}

/// A text that a server answers, without its frame.
fn text(answer: &str) -> String {
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

#[test]
fn what_is_sent_after_a_slot_has_moved_comes_once() {
    let ((from, _), (to, bus)) = (server(), server());
    from.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let port = to.port().to_string();
    from.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus.to_string()]);
    until("the servers know each other", || {
        [&from, &to].iter().all(|server| {
            let info = server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
    });
    let url = format!("redis-cluster://127.0.0.1:{}", from.port());
    let nodes = ["a", "b"].map(|name| node_at(&url, name, &[]));
    until_joined(&nodes);
    let mut stream = nodes[1].stream("/sse/connect/c");
    assert_eq!(send(&nodes[0], "c", "before").status, 200);
    assert_eq!(stream.event().data, "before");

    let [source, target] = [&from, &to].map(|server| text(&server.command(&["CLUSTER", "MYID"])));
    let slot = from.command(&["CLUSTER", "KEYSLOT", "{tidewire}:log"]);
    let slot = slot.trim_start_matches(':').trim();
    to.command(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]);
    from.command(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]);
    until("all keys have moved", || {
        let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        let keys: Vec<_> = keys.lines().filter(|line| line.starts_with('{')).collect();
        let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        if !keys.is_empty() {
            from.command(&[&migrate[..], &keys].concat());
        }
        keys.is_empty()
    });
    for server in [&to, &from] {
        server.command(&["CLUSTER", "SETSLOT", slot, "NODE", &target]);
    }
    // The node listens where it has listened before, and the other one publishes elsewhere now.
    until("the client is reached", || {
        send(&nodes[0], "c", "after").status == 200
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(send(&nodes[0], "c", "last").status, 200);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|data| data != "last") {
        seen.push(stream.event().data);
    }
    assert_eq!(seen, ["after", "last"]);
}
