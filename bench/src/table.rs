//! Results as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::scenario::{Measurement, Scenario};
use crate::server::Kind;
use crate::targets::{Results, median};

/// All tables of a run: the targets, then each scenario.
pub fn markdown(measurements: &[Measurement]) -> String {
    let results = Results(measurements);
    let mut out = String::from("| target | | measured (spread) | |\n|---|---|---|---|\n");
    for verdict in results.verdicts() {
        let (low, high) = verdict.spread;
        let met = if verdict.met { "met" } else { "**not met**" };
        line(
            &mut out,
            &[
                &verdict.what,
                &verdict.target,
                &spread(verdict.value, low, high),
                met,
            ],
        );
    }
    let scenarios: BTreeSet<Scenario> = measurements.iter().map(|m| m.scenario).collect();
    for scenario in scenarios {
        for n in results.sizes(scenario) {
            of_scenario(measurements, scenario, n, &mut out);
        }
    }
    out
}

fn of_scenario(measurements: &[Measurement], scenario: Scenario, n: usize, out: &mut String) {
    let fits = |m: &&Measurement| m.scenario == scenario && m.size.connections == n;
    let runs: Vec<&Measurement> = measurements.iter().filter(fits).collect();
    let names: BTreeSet<&str> = runs
        .iter()
        .flat_map(|m| m.values.keys().map(String::as_str))
        .collect();
    let _ = writeln!(out, "\n### {}, {n}\n", scenario.name());
    let mut head = vec!["program"];
    head.extend(&names);
    head.push("wrong runs");
    line(out, &head);
    line(out, &vec!["---"; head.len()]);
    let servers: BTreeSet<Kind> = runs.iter().map(|m| m.server).collect();
    for kind in servers {
        let own: Vec<_> = runs.iter().filter(|m| m.server == kind).collect();
        let mut cells = vec![kind.name().to_owned()];
        for name in &names {
            let values: Vec<f64> = own
                .iter()
                .filter_map(|m| m.values.get(*name).copied())
                .collect();
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            cells.push(spread(median(&values), low, high));
        }
        cells.push(own.iter().filter(|m| !m.is_right()).count().to_string());
        line(out, &cells);
    }
}

fn line(out: &mut String, cells: &[impl AsRef<str>]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn spread(value: f64, low: f64, high: f64) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    format!("{} ({}–{})", number(value), number(low), number(high))
}

/// A number with three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        n if n >= 100.0 => format!("{value:.0}"),
        n if n >= 10.0 => format!("{value:.1}"),
        n if n >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
