//! Chromium, which opens six connections to a host over HTTP/1.1, and one over HTTP/2.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Files, url};
use crate::support::{Client, Kind};

#[test]
fn fifty_streams_of_a_page_share_one_connection() {
    const STREAMS: usize = 50;
    let files = Files::new();
    let hub = files.hub(&[]);
    let count = STREAMS.to_string();
    let mut page = Client::spawn_with(Kind::ManyStreams, &url(&hub, "/"), &["--streams", &count]);
    for _ in 0..STREAMS {
        page.wait_for_open();
    }
    let rows = files.get(&hub, "/api/v1/connections?limit=100", &["-f"]);
    let rows: Value = serde_json::from_str(&rows).unwrap();
    let rows = rows["connections"].as_array().unwrap();
    // The hub's own page, on which this runs, may have one too.
    let is_ours = |row: &&Value| {
        row["topics"][0]
            .as_str()
            .is_some_and(|topic| topic.starts_with('t'))
    };
    let rows: Vec<_> = rows.iter().filter(is_ours).collect();
    let remotes: BTreeSet<_> = rows.iter().map(|row| row["remote"].to_string()).collect();
    assert_eq!(
        (rows.len(), remotes.len()),
        (STREAMS, 1),
        "{remotes:?} {rows:?}"
    );
    for n in 0..STREAMS {
        let path = format!("/events?topic=t{n}&event=tick");
        files.get(
            &hub,
            &path,
            &["-f", "-d", "x", "-H", "Content-Type: text/plain"],
        );
    }
    let mut seen = BTreeSet::new();
    while seen.len() < STREAMS {
        let event = page.wait_for_event("tick");
        assert!(
            seen.insert(event["topic"].to_string()),
            "{event} came twice"
        );
    }
}
