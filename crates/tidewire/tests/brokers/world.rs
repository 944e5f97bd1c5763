//! A hub on a broker under test, and short ways to publish and to read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::redis_server::RedisServer;
use tempfile::TempDir;
use tidewire::broker::{
    DiskBroker, DiskOptions, EventId, Fsync, IdempotencyKey, MemoryBroker, RedisBroker,
    RedisOptions, StartError, Storage,
};
use tidewire::core::log::{HistoryPage, Retention};
use tidewire::core::subscribe::Start;
use tidewire::redis;
use tidewire::{Event, Hub, HubBuilder, Publication, PublishError, Topic};

/// How long anything that a test waits for may take.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

/// How to make one kind of broker.
pub(crate) trait Subject {
    /// Whether events outlive the broker.
    const DURABLE: bool;

    fn broker(&self, builder: HubBuilder, folder: &Path) -> HubBuilder;
}

pub(crate) struct Memory;

impl Subject for Memory {
    const DURABLE: bool = false;

    fn broker(&self, builder: HubBuilder, _folder: &Path) -> HubBuilder {
        builder.broker(MemoryBroker::new(Duration::from_mins(5), 1_000))
    }
}

#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) options: DiskOptions,
}

impl Disk {
    pub(crate) fn on(storage: &Arc<impl Storage>) -> Self {
        Self::default().with(|options| options.storage = storage.clone())
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut DiskOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn interval(every: Duration) -> Self {
        Self::default().with(|options| options.fsync = Fsync::Interval(every))
    }
}

impl Subject for Disk {
    const DURABLE: bool = true;

    fn broker(&self, builder: HubBuilder, folder: &Path) -> HubBuilder {
        builder.broker(DiskBroker::new(folder, self.options.clone()))
    }
}

pub(crate) struct Redis {
    pub(crate) server: RedisServer,
    pub(crate) options: RedisOptions,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self {
            server: RedisServer::start(),
            options: RedisOptions::default(),
        }
    }
}

impl Redis {
    /// One that has on its disk what it has answered.
    pub(crate) fn start_durable() -> Self {
        Self {
            server: RedisServer::start_durable(),
            options: RedisOptions::default(),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut RedisOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The name of the stream of the hub with this folder.
    pub(crate) fn log(folder: &Path) -> String {
        format!("{}:log", folder.file_name().unwrap().to_string_lossy())
    }
}

impl Subject for Redis {
    const DURABLE: bool = true;

    fn broker(&self, builder: HubBuilder, folder: &Path) -> HubBuilder {
        // Hubs of one folder are nodes of one hub.
        let prefix = format!("{}:", folder.file_name().unwrap().to_string_lossy());
        let redis = redis::Redis::new(&self.server.url(), &prefix).unwrap();
        builder.broker(RedisBroker::new(Arc::new(redis), self.options.clone()))
    }
}

/// A folder in memory where there is one, as thousands of runs would wear a disk out for nothing.
pub(crate) fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

pub(crate) async fn try_start(subject: &impl Subject, folder: &Path) -> Result<Hub, StartError> {
    start_with(subject, folder, Retention::default()).await
}

pub(crate) async fn start(subject: &impl Subject, folder: &Path) -> Hub {
    try_start(subject, folder).await.unwrap()
}

pub(crate) async fn start_with(
    subject: &impl Subject,
    folder: &Path,
    retention: Retention,
) -> Result<Hub, StartError> {
    subject
        .broker(Hub::builder().history(retention), folder)
        .start()
        .await
}

/// A hub that holds hardly anything itself.
pub(crate) async fn small(subject: &impl Subject, folder: &Path) -> Hub {
    let retention = Retention {
        memory_bytes: 4 * 1024,
        ..Retention::default()
    };
    start_with(subject, folder, retention).await.unwrap()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(crate) fn event(topic: &str, event: impl Into<Event>) -> Publication {
    Publication::new([topic], event).unwrap()
}

/// Events numbered from `first` on.
pub(crate) fn batch(topic: &str, first: usize, count: usize) -> Vec<Publication> {
    (first..first + count)
        .map(|n| event(topic, n.to_string()))
        .collect()
}

pub(crate) fn key(name: &str, fingerprint: u8) -> IdempotencyKey {
    IdempotencyKey {
        publisher: "p".into(),
        key: name.into(),
        fingerprint: [fingerprint; 32],
    }
}

pub(crate) async fn publish(hub: &Hub, topic: &str, data: &str) -> Result<String, PublishError> {
    hub.publish(topic, data).await.map(|id| id.to_string())
}

pub(crate) fn texts(ids: &[EventId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

pub(crate) fn page(hub: &Hub, name: &str, start: &Start) -> HistoryPage {
    hub.history(&topic(name), start, usize::MAX, usize::MAX, None)
}

pub(crate) fn after(hub: &Hub, topic: &str, id: &str) -> HistoryPage {
    page(hub, topic, &Start::After(id.to_owned()))
}

/// Id and data of everything in a topic's history.
pub(crate) fn history(hub: &Hub, topic: &str) -> Vec<(String, String)> {
    let events = page(hub, topic, &Start::Earliest).events;
    events.into_iter().map(|e| (e.id, e.data)).collect()
}

pub(crate) fn data(hub: &Hub, topic: &str) -> Vec<String> {
    history(hub, topic)
        .into_iter()
        .map(|(_, data)| data)
        .collect()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(WAIT_MAX, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}
