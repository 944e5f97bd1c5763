//! Three nodes.

use std::thread;

use serde_json::json;

use crate::support::{Hub, RedisServer, Stream};
use crate::{count, node, send, until, until_joined};

fn three(redis: &RedisServer) -> [Hub; 3] {
    let nodes = ["a", "b", "c"].map(|name| node(redis, name));
    until_joined(&nodes);
    nodes
}

#[test]
fn a_client_is_reached_from_every_node() {
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let mut stream = nodes[1].stream("/sse/connect/c");
    for node in &nodes {
        let sent = send(node, "c", "x");
        assert_eq!(
            (sent.status, sent.json()),
            (200, json!({"delivered": true, "node": "b"}))
        );
        assert_eq!(stream.event().data, "x");
        assert_eq!(node.get("/sse/status/c").json()["node"], json!("b"));
        assert_eq!(count(node, "cluster"), 1);
    }
    assert_eq!(
        (count(&nodes[0], "local"), count(&nodes[1], "local")),
        (0, 1)
    );
    assert_eq!(send(&nodes[0], "nobody", "x").status, 404);
    assert_eq!(
        nodes[2].send("DELETE", "/sse/connect/c", &[], b"").status,
        204
    );
    assert_eq!(stream.rest().pop().unwrap().event, "closed");
    until("nobody is connected", || count(&nodes[0], "cluster") == 0);
}

#[test]
fn a_broadcast_reaches_each_client_of_the_cluster_once() {
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let mut streams: Vec<_> = (0..9)
        .map(|n| nodes[n % 3].stream(&format!("/sse/connect/c{n}")))
        .collect();
    let answer = nodes[0].send("POST", "/sse/broadcast?event=all", &[], b"1");
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"connections": 9}))
    );
    let local = nodes[0].send("POST", "/sse/broadcast?scope=local", &[], b"2");
    assert_eq!(local.json(), json!({"connections": 3}));
    nodes[2].send("POST", "/sse/broadcast", &[], b"3");
    for (n, stream) in streams.iter_mut().enumerate() {
        let expected: &[&str] = if n % 3 == 0 {
            &["1", "2", "3"]
        } else {
            &["1", "3"]
        };
        assert_eq!(stream.data(expected.len()), expected);
    }
    let closed = nodes[1].send("DELETE", "/sse/connect", &[], b"");
    assert_eq!(closed.json(), json!({"connections": 9}));
    for stream in &mut streams {
        assert_eq!(stream.rest().pop().unwrap().event, "closed");
    }
}

#[test]
fn the_same_id_at_two_nodes_at_once_has_one_connection() {
    /// A thousand on demand.
    const ROUNDS: &str = "TIDEWIRE_TEST_ROUNDS";
    let rounds = std::env::var(ROUNDS).map_or(150, |n| n.parse().unwrap());
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let ports = [nodes[0].port(), nodes[1].port()];
    for round in 0..rounds {
        let path = format!("/sse/connect/c{round}");
        let connecting = ports.map(|port| {
            let path = path.clone();
            thread::spawn(move || Stream::open(port, &path, &[]))
        });
        let mut streams = connecting.map(|stream| stream.join().unwrap());
        // Both sides, and the third, agree on who has it.
        let client = format!("c{round}");
        let mut holder = String::new();
        until("all agree", || {
            let [a, b, c] = nodes
                .each_ref()
                .map(|node| node.get(&format!("/sse/status/{client}")).json()["node"].to_string());
            holder = a.clone();
            a == b && b == c
        });
        let (winner, loser) = if holder == "\"a\"" { (0, 1) } else { (1, 0) };
        assert_eq!(
            streams[loser].rest().pop().unwrap().event,
            "replaced",
            "round {round}"
        );
        assert_eq!(send(&nodes[2], &client, "x").status, 200);
        assert_eq!(streams[winner].event().data, "x");
    }
    until("each is counted once, while it lives", || {
        count(&nodes[2], "cluster") == 0
    });
}

#[test]
fn what_is_sent_to_a_client_that_moves_is_delivered_or_reported() {
    const MOVES: usize = 40;
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let ports = nodes.each_ref().map(Hub::port);
    let mut streams = vec![nodes[0].stream("/sse/connect/c")];
    let sending = thread::spawn(move || {
        let mut delivered = Vec::new();
        for n in 0..400 {
            // Larger than what a socket takes in one go, many times over.
            let body = format!("{n:020000}");
            let request = crate::support::http::request_bytes(
                ports[2],
                "POST",
                "/sse/send/c",
                &[],
                body.as_bytes(),
            );
            let answer = crate::support::http::exchange(ports[2], &request).unwrap();
            match answer.status {
                200 => delivered.push(body),
                404 | 504 => {}
                other => panic!("{other}: {answer:?}"),
            }
        }
        delivered
    });
    for n in 1..MOVES {
        streams.push(nodes[n % 2].stream("/sse/connect/c"));
    }
    let delivered = sending.join().unwrap();
    nodes[0].send("DELETE", "/sse/connect/c", &[], b"");
    let mut seen: Vec<_> = streams
        .iter_mut()
        .flat_map(Stream::rest)
        .filter(|event| event.event == "message")
        .map(|event| event.data)
        .collect();
    seen.sort_by_key(|n| n.parse::<u32>().unwrap());
    assert!(delivered.len() > 100, "{}", delivered.len());
    let shown = |bodies: &[String]| -> Vec<u32> {
        bodies.iter().map(|body| body.parse().unwrap()).collect()
    };
    assert_eq!(
        shown(&seen),
        shown(&delivered),
        "each once, and none that was not answered so"
    );
}

