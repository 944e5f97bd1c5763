//! `bench`: runs what is measured, and writes down what came out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidewire_bench::record::Record;
use tidewire_bench::scenario::{Scenario, Size};
use tidewire_bench::server::Kind;
use tidewire_bench::suite::{Entry, Set, plan, run};
use tidewire_bench::{net, plot, table};

/// Measures Tidewire, the floor and its peers.
#[derive(Parser)]
struct Options {
    /// Where results go.
    #[arg(long, global = true, env = "BENCH_OUT", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// How often everything is measured.
    #[arg(long, global = true, env = "BENCH_ROUNDS")]
    rounds: Option<usize>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run sets of scenarios.
    Run {
        #[arg(required = true)]
        sets: Vec<Set>,
        /// Multiplies numbers of connections and events.
        #[arg(long, env = "BENCH_SCALE", default_value_t = 1.0)]
        scale: f64,
        /// Only these programs.
        #[arg(long, env = "BENCH_SERVERS", value_delimiter = ',')]
        servers: Vec<Kind>,
        /// Only these scenarios.
        #[arg(long, env = "BENCH_ONLY", value_delimiter = ',')]
        only: Vec<Scenario>,
    },
    /// Run one scenario.
    One {
        scenario: Scenario,
        #[arg(long, value_delimiter = ',', default_value = "tidewire")]
        servers: Vec<Kind>,
        /// For `topics` the number of topics.
        #[arg(long, default_value_t = 1_000)]
        connections: usize,
        #[arg(long, default_value_t = 100)]
        events: usize,
    },
    /// Write tables and plots anew from results.json.
    Report,
}

fn main() -> ExitCode {
    net::raise_descriptor_limit();
    match execute(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every delivery was right.
fn execute(options: &Options) -> io::Result<bool> {
    let (entries, rounds) = match &options.task {
        Task::Report => {
            let text = fs::read_to_string(options.out.join("results.json"))?;
            report(&serde_json::from_str(&text)?, &options.out)?;
            return Ok(true);
        }
        Task::One {
            scenario,
            servers,
            connections,
            events,
        } => {
            let size = Size {
                connections: *connections,
                events: *events,
            };
            let entry = Entry {
                scenario: *scenario,
                size,
                servers: servers.clone(),
            };
            (vec![entry], 1)
        }
        Task::Run {
            sets,
            scale,
            servers,
            only,
        } => {
            let mut entries: Vec<Entry> = Vec::new();
            for entry in sets.iter().flat_map(|&set| plan(set, *scale)) {
                // Sets overlap; the first has the say.
                if !entries.iter().any(|known| known.is_like(&entry)) {
                    entries.push(entry);
                }
            }
            entries.retain(|entry| only.is_empty() || only.contains(&entry.scenario));
            for entry in &mut entries {
                entry
                    .servers
                    .retain(|kind| servers.is_empty() || servers.contains(kind));
            }
            (entries, if sets == &[Set::Smoke] { 1 } else { 2 })
        }
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let (measurements, failed) = run(&entries, rounds, &options.out)?;
    let wrong = measurements.iter().filter(|m| !m.is_right()).count();
    let runs = measurements.len();
    println!(
        "{runs} runs, {wrong} of them with wrong deliveries; {} failed",
        failed.len()
    );
    let is_right = failed.is_empty() && wrong == 0;
    if options.is_for_figures() {
        let record = Record::new(rounds, measurements, failed);
        report(&record, &options.out)?;
    }
    Ok(is_right)
}

impl Options {
    /// Whether figures are wanted, or only whether all goes right.
    fn is_for_figures(&self) -> bool {
        match &self.task {
            Task::Run { sets, .. } => sets != &[Set::Smoke],
            Task::One { .. } => false,
            Task::Report => true,
        }
    }
}

/// Writes results.json, table.md and the plots.
fn report(record: &Record, folder: &Path) -> io::Result<()> {
    let json = serde_json::to_string_pretty(record)?;
    fs::write(folder.join("results.json"), json)?;
    let table = format!(
        "{}{}",
        record.heading(),
        table::markdown(&record.measurements)
    );
    fs::write(folder.join("table.md"), &table)?;
    for (name, picture) in plot::pictures(&record.measurements) {
        fs::write(folder.join(name), picture)?;
    }
    println!("\n{table}\nwritten to {}", folder.display());
    Ok(())
}
