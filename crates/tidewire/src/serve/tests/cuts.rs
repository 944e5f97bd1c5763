//! Sockets that take a part: wherever a write is cut, what the client gets is valid chunked coding, and its events are
//! those that were published, whole and in order.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire_core::subscription::{CloseReason, SlowClient};

use super::{BodyEnd, dechunk, decode, hub, live, publish, ticks};
use crate::clock::Moment;
use crate::hub::Hub;
use crate::serve::direct::{Direct, Outcome, Scratch, Sink};

/// A socket's far end: what came, and how much more may.
#[derive(Default)]
struct Pipe {
    taken: Vec<u8>,
    room: usize,
    shut: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Pipe>>);

impl Write for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock();
        let n = bytes.len().min(pipe.room);
        pipe.room -= n;
        pipe.taken.extend_from_slice(&bytes[..n]);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Fake {
    fn shut_down(&mut self) {
        self.0.lock().shut = true;
    }
}

/// A stream on a fake socket, as a reactor drives it.
struct Driven {
    direct: Option<Direct<Fake>>,
    fake: Fake,
    scratch: Scratch,
    closed: Option<CloseReason>,
}

impl Driven {
    fn new(hub: &Hub, topic: &str) -> Self {
        let fake = Fake::default();
        Self {
            direct: Some(Direct::new(live(hub, topic), fake.clone())),
            fake,
            scratch: Scratch::default(),
            closed: None,
        }
    }

