//! Every setting of the hub with its type and its default.
//!
//! These are the names that files, the environment and `tidewire config` use; a field here is the only place a setting
//! is declared, apart from its line in [`KEYS`], which suggestions and the environment are read by.

mod access;
mod nodes;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values;

pub(crate) use self::access::*;
pub(crate) use self::nodes::*;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The effective configuration of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Address and port to serve on.
    #[serde(with = "values::listen")]
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) limits: Limits,
    pub(crate) history: History,
    pub(crate) stream: Stream,
    pub(crate) shutdown: Shutdown,
    pub(crate) broker: Broker,
    pub(crate) node: Node,
    pub(crate) cluster: ClusterSettings,
    pub(crate) notifications: NotificationSettings,
    pub(crate) auth: Auth,
    pub(crate) cors: Cors,
    pub(crate) proxies: Proxies,
    pub(crate) services: Services,
    pub(crate) log: Log,
}

/// Serving over TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// A file with the certificate and its chain, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<String>,
    /// A file with its private key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// Where plain HTTP is answered with a redirect.
    #[serde(
        with = "values::listen_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) redirect: Option<SocketAddr>,
    pub(crate) acme: Acme,
}

/// A certificate from a certificate authority (RFC 8555), in place of files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Acme {
    /// What the certificate is for. Empty: there is none from here.
    pub(crate) domains: Vec<String>,
    /// Addresses that the authority may write to.
    pub(crate) contact: Vec<String>,
    /// The authority.
    pub(crate) directory: String,
    /// A folder for the account and the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<String>,
    /// A file with the certificates in PEM that the authority's own server is trusted by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            contact: Vec::new(),
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            cache: None,
            ca: None,
        }
    }
}

/// What clients may use up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Open event streams at a time.
    #[serde(with = "values::count")]
    pub(crate) max_connections: usize,
    pub(crate) at_capacity: AtCapacity,
    /// Open event streams of one address at a time. Unset: no limit, as below.
    #[serde(with = "values::count_option", skip_serializing_if = "Option::is_none")]
    pub(crate) connections_per_address_max: Option<usize>,
    /// Open event streams of one user at a time.
    #[serde(with = "values::count_option", skip_serializing_if = "Option::is_none")]
    pub(crate) connections_per_user_max: Option<usize>,
    /// Streams that one address may begin in a second.
    #[serde(with = "values::count_option", skip_serializing_if = "Option::is_none")]
    pub(crate) connects_per_address_per_s_max: Option<usize>,
    /// Events that one address may publish in a second.
    #[serde(with = "values::count_option", skip_serializing_if = "Option::is_none")]
    pub(crate) publishes_per_address_per_s_max: Option<usize>,
    /// Events that one API key or user may publish in a second.
    #[serde(with = "values::count_option", skip_serializing_if = "Option::is_none")]
    pub(crate) publishes_per_key_per_s_max: Option<usize>,
    pub(crate) slow_client: SlowClient,
    /// A client that is behind and takes no byte for this long is slow.
    #[serde(with = "values::duration")]
    pub(crate) stall_timeout: Duration,
    /// A stream is ended after this long.
    #[serde(with = "values::duration")]
    pub(crate) max_lifetime: Duration,
    /// The kernel's send buffer of a stream, in bytes.
    #[serde(with = "values::bytes")]
    pub(crate) send_buffer_bytes: usize,
    #[serde(with = "values::count")]
    pub(crate) topics_per_subscription_max: usize,
    #[serde(with = "values::count")]
    pub(crate) patterns_per_subscription_max: usize,
    /// Name and data of one event, in bytes.
    #[serde(with = "values::bytes")]
    pub(crate) event_bytes_max: usize,
    /// A request's body, in bytes.
    #[serde(with = "values::bytes")]
    pub(crate) body_bytes_max: usize,
    /// All bodies that are being read, in bytes.
    #[serde(with = "values::bytes")]
    pub(crate) bodies_bytes_max: usize,
    /// Events published by one request.
    #[serde(with = "values::count")]
    pub(crate) batch_events_max: usize,
    /// A request's head, in bytes.
    #[serde(with = "values::bytes")]
    pub(crate) head_bytes_max: usize,
    /// A request's head must be there after this long.
    #[serde(with = "values::duration")]
    pub(crate) head_timeout: Duration,
    /// The longest silence inside a request's body.
    #[serde(with = "values::duration")]
    pub(crate) body_timeout: Duration,
    /// How long the answer to an `Idempotency-Key` is kept.
    #[serde(with = "values::duration")]
    pub(crate) idempotency_window: Duration,
    #[serde(with = "values::count")]
    pub(crate) idempotency_keys_max: usize,
    /// Generators of sample events at a time.
    #[serde(with = "values::count")]
    pub(crate) generators_max: usize,
}

