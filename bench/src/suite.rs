//! Which scenarios run on which programs. Programs take turns within a round, and begin with another one each round,
//! so that what drifts on the machine meets all of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;

use crate::scenario::{self, Measurement, Scenario, Size};
use crate::server::Kind;

/// A list of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// Every target, on Tidewire and the floor.
    Targets,
    /// Tidewire beside its peers.
    Peers,
    /// Over the number of connections and of topics, for the plots.
    Sweep,
    /// Everything once and small: only that deliveries are right.
    Smoke,
}

/// One line of a plan: a scenario at a size, and the programs that take turns at it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What is measured.
    pub scenario: Scenario,
    /// How large.
    pub size: Size,
    /// On what.
    pub servers: Vec<Kind>,
}

impl Entry {
    /// Whether both measure the same.
    pub fn is_like(&self, other: &Self) -> bool {
        self.scenario == other.scenario && self.size.connections == other.size.connections
    }
}

/// What targets compare with Tidewire itself alone: for peers these rows would take long and say nothing.
const ALONE: [Scenario; 5] = [
    Scenario::Stopped,
    Scenario::OwnTopic,
    Scenario::ManyTopics,
    Scenario::Ingest,
    Scenario::Topics,
];
const OWN: [Kind; 3] = [Kind::Floor, Kind::Tidewire, Kind::TidewireBody];
const ALL: [Kind; 6] = [
    Kind::Floor,
    Kind::Tidewire,
    Kind::TidewireBody,
    Kind::DurableStreams,
    Kind::Nchan,
    Kind::AxumBroadcast,
];
/// Those that need nothing to be installed.
const BUILT: [Kind; 4] = [
    Kind::Floor,
    Kind::Tidewire,
    Kind::TidewireBody,
    Kind::AxumBroadcast,
];

/// The rows of the targets, at their full size: scenario, connections (or topics), events.
const TARGETS: [(Scenario, usize, usize); 13] = [
    (Scenario::FixedRate, 1_000, 500),
    (Scenario::FixedRate, 10_000, 100),
    (Scenario::FixedRate, 19_000, 60),
    (Scenario::Saturation, 1_000, 20_000),
    (Scenario::Stopped, 1_000, 20_000),
    (Scenario::Idle, 19_000, 0),
    (Scenario::OwnTopic, 1, 5_000),
    (Scenario::OwnTopic, 10_000, 5_000),
    (Scenario::ManyTopics, 10_000, 20_000),
    (Scenario::Storm, 10_000, 100),
    (Scenario::BareStorm, 10_000, 100),
    (Scenario::Ingest, 1, 2_000_000),
    (Scenario::Topics, 1_000, 2_000),
];
const SWEEP_CONNECTIONS: [usize; 5] = [100, 1_000, 5_000, 10_000, 19_000];
const SWEEP_TOPICS: [usize; 4] = [1, 1_000, 100_000, 1_000_000];
/// Events of a sweep's runs: 10 seconds at 5 per second.
const SWEEP_EVENTS: usize = 50;
const SMOKE: [(Scenario, usize, usize); 10] = [
    (Scenario::FixedRate, 50, 20),
    (Scenario::Saturation, 20, 500),
    (Scenario::Stopped, 20, 200),
    (Scenario::Idle, 38, 0),
    (Scenario::OwnTopic, 20, 50),
    (Scenario::ManyTopics, 200, 2_000),
    (Scenario::Storm, 50, 20),
    (Scenario::BareStorm, 50, 20),
    (Scenario::Ingest, 1, 5_000),
    (Scenario::Topics, 100, 50),
];

/// The runs of a set, its sizes multiplied by `scale`.
pub fn plan(set: Set, scale: f64) -> Vec<Entry> {
    let (rows, servers): (Vec<_>, &[Kind]) = match set {
        Set::Targets => (TARGETS.to_vec(), &OWN),
        Set::Peers => (TARGETS.to_vec(), &ALL),
        Set::Smoke => (SMOKE.to_vec(), &BUILT),
        Set::Sweep => {
            let fixed = SWEEP_CONNECTIONS.map(|n| (Scenario::FixedRate, n, SWEEP_EVENTS));
            let topics = SWEEP_TOPICS.map(|n| (Scenario::Topics, n, 2_000));
            (fixed.into_iter().chain(topics).collect(), &ALL)
        }
    };
    let scaled = |n: usize| {
        if n <= 1 {
            n
        } else {
            ((n as f64 * scale) as usize).max(2)
        }
    };
    let entry = |(scenario, connections, events): (Scenario, usize, usize)| Entry {
        scenario,
        size: Size {
            connections: scaled(connections),
            events: scaled(events),
        },
        servers: servers
            .iter()
            .copied()
            .filter(|&kind| scenario.fits(kind) && fits_size(kind, scenario, connections))
            .filter(|kind| set == Set::Smoke || !ALONE.contains(&scenario) || OWN.contains(kind))
            .collect(),
    };
    rows.into_iter().map(entry).collect()
}

/// A topic of `durable-streams` is an open file beside the sockets, and one of nchan a piece of its shared memory; only
/// Tidewire's topics are made in batches, the others' one by one.
fn fits_size(kind: Kind, scenario: Scenario, n: usize) -> bool {
    let topics_max = match kind {
        Kind::DurableStreams => 5_000,
        Kind::Nchan | Kind::TidewireBody => 100_000,
        _ => usize::MAX,
    };
    !matches!(scenario, Scenario::Topics | Scenario::OwnTopic) || n <= topics_max
}

/// Runs a plan, each measurement on one line of `raw.jsonl` as soon as it is there; answers all of them, and which
/// runs failed altogether.
///
/// # Errors
/// If results can't be written.
pub fn run(
    plan: &[Entry],
    rounds: usize,
    folder: &Path,
) -> io::Result<(Vec<Measurement>, Vec<String>)> {
    fs::create_dir_all(folder)?;
    let mut raw = File::options()
        .create(true)
        .append(true)
        .open(folder.join("raw.jsonl"))?;
    let (mut measurements, mut failed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for entry in plan {
            let mut servers = entry.servers.clone();
            let turn = round % servers.len().max(1);
            servers.rotate_left(turn);
            for kind in servers {
                match scenario::run(entry.scenario, kind, entry.size) {
                    Ok(mut measurement) => {
                        measurement.round = round;
                        writeln!(raw, "{}", serde_json::to_string(&measurement)?)?;
                        tell(&measurement);
                        measurements.push(measurement);
                    }
                    Err(error) => {
                        let (name, n) = (entry.scenario.name(), entry.size.connections);
                        let failure = format!("{name} {n} on {}: {error}", kind.name());
                        eprintln!("failed: {failure}");
                        failed.push(failure);
                    }
                }
            }
        }
    }
    Ok((measurements, failed))
}

/// One line for one run.
fn tell(measurement: &Measurement) {
    let values: Vec<String> = measurement
        .values
        .iter()
        .map(|(name, value)| format!("{name}={}", crate::table::number(*value)))
        .collect();
    let verdict = if measurement.is_right() {
        String::new()
    } else {
        format!(
            " WRONG: {:?}, {} streams ended",
            measurement.faults, measurement.gone
        )
    };
    println!(
        "{:<11} {:<15} n={:<6} {}{verdict}",
        measurement.scenario.name(),
        measurement.server.name(),
        measurement.size.connections,
        values.join(" ")
    );
}
