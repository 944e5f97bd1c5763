//! The hub's figures for Prometheus, summed when they are asked for. No label has a topic's or a client's name: their
//! number is not ours to bound.

use std::collections::HashSet;
use std::fmt::Error;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tidewire::{Cluster, Hub};

use crate::services::notifications::Notifications;
use crate::tls;

/// The media type of the text that [`exposition`] writes (`OpenMetrics` 1.0).
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// That of the older form, which everything reads that reads figures at all.
pub(crate) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All figures as text.
pub(crate) fn exposition(
    hub: &Hub,
    cluster: &Cluster,
    notifications: Option<&Notifications>,
) -> String {
    let mut registry = Registry::with_prefix("tidewire");
    registry.register_collector(Box::new(HubCollector(
        hub.clone(),
        cluster.clone(),
        notifications.cloned(),
    )));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

/// The same figures in the older form. It differs in that a counter's name has its `_total` everywhere, and in the end.
pub(crate) fn plain(openmetrics: &str) -> String {
    let name_in = |line: &str, what: &str| {
        let rest = line.strip_prefix(what)?;
        Some(rest.split(' ').next().unwrap_or_default().to_owned())
    };
    let counters: HashSet<String> = openmetrics
        .lines()
        .filter(|line| line.ends_with(" counter"))
        .filter_map(|line| name_in(line, "# TYPE "))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|what| {
            let name = name_in(line, what).filter(|name| counters.contains(name))?;
            Some(format!(
                "{what}{name}_total{}",
                &line[what.len() + name.len()..]
            ))
        });
        text.push_str(described.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

struct HubCollector(Hub, Cluster, Option<Notifications>);

impl std::fmt::Debug for HubCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HubCollector")
    }
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let stats = self.0.stats();
        let mut put = |name: &str, help: &str, metric: &dyn EncodeInto| {
            metric.encode_into(&mut encoder, name, help)
        };
        put("connections", "Open streams", &gauge(stats.connections))?;
        put(
            "topics",
            "Topics with an event or a subscriber",
            &gauge(stats.log.topics),
        )?;
        put(
            "filters",
            "Distinct subscriptions",
            &gauge(stats.log.filters),
        )?;
        put("log_events", "Events held", &gauge(stats.log.events))?;
        put(
            "log_memory_bytes",
            "Memory of the events held and their index",
            &gauge(stats.log.memory_bytes),
        )?;
        put(
            "ready",
            "Whether events can be stored",
            &gauge(usize::from(
                self.0.ready().and_then(|()| self.1.ready()).is_ok(),
            )),
        )?;
        put(
            "tls_reload_failed",
            "Whether the certificate's files hold what can't be served, so that an older one is",
            &gauge(usize::from(tls::reload_failed())),
        )?;
        put(
            "published",
            "Events published on this node",
            &ConstCounter::new(stats.totals.published),
        )?;
        put(
            "delivered",
            "Events handed to connections",
            &ConstCounter::new(stats.totals.delivered),
        )?;
        put(
            "gaps",
            "Times that a client was told of missing events",
            &ConstCounter::new(stats.totals.gaps),
        )?;
        broker(&self.0, &mut put)?;
        clients(&self.1, &mut put)?;
        if let Some(notifications) = &self.2 {
            domain_events(notifications, &mut put)?;
        }
        let closes: Family<
            Vec<(&'static str, &'static str)>,
            prometheus_client::metrics::counter::Counter,
        > = Family::default();
        for (reason, n) in stats.totals.closes {
            closes
                .get_or_create(&vec![("reason", reason.as_str())])
                .inc_by(n);
        }
        put("closes", "Connections that ended, by reason", &closes)
    }
}

/// Writes one figure: name, meaning, value.
type Put<'a> = dyn FnMut(&str, &str, &dyn EncodeInto) -> Result<(), Error> + 'a;

fn gauge(n: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX))
}

fn broker(hub: &Hub, put: &mut Put<'_>) -> Result<(), Error> {
    let broker = hub.broker_figures();
    put(
        "broker_commits",
        "Writes to the broker's store, each of one or more batches",
        &ConstCounter::new(broker.commits),
    )?;
    put(
        "broker_stored_bytes",
        "What the broker's store takes up",
        &gauge(usize::try_from(broker.stored_bytes).unwrap_or(usize::MAX)),
    )?;
    put(
        "broker_refused_full",
        "Publishes refused as the store had no room",
        &ConstCounter::new(broker.refused_full),
    )?;
    put(
        "broker_tail_cut_bytes",
        "Unfinished writes cut off the store at the start",
        &ConstCounter::new(broker.tail_bytes_cut),
    )?;
    put(
        "broker_lag_seconds",
        "How far this node is behind the broker's store, by the times of the events",
        &ConstGauge::new(Duration::from_millis(broker.lag_ms).as_secs_f64()),
    )?;
    put(
        "broker_malformed",
        "Entries of other programs in the broker's store that are no events",
        &ConstCounter::new(broker.malformed),
    )?;
    put(
        "broker_interruptions",
        "Times that the broker's store could not be followed",
        &ConstCounter::new(broker.interruptions),
    )
}

fn clients(cluster: &Cluster, put: &mut Put<'_>) -> Result<(), Error> {
    let cluster = cluster.figures();
    put(
        "clients",
        "Clients that are connected by an id of their own",
        &gauge(cluster.clients),
    )?;
    for (name, help, n) in [
        (
            "clients_replaced",
            "Clients whose connection was taken over by another one",
            cluster.replaced,
        ),
        (
            "registry_inconsistencies",
            "Entries of the registry that nobody was connected for",
            cluster.inconsistencies,
        ),
        (
            "registry_restored",
            "Entries that the registry lacked, and that a heartbeat made anew",
            cluster.restored,
        ),
        (
            "registry_swept",
            "Entries of dead nodes that this node cleared away",
            cluster.swept,
        ),
        (
            "registry_missed_beats",
            "Heartbeats that the registry did not take",
            cluster.missed_beats,
        ),
        ("leaks", "Clients without a connection", cluster.leaks),
    ] {
        put(name, help, &ConstCounter::new(n))?;
    }
    Ok(())
}

fn domain_events(notifications: &Notifications, put: &mut Put<'_>) -> Result<(), Error> {
    let figures = notifications.figures();
    put(
        "domain_events_lag",
        "Domain events that no node has handled yet",
        &gauge(usize::try_from(figures.lag).unwrap_or(usize::MAX)),
    )?;
    for (name, help, n) in [
        ("domain_events", "Domain events handled", figures.handled),
        (
            "domain_events_retried",
            "Attempts at domain events after the first",
            figures.retried,
        ),
        (
            "domain_events_dead",
            "Domain events put aside",
            figures.dead,
        ),
    ] {
        put(name, help, &ConstCounter::new(n))?;
    }
    Ok(())
}

/// A metric of any type, to be written under a name.
trait EncodeInto {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), Error>;
}

impl<M: EncodeMetric> EncodeInto for M {
    fn encode_into(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), Error> {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}
