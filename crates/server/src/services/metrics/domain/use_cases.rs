//! What can be done with metrics, and the two ports that it needs: where they are kept, and who is told.
//!
//! **Store, announce, answer.** What is created is stored first, so that whoever hears of it finds it. It is then
//! announced, and only what was announced is answered as created. If it surely was not, it is taken back: its id was told
//! to nobody, so at most somebody who read its metric just then has seen a reading. If that is unknown, it stays: someone
//! may hear of it yet.

use uuid::Uuid;

use super::{Invalid, Metric, Reading};

/// Where metrics and their readings are kept.
pub(crate) trait Repository: Send + Sync + 'static {
    /// Keeps a metric.
    fn add(&self, metric: Metric);

    /// Takes back a metric that was added just now.
    fn take_back(&self, metric_id: Uuid);

    /// A metric and its readings, oldest first.
    fn find(&self, metric_id: Uuid) -> Option<(Metric, Vec<Reading>)>;

    /// Keeps a reading; false if its metric is not known.
    fn add_reading(&self, reading: Reading) -> bool;

    /// Takes back a reading that was added just now.
    fn take_back_reading(&self, metric_id: Uuid, reading_id: Uuid);
}

/// Something that others may want to know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happened<'a> {
    MetricCreated(&'a Metric),
    ReadingCreated(&'a Reading),
}

/// Tells others what happened.
pub(crate) trait Announce: Send + Sync + 'static {
    /// What may go wrong with that.
    type Error: Send;

    /// Answers when it is certain that it will reach everyone who listens.
    fn announce(
        &self,
        what: Happened<'_>,
    ) -> impl Future<Output = Result<(), NotAnnounced<Self::Error>>> + Send;
}

/// An announcement that failed.
#[derive(Debug)]
pub(crate) enum NotAnnounced<E> {
    /// Nobody will hear of it.
    Surely(E),
    /// Someone may.
    Perhaps(E),
}

/// Why nothing was created.
#[derive(Debug)]
pub(crate) enum Failed<E> {
    Invalid(Invalid),
    UnknownMetric,
    NotAnnounced(E),
}

impl<E> From<Invalid> for Failed<E> {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// What can be done with metrics.
pub(crate) struct UseCases<R, A> {
    repository: R,
    announcer: A,
}

impl<R: Repository, A: Announce> UseCases<R, A> {
    pub(crate) fn new(repository: R, announcer: A) -> Self {
        Self {
            repository,
            announcer,
        }
    }

    /// Creates a metric.
    pub(crate) async fn create_metric(
        &self,
        name: String,
        unit: Option<String>,
        description: Option<String>,
    ) -> Result<Metric, Failed<A::Error>> {
        let metric = Metric::new(name, unit, description)?;
        self.repository.add(metric.clone());
        self.announce(Happened::MetricCreated(&metric), || {
            self.repository.take_back(metric.id);
        })
        .await?;
        Ok(metric)
    }

    /// Creates a reading of a metric. A time that is not given is now.
    pub(crate) async fn create_reading(
        &self,
        metric_id: Uuid,
        value: f64,
        recorded_at: Option<&str>,
    ) -> Result<Reading, Failed<A::Error>> {
        let reading = Reading::new(metric_id, value, recorded_at)?;
        if !self.repository.add_reading(reading.clone()) {
            return Err(Failed::UnknownMetric);
        }
        self.announce(Happened::ReadingCreated(&reading), || {
            self.repository.take_back_reading(metric_id, reading.id);
        })
        .await?;
        Ok(reading)
    }

    /// A metric and its readings, oldest first.
    pub(crate) fn metric(&self, metric_id: Uuid) -> Option<(Metric, Vec<Reading>)> {
        self.repository.find(metric_id)
    }

    async fn announce(
        &self,
        what: Happened<'_>,
        take_back: impl FnOnce() + Send,
    ) -> Result<(), Failed<A::Error>> {
        match self.announcer.announce(what).await {
            Ok(()) => Ok(()),
            Err(NotAnnounced::Surely(error)) => {
                take_back();
                Err(Failed::NotAnnounced(error))
            }
            Err(NotAnnounced::Perhaps(error)) => Err(Failed::NotAnnounced(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::super::repository::InMemory;
    use super::*;

    /// Answers what it is told to, and notes what it heard.
    #[derive(Default)]
    struct Announcer {
        fails: Mutex<Option<NotAnnounced<()>>>,
        heard: Mutex<Vec<Uuid>>,
    }

    impl Announce for &'static Announcer {
        type Error = ();

        async fn announce(&self, what: Happened<'_>) -> Result<(), NotAnnounced<()>> {
            self.heard.lock().unwrap().push(match what {
                Happened::MetricCreated(metric) => metric.id,
                Happened::ReadingCreated(reading) => reading.id,
            });
            self.fails.lock().unwrap().take().map_or(Ok(()), Err)
        }
    }

    #[tokio::test]
    async fn what_was_surely_not_announced_is_not_kept_and_the_rest_is() {
        let announcer: &Announcer = Box::leak(Box::default());
        let metrics = UseCases::new(InMemory::default(), announcer);
        let fail = |how| *announcer.fails.lock().unwrap() = Some(how);
        let last = || *announcer.heard.lock().unwrap().last().unwrap();

        fail(NotAnnounced::Surely(()));
        let failed = metrics.create_metric("a".to_owned(), None, None).await;
        assert!(matches!(failed, Err(Failed::NotAnnounced(()))));
        assert_eq!(metrics.metric(last()), None);

        fail(NotAnnounced::Perhaps(()));
        let failed = metrics.create_metric("a".to_owned(), None, None).await;
        assert!(matches!(failed, Err(Failed::NotAnnounced(()))));
        let metric = last();
        assert!(metrics.metric(metric).is_some());

        fail(NotAnnounced::Surely(()));
        let failed = metrics.create_reading(metric, 1.0, None).await;
        assert!(matches!(failed, Err(Failed::NotAnnounced(()))));
        assert_eq!(metrics.metric(metric).unwrap().1, []);
        let reading = metrics.create_reading(metric, 2.0, None).await.unwrap();
        assert_eq!(metrics.metric(metric).unwrap().1, [reading]);
    }
}
