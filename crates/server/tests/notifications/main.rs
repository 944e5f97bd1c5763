//! Notifications over HTTP, from a Redis Stream and over Redis Pub/Sub, with a real Redis and a real PostgreSQL.
//!
//! | module | what must hold |
//! |---|---|
//! | `door` | every address, answer and refusal; whose notifications are whose; resuming |
//! | `consumer` | domain events become notifications once, whatever is killed |
//! | `channels` | Redis Pub/Sub, in and out |
//! | `lag` | a node that has not read yet what the database has |
//!
//! `make crash-notifications` runs the crashes for longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod channels;
mod consumer;
mod door;
mod lag;

#[path = "../support/mod.rs"]
mod support;

#[path = "../auth/issuer.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod issuer;

#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod postgres;

use serde_json::{Value, json};
use support::{Hub, RedisServer, until};

const AT: &str = "/api/v1/notifications";

/// A hub without authentication, which takes anybody's word for who they are.
fn hub() -> Hub {
    Hub::spawn(&[], &[])
}

fn notify(hub: &Hub, user: &str, title: &str) -> Value {
    let document = json!({"recipient_id": user, "type": "test", "title": title});
    let answer = hub.request(
        "POST",
        AT,
        Some(("application/json", &document.to_string())),
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

fn titles(hub: &Hub, user: &str) -> Vec<String> {
    let mut titles = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = hub
            .get(&format!("{AT}?user={user}&limit=500&cursor={cursor}"))
            .json();
        for notification in page["notifications"].as_array().unwrap() {
            titles.push(notification["title"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return titles,
        }
    }
}

/// Rules for the story that the examples tell.
const RULES: &str = r#"
[notifications]
stream = "events"
attempts_max = 2
retry_after = "300ms"

[[notifications.rules]]
on = "story.assigned"
recipient = "{assignee}"
title = "{by} assigned you \"{story.title}\""
link = "/stories/{story.id}"
"#;

fn consuming(
    redis: &RedisServer,
    folder: &tempfile::TempDir,
    name: &str,
    more: &[(&str, &str)],
) -> Hub {
    let config = folder.path().join("tidewire.toml");
    std::fs::write(&config, RULES).unwrap();
    let database = format!("sqlite:{}", folder.path().join("n.db").display());
    let url = redis.url();
    let mut env = vec![
        ("TIDEWIRE_BROKER__KIND", "redis"),
        ("TIDEWIRE_BROKER__URL", url.as_str()),
        ("TIDEWIRE_NODE__ID", name),
        ("TIDEWIRE_NOTIFICATIONS__DATABASE", database.as_str()),
    ];
    env.extend(more);
    Hub::spawn(&["--config", config.to_str().unwrap()], &env)
}

fn assign(redis: &RedisServer, user: &str, n: usize) -> String {
    let data = json!({"assignee": user, "by": "Ann", "story": {"id": n, "title": format!("S{n}")}});
    redis.command(&[
        "XADD",
        "events",
        "*",
        "type",
        "story.assigned",
        "data",
        &data.to_string(),
    ])
}
