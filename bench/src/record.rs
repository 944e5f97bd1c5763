//! A run's measurements with what a claim of speed has to carry: the machine and the command.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::scenario::Measurement;

/// What results.json has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Processor, cores and kernel.
    pub machine: String,
    /// How the run was started.
    pub command: String,
    /// How often everything was measured.
    pub rounds: usize,
    /// What came out.
    pub measurements: Vec<Measurement>,
    /// Runs without a measurement, and why.
    pub failed: Vec<String>,
}

impl Record {
    /// Measurements of this process, on this machine.
    pub fn new(rounds: usize, measurements: Vec<Measurement>, failed: Vec<String>) -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        Self {
            machine: machine(),
            command: arguments.join(" "),
            rounds,
            measurements,
            failed,
        }
    }

    /// What stands above the tables.
    pub fn heading(&self) -> String {
        let failed: String = self
            .failed
            .iter()
            .flat_map(|f| ["- failed: ", f, "\n"])
            .collect();
        format!(
            "{}; `{}`; {} rounds, medians, smallest and largest in brackets.\n{failed}\n",
            self.machine, self.command, self.rounds
        )
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned());
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processor}, {cores} cores, Linux {}", kernel.trim())
}
