//! Lines over a logarithmic axis, as SVG. One line for each program.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::scenario::{Measurement, Scenario};
use crate::server::Kind;
use crate::targets::{Results, median};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right and bottom of the area that has lines.
const AREA: (f64, f64, f64, f64) = (70.0, 40.0, 560.0, 370.0);
const COLOURS: [&str; 6] = [
    "#1f77b4", "#17becf", "#7f7f7f", "#d62728", "#2ca02c", "#ff7f0e",
];

/// What one picture shows.
struct Picture {
    file: &'static str,
    title: &'static str,
    scenario: Scenario,
    x: &'static str,
    value: &'static str,
    y: &'static str,
    /// What a unit of the figure is in units of the axis.
    factor: f64,
}

const PICTURES: [Picture; 4] = [
    Picture {
        file: "cpu-over-connections.svg",
        title: "CPU per delivery, every event a write of its own",
        scenario: Scenario::FixedRate,
        x: "connections",
        value: "cpu_us_per_delivery",
        y: "µs",
        factor: 1.0,
    },
    Picture {
        file: "memory-over-connections.svg",
        title: "Memory (PSS)",
        scenario: Scenario::FixedRate,
        x: "connections",
        value: "pss_kb",
        y: "MiB",
        factor: 1.0 / 1024.0,
    },
    Picture {
        file: "cpu-over-topics.svg",
        title: "CPU per publish, each topic with an event",
        scenario: Scenario::Topics,
        x: "topics",
        value: "cpu_us_per_publish",
        y: "µs",
        factor: 1.0,
    },
    Picture {
        file: "memory-over-topics.svg",
        title: "Memory (PSS), each topic with an event",
        scenario: Scenario::Topics,
        x: "topics",
        value: "pss_kb",
        y: "MiB",
        factor: 1.0 / 1024.0,
    },
];

/// The pictures for which there are measurements: file names and contents.
pub fn pictures(measurements: &[Measurement]) -> Vec<(&'static str, String)> {
    let results = Results(measurements);
    let drawn = PICTURES.iter().filter_map(|picture| {
        let lines = lines(measurements, &results, picture);
        let has_line = lines.iter().any(|(_, points)| points.len() > 1);
        has_line.then(|| (picture.file, draw(picture, &lines)))
    });
    drawn.collect()
}

type Line = (Kind, Vec<(f64, f64)>);

fn lines(measurements: &[Measurement], results: &Results, picture: &Picture) -> Vec<Line> {
    let servers: BTreeSet<Kind> = measurements.iter().map(|m| m.server).collect();
    let line = |kind| {
        let point = |n: usize| {
            let rounds = results.of(picture.scenario, kind, n, picture.value);
            let values: Vec<f64> = rounds.into_iter().map(|(_, value)| value).collect();
            (!values.is_empty()).then(|| (n as f64, median(&values) * picture.factor))
        };
        let points: Vec<_> = results
            .sizes(picture.scenario)
            .into_iter()
            .filter_map(point)
            .collect();
        (kind, points)
    };
    let lines = servers.into_iter().map(line);
    lines.filter(|(_, points)| !points.is_empty()).collect()
}

/// Where figures are in the picture.
struct Axes {
    x_low: f64,
    x_high: f64,
    y_high: f64,
    ticks: BTreeSet<u64>,
}

impl Axes {
    fn of(lines: &[Line]) -> Self {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let x_low = points().map(|p| p.0).fold(f64::INFINITY, f64::min).log10();
        let x_high = points().map(|p| p.0).fold(1.0, f64::max).log10();
        Self {
            x_low,
            x_high: x_high.max(x_low + 0.1),
            y_high: points().map(|p| p.1).fold(1e-9, f64::max) * 1.05,
            ticks: points().map(|p| p.0 as u64).collect(),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let (left, _, right, _) = AREA;
        left + (value.log10() - self.x_low) / (self.x_high - self.x_low) * (right - left)
    }

    fn y(&self, value: f64) -> f64 {
        let (_, top, _, bottom) = AREA;
        bottom - value / self.y_high * (bottom - top)
    }

    fn draw(&self, out: &mut String) {
        let (left, _, right, bottom) = AREA;
        for step in 0..=4 {
            let value = self.y_high * f64::from(step) / 4.0;
            let (at, label) = (self.y(value), crate::table::number(value));
            let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>");
            text(out, left - 6.0, at + 4.0, "end", &label);
        }
        for tick in &self.ticks {
            let at = self.x(*tick as f64);
            let _ = writeln!(out, "<path d=\"M{at:.1} {bottom}v5\" stroke=\"black\"/>");
            text(out, at, bottom + 18.0, "middle", &tick.to_string());
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn draw(picture: &Picture, lines: &[Line]) -> String {
    let (left, top, right, bottom) = AREA;
    let axes = Axes::of(lines);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut out, left, 20.0, "start", picture.title);
    text(
        &mut out,
        f64::midpoint(left, right),
        bottom + 38.0,
        "middle",
        picture.x,
    );
    text(&mut out, left - 6.0, top - 8.0, "end", picture.y);
    axes.draw(&mut out);
    for (index, (kind, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let at = |p: &(f64, f64)| format!("{:.1},{:.1}", axes.x(p.0), axes.y(p.1));
        let path: Vec<String> = points.iter().map(at).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        let y = top + 18.0 * index as f64;
        let x = right + 20.0;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        );
        text(&mut out, x + 18.0, y + 10.0, "start", kind.name());
    }
    out.push_str("</svg>\n");
    out
}