#[test]
fn presence_and_users_count_on_all_nodes() {
    let redis = RedisServer::start();
    let nodes = three(&redis);
    let _streams: Vec<_> = nodes
        .iter()
        .map(|node| node.stream("/events?topic=room:1"))
        .collect();
    let present = nodes[0].get("/api/v1/presence?topic=room:1").json();
    assert_eq!(present["count"], json!(3), "{present}");
    assert_eq!(present["silent"], json!([]));
    let kicked = nodes[0].send("DELETE", "/sse/users/u/connections", &[], b"");
    assert_eq!(kicked.json(), json!({"connections": 0}));
    let listed = nodes[1].get("/api/v1/nodes").json();
    let names: Vec<_> = listed["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["node"].clone())
        .collect();
    assert_eq!(json!(names), json!(["a", "b", "c"]));
    assert_eq!(listed["node"], json!("b"));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["nodes", "--url", &nodes[1].url("")])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(names, ["NODE", "a", "b", "c"], "{table}");
    assert!(table.contains("b *"), "{table}");
}

#[test]
fn a_users_connections_are_closed_on_every_node_and_nobody_elses() {
    use crate::issuer::{Issuer, SECRET};
    let redis = RedisServer::start();
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let nodes = ["a", "b"]
        .map(|name| crate::node_with(&redis, name, &[("TIDEWIRE_AUTH__ISSUERS", &issuers)]));
    let bearer =
        |claims: serde_json::Value| format!("Bearer {}", Issuer::with_secret().token(&claims));
    let admin =
        bearer(json!({"sub": "root", "tidewire": {"admin": true, "publish": ["connection:**"]}}));
    let user = |name: &str| {
        let rights = json!({"subscribe": [format!("connection:{name}:*"), "presence:room"]});
        bearer(json!({"sub": name, "tidewire": rights}))
    };
    let connect = |node: &Hub, name: &str, tab: &str| {
        let path = format!("/sse/connect/{name}:{tab}");
        node.stream_with(&path, &[("Authorization", &user(name))])
    };
    let mut of_ann = [
        connect(&nodes[0], "ann", "1"),
        connect(&nodes[1], "ann", "2"),
    ];
    let mut of_bob = connect(&nodes[1], "bob", "1");
    // Nobody takes another one's place.
    let stolen = Stream::open(
        nodes[0].port(),
        "/sse/connect/ann:1",
        &[("Authorization", &user("bob"))],
    );
    assert_eq!(stolen.status(), 403);
    until("both nodes are there", || {
        let listed = nodes[0].send("GET", "/api/v1/nodes", &[("Authorization", &admin)], b"");
        listed.json()["nodes"].as_array().unwrap().len() == 2
    });
    let path = "/sse/users/ann/connections";
    assert_eq!(
        nodes[0]
            .send("DELETE", path, &[("Authorization", &user("bob"))], b"")
            .status,
        403
    );
    let kicked = nodes[0].send("DELETE", path, &[("Authorization", &admin)], b"");
    assert_eq!(
        (kicked.status, kicked.json()),
        (200, json!({"connections": 2}))
    );
    for stream in &mut of_ann {
        assert_eq!(stream.rest().pop().unwrap().event, "closed");
    }
    let sent = nodes[0].send(
        "POST",
        "/sse/send/bob:1",
        &[("Authorization", &admin)],
        b"x",
    );
    assert_eq!(sent.status, 200, "{sent:?}");
    assert_eq!(of_bob.event().data, "x");
    // Presence names the users, for whoever may see them.
    let presence = |who: &str| {
        let path = "/api/v1/presence?topic=connection:/clients";
        nodes[0].send("GET", path, &[("Authorization", who)], b"")
    };
    assert_eq!(presence(&user("bob")).status, 403);
    let present = presence(&admin).json();
    assert_eq!(
        (&present["count"], &present["present"][0]["user"]),
        (&json!(1), &json!("bob")),
        "{present}"
    );
}

#[test]
fn a_node_that_is_restarted_loses_nobody_an_event() {
    let redis = RedisServer::start();
    let [a, mut b, _c] = three(&redis);
    let mut stream = b.stream("/events?topic=t");
    let before = a.publish("t", &json!("before"));
    assert_eq!(stream.event().id, before);
    b.terminate();
    let meanwhile = a.publish("t", &json!("meanwhile"));
    let mut last = before;
    for event in stream.rest() {
        last = event.id;
    }
    assert!(b.wait_for_exit(crate::support::WAIT_MAX).success());
    until("the node has left", || {
        a.get("/api/v1/nodes").json()["nodes"]
            .as_array()
            .unwrap()
            .len()
            == 2
    });
    let mut elsewhere = a.stream_with("/events?topic=t", &[("Last-Event-ID", &last)]);
    let after = a.publish("t", &json!("after"));
    let mut expected = vec![after];
    if last != meanwhile {
        expected.insert(0, meanwhile);
    }
    for id in expected {
        assert_eq!(elsewhere.event().id, id);
    }
}

#[test]
fn an_event_that_is_too_large_is_refused_wherever_the_client_is() {
    let redis = RedisServer::start();
    let limit = ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "1000");
    let nodes = [node(&redis, "a"), crate::node_with(&redis, "b", &[limit])];
    until_joined(&nodes);
    let mut stream = nodes[1].stream("/sse/connect/c");
    // Larger than the node that is asked takes, and larger than that of the client does.
    for (bytes, allowed) in [(2 << 20, "1048576"), (2_000, "1000")] {
        let sent = send(&nodes[0], "c", &"x".repeat(bytes));
        let problem = sent.json();
        assert_eq!(
            (sent.status, problem["code"].as_str()),
            (413, Some("event_too_large")),
            "{sent:?}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(allowed), "{detail}");
    }
    assert_eq!(send(&nodes[0], "c", "small").status, 200);
    assert_eq!(stream.event().data, "small");
}
