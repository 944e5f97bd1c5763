//! Settings of who may do what, and from where.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::secret::{Secret, SecretUrl};
use super::super::values;

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
