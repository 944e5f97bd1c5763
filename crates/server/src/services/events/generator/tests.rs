//! The states of generators in virtual time: who pauses or stops one gets no more of its events, and a source that
//! panics costs its stream nothing but time.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tidewire::core::log::HistoryPage;
use tidewire::core::subscribe::Start;
use tidewire::{EventData, Hub};

use super::super::generators::{Generators, TooMany};
use super::*;

const INTERVAL: Duration = Duration::from_secs(2);

fn steady(_: &str) -> Source {
    let mut n = 0;
    Box::new(move || {
        n += 1;
        Sample {
            event_type: "tick",
            message: format!("tick {n}"),
            data: json!({ "n": n }),
        }
    })
}

/// Panics at first, once made anew speaks twice and panics again.
fn faulty(_: &str) -> Source {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let mut source = steady("");
    let mut said = 0;
    Box::new(move || {
        said += 1;
        assert!(made >= 3 && said <= 2, "a panic that the test wants");
        source()
    })
}

fn generators(make_source: MakeSource, max: usize) -> Generators {
    let hub = Hub::builder().build();
    let broadcaster = Broadcaster::new(&hub, "stream").unwrap();
    Generators::new(broadcaster, INTERVAL, max, make_source)
}

/// Lets tasks run for so long, of virtual time.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The next event. Readers are woken by a thread that knows nothing of virtual time, so this does not wait for it.
async fn next(client: &mut tidewire::StreamClient) -> EventData {
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(event) = pin!(client.recv()).poll(&mut context) {
            return event.expect("the stream is open");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_generator_says_that_it_started_and_then_one_thing_after_the_other() {
    let all = generators(steady, 1);
    let mut client = all.broadcaster().subscribe("a").unwrap();
    all.start("a").await.unwrap();
    let started = next(&mut client).await;
    assert_eq!(
        (started.event_type.as_str(), started.message.as_str()),
        ("stream_started", "Stream 'a' started")
    );
    for n in 1..5 {
        let before = tokio::time::Instant::now();
        assert_eq!(next(&mut client).await.message, format!("tick {n}"));
        let waited = before.elapsed();
        assert!(
            waited <= INTERVAL * 3 / 2 + Duration::from_millis(2),
            "{waited:?}"
        );
    }
    assert!(all.broadcaster().is_stream_active("a"));
}

#[tokio::test(start_paused = true)]
async fn a_generator_that_is_paused_is_silent_until_it_is_resumed() {
    let all = generators(steady, 2);
    let mut client = all.broadcaster().subscribe("a").unwrap();
    all.start("a").await.unwrap();
    next(&mut client).await;
    assert_eq!(
        all.change("a", State::Running, State::Paused).await,
        Some(true)
    );
    assert_eq!(
        all.change("a", State::Running, State::Paused).await,
        Some(false)
    );
    pass(100).await;
    let marker = all.broadcaster().broadcast("a", "marker", "m", None).await;
    assert_eq!(
        next(&mut client).await,
        marker.unwrap(),
        "nothing came before it"
    );
    assert_eq!(
        all.change("a", State::Paused, State::Running).await,
        Some(true)
    );
    assert_eq!(
        all.change("a", State::Paused, State::Running).await,
        Some(false)
    );
    assert_eq!(next(&mut client).await.message, "tick 1");
    assert_eq!(all.change("b", State::Running, State::Paused).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_generator_that_was_stopped_is_forgotten() {
    let all = generators(steady, 2);
    all.start("a").await.unwrap();
    let mut client = all.broadcaster().subscribe("b").unwrap();
    all.start("b").await.unwrap();
    next(&mut client).await;
    for id in ["a", "b"] {
        assert!(all.stop(id).await && !all.stop(id).await);
        assert_eq!(all.change(id, State::Running, State::Paused).await, None);
    }
    pass(100).await;
    let marker = all.broadcaster().broadcast("b", "marker", "m", None).await;
    assert_eq!(next(&mut client).await, marker.unwrap());
    assert!(all.states().is_empty());
    assert_eq!(
        all.broadcaster().active_streams(),
        BTreeMap::from([("b".into(), 1)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_restarts_also_what_is_paused_and_there_is_only_one_then() {
    let all = generators(steady, 1);
    let mut client = all.broadcaster().subscribe("a").unwrap();
    all.start("a").await.unwrap();
    next(&mut client).await;
    all.change("a", State::Running, State::Paused).await;
    for _ in 0..3 {
        all.start("a").await.unwrap();
    }
    let mut types = Vec::new();
    loop {
        let event = next(&mut client).await;
        types.push(event.event_type);
        if event.message == "tick 2" {
            break;
        }
    }
    assert_eq!(
        types,
        ["stream_started", "tick", "tick"],
        "those in between never spoke"
    );
    assert_eq!(all.states(), BTreeMap::from([("a".into(), State::Running)]));
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_than_may_be() {
    let all = generators(steady, 2);
    all.start("a").await.unwrap();
    all.start_at_once("b").unwrap();
    assert_eq!(all.start("c").await, Err(TooMany(2)));
    assert!(!all.broadcaster().is_stream_active("c"));
    all.start("b").await.expect("a restart takes no place");
    assert!(all.stop("a").await);
    all.start("c").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_made_anew_and_its_stream_is_told() {
    let all = generators(faulty, 1);
    let mut client = all.broadcaster().subscribe("a").unwrap();
    all.start("a").await.unwrap();
    assert_eq!(next(&mut client).await.event_type, "stream_started");
    let mut pauses = Vec::new();
    let mut ticks = 0;
    while ticks < 4 {
        let event = next(&mut client).await;
        match event.event_type.as_str() {
            "error" => pauses.push(event.data.unwrap()["restart_in_ms"].as_u64().unwrap() / 1_000),
            "tick" => ticks += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(
        pauses,
        [2, 4, 8, 2],
        "a success lets the waiting begin anew"
    );
    assert!(all.stop("a").await);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_nothing_half_done() {
    let all = generators(steady, 2);
    let mut client = all.broadcaster().subscribe("a").unwrap();
    all.start("a").await.unwrap();
    next(&mut client).await;
    let old = all.generator("a").unwrap();
    let turn = old.turn.lock().await;
    let poll = |asked: std::pin::Pin<&mut dyn Future<Output = ()>>| {
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            asked.poll(&mut context).is_pending(),
            "it waits for the turn"
        );
    };
    poll(pin!(async { all.start("a").await.unwrap() }));
    drop(turn);
    assert_eq!(next(&mut client).await.event_type, "stream_started");
    assert_eq!(
        (old.state(), all.states()["a"]),
        (State::Stopped, State::Running)
    );

    let old = all.generator("a").unwrap();
    let turn = old.turn.lock().await;
    poll(pin!(async { assert!(all.stop("a").await) }));
    drop(turn);
    pass(100).await;
    let marker = all.broadcaster().broadcast("a", "marker", "m", None).await;
    assert_eq!(next(&mut client).await, marker.unwrap());
}

#[test]
fn waiting_grows_up_to_a_limit() {
    assert_eq!(back_off(INTERVAL, 0), INTERVAL);
    assert_eq!(back_off(INTERVAL, 3), INTERVAL * 8);
    assert_eq!(back_off(INTERVAL, u32::MAX), BACK_OFF_MAX);
    assert_eq!(back_off(BACK_OFF_MAX * 2, 9), BACK_OFF_MAX * 2);
    assert!(jittered(Duration::MAX) >= Duration::MAX / 2);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start(u8),
    Stop(u8),
    Pause(u8),
    Resume(u8),
    Pass,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..3_u8;
    prop_oneof![
        id.clone().prop_map(Step::Start),
        id.clone().prop_map(Step::Stop),
        id.clone().prop_map(Step::Pause),
        id.prop_map(Step::Resume),
        Just(Step::Pass),
    ]
}

/// How many events a stream has had.
fn said(hub: &Hub, id: &str) -> usize {
    let topic = tidewire::Topic::new(&format!("stream:{id}")).unwrap();
    let page: HistoryPage = hub.history(&topic, &Start::Earliest, 100_000, usize::MAX, None);
    page.events.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Beside the generators a table of what each must be doing.
    #[test]
    fn whatever_is_done_only_those_speak_that_run(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let hub = Hub::builder().build();
            let broadcaster = Broadcaster::new(&hub, "stream").unwrap();
            let all = Generators::new(broadcaster, INTERVAL, 2, steady);
            let mut expected: BTreeMap<String, State> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Start(id) => {
                        let id = id.to_string();
                        let fits = expected.contains_key(&id) || expected.len() < 2;
                        prop_assert_eq!(all.start(&id).await.is_ok(), fits);
                        if fits {
                            expected.insert(id, State::Running);
                        }
                    }
                    Step::Stop(id) => {
                        let id = id.to_string();
                        prop_assert_eq!(all.stop(&id).await, expected.remove(&id).is_some());
                    }
                    Step::Pause(id) | Step::Resume(id) => {
                        let (from, to) = match step {
                            Step::Pause(_) => (State::Running, State::Paused),
                            _ => (State::Paused, State::Running),
                        };
                        let id = id.to_string();
                        let state = expected.get_mut(&id);
                        let answer = state.map(|state| *state == from && { *state = to; true });
                        prop_assert_eq!(all.change(&id, from, to).await, answer);
                    }
                    Step::Pass => {
                        let before: Vec<_> = (0..3).map(|n| said(&hub, &n.to_string())).collect();
                        pass(10).await;
                        for (n, before) in before.into_iter().enumerate() {
                            let id = n.to_string();
                            let spoke = said(&hub, &id) > before;
                            let runs = expected.get(&id) == Some(&State::Running);
                            prop_assert_eq!(spoke, runs, "stream {}", id);
                        }
                    }
                }
                prop_assert_eq!(&all.states(), &expected);
                let active: Vec<_> = all.broadcaster().active_streams().into_keys().collect();
                prop_assert_eq!(active, expected.keys().cloned().collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }
}
