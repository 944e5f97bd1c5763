//! The layers together: precedence, one configuration in three notations, and the printed one read again.

use std::path::Path;

use super::*;

fn load_with(
    file: Option<(&str, &str)>,
    env: &[(&str, &str)],
    flags: &Settings,
) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = file.map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    });
    let variables = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    layer(path.as_deref(), variables, flags)
}

#[test]
fn later_layers_win() {
    let file = Some((
        "a.toml",
        "listen = '127.0.0.1:1'\n[limits]\nmax_connections = 1\nbatch_events_max = 1\n[log]\nlevel = 'warn'",
    ));
    let env = [
        ("TIDEWIRE_LIMITS__MAX_CONNECTIONS", "2"),
        ("TIDEWIRE_LISTEN", "127.0.0.1:2"),
    ];
    let flags = Settings {
        listen: Some("localhost:3".to_owned()),
        ..Settings::default()
    };
    let config = load_with(file, &env, &flags).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.limits.max_connections, 2);
    assert_eq!(config.limits.batch_events_max, 1);
    assert_eq!(config.log.level, "warn");
    assert_eq!(config.history, History::default());
}

const TOML: &str = r#"
listen = "[::1]:9000"
limits = { at_capacity = "reject", slow_client = "skip", event_bytes_max = 65536, stall_timeout = "1m30s" }
node.id = "n1"
cors.origins = ["https://a.example", "http://b.example:8080"]
history.memory = "1GiB"
stream.coalesce = [{ pattern = "price:*", window = "200ms" }]
[[history.rules]]
pattern = "chat:*"
ttl = "1m"
[[history.rules]]
pattern = "logs"
events_max = 10
[broker]
url = "redis://app:hunter2@db/0"
[auth.anonymous]
subscribe = ["public:*", "news"]
admin = true
[log]
format = "json"
level = "warn,tidewire=debug"
"#;

const YAML: &str = r#"
listen: "[::1]:9000"
limits:
  at_capacity: reject
  slow_client: skip
  event_bytes_max: 64KiB
  stall_timeout: 90s
node: { id: n1 }
cors:
  origins:
    - https://a.example
    - http://b.example:8080
history:
  memory: 1GiB
  rules:
    - pattern: chat:*
      ttl: 1m
    - { pattern: logs, events_max: 10 }
broker:
  url: redis://app:hunter2@db/0
stream:
  coalesce: [{ pattern: "price:*", window: 200ms }]
auth:
  anonymous:
    subscribe: ["public:*", news]
    admin: true
log: { format: json, level: "warn,tidewire=debug" }
"#;

const ENVIRONMENT: &[(&str, &str)] = &[
    ("TIDEWIRE_LISTEN", "[::1]:9000"),
    ("TIDEWIRE_LIMITS__AT_CAPACITY", "reject"),
    ("TIDEWIRE_LIMITS__SLOW_CLIENT", "skip"),
    ("TIDEWIRE_LIMITS__EVENT_BYTES_MAX", "65536"),
    ("TIDEWIRE_LIMITS__STALL_TIMEOUT", "90s"),
    ("TIDEWIRE_NODE__ID", "n1"),
    (
        "TIDEWIRE_CORS__ORIGINS",
        "https://a.example, http://b.example:8080",
    ),
    ("TIDEWIRE_HISTORY__MEMORY", "1024MiB"),
    (
        "TIDEWIRE_HISTORY__RULES",
        r#"[{pattern = "chat:*", ttl = "1m"}, {pattern = "logs", events_max = 10}]"#,
    ),
    (
        "TIDEWIRE_STREAM__COALESCE",
        r#"[{pattern = "price:*", window = "200ms"}]"#,
    ),
    ("TIDEWIRE_BROKER__URL", "redis://app:hunter2@db/0"),
    ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "public:*,news"),
    ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
    ("TIDEWIRE_LOG__FORMAT", "json"),
    ("TIDEWIRE_LOG__LEVEL", "warn,tidewire=debug"),
];

