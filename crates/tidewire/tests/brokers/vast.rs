//! How much of what is older than the log is read, and by how many at a time: on a store that has far more than memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::IntoResponse;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tidewire::broker::{BoxFuture, Broker, IdempotencyKey, Page, StartError, Stored, Tail};
use tidewire::core::id::{Epoch, NativeId, Offset};
use tidewire::core::subscribe::Start;
use tidewire::{Hub, Publication, PublishError, Topic};
use tokio::sync::Semaphore;

use crate::suite::{read, stream};
use crate::world::{event, until};

const EVENTS: u64 = 3_000_000;
const PAGE: u64 = 10_000;

/// A store that nobody adds to, with as many events as that, nearly all of one topic. None of them is in the log.
struct Vast {
    reads: Arc<Reads>,
    /// The one place that has an event of the topic `rare`.
    rare_at: u64,
}

/// How the store is read.
struct Reads {
    /// Pages that were asked for.
    asked: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
    /// How many may be answered.
    gate: Semaphore,
}

fn epoch() -> Epoch {
    Epoch::from_random(1)
}

fn id(place: u64) -> String {
    NativeId::new(epoch(), Offset::counted(place)).to_string()
}

async fn start(rare_at: u64, gate: usize) -> (Hub, Arc<Reads>) {
    let reads = Arc::new(Reads {
        asked: AtomicUsize::new(0),
        running: AtomicUsize::new(0),
        running_most: AtomicUsize::new(0),
        gate: Semaphore::new(gate),
    });
    let vast = Vast {
        reads: reads.clone(),
        rare_at,
    };
    (Hub::builder().broker(vast).start().await.unwrap(), reads)
}

impl Broker for Vast {
    fn kind(&self) -> &'static str {
        "vast"
    }

    fn start(&self, tail: Tail) -> BoxFuture<'_, Result<(), StartError>> {
        let now_ms = tail.now_ms();
        tail.write(|log| log.restore(epoch(), Offset::counted(EVENTS), now_ms));
        Box::pin(std::future::ready(Ok(())))
    }

    fn append<'a>(
        &'a self,
        _: &'a [Publication],
        _: Option<IdempotencyKey>,
    ) -> BoxFuture<'a, Result<Stored, PublishError>> {
        Box::pin(std::future::ready(Err(PublishError::NotStored(
            "nobody adds to this".into(),
        ))))
    }

    fn close_topic(&self, _: Topic) -> BoxFuture<'_, Result<NativeId, PublishError>> {
        Box::pin(std::future::ready(Err(PublishError::NotStored(
            "nobody adds to this".into(),
        ))))
    }

    fn older(&self, after: Offset) -> Option<BoxFuture<'static, Result<Page, String>>> {
        let (reads, rare_at) = (self.reads.clone(), self.rare_at);
        reads.asked.fetch_add(1, Ordering::SeqCst);
        Some(Box::pin(async move {
            let running = reads.running.fetch_add(1, Ordering::SeqCst) + 1;
            reads.running_most.fetch_max(running, Ordering::SeqCst);
            reads.gate.acquire().await.unwrap().forget();
            let until = (after.minor + PAGE).min(EVENTS);
            let (common, rare) = (event("common", "x"), event("rare", "found"));
            let at = |place: u64| if place == rare_at { &rare } else { &common }.clone();
            let events = (after.minor + 1..=until).map(|n| (Offset::counted(n), at(n)));
            let page = Page {
                events: events.collect(),
                until: Offset::counted(until),
                lost: Offset::ZERO,
                newest: Offset::counted(EVENTS),
            };
            reads.running.fetch_sub(1, Ordering::SeqCst);
            Ok(page)
        }))
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_rare_topic_is_told_of_a_gap_after_a_million_events() {
    let (hub, reads) = start(2_000_000, Semaphore::MAX_PERMITS).await;
    let seen = read(stream(&hub, "rare", &Start::After(id(1))), 1).await;
    assert!(seen[0].1.contains("\"reason\":\"expired\""), "{seen:?}");
    let pages = reads.asked.load(Ordering::SeqCst);
    assert!((100..=103).contains(&pages), "{pages} pages were read");
    // What is within them is found.
    let (hub, _) = start(900_000, Semaphore::MAX_PERMITS).await;
    let seen = read(stream(&hub, "rare", &Start::After(id(1))), 2).await;
    assert_eq!(seen[0], (id(900_000), "found".to_owned()));
    assert!(seen[1].1.contains("\"reason\":\"expired\""), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pages_are_read_at_a_time_and_for_64_clients() {
    const CLIENTS: usize = 100;
    const AT_A_TIME: usize = 64;
    let (hub, reads) = start(0, 0).await;
    let mut bodies = Vec::new();
    for n in 0..CLIENTS {
        // Each from before all others, so that no page of another one may have what it needs.
        let start = Start::After(id(2_000_000 - n as u64));
        let mut body = stream(&hub, "common", &start).into_response().into_body();
        body.frame().await.unwrap().unwrap();
        let before = reads.asked.load(Ordering::SeqCst);
        assert!(body.frame().now_or_never().is_none(), "nothing is read yet");
        let asked = reads.asked.load(Ordering::SeqCst) - before;
        assert_eq!(asked, usize::from(n < AT_A_TIME), "client {n}");
        bodies.push(body);
    }
    until("two pages are read", || {
        reads.running.load(Ordering::SeqCst) == 2
    })
    .await;
    reads.gate.add_permits(1_000);
    for mut body in bodies {
        let frame = body.frame().await.unwrap().unwrap();
        assert!(!frame.into_data().unwrap().is_empty());
    }
    assert_eq!(reads.running_most.load(Ordering::SeqCst), 2);
}
