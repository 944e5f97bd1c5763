//! The protocols by which a wake-up finds its stream, in every order that the memory model allows.
//!
//! These are models: the same steps with loom's atomics in place of the log and the inbox. The real
//! ones are under stress in the reactors' own tests.

// A test that panics has failed, and so has its helper.
#![allow(clippy::unwrap_used)]

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Who carries a stream: a body with or without its waker, or a reactor.
enum Carrier {
    Body(bool),
    Reactor,
}

/// One connection; each counter is the number of times that somebody was told.
struct Connection {
    noted: AtomicBool,
    carrier: Mutex<Carrier>,
    body: AtomicUsize,
    reactor: AtomicUsize,
}

impl Connection {
    fn new(carrier: Carrier) -> Arc<Self> {
        Arc::new(Self {
            noted: AtomicBool::new(false),
            carrier: Mutex::new(carrier),
            body: AtomicUsize::new(0),
            reactor: AtomicUsize::new(0),
        })
    }

    /// `Connection::wake`.
    fn wake(&self) {
        if self.noted.swap(true, Ordering::AcqRel) {
            return;
        }
        match &mut *self.carrier.lock().unwrap() {
            Carrier::Body(waker) => {
                let told = usize::from(std::mem::take(waker));
                self.body.fetch_add(told, Ordering::Relaxed);
            }
            Carrier::Reactor => {
                self.reactor.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// `Connection::look`.
    fn look(&self) -> bool {
        if let Carrier::Body(waker) = &mut *self.carrier.lock().unwrap() {
            *waker = true;
        }
        self.noted.swap(false, Ordering::AcqRel)
    }

    /// `Connection::carried_by`.
    fn carried_by(&self) {
        *self.carrier.lock().unwrap() = Carrier::Reactor;
        self.noted.swap(false, Ordering::AcqRel);
    }
}

/// Publishes so many events, and tells the connection of each.
fn publisher(
    events: usize,
    log: &Arc<AtomicUsize>,
    connection: &Arc<Connection>,
) -> thread::JoinHandle<()> {
    let (log, connection) = (log.clone(), connection.clone());
    thread::spawn(move || {
        for _ in 0..events {
            log.fetch_add(1, Ordering::Relaxed);
            connection.wake();
        }
    })
}

/// `Connection::wake` against `Connection::carried_by`: what the reactor's first turn does not see, it is told of.
#[test]
fn an_event_during_the_hand_over_is_seen_or_noted() {
    loom::model(|| {
        let log = Arc::new(AtomicUsize::new(0));
        let connection = Connection::new(Carrier::Body(true));
        let publishers = [(); 2].map(|()| publisher(1, &log, &connection));
        connection.carried_by();
        let seen = log.load(Ordering::Relaxed);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        let told = connection.reactor.load(Ordering::Relaxed) > 0;
        assert!(seen == 2 || told, "a lost wake-up");
    });
}

/// A body looks into the log, then again only if it was told since: what it has not seen, its task is woken for.
#[test]
fn a_body_that_has_all_is_told_of_what_comes_while_it_goes_to_sleep() {
    loom::model(|| {
        let log = Arc::new(AtomicUsize::new(0));
        let connection = Connection::new(Carrier::Body(false));
        let publisher = publisher(2, &log, &connection);
        connection.look();
        let mut seen = log.load(Ordering::Relaxed);
        if connection.look() {
            seen = log.load(Ordering::Relaxed);
        }
        publisher.join().unwrap();
        // Its task is polled again, and the body is asked.
        let is_woken = connection.body.load(Ordering::Relaxed) > 0;
        if is_woken && connection.look() {
            seen = log.load(Ordering::Relaxed);
        }
        assert_eq!(seen, 2, "a lost wake-up");
    });
}

/// The inbox and the ready queue: notes are taken between slices, the first note alone rings, and what a slice serves
/// it reads after that. When all is quiet the stream has everything.
#[test]
fn a_note_is_never_taken_for_an_event_that_its_slice_does_not_see() {
    loom::model(|| {
        let log = Arc::new(Mutex::new(0));
        let notes = Arc::new(Mutex::new(0));
        let rings = Arc::new(AtomicUsize::new(0));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (log, notes, rings) = (log.clone(), notes.clone(), rings.clone());
                thread::spawn(move || {
                    *log.lock().unwrap() += 1;
                    let mut notes = notes.lock().unwrap();
                    *notes += 1;
                    let first = *notes == 1;
                    drop(notes);
                    if first {
                        rings.fetch_add(1, Ordering::Release);
                    }
                })
            })
            .collect();
        let (mut seen, mut heard) = (0, 0);
        let mut round = || {
            // The epoll instance sleeps until it rings.
            let ringing = rings.load(Ordering::Acquire);
            if std::mem::replace(&mut heard, ringing) == ringing {
                return;
            }
            let queued = std::mem::take(&mut *notes.lock().unwrap()) > 0;
            if queued {
                seen = *log.lock().unwrap();
            }
        };
        round();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        round();
        round();
        assert_eq!(seen, 2, "a lost wake-up");
    });
}
