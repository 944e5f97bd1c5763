//! A setting that holds a password: it can be used, but not printed.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A server's URL. Whoever prints, logs or serializes it gets it without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretUrl(String);

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.0))
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&mask(&self.0))
    }
}

impl SecretUrl {
    /// A URL.
    pub(crate) fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The URL as it is.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Text that nobody shall see.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text as it is.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(MASK)
    }
}

/// What stands in for a secret.
const MASK: &str = "***";

/// Parameters of a URL that are secrets.
const SECRET_PARAMETERS: [&str; 4] = ["password", "pass", "token", "secret"];

/// Replaces what is secret in a URL, or in what should have been one: better too much than too little.
pub(crate) fn mask(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    // The last @, for a password may have one that nobody encoded.
    let (user, host) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(user, host)| (Some(user), host));
    let user = user.map(|user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}@"),
        // A token in the place of a name.
        None => format!("{MASK}@"),
    });
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!(
        "{scheme}{separator}{}{}",
        user.unwrap_or_default(),
        mask_parameters(host)
    )
}

fn mask_parameters(rest: &str) -> String {
    let Some((before, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let parameters = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if SECRET_PARAMETERS.contains(&name.to_lowercase().as_str()) => {
                format!("{name}={MASK}")
            }
            _ => parameter.to_owned(),
        });
    format!("{before}?{}", parameters.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, masked) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:hunter2@db:6379", "redis://:***@db:6379"),
            (
                "rediss://app:hun@ter/2@db:6379/1",
                "rediss://app:***@db:6379/1",
            ),
            ("nats://t0ken@n1:4222", "nats://***@n1:4222"),
            (
                "redis://db?protocol=resp3&Password=hunter2",
                "redis://db?protocol=resp3&Password=***",
            ),
            ("app:hunter2@db", "app:***@db"),
        ] {
            assert_eq!(mask(url), masked);
            assert_eq!(format!("{:?}", SecretUrl(url.to_owned())), masked);
        }
    }
}