    /// Lets the socket take so many bytes more, and serves it for as long as there is anything to do.
    fn take(&mut self, room: usize) {
        self.fake.0.lock().room = room;
        if let Some(direct) = &mut self.direct {
            direct.socket_is_writable();
        }
        self.scratch.forget();
        while let Some(direct) = &mut self.direct {
            match direct.serve(Moment::now(), &mut self.scratch) {
                Outcome::Again => {}
                Outcome::Sleep => return,
                Outcome::Close(reason) => self.close(reason),
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.closed = Some(reason);
        if let Some(direct) = self.direct.take() {
            direct.close(reason, &mut self.scratch);
        }
    }

    fn body(&self) -> (Vec<u8>, BodyEnd) {
        dechunk(&self.fake.0.lock().taken)
    }

    fn taken(&self) -> usize {
        self.fake.0.lock().taken.len()
    }
}

/// Three events: plain, of several lines, and large enough for a chunk's head of three digits.
fn three() -> Vec<String> {
    vec![
        "first".into(),
        "one line\nanother".into(),
        "x".repeat(300) + "end",
    ]
}

fn publish_all(hub: &Hub, topic: &str, events: &[String]) {
    for data in events {
        publish(hub, topic, data);
    }
}

/// Pushes everything before out of a history of 8 KiB.
fn flood(hub: &Hub, topic: &str) -> Vec<String> {
    let events: Vec<_> = (0..60)
        .map(|n| format!("flood {n} {}", "y".repeat(200)))
        .collect();
    publish_all(hub, topic, &events);
    events
}

const SMALL: usize = 8 * 1024;
const LARGE: usize = 16 * 1024 * 1024;

/// Three events are published to a new stream, and the socket takes so many of the bytes; for every number from 0 to
/// all.
fn cut_everywhere(hub: &Hub, mut check: impl FnMut(usize, Driven)) {
    for n in 0.. {
        let mut driven = Driven::new(hub, "a");
        publish_all(hub, "a", &three());
        driven.take(n);
        if driven.taken() < n {
            return;
        }
        check(n, driven);
    }
}

#[test]
fn a_write_that_is_cut_anywhere_goes_on_there() {
    let hub = hub(LARGE, SlowClient::Close);
    cut_everywhere(&hub, |n, mut driven| {
        publish(&hub, "a", "later");
        driven.take(usize::MAX);
        assert_eq!(driven.closed, None, "cut at {n}");
        let (payload, end) = driven.body();
        let expected = [three(), vec!["later".into()]].concat();
        assert_eq!(
            (ticks(&payload), end),
            (expected, BodyEnd::Open),
            "cut at {n}"
        );
    });
}

/// The log is read once for all streams of a slice that are at the same place. Seen by an event that came after that: who
/// is sent what was gathered lacks it, until what was gathered is forgotten.
#[test]
fn streams_at_the_same_place_are_sent_the_same_gathered_bytes() {
    let hub = hub(LARGE, SlowClient::Close);
    let mut streams: Vec<_> = (0..2).map(|_| Driven::new(&hub, "a")).collect();
    streams.push(Driven::new(&hub, "b"));
    // What each begins with is its own.
    for driven in &mut streams {
        driven.take(usize::MAX);
    }
    let mut scratch = Scratch::default();
    let mut serve = |driven: &mut Driven, forget: bool| {
        if forget {
            scratch.forget();
        }
        let direct = driven.direct.as_mut().unwrap();
        let outcome = direct.serve(Moment::now(), &mut scratch);
        assert!(matches!(outcome, Outcome::Sleep));
        ticks(&driven.body().0)
    };
    publish(&hub, "a", "shared");
    assert_eq!(serve(&mut streams[0], false), ["shared"]);
    publish(&hub, "a", "later");
    assert_eq!(serve(&mut streams[1], false), ["shared"]);
    assert_eq!(serve(&mut streams[1], true), ["shared", "later"]);
    assert!(serve(&mut streams[2], false).is_empty(), "another filter");
}

#[test]
fn a_socket_that_takes_few_bytes_at_a_time_gets_everything() {
    let hub = hub(LARGE, SlowClient::Close);
    for step in 1..=64 {
        let mut driven = Driven::new(&hub, "a");
        publish_all(&hub, "a", &three());
        let mut taken = usize::MAX;
        while driven.taken() != taken {
            taken = driven.taken();
            driven.take(step);
        }
        let (payload, end) = driven.body();
        assert_eq!(
            (ticks(&payload), end),
            (three(), BodyEnd::Open),
            "{step} at a time"
        );
    }
}

#[test]
fn events_of_more_than_a_chunk_arrive_byte_by_byte_as_they_are() {
    let hub = hub(LARGE, SlowClient::Close);
    let large = [
        "l".repeat(1024 * 1024 - 10),
        "m".repeat(70_000),
        "small".into(),
    ];
    for step in [
        1_000, 4_097, 65_535, 65_536, 65_543, 65_544, 70_001, 1_000_000,
    ] {
        let mut driven = Driven::new(&hub, "a");
        publish_all(&hub, "a", &large);
        let mut taken = usize::MAX;
        while driven.taken() != taken {
            taken = driven.taken();
            driven.take(step);
        }
        let (payload, end) = driven.body();
        assert!(
            ticks(&payload) == large && end == BodyEnd::Open,
            "{step} at a time"
        );
    }
}

/// The chunk's end used to be taken for sent, and the body's last chunk went into the middle of the payload: there it
/// ended an event that was not whole.
#[test]
fn a_client_that_lagged_within_a_chunk_is_cut_off_and_never_gets_half_an_event() {
    let hub = hub(SMALL, SlowClient::Close);
    cut_everywhere(&hub, |n, mut driven| {
        flood(&hub, "a");
        driven.take(usize::MAX);
        let (payload, end) = driven.body();
        let got = ticks(&payload);
        assert!(three().starts_with(&got), "cut at {n}: {got:?}");
        assert_eq!(driven.closed, Some(CloseReason::Lagged), "cut at {n}");
        // Where nothing was torn the body ends well, and else the client sees that it does not.
        assert_ne!(end, BodyEnd::Open, "cut at {n}");
        let clean = end == BodyEnd::Last;
        assert_eq!(driven.fake.0.lock().shut, clean, "cut at {n}");
    });
}

#[test]
fn a_client_that_lagged_within_a_chunk_is_skipped_forward_behind_a_whole_event() {
    let hub = hub(SMALL, SlowClient::Skip);
    let greeting = "retry: 3000\n".len();
    cut_everywhere(&hub, |n, mut driven| {
        let flooded = flood(&hub, "a");
        // In steps, so that what fills the chunk up is cut too.
        for step in [7, 11, 300, usize::MAX] {
            driven.take(step);
        }
        let (payload, end) = driven.body();
        if driven.closed.is_some() {
            // A greeting that was begun can't be ended by anything else.
            assert!((1..=greeting + 5).contains(&n), "closed at {n}");
            assert_eq!((ticks(&payload).len(), end), (0, BodyEnd::WithinChunk));
            return;
        }
        assert_skipped(&payload, &three(), &flooded, n);
        assert_eq!(end, BodyEnd::Open);
    });
}

/// Some of the old events, a gap if that is not all, and the newest of the new events to the last.
fn assert_skipped(payload: &[u8], old: &[String], new: &[String], n: usize) {
    let events = decode(payload);
    let gap = events.iter().position(|event| event.event == "gap");
    let gap = gap.unwrap_or_else(|| panic!("cut at {n}: no gap"));
    let data = |events: &[tidewire_core::decode::Decoded]| -> Vec<String> {
        events.iter().map(|event| event.data.clone()).collect()
    };
    assert!(old.starts_with(&data(&events[..gap])), "cut at {n}");
    let rest = data(&events[gap + 1..]);
    assert!(
        !rest.is_empty() && new.ends_with(&rest),
        "cut at {n}: {rest:?}"
    );
}

#[test]
fn a_slow_client_is_skipped_forward_however_often_it_is_cut() {
    let hub = hub(SMALL, SlowClient::Skip);
    for step in [90, 131, 257, 1_000] {
        let mut driven = Driven::new(&hub, "a");
        driven.take(usize::MAX);
        let mut published = Vec::new();
        for _ in 0..20 {
            published.extend(flood(&hub, "a"));
            driven.take(step);
        }
        driven.take(usize::MAX);
        assert_eq!(driven.closed, None, "{step} at a time");
        let (payload, end) = driven.body();
        assert_eq!(end, BodyEnd::Open);
        let got = ticks(&payload);
        assert_eq!(got.last(), published.last());
        assert!(
            got.iter().all(|event| published.contains(event)),
            "{step} at a time"
        );
    }
}

#[test]
fn an_event_larger_than_a_chunk_ends_its_stream_if_the_log_drops_it() {
    let hub = hub(SMALL, SlowClient::Skip);
    let cases = [
        (6_000, 100, true),
        (6_000, 6_000, true),
        (60_000, 100, true),
        (100_000, 1_000, false),
        (100_000, 50_000, false),
    ];
    for (size, n, skipped) in cases {
        let large = "z".repeat(size);
        let mut driven = Driven::new(&hub, "a");
        driven.take(usize::MAX);
        publish(&hub, "a", &large);
        driven.take(n);
        let flooded = flood(&hub, "a");
        driven.take(usize::MAX);
        let (payload, end) = driven.body();
        if skipped {
            assert_skipped(&payload, std::slice::from_ref(&large), &flooded, n);
        } else {
            assert_eq!(driven.closed, Some(CloseReason::Lagged));
            assert_eq!((ticks(&payload).len(), end), (0, BodyEnd::WithinChunk));
        }
    }
}

#[test]
fn a_close_waits_for_all_that_was_sent_before_wherever_it_was_cut() {
    let hub = hub(LARGE, SlowClient::Close);
    cut_everywhere(&hub, |_, mut driven| {
        let direct = driven.direct.as_mut().unwrap();
        let id = direct.live().connection().id;
        assert!(hub.close(id));
        driven.take(usize::MAX);
        assert_eq!(driven.closed, Some(CloseReason::Closed));
        let (payload, end) = driven.body();
        assert_eq!((ticks(&payload), end), (three(), BodyEnd::Last));
        let last = decode(&payload).pop().map(|event| event.event);
        assert_eq!(last.as_deref(), Some("closed"));
    });
    assert_eq!(hub.stats().connections, 0);
}

#[test]
fn last_words_and_the_end_are_said_byte_by_byte_too() {
    let hub = hub(LARGE, SlowClient::Close);
    let mut driven = Driven::new(&hub, "a");
    publish_all(&hub, "a", &three());
    let id = driven.direct.as_mut().unwrap().live().connection().id;
    assert!(hub.close(id));
    let mut later = 0;
    while driven.closed.is_none() {
        driven.take(1);
        // What comes meanwhile must not come behind the last words: its id would bring the client back.
        hub.send_to_topic("a", "later").unwrap();
        later += 1;
    }
    // Only the end's own bytes are few enough not to be cut.
    let (payload, _) = driven.body();
    assert_eq!(ticks(&payload), three());
    assert!(later > 300, "{later}");
    let last = decode(&payload).pop().map(|event| event.event);
    assert_eq!(last.as_deref(), Some("closed"));
    assert_eq!(hub.stats().connections, 0);
}

#[test]
fn a_stalled_client_is_broken_off_within_a_chunk_also_where_it_was_to_be_closed() {
    let hub = hub(LARGE, SlowClient::Close);
    cut_everywhere(&hub, |n, mut driven| {
        let between_chunks = n == 0 || driven.body().1 == BodyEnd::Open;
        let direct = driven.direct.as_mut().unwrap();
        let connection = direct.live().connection().clone();
        assert!(hub.close(connection.id));
        hub.shared.close_stalled(&connection);
        driven.take(usize::MAX);
        assert_eq!(driven.closed, Some(CloseReason::Closed));
        let (payload, end) = driven.body();
        assert!(three().starts_with(&ticks(&payload)));
        let expected = if between_chunks {
            BodyEnd::Last
        } else {
            BodyEnd::WithinChunk
        };
        assert_eq!(end, expected);
    });
    assert_eq!(hub.stats().connections, 0);
}