/// What happens to a new stream when `max_connections` are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AtCapacity {
    /// The oldest one is closed for it.
    EvictOldest,
    /// It is refused.
    Reject,
}

/// What happens to a client that can't keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SlowClient {
    /// Its connection is closed.
    Close,
    /// It goes on at the oldest event held, after a `gap`.
    Skip,
}

/// What is kept for those who come back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct History {
    /// An event is kept for this long.
    #[serde(with = "values::duration")]
    pub(crate) ttl: Duration,
    /// All events take up to this many bytes.
    #[serde(with = "values::bytes")]
    pub(crate) memory: usize,
    /// What shortens retention, by topic.
    pub(crate) rules: Vec<HistoryRule>,
}

/// Shorter retention for the topics of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryRule {
    /// Checked when the hub is built.
    pub(crate) pattern: String,
    #[serde(
        default,
        with = "values::duration_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) ttl: Option<Duration>,
    #[serde(
        default,
        with = "values::count_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) events_max: Option<usize>,
}

/// What every stream is sent besides events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stream {
    /// A comment is sent after this long without an event.
    #[serde(with = "values::duration")]
    pub(crate) heartbeat: Duration,
    /// The base of the jittered `retry:` that clients are told.
    #[serde(with = "values::duration")]
    pub(crate) retry: Duration,
    /// Which streams may wait for more events, to get several with one write.
    pub(crate) coalesce: Vec<CoalesceRule>,
}

/// How long the readers of a pattern's topics may wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoalesceRule {
    /// Checked when the hub is built.
    pub(crate) pattern: String,
    #[serde(with = "values::duration")]
    pub(crate) window: Duration,
}

/// How the hub ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// How long connections are still accepted, so that balancers notice.
    #[serde(with = "values::duration")]
    pub(crate) drain_grace: Duration,
    /// How long closing all streams may take.
    #[serde(with = "values::duration")]
    pub(crate) drain_time: Duration,
}

/// Which services are there beside the hub's own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Services {
    /// The metrics sample: `/metrics/…`, `/events/watch`.
    pub(crate) metrics: bool,
    /// Event streams with generators: `/api/v1/events/…`.
    pub(crate) events: bool,
    /// The example of a service on the library's `Broadcaster`: `/api/v1/broadcast-demo/…`.
    pub(crate) broadcast_demo: bool,
    /// Connections by the client's id: `/sse/…`.
    pub(crate) clients: bool,
    /// Notifications of users: `/api/v1/notifications/…`.
    pub(crate) notifications: bool,
    /// The usual time between two sample events of a generator.
    #[serde(with = "values::duration")]
    pub(crate) generator_interval: Duration,
}

