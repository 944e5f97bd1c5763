//! The domain's port, with the hub behind it: what happened becomes an event. This is all that a domain needs to be
//! followed live.

use tidewire::problem::{Code, Problem};
use tidewire::{Event, Hub, PublishError};

use super::TOPIC;
use super::domain::{Announce, Happened, NotAnnounced};
use super::wire::{MetricJson, ReadingJson};

/// Publishes to the topic [`TOPIC`].
pub(super) struct HubAnnouncer(pub(super) Hub);

impl Announce for HubAnnouncer {
    type Error = Problem;

    async fn announce(&self, what: Happened<'_>) -> Result<(), NotAnnounced<Problem>> {
        let event = match what {
            Happened::MetricCreated(metric) => {
                Event::json("metric_created", &MetricJson::from(metric))
            }
            Happened::ReadingCreated(reading) => {
                Event::json("metric_reading_created", &ReadingJson::from(reading))
            }
        };
        let event = event.map_err(|error| {
            NotAnnounced::Surely(Problem::new(Code::Internal, error.to_string()))
        })?;
        match self.0.publish(TOPIC, event).await {
            Ok(_) => Ok(()),
            Err(error @ PublishError::OutcomeUnknown(_)) => {
                Err(NotAnnounced::Perhaps(error.into()))
            }
            Err(error) => Err(NotAnnounced::Surely(error.into())),
        }
    }
}
