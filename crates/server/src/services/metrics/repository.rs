//! Metrics and their readings in memory, the oldest of which make room for new ones. A restart forgets them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::domain::{Metric, Reading, Repository};

/// Metrics kept. Beyond it the oldest goes, with its readings. Stops creating from filling the memory: with the longest
/// texts and all readings, so many take about 50 MB.
pub(super) const METRICS_MAX: usize = 10_000;
/// Readings kept of a metric. Beyond it the oldest goes.
pub(super) const READINGS_PER_METRIC_MAX: usize = 50;

/// Room is made only when something is added to what is full already, so there may be one more than the limits say.
/// What is added and taken back so displaces nothing that would have been kept.
#[derive(Default)]
pub(super) struct InMemory {
    /// By id, and so in the order of creation.
    metrics: Mutex<BTreeMap<Uuid, Kept>>,
}

struct Kept {
    metric: Metric,
    readings: VecDeque<Reading>,
}

impl InMemory {
    fn metrics(&self) -> MutexGuard<'_, BTreeMap<Uuid, Kept>> {
        // Every change below is whole, whatever panics.
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository for InMemory {
    fn add(&self, metric: Metric) {
        let mut metrics = self.metrics();
        if metrics.len() > METRICS_MAX {
            metrics.pop_first();
        }
        let readings = VecDeque::new();
        metrics.insert(metric.id, Kept { metric, readings });
    }

    fn take_back(&self, metric_id: Uuid) {
        self.metrics().remove(&metric_id);
    }

    fn find(&self, metric_id: Uuid) -> Option<(Metric, Vec<Reading>)> {
        let metrics = self.metrics();
        let kept = metrics.get(&metric_id)?;
        let surplus = kept.readings.len().saturating_sub(READINGS_PER_METRIC_MAX);
        let readings = kept.readings.iter().skip(surplus).cloned().collect();
        Some((kept.metric.clone(), readings))
    }

    fn add_reading(&self, reading: Reading) -> bool {
        let mut metrics = self.metrics();
        let Some(kept) = metrics.get_mut(&reading.metric_id) else {
            return false;
        };
        if kept.readings.len() > READINGS_PER_METRIC_MAX {
            kept.readings.pop_front();
        }
        kept.readings.push_back(reading);
        true
    }

    fn take_back_reading(&self, metric_id: Uuid, reading_id: Uuid) {
        if let Some(kept) = self.metrics().get_mut(&metric_id) {
            kept.readings.retain(|reading| reading.id != reading_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_what_is_taken_back_displaces_nothing() {
        let repository = InMemory::default();
        let metric = || Metric::new("m".to_owned(), None, None).unwrap();
        let metrics: Vec<_> = (0..METRICS_MAX).map(|_| metric()).collect();
        for metric in &metrics {
            repository.add(metric.clone());
        }
        for _ in 0..3 {
            let refused = metric();
            repository.add(refused.clone());
            repository.take_back(refused.id);
        }
        assert!(repository.find(metrics[0].id).is_some());
        for _ in 0..3 {
            repository.add(metric());
        }
        assert!(repository.find(metrics[1].id).is_none());
        assert!(repository.find(metrics[2].id).is_some());

        let id = metrics[2].id;
        let reading = |n: u32| Reading::new(id, f64::from(n), None).unwrap();
        for n in (0..).take(READINGS_PER_METRIC_MAX + 3) {
            assert!(repository.add_reading(reading(n)));
        }
        let (_, readings) = repository.find(id).unwrap();
        assert_eq!(readings.len(), READINGS_PER_METRIC_MAX);
        assert!(
            readings
                .iter()
                .map(|reading| reading.value)
                .eq((3..).map(f64::from).take(readings.len()))
        );
        assert!(!repository.add_reading(Reading::new(metrics[0].id, 1.0, None).unwrap()));
    }
}
