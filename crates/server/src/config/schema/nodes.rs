//! Settings of where events and notifications are kept, and of nodes that share them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::SecretUrl;
use super::super::values;
use super::MIB;

/// Where the truth of the log lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Broker {
    pub(crate) kind: BrokerKind,
    /// A folder, for `disk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// When the disk is made to keep what was written.
    pub(crate) fsync: Fsync,
    /// How often, where that is by `interval`.
    #[serde(with = "values::duration")]
    pub(crate) fsync_interval: Duration,
    /// An event is kept on the disk for this long.
    #[serde(with = "values::duration")]
    pub(crate) retention: Duration,
    /// All events take up to so many bytes of the disk.
    #[serde(with = "values::bytes")]
    pub(crate) bytes_max: usize,
    /// A server, for `redis` and `nats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<SecretUrl>,
    /// What names on that server begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// How many replicas of that server must have an event before its publisher is answered.
    #[serde(with = "values::count")]
    pub(crate) wait_replicas: usize,
}

impl Broker {
    /// The prefix in force. In a Cluster it holds all keys together in one slot.
    pub(crate) fn prefix(&self) -> &str {
        let is_cluster = |url: &SecretUrl| url.reveal().contains("-cluster://");
        match &self.prefix {
            Some(prefix) => prefix,
            None if self.url.as_ref().is_some_and(is_cluster) => "{tidewire}:",
            None => "tidewire:",
        }
    }
}

/// The kinds of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BrokerKind {
    Memory,
    Disk,
    Redis,
    Nats,
}

/// When what was written is made safe against the loss of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fsync {
    /// Before a publish is answered.
    Always,
    /// Every now and then.
    Interval,
}

/// This node among others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Node {
    /// Made at the start where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
}

/// How nodes keep in step about who is connected where.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClusterSettings {
    /// A node and its connections count for this long after its last heartbeat.
    #[serde(with = "values::duration")]
    pub(crate) ttl: Duration,
    /// How often what is connected is compared with what the registry says. 0 for never.
    #[serde(with = "values::duration")]
    pub(crate) check_interval: Duration,
    pub(crate) inconsistency: InconsistencyStrategy,
    /// How often what dead nodes left is cleared away. 0 for never.
    #[serde(with = "values::duration")]
    pub(crate) sweep_interval: Duration,
    /// How often leaks are looked for. 0 for never.
    #[serde(with = "values::duration")]
    pub(crate) leak_interval: Duration,
    /// How long another node may take to answer.
    #[serde(with = "values::duration")]
    pub(crate) answer_timeout: Duration,
    /// How often a call of the registry is tried again.
    #[serde(with = "values::count")]
    pub(crate) retries: usize,
    /// How long all its attempts may take together.
    #[serde(with = "values::duration")]
    pub(crate) retry_within: Duration,
    /// Patterns of topics of which it is published who comes and goes.
    pub(crate) presence_events: Vec<String>,
}

/// What is done about an entry of the registry that nobody is connected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InconsistencyStrategy {
    /// It is removed.
    AutoCorrect,
    /// The node is not ready any more.
    FailFast,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            check_interval: Duration::from_secs(30),
            inconsistency: InconsistencyStrategy::AutoCorrect,
            sweep_interval: Duration::from_mins(1),
            leak_interval: Duration::from_mins(5),
            answer_timeout: Duration::from_secs(2),
            retries: 3,
            retry_within: Duration::from_secs(2),
            presence_events: Vec::new(),
        }
    }
}

/// Notifications of users.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NotificationSettings {
    /// Where they are kept: a file, or a PostgreSQL. Nothing is opened until it is used.
    pub(crate) database: SecretUrl,
    /// They are deleted after this long. 0 for never.
    #[serde(with = "values::duration")]
    pub(crate) retention: Duration,
    /// The Redis of what follows; that of the broker where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redis_url: Option<SecretUrl>,
    /// Whether created ones are published on `user-notifications:{user id}` too.
    pub(crate) announce: bool,
    /// A stream of domain events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    /// The group that reads it.
    pub(crate) group: String,
    /// How often an event is tried that makes no notification.
    #[serde(with = "values::count")]
    pub(crate) attempts_max: usize,
    /// After how long an event is tried again that nobody has acknowledged.
    #[serde(with = "values::duration")]
    pub(crate) retry_after: Duration,
    /// What becomes of domain events.
    pub(crate) rules: Vec<NotificationRule>,
}

/// What becomes of the domain events of one type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotificationRule {
    /// The type.
    pub(crate) on: String,
    pub(crate) recipient: String,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    pub(crate) title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
}

impl Default for NotificationSettings {
    fn default() -> Self {
        Self {
            database: SecretUrl::new("sqlite:tidewire.db"),
            retention: Duration::from_hours(24 * 90),
            redis_url: None,
            announce: false,
            stream: None,
            group: "tidewire".to_owned(),
            attempts_max: 5,
            retry_after: Duration::from_secs(10),
            rules: Vec::new(),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            kind: BrokerKind::Memory,
            path: None,
            fsync: Fsync::Always,
            fsync_interval: Duration::from_secs(1),
            retention: Duration::from_hours(24),
            bytes_max: 1024 * MIB,
            url: None,
            prefix: None,
            wait_replicas: 0,
        }
    }
}
