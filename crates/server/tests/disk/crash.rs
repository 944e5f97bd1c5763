//! `kill -9` at random moments, with publishers and subscribers who go on over all of them.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidewire_core::decode::Decoder;

use crate::support::{WAIT_MAX, http};
use crate::{history, hub};

/// How often the hub is killed.
const KILLS: &str = "TIDEWIRE_TEST_KILLS";
const KILLS_USUAL: u64 = 10;
/// The longest life of a hub under load, in milliseconds.
const LIFE_MS_MAX: u64 = 200;
/// Publishers that repeat what was not answered, with a key; one more never does.
const KEYED: usize = 3;
const LAST: &str = "the last one";
/// Between attempts to reach a hub that is being started.
const POLL: Duration = Duration::from_millis(5);

/// An event as it was answered: its data and its id.
type Answered = (String, String);

#[derive(Default)]
struct Published {
    answered: Vec<Answered>,
    /// What was sent and not answered.
    unknown: Vec<String>,
}

/// Publishes batches one after the other until it is told to end. With a key a batch is repeated until it is answered.
fn publisher(port: u16, name: usize, ending: Arc<AtomicBool>) -> JoinHandle<Published> {
    thread::spawn(move || {
        let mut published = Published::default();
        for n in 0.. {
            let data: Vec<_> = (0..=n % 4)
                .map(|part| format!("{name} {n} {part}"))
                .collect();
            let key = (name < KEYED).then(|| format!("{name}-{n}"));
            let ids = loop {
                let ids = publish(port, &data, key.as_deref());
                if ids.is_some() || key.is_none() {
                    break ids;
                }
                thread::sleep(POLL);
            };
            if let Some(ids) = ids {
                published.answered.extend(data.into_iter().zip(ids));
            } else {
                published.unknown.extend(data);
                thread::sleep(POLL);
            }
            if ending.load(Ordering::Relaxed) {
                return published;
            }
        }
        published
    })
}

/// The ids, if there was an answer. A hub that is there has no reason to refuse.
fn publish(port: u16, data: &[String], key: Option<&str>) -> Option<Vec<String>> {
    let events: Vec<_> = data
        .iter()
        .map(|data| serde_json::json!({"topic": "crash", "data": data}))
        .collect();
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    let body = serde_json::to_vec(&events).unwrap();
    let request = http::request_bytes(port, "POST", "/events", &headers, &body);
    let answer = http::exchange(port, &request).ok()?;
    if answer.status == 409 {
        // The request before, whose connection was lost, is still under way.
        assert_eq!(answer.json()["code"], "key_in_flight", "{answer:?}");
        return None;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    // The head may have come and the body not.
    let document: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let ids = document["ids"].as_array()?;
    Some(
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect(),
    )
}

/// Reads, and comes back with the last id that it has seen, until the last event is there.
fn subscriber(port: u16) -> JoinHandle<Vec<Answered>> {
    thread::spawn(move || {
        let mut seen = Vec::new();
        let mut last_id = None;
        while seen.last().is_none_or(|(data, _)| data != LAST) {
            if read(port, &mut last_id, &mut seen).is_err() {
                thread::sleep(POLL);
            }
        }
        seen
    })
}

fn read(port: u16, last_id: &mut Option<String>, seen: &mut Vec<Answered>) -> std::io::Result<()> {
    let mut socket = http::connect(port)?;
    let resume = last_id.as_ref().map_or("since=earliest".to_owned(), |id| {
        format!("last_event_id={id}")
    });
    // HTTP/1.0, so that the body is the stream and nothing else.
    write!(
        socket,
        "GET /events?topic=crash&{resume} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    let mut in_body = false;
    let mut decoder = Decoder::new(1 << 20);
    let mut buffer = [0; 16 * 1024];
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..len]);
        if !in_body {
            let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
                continue;
            };
            assert!(
                bytes.starts_with(b"HTTP/1.0 200"),
                "{}",
                bytes.escape_ascii()
            );
            bytes.drain(..at + 4);
            in_body = true;
        }
        decoder.push(&bytes);
        bytes.clear();
        while let Some(event) = decoder.next_event().unwrap() {
            assert_ne!(event.event, "gap", "{} after {last_id:?}", event.data);
            *last_id = Some(event.id.clone());
            seen.push((event.data, event.id));
        }
        if seen.last().is_some_and(|(data, _)| data == LAST) {
            return Ok(());
        }
    }
}

#[test]
fn what_was_answered_survives_every_kill() {
    let kills = std::env::var(KILLS).map_or(KILLS_USUAL, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut hub = hub(folder.path());
    let port = hub.port();
    let ending = Arc::new(AtomicBool::new(false));
    let subscribers: Vec<_> = (0..2).map(|_| subscriber(port)).collect();
    let publishers: Vec<_> = (0..=KEYED)
        .map(|name| publisher(port, name, ending.clone()))
        .collect();
    let started = Instant::now();
    for _ in 0..kills {
        // A random moment is what this is about.
        thread::sleep(Duration::from_millis(fastrand::u64(0..LIFE_MS_MAX)));
        hub.restart();
    }
    ending.store(true, Ordering::Relaxed);
    let published: Vec<_> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
    let last = publish(port, &[LAST.to_owned()], None).unwrap();
    let deadline = Instant::now() + WAIT_MAX;
    while !subscribers.iter().all(JoinHandle::is_finished) {
        assert!(
            Instant::now() < deadline,
            "the subscribers don't get to the last event"
        );
        thread::sleep(POLL);
    }
    let seen: Vec<_> = subscribers.into_iter().map(|s| s.join().unwrap()).collect();
    assert_eq!(seen[0], seen[1], "two subscribers");
    let data: Vec<_> = seen[0].iter().map(|(data, _)| data.clone()).collect();
    assert_eq!(
        data,
        history(&hub, "crash"),
        "seen, and what is there at the end"
    );
    assert_eq!(seen[0].last().unwrap().1, last[0]);
    check(&seen[0], &published);
    let answered: usize = published.iter().map(|p| p.answered.len()).sum();
    let unknown: usize = published.iter().map(|p| p.unknown.len()).sum();
    println!(
        "{kills} kills in {:.0?}: {answered} events answered, {unknown} unknown, {} seen by each subscriber",
        started.elapsed(),
        data.len()
    );
    assert!(answered as u64 > 5 * kills, "hardly any load: {answered}");
}

/// Everything answered was seen under its id, nothing twice, and each publisher's in its order.
fn check(seen: &[Answered], published: &[Published]) {
    let mut ids = HashSet::new();
    let mut order: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut by_data: HashMap<&str, &str> = HashMap::new();
    for (data, id) in &seen[..seen.len() - 1] {
        assert!(ids.insert(id), "{id} twice");
        assert_eq!(by_data.insert(data, id), None, "{data:?} twice");
        let (name, rest) = data.split_once(' ').unwrap();
        let (n, part) = rest.split_once(' ').unwrap();
        let place = (n.parse().unwrap(), part.parse().unwrap());
        if let Some(before) = order.insert(name, place) {
            let follows = place == (before.0, before.1 + 1)
                || (place.1 == 0 && place.0 > before.0 && before.1 == before.0 % 4);
            assert!(follows, "publisher {name}: {place:?} after {before:?}");
        }
    }
    for published in published {
        for (data, id) in &published.answered {
            assert_eq!(
                by_data.remove(data.as_str()),
                Some(id.as_str()),
                "answered: {data:?}"
            );
        }
        for data in &published.unknown {
            by_data.remove(data.as_str());
        }
    }
    assert!(by_data.is_empty(), "seen and never sent: {by_data:?}");
}
