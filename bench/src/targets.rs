//! The targets, and what was measured held against them. Ratios are taken within a round, then their median.

use crate::scenario::{Measurement, Scenario};
use crate::server::Kind;

/// One target and what came out.
#[derive(Debug)]
pub struct Verdict {
    /// What is measured.
    pub what: String,
    /// What it should be.
    pub target: String,
    /// What it was: the median.
    pub value: f64,
    /// The smallest and the largest of the rounds.
    pub spread: (f64, f64),
    /// Whether the target is met.
    pub met: bool,
}

const PEERS: [Kind; 3] = [Kind::DurableStreams, Kind::Nchan, Kind::AxumBroadcast];
const CPU: &str = "cpu_us_per_delivery";

/// All measurements of a run.
pub struct Results<'a>(pub &'a [Measurement]);

impl Results<'_> {
    /// A figure of one program in each round.
    pub fn of(&self, scenario: Scenario, kind: Kind, n: usize, name: &str) -> Vec<(usize, f64)> {
        let fits = |m: &&Measurement| {
            m.scenario == scenario && m.server == kind && m.size.connections == n && m.is_right()
        };
        let runs = self.0.iter().filter(fits);
        runs.filter_map(|m| Some((m.round, *m.values.get(name)?)))
            .collect()
    }

    /// The sizes at which a scenario ran.
    pub fn sizes(&self, scenario: Scenario) -> Vec<usize> {
        let runs = self.0.iter().filter(|m| m.scenario == scenario);
        let mut sizes: Vec<usize> = runs.map(|m| m.size.connections).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The smallest figure of any peer in each round.
    fn best_peer(&self, scenario: Scenario, n: usize, name: &str) -> Vec<(usize, f64)> {
        let mut best: Vec<(usize, f64)> = Vec::new();
        for (round, value) in PEERS
            .iter()
            .flat_map(|&kind| self.of(scenario, kind, n, name))
        {
            match best.iter_mut().find(|(of, _)| *of == round) {
                Some((_, least)) => *least = least.min(value),
                None => best.push((round, value)),
            }
        }
        best
    }

    /// All targets for which there are measurements.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for n in self.sizes(Scenario::FixedRate) {
            self.fixed_rate(n, &mut verdicts);
        }
        for n in self.sizes(Scenario::Saturation) {
            self.saturation(n, &mut verdicts);
        }
        for n in self.sizes(Scenario::Stopped) {
            let growth = self.of(Scenario::Stopped, Kind::Tidewire, n, "growth_kb");
            let budget = self.of(Scenario::Stopped, Kind::Tidewire, n, "budget_kb");
            let what = format!("memory growth of {n} readers, 9 of 10 stopped, × the log's budget");
            verdicts.extend(at_most(what, 1.10, &ratios(&growth, &budget)));
        }
        for n in self.sizes(Scenario::Idle) {
            let slope = |kind| self.of(Scenario::Idle, kind, n, "pss_kb_per_connection");
            let what = |path| format!("KB per idle connection, {path} path, up to {n}");
            verdicts.extend(at_most(what("direct"), 0.4, &slope(Kind::Tidewire)));
            verdicts.extend(at_most(what("body"), 12.0, &slope(Kind::TidewireBody)));
        }
        self.topics(&mut verdicts);
        for n in self.sizes(Scenario::Storm) {
            self.storm(n, &mut verdicts);
        }
        let ingest = self.of(Scenario::Ingest, Kind::Tidewire, 1, "events_per_second");
        verdicts.extend(at_least(
            "events per second, published in batches",
            500_000.0,
            &ingest,
        ));
        verdicts
    }

    fn fixed_rate(&self, n: usize, verdicts: &mut Vec<Verdict>) {
        let cpu = |kind| self.of(Scenario::FixedRate, kind, n, CPU);
        let floor = cpu(Kind::Floor);
        let what = |path| format!("CPU at a fixed rate, {n} connections, {path} path, × floor");
        let direct = ratios(&cpu(Kind::Tidewire), &floor);
        verdicts.extend(at_most(what("direct"), 1.15, &direct));
        let body = ratios(&cpu(Kind::TidewireBody), &floor);
        verdicts.extend(at_most(what("body"), 1.5, &body));
        let own = self.of(Scenario::FixedRate, Kind::Tidewire, n, "latency_p99_ms");
        let best = self.best_peer(Scenario::FixedRate, n, "latency_p99_ms");
        let what = format!("p99 latency at a fixed rate, {n} connections, × best peer");
        verdicts.extend(at_most(what, 1.0, &ratios(&own, &best)));
    }

    fn saturation(&self, n: usize, verdicts: &mut Vec<Verdict>) {
        let own = self.of(Scenario::Saturation, Kind::Tidewire, n, CPU);
        let what = format!("µs of CPU per delivery, saturated, {n} readers");
        verdicts.extend(at_most(what, 0.20, &own));
        let best = self.best_peer(Scenario::Saturation, n, CPU);
        let what = format!("CPU saturated, {n} readers, × best peer");
        verdicts.extend(at_most(what, 0.5, &ratios(&own, &best)));
    }

    fn topics(&self, verdicts: &mut Vec<Verdict>) {
        let cpu = |n| self.of(Scenario::OwnTopic, Kind::Tidewire, n, "cpu_us_per_publish");
        for n in self
            .sizes(Scenario::OwnTopic)
            .into_iter()
            .filter(|&n| n > 1)
        {
            let what = format!("CPU per publish, a topic for each of {n} clients, × one client");
            verdicts.extend(at_most(what, 1.3, &ratios(&cpu(n), &cpu(1))));
        }
        for n in self.sizes(Scenario::ManyTopics) {
            let what = format!("µs of CPU per delivery, 10 topics of 1,000 for each of {n}");
            let own = self.of(Scenario::ManyTopics, Kind::Tidewire, n, CPU);
            verdicts.extend(at_most(what, 0.5, &own));
        }
    }

    fn storm(&self, n: usize, verdicts: &mut Vec<Verdict>) {
        let own = self.of(Scenario::Storm, Kind::Tidewire, n, "caught_up_s");
        let best = self.best_peer(Scenario::Storm, n, "caught_up_s");
        let what = format!("time until {n} reconnected clients caught up, × best peer");
        verdicts.extend(at_most(what, 1.0, &ratios(&own, &best)));
        let what = format!("CPU of {n} that catch up above connecting, × best peer");
        let best: Vec<(usize, f64)> = {
            let all = PEERS.iter().flat_map(|&kind| self.above_bare(kind, n));
            all.fold(Vec::new(), |mut best, (round, value)| {
                match best.iter_mut().find(|(of, _)| *of == round) {
                    Some((_, least)) => *least = value.min(*least),
                    None => best.push((round, value)),
                }
                best
            })
        };
        let own = self.above_bare(Kind::Tidewire, n);
        verdicts.extend(at_most(what, 0.5, &ratios(&own, &best)));
    }

    /// CPU for each client that resumes, above that of one which only connects.
    fn above_bare(&self, kind: Kind, n: usize) -> Vec<(usize, f64)> {
        let cpu = |scenario| self.of(scenario, kind, n, "cpu_us_per_client");
        let bare = cpu(Scenario::BareStorm);
        let storms = cpu(Scenario::Storm).into_iter();
        storms
            .filter_map(|(round, cpu)| {
                let (_, bare) = bare.iter().find(|(of, _)| *of == round)?;
                Some((round, cpu - bare))
            })
            .collect()
    }
}

