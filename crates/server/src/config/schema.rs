//! Every setting of the hub with its type and its default.
//!
//! These are the names that files, the environment and `tidewire config` use; a field here is the only place a setting
//! is declared, apart from its line in [`KEYS`], which suggestions and the environment are read by.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretUrl};
use super::values;

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

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// Rights without credentials. Absent while nothing else is set here either: everything, on loopback only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) anonymous: Option<Grant>,
    /// Rights of everyone with a token.
    pub(crate) user: Grant,
    /// Rights by name, for tokens to refer to.
    pub(crate) roles: Vec<Role>,
    /// Whose tokens count.
    pub(crate) issuers: Vec<Issuer>,
    /// Keys of programs.
    pub(crate) keys: Vec<ApiKey>,
    /// A cookie that may carry a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cookie: Option<String>,
    /// Whether `access_token` in the query counts.
    pub(crate) query_token: bool,
    /// How far clocks may be apart.
    #[serde(with = "values::duration")]
    pub(crate) leeway: Duration,
    /// Whether `/metrics` needs the right `admin`.
    pub(crate) protect_metrics: bool,
    pub(crate) webhook: Webhook,
}

impl Auth {
    /// Whether anything says who may get in.
    pub(crate) fn is_set(&self) -> bool {
        self.anonymous.is_some()
            || !self.issuers.is_empty()
            || !self.keys.is_empty()
            || self.webhook.url.is_some()
    }
}

/// What somebody may do: patterns of topics, in which `{user}` stands for the user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) subscribe: Vec<String>,
    pub(crate) publish: Vec<String>,
    pub(crate) admin: bool,
}

/// Rights with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Role {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) subscribe: Vec<String>,
    #[serde(default)]
    pub(crate) publish: Vec<String>,
    #[serde(default)]
    pub(crate) admin: bool,
}

impl Role {
    pub(crate) fn grant(&self) -> Grant {
        Grant {
            subscribe: self.subscribe.clone(),
            publish: self.publish.clone(),
            admin: self.admin,
        }
    }
}

/// Somebody whose tokens count. Exactly one of `secret`, `secret_file`, `key_file` and `jwks_url` is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_field_names,
    reason = "`issuer` is the setting's name, as `iss` is the claim's"
)]
pub(crate) struct Issuer {
    /// What its tokens have in `iss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    /// One of these is in `aud`.
    #[serde(default)]
    pub(crate) audience: Vec<String>,
    #[serde(default)]
    pub(crate) algorithms: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<String>,
    /// A public key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jwks_url: Option<String>,
    #[serde(default = "user_claim")]
    pub(crate) user_claim: String,
    #[serde(default = "roles_claim")]
    pub(crate) roles_claim: String,
    #[serde(default = "rights_claim")]
    pub(crate) rights_claim: String,
}

fn user_claim() -> String {
    "sub".to_owned()
}

fn roles_claim() -> String {
    "roles".to_owned()
}

fn rights_claim() -> String {
    "tidewire".to_owned()
}

impl Issuer {
    /// What it is called in messages.
    pub(crate) fn label(&self, index: usize) -> String {
        self.issuer.clone().unwrap_or_else(|| format!("[{index}]"))
    }
}

/// A program's key: who has it may do what stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKey {
    /// What it is called in the log.
    pub(crate) name: String,
    /// `sha256:` and hexadecimal digits.
    pub(crate) hash: String,
    #[serde(default)]
    pub(crate) subscribe: Vec<String>,
    #[serde(default)]
    pub(crate) publish: Vec<String>,
    #[serde(default)]
    pub(crate) admin: bool,
}

impl ApiKey {
    pub(crate) fn grant(&self) -> Grant {
        Grant {
            subscribe: self.subscribe.clone(),
            publish: self.publish.clone(),
            admin: self.admin,
        }
    }
}

/// A service that is asked who somebody is, in place of issuers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Webhook {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<SecretUrl>,
    #[serde(with = "values::duration")]
    pub(crate) timeout: Duration,
    /// How long an answer counts.
    #[serde(with = "values::duration")]
    pub(crate) cache: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            anonymous: None,
            user: Grant {
                subscribe: vec!["user:{user}".to_owned(), "notification:{user}".to_owned()],
                ..Grant::default()
            },
            roles: Vec::new(),
            issuers: Vec::new(),
            keys: Vec::new(),
            cookie: None,
            query_token: false,
            leeway: Duration::from_secs(30),
            protect_metrics: false,
            webhook: Webhook::default(),
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: None,
            timeout: Duration::from_secs(2),
            cache: Duration::from_secs(30),
        }
    }
}

/// Which web pages may read streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cors {
    /// Origins that may send credentials. Empty: any origin, without credentials.
    pub(crate) origins: Vec<String>,
}

/// Proxies in front of the hub, whose word on where a request comes from counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxies {
    /// Their addresses, as networks. Empty: nobody's word counts.
    pub(crate) trusted: Vec<String>,
    /// Where they say it. Just one: the other may come from the client, through a proxy that doesn't look at it.
    pub(crate) header: ProxyHeader,
}

/// The header in which a proxy says where a request comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyHeader {
    /// What most write.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
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
