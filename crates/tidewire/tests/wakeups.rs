//! The two protocols by which a wake-up finds its stream, in every order that the memory model allows.
//!
//! These are models: the same steps with loom's atomics in place of the log, the once-lock, and the inbox. The real
//! ones are under stress in the reactors' own tests.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// `Connection::wake` against `Connection::carried_by`: a publisher that does not see the reactor yet wakes nobody,
/// as the body is asleep for good. Then the reactor's first turn must see the event.
#[test]
fn an_event_during_the_hand_over_is_seen_or_noted() {
    loom::model(|| {
        let log = Arc::new(AtomicUsize::new(0));
        let reactor_is_known = Arc::new(AtomicBool::new(false));
        let noted = Arc::new(AtomicBool::new(false));
        let publisher = {
            let (log, known, noted) = (log.clone(), reactor_is_known.clone(), noted.clone());
            thread::spawn(move || {
                log.store(1, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if known.load(Ordering::Acquire) {
                    noted.store(true, Ordering::Release);
                }
            })
        };
        reactor_is_known.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let seen = log.load(Ordering::Relaxed);
        publisher.join().unwrap();
        assert!(seen == 1 || noted.load(Ordering::Acquire), "a lost wake-up");
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
