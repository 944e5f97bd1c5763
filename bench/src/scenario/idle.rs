//! Memory for each idle connection: the slope between few and many, so that what a server has anyway does not count.

use std::iter::repeat_n;
use std::time::Duration;

use super::{OPENING_MAX, Outcome, Size, live, outcome};
use crate::load::Load;
use crate::process;
use crate::server::{Kind, Server, Tuning};

/// The slope begins at a 19th of the connections: 1,000 of 19,000.
const FEW: usize = 19;
/// What opening leaves behind has then been given back.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn idle(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    server.create_topics([0])?;
    let mut load = Load::new(&server, 0)?;
    let few = (size.connections / FEW).max(1);
    load.open(repeat_n(live(&server, &[0]), few), OPENING_MAX)?;
    load.rest(SETTLE)?;
    let before = process::memory(server.pid())?;
    let many = size.connections - few;
    load.open(repeat_n(live(&server, &[0]), many), OPENING_MAX)?;
    load.rest(SETTLE)?;
    let after = process::memory(server.pid())?;
    let slope = |from: u64, to: u64| (to as f64 - from as f64) / many as f64;
    let values = vec![
        ("pss_kb_per_connection", slope(before.pss_kb, after.pss_kb)),
        ("rss_kb_per_connection", slope(before.rss_kb, after.rss_kb)),
        ("pss_kb", after.pss_kb as f64),
    ];
    Ok(outcome(load, values))
}