/// Ratios of the rounds that both have.
fn ratios(above: &[(usize, f64)], below: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let ratio = |&(round, value): &(usize, f64)| {
        let (_, other) = below.iter().find(|(of, _)| *of == round)?;
        Some((round, value / other))
    };
    above.iter().filter_map(ratio).collect()
}

/// The value in the middle; between two, their mean.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn at_most(what: impl Into<String>, target: f64, rounds: &[(usize, f64)]) -> Option<Verdict> {
    verdict(what.into(), "≤", target, rounds, |value| value <= target)
}

fn at_least(what: impl Into<String>, target: f64, rounds: &[(usize, f64)]) -> Option<Verdict> {
    verdict(what.into(), "≥", target, rounds, |value| value >= target)
}

fn verdict(
    what: String,
    sign: &str,
    target: f64,
    rounds: &[(usize, f64)],
    meets: impl Fn(f64) -> bool,
) -> Option<Verdict> {
    let values: Vec<f64> = rounds.iter().map(|&(_, value)| value).collect();
    let value = median(&values);
    (!values.is_empty()).then(|| Verdict {
        what,
        target: format!("{sign} {}", crate::table::number(target)),
        value,
        spread: values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
                (low.min(value), high.max(value))
            }),
        met: meets(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let (own, floor) = ([(0, 6.0), (1, 12.0)], [(1, 10.0), (0, 5.0), (2, 1.0)]);
        let verdict = at_most("x", 1.2, &ratios(&own, &floor)).unwrap();
        assert!((verdict.value - 1.2).abs() < 1e-9 && verdict.met);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }
}
