//! What types can't say: values without sense, settings that contradict each other, and who the hub is open to.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::error::{ConfigError, SettingError};
use super::schema::{
    Auth, Broker, BrokerKind, ClusterSettings, Config, History, Limits, NotificationRule, Tls,
};
use super::tree::Node;
use super::values::{format_bytes, format_duration};
use crate::services::notifications::check_template;

const MIB: usize = 1024 * 1024;

/// A time below this ends everything before it began, and is a mistaken unit.
const TIME_MIN: Duration = Duration::from_millis(100);

/// Who can wait for longer wants to ask now and then, and no stream.
const WINDOW_MAX: Duration = Duration::from_secs(10);

/// Most names of one certificate: what Let's Encrypt takes.
const ACME_DOMAINS_MAX: usize = 100;
/// Clocks that are further apart are wrong, and for so long a token outlives itself.
const LEEWAY_MAX: Duration = Duration::from_mins(10);

/// hyper refuses a smaller read buffer, and the head is read into that.
const HEAD_BYTES_MIN: usize = 8 * 1024;

/// More often, and the disk does nothing else; then `always` is better.
const FSYNC_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Less than this and the kernel rounds up anyway.
const SEND_BUFFER_BYTES_MIN: usize = 4 * 1024;

/// Checks a configuration that was read from `tree`.
pub(super) fn check(config: &Config, tree: &Node) -> Result<(), ConfigError> {
    let check = Check { tree };
    check.limits(&config.limits)?;
    check.history(&config.history)?;
    check.sizes_fit(config)?;
    check.duration(
        "stream.heartbeat",
        config.stream.heartbeat,
        Duration::from_secs(1),
    )?;
    check.duration("stream.retry", config.stream.retry, TIME_MIN)?;
    for (index, rule) in config.stream.coalesce.iter().enumerate() {
        check.window(index, rule.window)?;
    }
    check.duration(
        "services.generator_interval",
        config.services.generator_interval,
        TIME_MIN,
    )?;
    check.broker(&config.broker)?;
    check.node_id(config.node.id.as_deref())?;
    check.duration("cluster.ttl", config.cluster.ttl, 3 * TIME_MIN)?;
    check.notifications(config)?;
    for (key, given) in [
        ("cluster.answer_timeout", config.cluster.answer_timeout),
        ("cluster.retry_within", config.cluster.retry_within),
        (
            "notifications.retry_after",
            config.notifications.retry_after,
        ),
    ] {
        check.duration(key, given, Duration::from_millis(100))?;
    }
    check.heartbeats(&config.cluster)?;
    for (index, origin) in config.cors.origins.iter().enumerate() {
        check.cors_origin(index, origin)?;
    }
    for (index, network) in config.proxies.trusted.iter().enumerate() {
        if network_of_text(network).is_none() {
            let allowed = "an address or a network, such as 10.0.0.7 or 10.0.0.0/8";
            let key = format!("proxies.trusted[{index}]");
            return check.refuse(&key, format!("{network:?}"), allowed);
        }
    }
    check.log_level(&config.log.level)?;
    check.auth(&config.auth)?;
    check.tls(&config.tls)?;
    check.open_to(config.listen, config.auth.is_set())
}

/// An address, or the addresses that begin with the same bits.
pub(crate) fn network_of_text(text: &str) -> Option<IpNet> {
    let one = |ip: IpAddr| IpNet::from(ip.to_canonical());
    text.parse().map(one).or_else(|_| text.parse()).ok()
}

struct Check<'a> {
    tree: &'a Node,
}

