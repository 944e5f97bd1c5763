//! Redis Pub/Sub.

use serde_json::{Value, json};

use crate::support::RedisServer;
use crate::{AT, consuming, notify, titles, until};

fn listeners(redis: &RedisServer, user: &str) -> String {
    redis.command(&["PUBSUB", "NUMSUB", &format!("user-notifications:{user}")])
}

#[test]
fn a_message_reaches_the_user_on_every_node_while_connected() {
    let mut redis = RedisServer::start_durable();
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["a", "b"].map(|name| consuming(&redis, &folder, name, &[]));
    assert!(
        listeners(&redis, "ann").ends_with(":0\r\n"),
        "nobody is connected"
    );
    let mut tabs: Vec<_> = nodes
        .iter()
        .map(|node| node.stream(&format!("{AT}/subscribe?user=ann")))
        .collect();
    until("both nodes listen", || {
        listeners(&redis, "ann").ends_with(":2\r\n")
    });
    redis.command(&[
        "PUBLISH",
        "user-notifications:ann",
        "{\"title\": \"from elsewhere\", \"id\": 123456789012345678901234567890}",
    ]);
    redis.command(&["PUBLISH", "user-notifications:ann", "no JSON"]);
    redis.command(&[
        "PUBLISH",
        "user-notifications:ann",
        "{\n  \"title\": \"second\"\r\n}",
    ]);
    for tab in &mut tabs {
        assert_eq!(tab.event().event, "connected");
        assert_eq!(
            tab.event().data,
            "{\"title\": \"from elsewhere\", \"id\": 123456789012345678901234567890}",
            "as it was published"
        );
        assert_eq!(tab.event().data, "{\"title\":\"second\"}");
    }
    assert_eq!(titles(&nodes[0], "ann"), [""; 0], "it is stored nowhere");
    redis.kill();
    redis.run();
    until("both nodes listen again", || {
        listeners(&redis, "ann").ends_with(":2\r\n")
    });
    redis.command(&["PUBLISH", "user-notifications:ann", "{\"title\":\"after\"}"]);
    for tab in &mut tabs {
        assert_eq!(tab.event().data, "{\"title\":\"after\"}");
    }
    drop(tabs);
    until("nobody listens any more", || {
        listeners(&redis, "ann").ends_with(":0\r\n")
    });
}

#[test]
fn what_is_created_here_is_announced_and_not_taken_in_again() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let hub = consuming(
        &redis,
        &folder,
        "a",
        &[("TIDEWIRE_NOTIFICATIONS__ANNOUNCE", "true")],
    );
    let mut tab = hub.stream(&format!("{AT}/subscribe?user=ann"));
    assert_eq!(tab.event().event, "connected");
    until("the node listens", || {
        listeners(&redis, "ann").ends_with(":1\r\n")
    });
    notify(&hub, "ann", "one");
    notify(&hub, "ann", "two");
    for title in ["one", "two"] {
        let event: Value = serde_json::from_str(&tab.event().data).unwrap();
        assert_eq!(event["title"], json!(title), "once each");
        assert_eq!(event.get("_tidewire"), None);
    }
    let calls = redis.command(&["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_publish:calls=2"), "{calls}");
}
