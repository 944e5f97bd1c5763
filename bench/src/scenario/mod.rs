//! What is measured. Each scenario starts a server of its own, loads it, and answers with one [`Measurement`].

mod fanout;
mod idle;
mod ingest;
mod storm;
mod topics;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::ledger::Faults;
use crate::load::{Group, Load};
use crate::process;
use crate::server::{Kind, Server};

/// Streams on their way at a time, but for a storm: no server's backlog overflows.
const OPENING_MAX: usize = 100;
/// Events that are delivered before anything is measured.
const WARM_UP_EVENTS: usize = 3;
/// Publishes in flight where a server is to be saturated.
const IN_FLIGHT: usize = 64;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Every event is a write of its own, for each connection.
    FixedRate,
    /// 64 publishes in flight: what can be coalesced, is.
    Saturation,
    /// The same, with large events and most readers stopped.
    Stopped,
    /// Memory for each idle connection.
    Idle,
    /// Each client has a topic of its own; one of them is published to.
    OwnTopic,
    /// Each client reads 10 topics of 1,000, saturated.
    ManyTopics,
    /// All clients connect at once and resume 100 events behind.
    Storm,
    /// The same without a position: what connecting alone costs.
    BareStorm,
    /// Batches of 1,000 lines, no subscriber.
    Ingest,
    /// Publishing when there are many topics, each with an event.
    Topics,
}

impl Scenario {
    /// The name in results.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether a server can do it.
    pub fn fits(self, kind: Kind) -> bool {
        match self {
            Self::FixedRate | Self::Idle => true,
            // The floor would drop readers that don't take a whole event.
            Self::Saturation | Self::Stopped | Self::BareStorm => kind != Kind::Floor,
            Self::OwnTopic => !matches!(kind, Kind::Floor | Kind::AxumBroadcast),
            // A channel of the length of a run for each topic would not fit into memory.
            Self::ManyTopics => kind.has_topic_lists() && kind != Kind::AxumBroadcast,
            Self::Storm => kind.resumes(),
            Self::Ingest => kind == Kind::Tidewire,
            Self::Topics => kind.keeps_topics(),
        }
    }
}

/// How large a run is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Size {
    /// Connections; for `topics` the number of topics.
    pub connections: usize,
    /// Events.
    pub events: usize,
}

/// What came out of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured.
    pub scenario: Scenario,
    /// Of what.
    pub server: Kind,
    /// How large.
    pub size: Size,
    /// Counted from 0.
    pub round: usize,
    /// Figures; each name ends in its unit.
    pub values: BTreeMap<String, f64>,
    /// What went wrong with deliveries.
    pub faults: Faults,
    /// Streams that the server ended.
    pub gone: usize,
}

impl Measurement {
    /// Whether every reader got what it should.
    pub fn is_right(&self) -> bool {
        self.faults.is_none() && self.gone == 0
    }
}

/// Runs a scenario on a server.
///
/// # Errors
/// If the server can't be started, refuses, or breaks a publisher's connection.
pub fn run(scenario: Scenario, kind: Kind, size: Size) -> io::Result<Measurement> {
    let (values, faults, gone) = match scenario {
        Scenario::FixedRate => fanout::fixed_rate(kind, size),
        Scenario::Saturation => fanout::saturation(kind, size),
        Scenario::Stopped => fanout::stopped(kind, size),
        Scenario::ManyTopics => fanout::many_topics(kind, size),
        Scenario::Idle => idle::idle(kind, size),
        Scenario::OwnTopic => topics::own_topic(kind, size),
        Scenario::Topics => topics::topics(kind, size),
        Scenario::Storm => storm::storm(kind, size, true),
        Scenario::BareStorm => storm::storm(kind, size, false),
        Scenario::Ingest => ingest::ingest(kind, size),
    }?;
    Ok(Measurement {
        scenario,
        server: kind,
        size,
        round: 0,
        values: values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        faults,
        gone,
    })
}

type Values = Vec<(&'static str, f64)>;
type Outcome = io::Result<(Values, Faults, usize)>;

/// CPU and wall time since its start.
struct Meter<'a> {
    server: &'a Server,
    cpu_ns: u64,
    began: Instant,
}

impl<'a> Meter<'a> {
    fn start(server: &'a Server) -> io::Result<Self> {
        Ok(Self {
            server,
            cpu_ns: process::cpu_ns(server.pid())?,
            began: Instant::now(),
        })
    }

    fn cpu_us(&self) -> io::Result<f64> {
        let now = process::cpu_ns(self.server.pid())?;
        Ok(now.saturating_sub(self.cpu_ns) as f64 / 1e3)
    }

    fn wall_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// Readers of some topics, live.
fn live(server: &Server, topics: &[u32]) -> Group {
    Group {
        topics: topics.to_vec(),
        request: Rc::from(server.subscribe_request(topics, None)),
        seen: 0,
        stops: false,
    }
}

/// Latencies, as values.
fn latencies(load: &mut Load) -> Values {
    let latency = load.ledger().latency();
    vec![
        ("latency_p50_ms", latency.quantile_ms(0.5)),
        ("latency_p99_ms", latency.quantile_ms(0.99)),
        ("latency_max_ms", latency.max_ms()),
    ]
}

fn memory(server: &Server) -> io::Result<Values> {
    let memory = process::memory(server.pid())?;
    Ok(vec![
        ("pss_kb", memory.pss_kb as f64),
        ("rss_kb", memory.rss_kb as f64),
    ])
}

fn outcome(mut load: Load, values: Values) -> (Values, Faults, usize) {
    (values, load.ledger().faults(), load.gone())
}
