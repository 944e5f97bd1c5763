//! Publishers and subscribers that go on over everything that happens to the hub's nodes, and what must hold of what they
//! were told: what was answered is seen once, under its id, in its order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidewire_core::decode::Decoder;
use tidewire_core::id::NativeId;

use super::{WAIT_MAX, http};

/// The topic of all events.
pub(crate) const TOPIC: &str = "crash";
/// Publishers that repeat what was not answered, with a key; one more never does.
const KEYED: usize = 3;
const LAST: &str = "the last one";
/// Events in a second that a subscriber reads at least, on a machine that is busy with other things.
const READ_PER_S_MIN: usize = 2_000;
/// Between attempts to reach a node that is being started.
const POLL: Duration = Duration::from_millis(5);

/// An event as it was answered: its data and its id.
pub(crate) type Answered = (String, String);

/// What one publisher knows.
#[derive(Default)]
struct Published {
    answered: Vec<Answered>,
    /// What was sent without an answer that says what became of it.
    unknown: Vec<String>,
}

enum Outcome {
    Stored(Vec<String>),
    /// Surely nothing was stored.
    Refused,
    Unknown,
}

/// Publishers and subscribers at work.
pub(crate) struct Load {
    ports: Vec<u16>,
    ending: Arc<AtomicBool>,
    publishers: Vec<JoinHandle<Published>>,
    subscribers: Vec<JoinHandle<Seen>>,
}

/// What a subscriber saw, in parts: each but the first begins where it was told of a gap.
type Seen = Vec<Vec<Answered>>;

/// What came of it.
pub(crate) struct Figures {
    /// Events whose publisher was answered.
    pub(crate) answered: usize,
    /// Events of which nobody knows.
    pub(crate) unknown: usize,
    /// What each subscriber saw, but for the last event, which says that it is over.
    pub(crate) seen: Vec<Answered>,
}

impl Load {
    /// Begins. Every request goes to one of these ports, by chance.
    pub(crate) fn start(ports: &[u16]) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        Self {
            ports: ports.to_vec(),
            subscribers: (0..2).map(|_| subscriber(ports.to_vec())).collect(),
            publishers: (0..=KEYED)
                .map(|name| publisher(ports.to_vec(), name, ending.clone()))
                .collect(),
            ending,
        }
    }

    /// Ends the publishers, waits until the subscribers have everything, and checks what they have.
    pub(crate) fn finish(self) -> Figures {
        let (published, seen) = self.end();
        let mut seen: Vec<_> = seen.into_iter().map(whole).collect();
        assert_eq!(seen[0], seen[1], "two subscribers");
        let seen = seen.remove(0);
        check(&seen, &published);
        figures(&published, seen)
    }

    /// The same where the store has lost what it had now and then: all that is missing has to be behind a gap. What is
    /// counted as seen is what the first subscriber has seen.
    pub(crate) fn finish_after_losses(self) -> Figures {
        let (published, seen) = self.end();
        check_parts(&seen, &published);
        figures(&published, seen[0].concat())
    }

    fn end(self) -> (Vec<Published>, Vec<Seen>) {
        self.ending.store(true, Ordering::Relaxed);
        let published: Vec<_> = self
            .publishers
            .into_iter()
            .map(|p| p.join().unwrap())
            .collect();
        // The more there is, the more the subscribers may still have to read.
        let events: usize = published.iter().map(|p| p.answered.len()).sum();
        let reading = Duration::from_secs((events / READ_PER_S_MIN) as u64);
        let deadline = Instant::now() + 3 * WAIT_MAX + reading;
        let last = loop {
            match publish(port(&self.ports), &[LAST.to_owned()], None) {
                Outcome::Stored(ids) => break ids,
                Outcome::Refused => thread::sleep(POLL),
                Outcome::Unknown => panic!("the hub does not answer"),
            }
            assert!(Instant::now() < deadline, "the hub stores nothing any more");
        };
        while !self.subscribers.iter().all(JoinHandle::is_finished) {
            assert!(
                Instant::now() < deadline,
                "the subscribers don't get to the last event"
            );
            thread::sleep(POLL);
        }
        let subscribers = self.subscribers.into_iter();
        let mut seen: Vec<Seen> = subscribers.map(|s| s.join().unwrap()).collect();
        for seen in &mut seen {
            let newest = seen.last_mut().and_then(Vec::pop);
            assert_eq!(newest.unwrap().1, last[0]);
        }
        (published, seen)
    }
}

fn whole(mut seen: Seen) -> Vec<Answered> {
    let gap = seen.get(1).map(|after| after.first());
    assert_eq!(gap, None, "a gap, and what came after it");
    seen.remove(0)
}

fn figures(published: &[Published], seen: Vec<Answered>) -> Figures {
    Figures {
        answered: published.iter().map(|p| p.answered.len()).sum(),
        unknown: published.iter().map(|p| p.unknown.len()).sum(),
        seen,
    }
}

fn port(ports: &[u16]) -> u16 {
    ports[fastrand::usize(..ports.len())]
}

/// Publishes batches one after the other until it is told to end. With a key a batch is repeated until it is answered.
fn publisher(ports: Vec<u16>, name: usize, ending: Arc<AtomicBool>) -> JoinHandle<Published> {
    thread::spawn(move || {
        let mut published = Published::default();
        for n in 0.. {
            let data: Vec<_> = (0..=n % 4)
                .map(|part| format!("{name} {n} {part}"))
                .collect();
            let key = (name < KEYED).then(|| format!("{name}-{n}"));
            loop {
                match publish(port(&ports), &data, key.as_deref()) {
                    Outcome::Stored(ids) => {
                        published.answered.extend(data.into_iter().zip(ids));
                        break;
                    }
                    Outcome::Unknown if key.is_none() => {
                        published.unknown.extend(data);
                        thread::sleep(POLL);
                        break;
                    }
                    Outcome::Refused | Outcome::Unknown => thread::sleep(POLL),
                }
            }
            if ending.load(Ordering::Relaxed) {
                return published;
            }
        }
        published
    })
}

