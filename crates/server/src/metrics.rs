//! The hub's figures for Prometheus, summed when they are asked for. No label has a topic's or a client's name: their
//! number is not ours to bound.

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tidewire::Hub;

use crate::tls;

/// The media type of the text that [`exposition`] writes (`OpenMetrics` 1.0).
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as text.
pub(crate) fn exposition(hub: &Hub) -> String {
    let mut registry = Registry::with_prefix("tidewire");
    registry.register_collector(Box::new(HubCollector(hub.clone())));
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

struct HubCollector(Hub);

impl std::fmt::Debug for HubCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HubCollector")
    }
}

impl Collector for HubCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let stats = self.0.stats();
        let gauge = |n: usize| ConstGauge::new(i64::try_from(n).unwrap_or(i64::MAX));
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
            &gauge(usize::from(self.0.ready().is_ok())),
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
        let broker = self.0.broker_figures();
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
        )?;
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