impl Check<'_> {
    fn error(&self, key: &str, given: impl Display, allowed: impl Display) -> SettingError {
        SettingError {
            key: key.to_owned(),
            problem: "bad value".to_owned(),
            given: Some(given.to_string()),
            origin: self.tree.origin_of(key),
            allowed: Some(allowed.to_string()),
            hint: None,
        }
    }

    fn refuse(
        &self,
        key: &str,
        given: impl Display,
        allowed: impl Display,
    ) -> Result<(), ConfigError> {
        Err(ConfigError::Setting(Box::new(
            self.error(key, given, allowed),
        )))
    }

    fn duration(&self, key: &str, value: Duration, min: Duration) -> Result<(), ConfigError> {
        if value >= min {
            return Ok(());
        }
        self.refuse(
            key,
            format_duration(value),
            format!("{} or more", format_duration(min)),
        )
    }

    fn bytes(&self, key: &str, value: usize, min: usize) -> Result<(), ConfigError> {
        if value >= min {
            return Ok(());
        }
        self.refuse(
            key,
            format_bytes(value as u64),
            format!("{} or more", format_bytes(min as u64)),
        )
    }

    fn at_least_one(&self, key: &str, value: usize) -> Result<(), ConfigError> {
        if value >= 1 {
            Ok(())
        } else {
            self.refuse(key, value, "1 or more")
        }
    }

    fn limits(&self, limits: &Limits) -> Result<(), ConfigError> {
        self.at_least_one("limits.max_connections", limits.max_connections)?;
        self.at_least_one(
            "limits.topics_per_subscription_max",
            limits.topics_per_subscription_max,
        )?;
        self.at_least_one("limits.batch_events_max", limits.batch_events_max)?;
        for (key, value) in [
            (
                "connections_per_address_max",
                limits.connections_per_address_max,
            ),
            ("connections_per_user_max", limits.connections_per_user_max),
            (
                "connects_per_address_per_s_max",
                limits.connects_per_address_per_s_max,
            ),
            (
                "publishes_per_address_per_s_max",
                limits.publishes_per_address_per_s_max,
            ),
            (
                "publishes_per_key_per_s_max",
                limits.publishes_per_key_per_s_max,
            ),
        ] {
            // A limit of none at all is a service that is switched off, and has a switch.
            self.at_least_one(&format!("limits.{key}"), value.unwrap_or(1))?;
            if value.is_some_and(|value| u32::try_from(value).is_err()) {
                return self.refuse(
                    &format!("limits.{key}"),
                    value.unwrap_or_default(),
                    format!("{} or less", u32::MAX),
                );
            }
        }
        self.bytes(
            "limits.send_buffer_bytes",
            limits.send_buffer_bytes,
            SEND_BUFFER_BYTES_MIN,
        )?;
        self.bytes("limits.event_bytes_max", limits.event_bytes_max, 1)?;
        self.bytes(
            "limits.head_bytes_max",
            limits.head_bytes_max,
            HEAD_BYTES_MIN,
        )?;
        for (key, value) in [
            ("limits.stall_timeout", limits.stall_timeout),
            ("limits.max_lifetime", limits.max_lifetime),
            ("limits.head_timeout", limits.head_timeout),
            ("limits.body_timeout", limits.body_timeout),
        ] {
            self.duration(key, value, TIME_MIN)?;
        }
        Ok(())
    }

    fn history(&self, history: &History) -> Result<(), ConfigError> {
        self.duration("history.ttl", history.ttl, TIME_MIN)?;
        self.bytes("history.memory", history.memory, MIB)?;
        for (index, rule) in history.rules.iter().enumerate() {
            let key = |name: &str| format!("history.rules[{index}]{name}");
            if rule.ttl.is_none() && rule.events_max.is_none() {
                let given = format!("only the pattern {:?}", rule.pattern);
                return self.refuse(&key(""), given, "a pattern with ttl, events_max or both");
            }
            if let Some(ttl) = rule.ttl {
                self.duration(&key(".ttl"), ttl, TIME_MIN)?;
                if ttl > history.ttl {
                    let most = format_duration(history.ttl);
                    let allowed =
                        format!("{most} or less: a rule can't keep events longer than history.ttl");
                    return self.refuse(&key(".ttl"), format_duration(ttl), allowed);
                }
            }
            if let Some(events_max) = rule.events_max {
                self.at_least_one(&key(".events_max"), events_max)?;
            }
        }
        Ok(())
    }

    fn window(&self, index: usize, window: Duration) -> Result<(), ConfigError> {
        if window <= WINDOW_MAX {
            return Ok(());
        }
        let most = format_duration(WINDOW_MAX);
        self.refuse(
            &format!("stream.coalesce[{index}].window"),
            format_duration(window),
            format!("{most} or less; 0s for topics that shall not wait"),
        )
    }

    /// An event must fit into a request that brings it and into the log that keeps it, and a request into what there is for all.
    fn sizes_fit(&self, config: &Config) -> Result<(), ConfigError> {
        let limits = &config.limits;
        let event = ("limits.event_bytes_max", limits.event_bytes_max);
        let body = ("limits.body_bytes_max", limits.body_bytes_max);
        for ((key, size), (other, most)) in [
            (event, body),
            (event, ("history.memory", config.history.memory)),
            (body, ("limits.bodies_bytes_max", limits.bodies_bytes_max)),
        ] {
            if size > most {
                let origin = self.tree.origin_of(other);
                let most = format_bytes(most as u64);
                let allowed = format!("no more than {other}, which is {most} ({origin})");
                return self.refuse(key, format_bytes(size as u64), allowed);
            }
        }
        Ok(())
    }

    fn broker(&self, broker: &Broker) -> Result<(), ConfigError> {
        match broker.kind {
            // Who names a folder means events to be kept.
            BrokerKind::Memory => match &broker.path {
                Some(path) => {
                    let allowed = "nothing with broker.kind = \"memory\"; for a folder set broker.kind = \"disk\"";
                    self.refuse("broker.path", format!("{path:?}"), allowed)
                }
                None => Ok(()),
            },
            BrokerKind::Disk => self.disk(broker),
            BrokerKind::Redis => self.redis(broker),
            BrokerKind::Nats => self.refuse(
                "broker.kind",
                "nats",
                "memory, disk, redis; nats is not in this build yet",
            ),
        }
    }

    fn redis(&self, broker: &Broker) -> Result<(), ConfigError> {
        let Some(url) = &broker.url else {
            let allowed = "where the Redis is, such as \"redis://127.0.0.1:6379\"";
            return self.refuse("broker.url", "nothing", allowed);
        };
        if let Err(error) = tidewire::redis::Redis::new(url.reveal(), broker.prefix()) {
            let shown =
                toml::Value::try_from(url).map_or_else(|_| String::new(), |url| url.to_string());
            return self.refuse("broker.url", shown, error.to_string());
        }
        self.duration("broker.retention", broker.retention, Duration::from_secs(1))?;
        self.bytes("broker.bytes_max", broker.bytes_max, MIB)
    }

    fn disk(&self, broker: &Broker) -> Result<(), ConfigError> {
        if broker.path.as_deref().is_none_or(str::is_empty) {
            let allowed = "a folder for the disk broker's files, such as \"/var/lib/tidewire\"";
            return self.refuse("broker.path", "nothing", allowed);
        }
        self.duration(
            "broker.fsync_interval",
            broker.fsync_interval,
            FSYNC_INTERVAL_MIN,
        )?;
        self.duration("broker.retention", broker.retention, Duration::from_secs(1))?;
        self.bytes("broker.bytes_max", broker.bytes_max, MIB)
    }

    fn node_id(&self, id: Option<&str>) -> Result<(), ConfigError> {
        let fits = |id: &str| {
            (1..=128).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        match id {
            Some(id) if !fits(id) => self.refuse(
                "node.id",
                format!("{id:?}"),
                "1 to 128 letters, digits, dots, underscores and hyphens",
            ),
            _ => Ok(()),
        }
    }

    /// Attempts at one heartbeat that took longer than the time to the next one would let a node be taken for dead.
    fn heartbeats(&self, cluster: &ClusterSettings) -> Result<(), ConfigError> {
        let longest_ms = (cluster.ttl / 3).as_millis() as u64;
        let (given, longest) = (cluster.retry_within, Duration::from_millis(longest_ms));
        if given <= longest {
            return Ok(());
        }
        self.refuse(
            "cluster.retry_within",
            format_duration(given),
            format!(
                "up to a third of `cluster.ttl`: {}",
                format_duration(longest)
            ),
        )
    }

    fn notifications(&self, config: &Config) -> Result<(), ConfigError> {
        let settings = &config.notifications;
        let database = settings.database.reveal();
        let is_file = database.starts_with("sqlite:") && !database.contains(":memory:");
        if !is_file
            && !["postgres://", "postgresql://"]
                .iter()
                .any(|known| database.starts_with(known))
        {
            let allowed = "a file, such as \"sqlite:tidewire.db\", or \"postgres://user:password@host/database\"";
            return self.refuse("notifications.database", "something else", allowed);
        }
        let shared = config.broker.url.as_ref();
        let shared = shared.filter(|_| config.broker.kind == BrokerKind::Redis);
        let redis = settings.redis_url.as_ref().or(shared);
        if let Some(url) = redis
            && let Err(error) = tidewire::redis::Redis::new(url.reveal(), config.broker.prefix())
        {
            return self.refuse("notifications.redis_url", "this", error.to_string());
        }
        self.at_least_one("notifications.attempts_max", settings.attempts_max)?;
        for (key, is_set) in [
            ("notifications.announce", settings.announce),
            ("notifications.stream", settings.stream.is_some()),
        ] {
            if is_set && redis.is_none() {
                let allowed =
                    "only with a Redis: set notifications.redis_url, or broker.kind = \"redis\"";
                return self.refuse(key, "set", allowed);
            }
        }
        if let Some(stream) = &settings.stream {
            if settings.rules.is_empty() {
                let allowed =
                    "one [[notifications.rules]] at least: an event without a rule makes nothing";
                return self.refuse(
                    "notifications.stream",
                    format!("{stream:?} without rules"),
                    allowed,
                );
            }
            let is_cluster = redis.is_some_and(|url| url.reveal().contains("-cluster://"));
            if is_cluster && !tidewire::redis::has_hash_tag(stream) {
                let allowed = "in a Cluster a name with a hash tag, such as \"{events}\": its dead letters are in the same slot";
                return self.refuse("notifications.stream", format!("{stream:?}"), allowed);
            }
        }
        self.notification_rules(&settings.rules)
    }

    fn notification_rules(&self, rules: &[NotificationRule]) -> Result<(), ConfigError> {
        for (index, rule) in rules.iter().enumerate() {
            let texts = [
                ("recipient", Some(&rule.recipient)),
                ("type", rule.kind.as_ref()),
                ("title", Some(&rule.title)),
                ("body", rule.body.as_ref()),
                ("link", rule.link.as_ref()),
            ];
            for (name, text) in texts {
                if let Some(text) = text
                    && let Err(why) = check_template(text)
                {
                    let key = format!("notifications.rules[{index}].{name}");
                    return self.refuse(&key, format!("{text:?}"), why);
                }
            }
        }
        Ok(())
    }

    fn cors_origin(&self, index: usize, origin: &str) -> Result<(), ConfigError> {
        let parsed = reqwest::Url::parse(origin)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()));
        let written = parsed.map(|url| url.origin().ascii_serialization());
        if written.as_deref() == Some(origin) {
            return Ok(());
        }
        let allowed = "scheme://host or scheme://host:port, as a browser sends it; an empty list for any origin";
        let mut error = self.error(
            &format!("cors.origins[{index}]"),
            format!("{origin:?}"),
            allowed,
        );
        error.hint = written.map(|written| format!("did you mean {written}?"));
        Err(ConfigError::Setting(Box::new(error)))
    }

    fn log_level(&self, level: &str) -> Result<(), ConfigError> {
        // To tracing a bare word is the name of a target, so that a mistyped level would silence the log.
        let is_bare = |part: &str| !part.contains(['=', '[', ':']);
        let mistyped = level
            .split(',')
            .map(str::trim)
            .any(|part| is_bare(part) && part.parse::<LevelFilter>().is_err());
        if !mistyped && EnvFilter::builder().parse(level).is_ok() {
            return Ok(());
        }
        let allowed = "trace, debug, info, warn, error or off, also by target: warn,tidewire=debug";
        self.refuse("log.level", format!("{level:?}"), allowed)
    }

    fn auth(&self, auth: &Auth) -> Result<(), ConfigError> {
        self.duration("auth.webhook.timeout", auth.webhook.timeout, TIME_MIN)?;
        if auth.leeway > LEEWAY_MAX {
            let allowed = format!("{} or less", format_duration(LEEWAY_MAX));
            return self.refuse("auth.leeway", format_duration(auth.leeway), allowed);
        }
        if let Some(name) = &auth.cookie
            && (name.is_empty() || !name.bytes().all(is_token_byte))
        {
            let allowed = "a cookie's name: letters, digits and !#$%&'*+-.^_`|~";
            return self.refuse("auth.cookie", format!("{name:?}"), allowed);
        }
        if auth.webhook.url.is_some() && !auth.issuers.is_empty() {
            let allowed = "either a webhook or issuers: the webhook decides about every token";
            return self.refuse("auth.webhook.url", "set beside auth.issuers", allowed);
        }
        Ok(())
    }

    /// A certificate is nothing without its key, and a redirect leads nowhere without both.
    fn tls(&self, tls: &Tls) -> Result<(), ConfigError> {
        if !tls.acme.domains.is_empty() {
            return self.acme(tls);
        }
        let (missing, because) = match (&tls.cert, &tls.key, tls.redirect) {
            (None, Some(_), _) => ("tls.cert", "tls.key"),
            (Some(_), None, _) => ("tls.key", "tls.cert"),
            (None, None, Some(_)) => ("tls.cert", "tls.redirect"),
            _ => return Ok(()),
        };
        Err(ConfigError::Setting(Box::new(SettingError {
            key: missing.to_owned(),
            problem: format!("must be set beside {because}"),
            given: None,
            origin: self.tree.origin_of(because),
            allowed: Some("a file in PEM; tls.cert and tls.key go together".to_owned()),
            hint: None,
        })))
    }

    /// The authority asks on plain HTTP whether the domains are ours, and what it gives has to be kept.
    fn acme(&self, tls: &Tls) -> Result<(), ConfigError> {
        let acme = &tls.acme;
        if tls.cert.is_some() || tls.key.is_some() {
            let allowed = "either files (tls.cert, tls.key) or an authority (tls.acme)";
            return self.refuse("tls.acme.domains", "set beside tls.cert", allowed);
        }
        let (missing, what) = match (tls.redirect, &acme.cache) {
            (None, _) => (
                "tls.redirect",
                "the address that the authority finds as port 80 of the domains",
            ),
            (_, None) => (
                "tls.acme.cache",
                "a folder for the account and the certificate",
            ),
            _ => ("", ""),
        };
        if !missing.is_empty() {
            return self.refuse(missing, "nothing, beside tls.acme.domains", what);
        }
        if acme.domains.len() > ACME_DOMAINS_MAX {
            let allowed = format!("{ACME_DOMAINS_MAX} at most");
            return self.refuse("tls.acme.domains", acme.domains.len(), allowed);
        }
        let is_name = |name: &str| {
            name.contains(|c: char| c.is_ascii_alphabetic())
                && name.split('.').all(|label| {
                    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                    !label.is_empty() && label.len() <= 63 && label.bytes().all(is_inner)
                })
        };
        if let Some(domain) = acme.domains.iter().find(|domain| !is_name(domain)) {
            let allowed = "names such as hub.example.org: no wildcard, no address, no port";
            return self.refuse("tls.acme.domains", format!("{domain:?}"), allowed);
        }
        if let Some(contact) = acme
            .contact
            .iter()
            .find(|contact| !contact.starts_with("mailto:"))
        {
            return self.refuse(
                "tls.acme.contact",
                format!("{contact:?}"),
                "addresses such as mailto:ops@example.org",
            );
        }
        if !acme.directory.starts_with("https://") {
            let allowed = "the https:// address of an ACME directory";
            return self.refuse(
                "tls.acme.directory",
                format!("{:?}", acme.directory),
                allowed,
            );
        }
        Ok(())
    }

    /// Without any credentials set up, everyone may do everything, and that must stay on this machine.
    fn open_to(&self, listen: SocketAddr, rights_set: bool) -> Result<(), ConfigError> {
        if rights_set || listen.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(ConfigError::Setting(Box::new(SettingError {
            key: "auth.anonymous".to_owned(),
            problem: "must be set for a hub that other machines can reach".to_owned(),
            given: Some(format!("listen = \"{listen}\"")),
            origin: self.tree.origin_of("listen"),
            allowed: Some(
                "any rights for clients without credentials, or a listen address on loopback"
                    .to_owned(),
            ),
            hint: Some(OPEN_HINT.to_owned()),
        })))
    }
}

/// What a name in a header is made of (RFC 9110 section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Everyone may read what is public, and nobody may write.
const OPEN_HINT: &str = "for example, to let everyone read public topics:

[auth.anonymous]
subscribe = [\"**\"]
publish = []
admin = false

or in the environment: TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE='**'";