fn publish(port: u16, data: &[String], key: Option<&str>) -> Outcome {
    let events: Vec<_> = data
        .iter()
        .map(|data| serde_json::json!({"topic": TOPIC, "data": data}))
        .collect();
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    let body = serde_json::to_vec(&events).unwrap();
    let request = http::request_bytes(port, "POST", "/events", &headers, &body);
    // The head may have come and the body not.
    let answer = http::exchange(port, &request)
        .ok()
        .and_then(|answer| Some((answer.status, serde_json::from_str(&answer.body).ok()?)));
    let Some((status, document)): Option<(u16, serde_json::Value)> = answer else {
        return Outcome::Unknown;
    };
    match (status, document["code"].as_str()) {
        (200, _) => {
            let ids = document["ids"].as_array().expect("ids").iter();
            Outcome::Stored(ids.map(|id| id.as_str().unwrap().to_owned()).collect())
        }
        // The request before, whose connection was lost, is still under way.
        (409, Some("key_in_flight")) | (503, Some("outcome_unknown")) => Outcome::Unknown,
        (503, Some("not_stored")) => Outcome::Refused,
        _ => panic!("{status} {document}"),
    }
}

/// Reads, and comes back to any node with the last id that it has seen, until the last event is there.
fn subscriber(ports: Vec<u16>) -> JoinHandle<Seen> {
    thread::spawn(move || {
        let mut seen = vec![Vec::new()];
        let mut last_id = None;
        while !is_over(&seen) {
            if read(port(&ports), &mut last_id, &mut seen).is_err() {
                thread::sleep(POLL);
            }
        }
        seen
    })
}

fn is_over(seen: &Seen) -> bool {
    let newest = seen.last().and_then(|part| part.last());
    newest.is_some_and(|(data, _)| data == LAST)
}

fn read(port: u16, last_id: &mut Option<String>, seen: &mut Seen) -> std::io::Result<()> {
    let mut socket = http::connect(port)?;
    let resume = last_id.as_ref().map_or("since=earliest".to_owned(), |id| {
        format!("last_event_id={id}")
    });
    // HTTP/1.0, so that the body is the stream and nothing else.
    write!(
        socket,
        "GET /events?topic={TOPIC}&{resume} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"
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
            *last_id = Some(event.id.clone());
            if event.event == "gap" {
                seen.push(Vec::new());
            } else if let Some(part) = seen.last_mut() {
                part.push((event.data, event.id));
            }
        }
        if is_over(seen) {
            return Ok(());
        }
    }
}

/// Everything answered was seen under its id, nothing twice, and each publisher's in its order.
fn check(seen: &[Answered], published: &[Published]) {
    let mut ids = HashSet::new();
    let mut by_data: HashMap<&str, &str> = HashMap::new();
    for (data, id) in seen {
        assert!(ids.insert(id), "{id} twice");
        assert_eq!(by_data.insert(data, id), None, "{data:?} twice");
    }
    let place: HashMap<&str, usize> = seen
        .iter()
        .map(|(data, _)| data.as_str())
        .zip(0..)
        .collect();
    for published in published {
        let mut before = None;
        for (data, id) in &published.answered {
            assert_eq!(
                by_data.remove(data.as_str()),
                Some(id.as_str()),
                "answered: {data:?}"
            );
            let at = place[data.as_str()];
            assert!(Some(at) > before, "{data:?} is out of order");
            // The events of a batch follow each other.
            if !data.ends_with(" 0") {
                assert_eq!(
                    Some(at - 1),
                    before,
                    "something is between {data:?} and its batch"
                );
            }
            before = Some(at);
        }
        for data in &published.unknown {
            by_data.remove(data.as_str());
        }
    }
    assert!(by_data.is_empty(), "seen and never sent: {by_data:?}");
}

/// Between two gaps nothing is missing, twice or out of order; and no id was ever given to two events.
fn check_parts(seen: &[Seen], published: &[Published]) {
    let place = |id: &str| NativeId::parse(id).unwrap();
    let answered = || published.iter().flat_map(|p| &p.answered);
    let mut by_id: HashMap<&str, &str> = HashMap::new();
    for (data, id) in answered().chain(seen.iter().flatten().flatten()) {
        let other = by_id.insert(id, data);
        assert!(other.is_none_or(|other| other == data), "{id} is of two");
    }
    for seen in seen {
        for (n, part) in seen.iter().enumerate() {
            if part.is_empty() {
                continue;
            }
            let places: Vec<_> = part.iter().map(|(_, id)| place(id)).collect();
            let (first, last) = (places[0], places[places.len() - 1]);
            assert!(
                places.iter().all(|place| place.epoch == first.epoch)
                    && places.is_sorted_by(|a, b| a.offset < b.offset),
                "out of order, or of two histories without a gap between"
            );
            let ids: HashSet<_> = part.iter().map(|(_, id)| id.as_str()).collect();
            for (data, id) in answered() {
                let at = place(id);
                // After the last part there is no gap that could have told of it.
                let is_within = at.epoch == first.epoch
                    && at.offset >= first.offset
                    && (at.offset <= last.offset || n + 1 == seen.len());
                assert!(
                    !is_within || ids.contains(id.as_str()),
                    "answered, and missing without a gap: {data:?} {id}"
                );
            }
        }
    }
}