#[test]
fn toml_yaml_and_the_environment_say_the_same() {
    let flags = Settings::default();
    let toml = load_with(Some(("a.toml", TOML)), &[], &flags).unwrap();
    let yaml = load_with(Some(("a.yml", YAML)), &[], &flags).unwrap();
    let environment = load_with(None, ENVIRONMENT, &flags).unwrap();
    assert_eq!(toml.history.rules.len(), 2);
    assert_eq!(toml.stream.coalesce.len(), 1);
    assert_eq!(toml, yaml);
    assert_eq!(toml, environment);
    let table = [(
        "TIDEWIRE_AUTH__ANONYMOUS",
        r#"{subscribe = ["public:*", "news"], admin = true}"#,
    )];
    assert_eq!(load_with(None, &table, &flags).unwrap().auth, toml.auth);
}

#[test]
fn the_printed_configuration_is_read_as_the_same() {
    let flags = Settings::default();
    let without_secret = TOML.replace("app:hunter2@", "");
    let config = load_with(Some(("a.toml", &without_secret)), &[], &flags).unwrap();
    let again = load_with(Some(("b.toml", &config.to_toml())), &[], &flags).unwrap();
    assert_eq!(config, again);
    let defaults = load_with(Some(("c.toml", &Config::default().to_toml())), &[], &flags).unwrap();
    assert_eq!(defaults, Config::default());
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let config = load_with(Some(("a.toml", TOML)), &[], &Settings::default()).unwrap();
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redis://app:***@db/0"), "{shown}");
    }
}

#[test]
fn the_list_of_keys_is_that_of_the_schema() {
    let mut config = load_with(Some(("a.toml", TOML)), &[], &Settings::default()).unwrap();
    config.broker.path = Some("p".to_owned());
    config.broker.prefix = Some("p".to_owned());
    config.notifications.redis_url = config.broker.url.clone();
    config.notifications.stream = Some("s".to_owned());
    config.auth.cookie = Some("c".to_owned());
    config.tls.cert = Some("p".to_owned());
    config.tls.key = Some("p".to_owned());
    config.tls.redirect = Some(config.listen);
    config.tls.acme.cache = Some("p".to_owned());
    config.tls.acme.ca = Some("p".to_owned());
    let limits = &mut config.limits;
    for limit in [
        &mut limits.connections_per_address_max,
        &mut limits.connections_per_user_max,
        &mut limits.connects_per_address_per_s_max,
        &mut limits.publishes_per_address_per_s_max,
        &mut limits.publishes_per_key_per_s_max,
    ] {
        *limit = Some(1);
    }
    config.auth.webhook.url = Some(serde_json::from_str("\"http://w\"").unwrap());
    let toml::Value::Table(table) = toml::Value::try_from(&config).unwrap() else {
        panic!("a table")
    };
    let mut keys = Vec::new();
    collect(&table, "", &mut keys);
    keys.sort();
    let mut known: Vec<_> = KEYS.iter().map(ToString::to_string).collect();
    known.sort();
    assert_eq!(keys, known);
}

fn collect(table: &toml::Table, before: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => collect(inner, &format!("{before}{name}."), keys),
            _ => keys.push(format!("{before}{name}")),
        }
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    for name in ["a.toml", "a.yaml"] {
        let config = load_with(Some((name, "# nothing\n")), &[], &Settings::default()).unwrap();
        assert_eq!(config, Config::default());
    }
    assert!(
        layer(
            Some(Path::new("a.json")),
            std::iter::empty(),
            &Settings::default()
        )
        .is_err()
    );
}

/// A `broker.kind` that was forgotten used to be noticed at the next restart, when nothing was there.
#[test]
fn a_folder_for_a_broker_without_one_is_refused() {
    let file = Some(("a.toml", "[broker]\npath = 'events'"));
    let error = load_with(file, &[], &Settings::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("broker.path") && error.contains("kind = \"disk\""),
        "{error}"
    );
}
