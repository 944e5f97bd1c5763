//! The environment as a layer of settings: `TIDEWIRE_HISTORY__TTL=5m` is `history.ttl`.

use std::ffi::OsString;

use super::error::{ConfigError, SettingError, did_you_mean, nearest_keys};
use super::files::parse_toml_value;
use super::schema::KEYS;
use super::tree::{Node, Origin, Value};

const PREFIX: &str = "TIDEWIRE_";

/// Variables that are ours and not settings of the hub.
const OTHERS: [&str; 4] = [
    "TIDEWIRE_CONFIG",
    "TIDEWIRE_URL",
    "TIDEWIRE_TOKEN",
    "TIDEWIRE_LOG",
];

/// Reads the settings among these variables.
pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Node, ConfigError> {
    // Sorted, so that of several bad ones it is always the same that is told, and a table comes before its parts.
    let mut variables: Vec<(String, OsString)> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str()))
        .collect();
    variables.sort();
    let mut root = Node::empty();
    for (name, value) in variables {
        let value = value.to_string_lossy().into_owned();
        if is_kubernetes(&name, &value) {
            continue;
        }
        let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        if !is_setting(&key) {
            return Err(unknown(name, &key));
        }
        let origin = Origin::Environment(name);
        let node = if KEYS.contains(&key.as_str()) {
            Node {
                value: Value::Untyped(value),
                origin,
            }
        } else {
            table(&key, &value, origin)?
        };
        root.insert(&key, node);
    }
    Ok(root)
}

/// A setting, or a table of settings (`TIDEWIRE_AUTH__ANONYMOUS='{…}'`).
fn is_setting(key: &str) -> bool {
    KEYS.iter().any(|known| {
        known
            .strip_prefix(key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

const TABLE_ALLOWED: &str =
    "a table as TOML, such as {a = 1, b = \"2\"}, or a variable for each of its settings";

/// A table is TOML, and read here, so that it is laid over what a file says about its other settings.
fn table(key: &str, value: &str, origin: Origin) -> Result<Node, ConfigError> {
    let parsed = parse_toml_value(value, &origin).ok();
    parsed
        .filter(|node| matches!(node.value, Value::Map(_)))
        .ok_or_else(|| {
            ConfigError::Setting(Box::new(SettingError {
                key: key.to_owned(),
                problem: "bad value".to_owned(),
                given: Some(Value::Untyped(value.to_owned()).to_string()),
                allowed: Some(TABLE_ALLOWED.to_owned()),
                origin,
                hint: None,
            }))
        })
}

/// Kubernetes gives every pod variables for each service, and a service may well be named `tidewire…`.
fn is_kubernetes(name: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let part = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
        name.split_once(protocol).is_some_and(|(before, rest)| {
            before.contains("PORT_") && ["", "_PROTO", "_PORT", "_ADDR"].contains(&rest)
        })
    });
    let name = &name[PREFIX.len() - 1..];
    part || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && address)
}

/// How a setting is written in the environment.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn unknown(name: String, key: &str) -> ConfigError {
    let suggestions: Vec<String> = nearest_keys(key).into_iter().map(variable).collect();
    ConfigError::Setting(Box::new(SettingError {
        key: key.to_owned(),
        problem: "unknown setting".to_owned(),
        given: None,
        origin: Origin::Environment(name),
        allowed: Some(format!(
            "{PREFIX}TABLE__SETTING, for the settings that `tidewire config` prints"
        )),
        hint: did_you_mean(&suggestions),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_named_tidewire_is_no_setting() {
        let set = |name: &str, value: &str| is_kubernetes(name, value);
        assert!(set("TIDEWIRE_SERVICE_HOST", "10.0.0.1"));
        assert!(set("TIDEWIRE_SERVICE_PORT_HTTP", "80"));
        assert!(set("TIDEWIRE_METRICS_PORT", "tcp://10.0.0.1:80"));
        assert!(set("TIDEWIRE_PORT_80_TCP_ADDR", "10.0.0.1"));
        assert!(!set("TIDEWIRE_PORT", "8080"), "somebody meant `listen`");
        assert!(!set("TIDEWIRE_LISTEN", "tcp://0.0.0.0:80"));
    }
}
