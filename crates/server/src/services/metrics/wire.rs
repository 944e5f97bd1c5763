//! How a metric and a reading look as JSON. Answers and events show the same.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::domain::{Metric, Reading};

/// A metric.
#[derive(Serialize)]
pub(super) struct MetricJson<'a> {
    id: Uuid,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    created_at: Timestamp,
    /// The newest ones, oldest first. Only where the metric is asked for by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    readings: Option<Vec<ReadingJson>>,
}

/// A reading.
#[derive(Serialize)]
pub(super) struct ReadingJson {
    id: Uuid,
    metric_id: Uuid,
    value: f64,
    recorded_at: Timestamp,
    /// The same once more, as the Go sample calls it: its clients read it.
    timestamp: Timestamp,
}

impl<'a> MetricJson<'a> {
    pub(super) fn with_readings(metric: &'a Metric, readings: &[Reading]) -> Self {
        Self {
            readings: Some(readings.iter().map(ReadingJson::from).collect()),
            ..Self::from(metric)
        }
    }
}

impl<'a> From<&'a Metric> for MetricJson<'a> {
    fn from(metric: &'a Metric) -> Self {
        Self {
            id: metric.id,
            name: &metric.name,
            unit: metric.unit.as_deref(),
            description: metric.description.as_deref(),
            created_at: metric.created_at,
            readings: None,
        }
    }
}

impl From<&Reading> for ReadingJson {
    fn from(reading: &Reading) -> Self {
        Self {
            id: reading.id,
            metric_id: reading.metric_id,
            value: reading.value,
            recorded_at: reading.recorded_at,
            timestamp: reading.recorded_at,
        }
    }
}
