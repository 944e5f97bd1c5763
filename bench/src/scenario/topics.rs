//! What a publish costs where there are many topics: each with a client, or each with an event.

use std::iter::repeat_n;
use std::time::Duration;

use super::{IN_FLIGHT, Meter, OPENING_MAX, Outcome, Size, latencies, live, memory, outcome};
use crate::load::Load;
use crate::server::{Kind, Server, Tuning};
use crate::stamp;

/// Publishes ahead of the measured ones.
const WARM_UP_EVENTS: usize = 100;
/// Lines of a batch that makes topics.
const BATCH: u32 = 1_000;
const SETTLE: Duration = Duration::from_millis(200);

pub(super) fn own_topic(kind: Kind, size: Size) -> Outcome {
    let topics = 0..size.connections as u32;
    let tuning = Tuning {
        history_events: 10,
        ..Tuning::default()
    };
    let server = Server::start(kind, tuning)?;
    server.create_topics(topics.clone())?;
    let mut load = Load::new(&server, 1)?;
    load.open(topics.map(|topic| live(&server, &[topic])), OPENING_MAX)?;
    // One in the middle.
    publish_one_by_one(
        &server,
        load,
        repeat_n(size.connections as u32 / 2, size.events),
    )
}

pub(super) fn topics(kind: Kind, size: Size) -> Outcome {
    let topics = size.connections as u32;
    // Room for one event of each topic, so that all of them live.
    let tuning = Tuning {
        history_events: 10,
        history_bytes: 1024 * 1024 * 1024,
    };
    let server = Server::start(kind, tuning)?;
    server.create_topics(0..topics)?;
    let mut load = Load::new(&server, if kind == Kind::Tidewire { 1 } else { IN_FLIGHT })?;
    if kind == Kind::Tidewire {
        for first in (0..topics).step_by(BATCH as usize) {
            let batch: Vec<u32> = (first..topics.min(first + BATCH)).collect();
            let data = stamp::data(0, stamp::EVENT_BYTES);
            let request = server.batch_request(batch.iter().map(|&topic| (topic, &*data)));
            load.request(request)?;
            load.finish()?;
        }
    } else {
        load.publish_all(0..topics)?;
        load.finish()?;
    }
    drop(load);
    let load = Load::new(&server, 1)?;
    // Scattered over all topics: a prime step reaches each of them.
    let scattered = (0..size.events as u64).map(|n| (n * 7_919 % u64::from(topics)) as u32);
    publish_one_by_one(&server, load, scattered)
}

/// CPU of publishes that wait for one another.
fn publish_one_by_one(
    server: &Server,
    mut load: Load,
    mut topics: impl Iterator<Item = u32>,
) -> Outcome {
    load.rest(SETTLE)?;
    if let Some(first) = topics.next() {
        load.publish_all(repeat_n(first, WARM_UP_EVENTS))?;
        load.finish()?;
    }
    load.ledger().forget_latency();
    let meter = Meter::start(server)?;
    let mut events = 0.0;
    for topic in topics {
        load.publish_all(std::iter::once(topic))?;
        events += 1.0;
    }
    load.finish()?;
    let mut values = vec![("cpu_us_per_publish", meter.cpu_us()? / events)];
    values.extend(memory(server)?);
    values.extend(latencies(&mut load));
    Ok(outcome(load, values))
}
