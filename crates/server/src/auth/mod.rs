//! Who sent a request, and what they may do.
//!
//! - `credential`: finds the token or key in a request. `token`: checks a JWT, with the reason if it fails.
//! - `jwks`: keys of an issuer that publishes them. `api_key`: keys that are no tokens. `webhook`: asks elsewhere.
//! - `refusal`: how each of these says no.
//! - `grant`: rights as they are configured, for a person: `{user}` becomes who it is.

mod api_key;
mod credential;
mod grant;
mod jwks;
mod refusal;
mod token;
mod webhook;

use std::sync::Arc;

use http::request::Parts;
use sha2::{Digest, Sha256};
use tidewire::problem::{Code, Problem};
use tidewire::{Rights, Topic};

use crate::config::Auth;
pub(crate) use api_key::make as make_api_key;
use api_key::{ApiKey, ApiKeys};
pub(crate) use credential::{Place, QUERY_PARAMETER};
use grant::{Grant, Roles};
use refusal::{Check, unauthorized};
pub(crate) use token::{Issuers, peek, span};
use webhook::Webhook;

/// Who sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The person, where one is known: `user:{id}` is theirs.
    pub(crate) user: Option<Arc<str>>,
    /// What the credential is called to people: a subject, a key's name, `anonymous`.
    pub(crate) name: Arc<str>,
    /// What may be done.
    pub(crate) rights: Arc<Rights>,
    /// When that is over, in seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
    /// Where the credential was, if there was one.
    pub(crate) place: Option<Place>,
}

impl Identity {
    /// Tells those who publish from each other: no user is called as a key is.
    pub(crate) fn publisher(&self) -> Arc<str> {
        match &self.user {
            Some(user) => format!("user {user}").into(),
            None => self.name.clone(),
        }
    }
}

/// Turns requests into identities, as `auth.*` says.
pub(crate) struct Authenticator {
    anonymous: Arc<Rights>,
    anonymous_grant: Grant,
    roles: Roles,
    issuers: Issuers,
    keys: ApiKeys,
    webhook: Option<Webhook>,
    places: credential::Places,
}

impl Authenticator {
    /// As configured. Keys that are fetched by URL are fetched from now on, in the background.
    ///
    /// # Errors
    /// If a pattern, key or file can't be used; says which.
    pub(crate) fn new(auth: &Auth) -> Result<Self, String> {
        let anonymous = auth.anonymous.clone().unwrap_or_default();
        let anonymous_grant = Grant::new("auth.anonymous", &anonymous)?;
        let issuers = Issuers::new(auth)?;
        let keys = ApiKeys::new(&auth.keys)?;
        let webhook = Webhook::new(&auth.webhook)?;
        let anonymous = Rights {
            may_log_in: webhook.is_some() || !issuers.is_empty() || !keys.is_empty(),
            ..rights_of_anyone(&anonymous_grant)
        };
        Ok(Self {
            anonymous: Arc::new(anonymous),
            anonymous_grant,
            roles: Roles::new(auth)?,
            issuers,
            keys,
            webhook,
            places: credential::Places {
                cookie: auth.cookie.clone(),
                query: auth.query_token,
            },
        })
    }

    /// Begins to fetch the keys that issuers publish, for as long as the runtime lives.
    pub(crate) fn start(&self) {
        self.issuers.keep_fresh();
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// If there is a credential that does not stand: with the check that failed.
    pub(crate) async fn identify(&self, request: &Parts, now_s: u64) -> Result<Identity, Problem> {
        let credential = credential::find(request, &self.places)?;
        let Some(credential) = credential else {
            return Ok(self.anonymous());
        };
        let identity = self.judge(&credential.secret, now_s).await?;
        Ok(Identity {
            place: Some(credential.place),
            ..identity
        })
    }

    /// Whose a credential is.
    ///
    /// # Errors
    /// With the check that it failed.
    pub(crate) async fn judge(&self, credential: &str, now_s: u64) -> Result<Identity, Problem> {
        if let Some(key) = self.keys.find(credential) {
            return Ok(self.by_key(key));
        }
        if let Some(webhook) = &self.webhook {
            let answer = webhook.ask(credential, now_s).await?;
            let rights = Grant::new("the webhook's answer", &answer.grant)
                .map_err(|error| Problem::new(Code::AuthUnavailable, error))?;
            return self.of_person(
                credential,
                answer.user.clone(),
                &rights,
                &answer.roles,
                answer.expires_s,
            );
        }
        if credential.starts_with(api_key::PREFIX) {
            return Err(unauthorized(Check::Key, "no such API key"));
        }
        let claims = self.issuers.verify(credential, now_s).await?;
        let rights = Grant::new("the token", &claims.grant)
            .map_err(|error| unauthorized(Check::Rights, &error))?;
        self.of_person(
            credential,
            claims.user,
            &rights,
            &claims.roles,
            Some(claims.expires_s),
        )
    }

    fn anonymous(&self) -> Identity {
        Identity {
            user: None,
            name: "anonymous".into(),
            rights: self.anonymous.clone(),
            expires_s: None,
            place: None,
        }
    }

    fn by_key(&self, key: &ApiKey) -> Identity {
        let mut rights = rights_of_anyone(&self.anonymous_grant);
        key.grant.add_to(&mut rights, None);
        Identity {
            user: None,
            name: format!("key {}", key.name).into(),
            rights: Arc::new(rights),
            expires_s: None,
            place: None,
        }
    }

    /// What anyone may do, what every user may do, what the roles may do, and what the credential itself says.
    fn of_person(
        &self,
        credential: &str,
        user: Option<String>,
        own: &Grant,
        roles: &[String],
        expires_s: Option<u64>,
    ) -> Result<Identity, Problem> {
        // Some issuers leave it empty where they know nobody, and all of these would share a topic.
        let user = user.filter(|user| !user.is_empty());
        if let Some(user) = &user
            && let Err(error) = Topic::new(&format!("user:{user}"))
        {
            let detail = format!("the user's name can't be part of a topic's: {error}");
            return Err(unauthorized(Check::Claim, &detail));
        }
        let user: Option<Arc<str>> = user.map(Into::into);
        let mut rights = rights_of_anyone(&self.anonymous_grant);
        self.roles.add_to(&mut rights, roles, user.as_deref());
        own.add_to(&mut rights, user.as_deref());
        Ok(Identity {
            name: user.clone().unwrap_or_else(|| name_of_token(credential)),
            user,
            rights: Arc::new(rights),
            expires_s,
            place: None,
        })
    }
}

/// Tells tokens that are nobody's from each other, so that they have nothing in common. It says nothing of what is in them.
fn name_of_token(credential: &str) -> Arc<str> {
    let digest = Sha256::digest(credential);
    format!(
        "token {:02x}{:02x}{:02x}{:02x}",
        digest[0], digest[1], digest[2], digest[3]
    )
    .into()
}

/// What anyone may do. Private events are for those who have a right of their own.
fn rights_of_anyone(anonymous: &Grant) -> Rights {
    Rights {
        private: Vec::new(),
        ..anonymous.rights(None)
    }
}
