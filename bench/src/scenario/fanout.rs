//! One event to many: at a fixed rate, saturated, with readers that stopped, with many topics for each reader.

use std::iter::repeat_n;
use std::time::Duration;

use super::{
    IN_FLIGHT, Meter, OPENING_MAX, Outcome, Size, WARM_UP_EVENTS, latencies, live, memory, outcome,
};
use crate::load::{Group, Load};
use crate::process;
use crate::server::{Kind, Server, Tuning};

/// Deliveries per second at a fixed rate: 10,000 connections at 5 events per second.
const DELIVERIES_PER_SECOND: f64 = 50_000.0;
const RATE_MAX: f64 = 50.0;
/// Of the readers, those that go on where the others stop.
const READING_SHARE: usize = 10;
/// Large enough that 20,000 events are more than the log's budget.
const LARGE_EVENT_BYTES: usize = 4_000;
const TOPICS: usize = 1_000;
const TOPICS_PER_CLIENT: usize = 10;
/// Lines of a batch. With a topic's few readers, requests of one event would cost more than all deliveries.
const BATCH: usize = 100;
/// A server may answer a subscription a little before it has taken it in.
const SETTLE: Duration = Duration::from_millis(200);

/// Delivers a few events and forgets them.
fn warm_up(load: &mut Load) -> std::io::Result<()> {
    load.rest(SETTLE)?;
    load.publish_at(RATE_MAX, repeat_n(0, WARM_UP_EVENTS))?;
    load.finish()?;
    load.ledger().forget_latency();
    Ok(())
}

pub(super) fn fixed_rate(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    server.create_topics([0])?;
    let empty = process::memory(server.pid())?.pss_kb as f64;
    let mut load = Load::new(&server, 1)?;
    load.open(repeat_n(live(&server, &[0]), size.connections), OPENING_MAX)?;
    warm_up(&mut load)?;
    let rate = (DELIVERIES_PER_SECOND / size.connections as f64).min(RATE_MAX);
    let (meter, before) = (Meter::start(&server)?, load.ledger().delivered());
    load.publish_at(rate, repeat_n(0, size.events))?;
    load.finish()?;
    let (cpu_us, wall_s) = (meter.cpu_us()?, meter.wall_s());
    let deliveries = (load.ledger().delivered() - before) as f64;
    let mut values = memory(&server)?;
    values.extend(latencies(&mut load));
    values.extend([
        ("cpu_us_per_delivery", cpu_us / deliveries),
        ("deliveries_per_second", deliveries / wall_s),
        ("empty_pss_kb", empty),
    ]);
    Ok(outcome(load, values))
}

pub(super) fn saturation(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    server.create_topics([0])?;
    let mut load = Load::new(&server, IN_FLIGHT)?;
    load.open(repeat_n(live(&server, &[0]), size.connections), OPENING_MAX)?;
    warm_up(&mut load)?;
    saturate(&server, load, |load| {
        load.publish_all(repeat_n(0, size.events))
    })
}

pub(super) fn stopped(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    server.create_topics([0])?;
    let mut load = Load::new(&server, IN_FLIGHT)?;
    let reading = (size.connections / READING_SHARE).max(1);
    let reader = live(&server, &[0]);
    let stopper = Group {
        stops: true,
        ..reader.clone()
    };
    let stoppers = repeat_n(stopper, size.connections - reading);
    load.open(repeat_n(reader, reading).chain(stoppers), OPENING_MAX)?;
    warm_up(&mut load)?;
    load.event_bytes = LARGE_EVENT_BYTES;
    let (mut values, faults, gone) = saturate(&server, load, |load| {
        load.publish_all(repeat_n(0, size.events))
    })?;
    values.push(("budget_kb", Tuning::default().history_bytes as f64 / 1024.0));
    Ok((values, faults, gone))
}

pub(super) fn many_topics(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    let mut load = Load::new(&server, IN_FLIGHT)?;
    let readers = (0..size.connections).map(|reader| live(&server, &own_choice(reader)));
    load.open(readers, OPENING_MAX)?;
    warm_up(&mut load)?;
    // All topics in turn, in a scattered order.
    let topics: Vec<u32> = (0..size.events)
        .map(|n| (n * 387 % TOPICS) as u32)
        .collect();
    saturate(&server, load, |load| {
        if kind == Kind::Tidewire {
            load.publish_batches(&topics, BATCH)
        } else {
            load.publish_all(topics.iter().copied())
        }
    })
}

/// Topics of a reader: scattered, different for each, and the same in every run.
fn own_choice(reader: usize) -> Vec<u32> {
    let step = 1 + 2 * (reader % (TOPICS / TOPICS_PER_CLIENT / 2));
    (0..TOPICS_PER_CLIENT)
        .map(|n| ((reader * 7 + n * step) % TOPICS) as u32)
        .collect()
}

fn saturate<'a>(
    server: &'a Server,
    mut load: Load<'a>,
    publish: impl FnOnce(&mut Load<'a>) -> std::io::Result<()>,
) -> Outcome {
    let memory_before = process::memory(server.pid())?.pss_kb as f64;
    load.watch_memory();
    let (meter, before) = (Meter::start(server)?, load.ledger().delivered());
    publish(&mut load)?;
    load.finish()?;
    let (cpu_us, wall_s) = (meter.cpu_us()?, meter.wall_s());
    let deliveries = (load.ledger().delivered() - before) as f64;
    let after = process::memory(server.pid())?.pss_kb;
    let peak = load.peak_memory().pss_kb.max(after) as f64;
    let mut values = latencies(&mut load);
    values.extend([
        ("cpu_us_per_delivery", cpu_us / deliveries),
        ("deliveries_per_second", deliveries / wall_s),
        ("pss_kb", peak),
        ("growth_kb", (peak - memory_before).max(0.0)),
    ]);
    Ok(outcome(load, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_of_many_topics_names_none_twice() {
        for reader in 0..1_000 {
            let mut topics = own_choice(reader);
            topics.sort_unstable();
            topics.dedup();
            assert_eq!(topics.len(), TOPICS_PER_CLIENT, "reader {reader}");
        }
    }
}
