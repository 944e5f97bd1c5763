//! `tidewire nodes`: the nodes of a cluster as a table.

use std::io::Write;

use jiff::Timestamp;
use reqwest::redirect::Policy;
use serde::Deserialize;
use tidewire::cluster::NodeInfo;

use crate::cli::NodesArgs;
use crate::client::{Problem, causes, client, distrust, notice, on_hub, parse_url, shown};
use crate::exit::Exit;

#[derive(Deserialize)]
struct Listing {
    /// Who answers.
    node: String,
    nodes: Vec<NodeInfo>,
}

pub(crate) async fn run(args: NodesArgs) -> Exit {
    match list(&args).await {
        Ok(listing) => {
            // A closed standard output is no reason to fail.
            let _ = print(&mut std::io::stdout(), &listing, Timestamp::now());
            Exit::Ok
        }
        Err((exit, error)) => {
            notice(format_args!("error: {error}"));
            exit
        }
    }
}

async fn list(args: &NodesArgs) -> Result<Listing, (Exit, String)> {
    let usage = |error| (Exit::Usage, error);
    let client = client(Some(&args.hub), Policy::none()).map_err(usage)?;
    let hub = parse_url(&args.hub.url).map_err(usage)?;
    let failed = |error: reqwest::Error| {
        let why = distrust(&error).unwrap_or_else(|| causes(&error));
        (Exit::Failure, format!("{}: {why}", shown(&hub)))
    };
    let request = client.get(on_hub(&hub, "api/v1/nodes"));
    let response = request.send().await.map_err(failed)?;
    if !response.status().is_success() {
        let problem = Problem::read(response).await;
        let why = problem.detail.or(problem.title).unwrap_or_default();
        return Err((Exit::Failure, format!("{}: {why}", shown(&hub))));
    }
    let body = response.bytes().await.map_err(failed)?;
    let strange = |error| {
        (
            Exit::Failure,
            format!("{}: an answer that is none: {error}", shown(&hub)),
        )
    };
    serde_json::from_slice(&body).map_err(strange)
}

fn print(out: &mut impl Write, listing: &Listing, now: Timestamp) -> std::io::Result<()> {
    let rows = listing.nodes.iter().map(|node| {
        let name = if node.node == listing.node {
            format!("{} *", node.node)
        } else {
            node.node.clone()
        };
        let age_ms = now.as_millisecond() - i64::try_from(node.started_ms).unwrap_or(i64::MAX);
        [
            name,
            node.version.clone(),
            node.connections.to_string(),
            format!("{} ms", node.lag_ms),
            age(age_ms / 1_000),
            if node.draining { "draining" } else { "serving" }.to_owned(),
        ]
    });
    let head = ["NODE", "VERSION", "CONNECTIONS", "LAG", "UP", "STATE"].map(str::to_owned);
    let table: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).filter_map(width).collect();
    for row in &table {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

/// The two largest units.
fn age(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", seconds.max(0)),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let node = |name: &str, connections, draining| NodeInfo {
            node: name.to_owned(),
            version: "0.1.0".to_owned(),
            started_ms: 0,
            connections,
            lag_ms: 3,
            draining,
        };
        let listing = Listing {
            node: "b".to_owned(),
            nodes: vec![node("a", 12_345, false), node("b", 7, true)],
        };
        let mut out = Vec::new();
        let now = Timestamp::from_second(93_784).expect("a time");
        print(&mut out, &listing, now).expect("memory takes it");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "NODE  VERSION  CONNECTIONS  LAG   UP       STATE\n\
             a     0.1.0    12345        3 ms  1 d 2 h  serving\n\
             b *   0.1.0    7            3 ms  1 d 2 h  draining\n"
        );
    }
}