/// What the hub tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// tracing's filter syntax: `info`, `warn,tidewire=debug`.
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls: Tls::default(),
            limits: Limits::default(),
            history: History::default(),
            stream: Stream::default(),
            shutdown: Shutdown::default(),
            broker: Broker::default(),
            node: Node::default(),
            cluster: ClusterSettings::default(),
            notifications: NotificationSettings::default(),
            auth: Auth::default(),
            cors: Cors::default(),
            proxies: Proxies::default(),
            services: Services::default(),
            log: Log::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            at_capacity: AtCapacity::EvictOldest,
            connections_per_address_max: None,
            connections_per_user_max: None,
            connects_per_address_per_s_max: None,
            publishes_per_address_per_s_max: None,
            publishes_per_key_per_s_max: None,
            slow_client: SlowClient::Close,
            stall_timeout: Duration::from_secs(30),
            max_lifetime: Duration::from_hours(24),
            send_buffer_bytes: 64 * KIB,
            topics_per_subscription_max: 128,
            patterns_per_subscription_max: 16,
            event_bytes_max: MIB,
            body_bytes_max: 8 * MIB,
            bodies_bytes_max: 256 * MIB,
            batch_events_max: 10_000,
            head_bytes_max: 16 * KIB,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idempotency_window: Duration::from_mins(5),
            idempotency_keys_max: 100_000,
            generators_max: 64,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(10),
            memory: 64 * MIB,
            rules: Vec::new(),
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            retry: Duration::from_secs(3),
            coalesce: Vec::new(),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain_grace: Duration::from_secs(5),
            drain_time: Duration::from_mins(1),
        }
    }
}

impl Default for Services {
    fn default() -> Self {
        Self {
            metrics: true,
            events: true,
            broadcast_demo: true,
            clients: true,
            notifications: true,
            generator_interval: Duration::from_secs(3),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The full names of all settings. A test holds it against the structs above.
pub(crate) const KEYS: &[&str] = &[
    "listen",
    "tls.cert",
    "tls.key",
    "tls.redirect",
    "tls.acme.domains",
    "tls.acme.contact",
    "tls.acme.directory",
    "tls.acme.cache",
    "tls.acme.ca",
    "limits.max_connections",
    "limits.at_capacity",
    "limits.connections_per_address_max",
    "limits.connections_per_user_max",
    "limits.connects_per_address_per_s_max",
    "limits.publishes_per_address_per_s_max",
    "limits.publishes_per_key_per_s_max",
    "limits.slow_client",
    "limits.stall_timeout",
    "limits.max_lifetime",
    "limits.send_buffer_bytes",
    "limits.topics_per_subscription_max",
    "limits.patterns_per_subscription_max",
    "limits.event_bytes_max",
    "limits.body_bytes_max",
    "limits.bodies_bytes_max",
    "limits.batch_events_max",
    "limits.head_bytes_max",
    "limits.head_timeout",
    "limits.body_timeout",
    "limits.idempotency_window",
    "limits.idempotency_keys_max",
    "limits.generators_max",
    "history.ttl",
    "history.memory",
    "history.rules",
    "stream.heartbeat",
    "stream.retry",
    "stream.coalesce",
    "shutdown.drain_grace",
    "shutdown.drain_time",
    "broker.kind",
    "broker.path",
    "broker.fsync",
    "broker.fsync_interval",
    "broker.retention",
    "broker.bytes_max",
    "broker.url",
    "broker.prefix",
    "broker.wait_replicas",
    "node.id",
    "cluster.ttl",
    "cluster.check_interval",
    "cluster.inconsistency",
    "cluster.sweep_interval",
    "cluster.leak_interval",
    "cluster.answer_timeout",
    "cluster.retries",
    "cluster.retry_within",
    "cluster.presence_events",
    "notifications.database",
    "notifications.retention",
    "notifications.redis_url",
    "notifications.announce",
    "notifications.stream",
    "notifications.group",
    "notifications.attempts_max",
    "notifications.retry_after",
    "notifications.rules",
    "auth.anonymous.subscribe",
    "auth.anonymous.publish",
    "auth.anonymous.admin",
    "auth.user.subscribe",
    "auth.user.publish",
    "auth.user.admin",
    "auth.roles",
    "auth.issuers",
    "auth.keys",
    "auth.cookie",
    "auth.query_token",
    "auth.leeway",
    "auth.protect_metrics",
    "auth.webhook.url",
    "auth.webhook.timeout",
    "auth.webhook.cache",
    "cors.origins",
    "proxies.trusted",
    "proxies.header",
    "services.metrics",
    "services.events",
    "services.broadcast_demo",
    "services.clients",
    "services.notifications",
    "services.generator_interval",
    "log.level",
    "log.format",
];
