//! Asking an HTTP service who a credential belongs to, in place of checking it here.
//!
//! The hub sends `POST` with `{"credential": "…"}`. An answer of 200 is `{"user"?, "subscribe"?, "publish"?, "admin"?,
//! "roles"?, "expires_in_s"?}`; one of 401 or 403 refuses, with `{"reason"?}` for the client. Anything else, or none in
//! time, means that nobody gets in: 503. Answers are kept for `auth.webhook.cache`, so that a crowd that reconnects
//! asks once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tidewire::problem::{Code, Problem};
use tokio::sync::Semaphore;

use super::refusal::{Check, shown, unauthorized};
use crate::config::{self, Grant};

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Answers that are kept at most. Bounds the memory that made-up credentials can take.
const CACHED_MAX: usize = 10_000;

/// Questions at a time; the others wait, for `auth.webhook.timeout` as a whole. Bounds the sockets and the load on the
/// service that made-up credentials can cause.
const ASKED_AT_ONCE_MAX: usize = 64;

/// The service that is asked.
pub(crate) struct Webhook {
    url: reqwest::Url,
    client: reqwest::Client,
    timeout: Duration,
    asking: Semaphore,
    cache_time: Duration,
    cache: Mutex<HashMap<[u8; 32], (Instant, Decision)>>,
}

/// What was decided.
#[derive(Clone, Debug)]
enum Decision {
    Allowed(Arc<Answer>),
    Refused(String),
}

/// Who it is.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) user: Option<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) grant: Grant,
    pub(crate) expires_s: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    user: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    admin: bool,
    expires_in_s: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Refusal {
    reason: Option<String>,
}

impl Webhook {
    /// As configured; `None` if there is none.
    ///
    /// # Errors
    /// If the URL is none.
    pub(crate) fn new(config: &config::Webhook) -> Result<Option<Self>, String> {
        let Some(url) = &config.url else {
            return Ok(None);
        };
        let url = reqwest::Url::parse(url.reveal())
            .map_err(|error| format!("auth.webhook.url: {error}"))?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("auth.webhook: {error}"))?;
        Ok(Some(Self {
            url,
            client,
            timeout: config.timeout,
            asking: Semaphore::new(ASKED_AT_ONCE_MAX),
            cache_time: config.cache,
            cache: Mutex::default(),
        }))
    }

    /// Asks who a credential belongs to.
    pub(crate) async fn ask(&self, credential: &str, now_s: u64) -> Result<Arc<Answer>, Problem> {
        let key: [u8; 32] = Sha256::digest(credential.as_bytes()).into();
        let known = self.cached(&key, now_s);
        let decision = if let Some(decision) = known {
            decision
        } else {
            let asked = tokio::time::timeout(self.timeout, self.decide(credential, now_s));
            let decided = asked
                .await
                .unwrap_or_else(|_| Err("no answer in time".to_owned()));
            let decision = decided.map_err(|error| {
                tracing::warn!(%error, "the webhook that decides who gets in does not answer");
                let detail = "who you are can't be checked at the moment; try again later";
                Problem::new(Code::AuthUnavailable, detail).retry_after_s(5)
            })?;
            self.keep(key, decision.clone());
            decision
        };
        match decision {
            Decision::Allowed(answer) => Ok(answer),
            Decision::Refused(reason) => Err(unauthorized(Check::Webhook, &reason)),
        }
    }

    fn cached(&self, key: &[u8; 32], now_s: u64) -> Option<Decision> {
        let cache = self.cache.lock();
        let (at, decision) = cache.get(key)?;
        // An answer may be over before its time in the cache is.
        let is_over = matches!(decision, Decision::Allowed(answer) if answer.expires_s.is_some_and(|at| at <= now_s));
        (!is_over && at.elapsed() < self.cache_time).then(|| decision.clone())
    }

    fn keep(&self, key: [u8; 32], decision: Decision) {
        let mut cache = self.cache.lock();
        if cache.len() >= CACHED_MAX {
            cache.retain(|_, (at, _)| at.elapsed() < self.cache_time);
        }
        let is_allowed = |decision: &Decision| matches!(decision, Decision::Allowed(_));
        if cache.len() >= CACHED_MAX && is_allowed(&decision) {
            // Anybody can fill it with refusals, and nobody who is let in shall be asked about each time for that.
            cache.retain(|_, (_, kept)| is_allowed(kept));
        }
        if cache.len() < CACHED_MAX {
            cache.insert(key, (Instant::now(), decision));
        }
    }

    async fn decide(&self, credential: &str, now_s: u64) -> Result<Decision, String> {
        let text = |error: reqwest::Error| error.without_url().to_string();
        let turn = self.asking.acquire().await;
        let _turn = turn.map_err(|closed| closed.to_string())?;
        let body = json!({ "credential": credential }).to_string();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        let mut response = request.send().await.map_err(text)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        match response.status() {
            StatusCode::OK => {
                let document: Document = serde_json::from_slice(&body)
                    .map_err(|error| format!("the answer can't be read: {error}"))?;
                Ok(Decision::Allowed(Arc::new(Answer {
                    user: document.user,
                    roles: document.roles,
                    grant: Grant {
                        subscribe: document.subscribe,
                        publish: document.publish,
                        admin: document.admin,
                    },
                    expires_s: document
                        .expires_in_s
                        .map(|seconds| now_s.saturating_add(seconds)),
                })))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
                let reason = refusal
                    .reason
                    .unwrap_or_else(|| "the credential was refused".to_owned());
                Ok(Decision::Refused(shown(&reason)))
            }
            status => Err(format!("the answer is {status}")),
        }
    }
}
