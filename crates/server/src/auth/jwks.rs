//! The keys that an issuer signs with: one from the configuration, or those that it publishes (RFC 7517).
//!
//! Published keys are fetched at the start and again before they get old, in the background. A token that names a key
//! nobody has heard of makes them be fetched at once, as issuers rotate keys without notice, but not more often than
//! [`FETCH_PAUSE`] allows: such tokens cost their sender nothing. While the issuer can't be reached the known keys stay
//! in use for [`STALE_MAX`].

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::refusal::{Check, Refused, shown};
use crate::config;

/// Longest wait for an issuer's answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Least time between two fetches that tokens ask for.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// The same between those that nobody asks for, once the issuer has not answered a number of times.
const BACKOFF_MAX: Duration = Duration::from_secs(160);
/// After so long keys are fetched again, whether anybody asks for it or not.
const FRESH_MAX: Duration = Duration::from_mins(10);
/// For so long keys stay in use that can't be fetched again.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Largest key set that is read, in bytes.
const SET_BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set that are tried for a token which names none. Bounds the work that a bad token makes.
const TRIED_MAX: usize = 8;
/// HMAC keys shorter than this can be found by trial (RFC 7518 section 3.2 asks for 32 bytes with HS256).
const SECRET_BYTES_MIN: usize = 32;

/// Where an issuer's keys are.
pub(crate) enum KeySource {
    /// In the configuration.
    Fixed(DecodingKey),
    /// At a URL.
    Published(Arc<Published>),
}

/// Keys at a URL.
pub(crate) struct Published {
    url: reqwest::Url,
    client: reqwest::Client,
    state: Mutex<State>,
    /// Held by whoever fetches; the others wait and then find the keys there.
    fetching: AsyncMutex<()>,
}

#[derive(Default)]
struct State {
    keys: Arc<Vec<PublishedKey>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    /// When a token made them be fetched.
    asked: Option<Instant>,
    error: Option<String>,
    /// Fetches that failed since one did not.
    failures: u32,
}

/// A key set as it comes. Its keys are read one by one: one of a kind that is not known is passed over (RFC 7517
/// section 5), and takes none of the others with it.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

struct PublishedKey {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

impl KeySource {
    /// As configured.
    ///
    /// # Errors
    /// If there is no key or more than one, a file can't be read, or a key can't be used.
    pub(crate) fn new(issuer: &config::Issuer) -> Result<Self, String> {
        let config::Issuer {
            secret,
            secret_file,
            key_file,
            jwks_url,
            ..
        } = issuer;
        match (secret, secret_file, key_file, jwks_url) {
            (Some(secret), None, None, None) => of_secret(secret.reveal().as_bytes()),
            (None, Some(path), None, None) => {
                let secret =
                    fs::read(path).map_err(|error| format!("`secret_file`, {path}: {error}"))?;
                of_secret(secret.trim_ascii())
            }
            (None, None, Some(path), None) => {
                let pem = fs::read(path).map_err(|error| format!("`key_file`, {path}: {error}"))?;
                of_pem(&pem).map(Self::Fixed).ok_or_else(|| {
                    format!("`key_file`, {path}: is no public key in PEM (RSA, EC P-256 or P-384, Ed25519)")
                })
            }
            (None, None, None, Some(url)) => {
                Published::new(url).map(|keys| Self::Published(Arc::new(keys)))
            }
            _ => Err("set one of `secret`, `secret_file`, `key_file` and `jwks_url`".to_owned()),
        }
    }

    /// The algorithms that are taken if the configuration names none.
    pub(super) fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Fixed(key) => match key.family() {
                AlgorithmFamily::Hmac => &[Algorithm::HS256],
                AlgorithmFamily::Rsa => &[Algorithm::RS256, Algorithm::PS256],
                AlgorithmFamily::Ec => &[Algorithm::ES256, Algorithm::ES384],
                AlgorithmFamily::Ed => &[Algorithm::EdDSA],
            },
            Self::Published(_) => &[
                Algorithm::RS256,
                Algorithm::PS256,
                Algorithm::ES256,
                Algorithm::ES384,
                Algorithm::EdDSA,
            ],
        }
    }

    /// Whether a key of this source can be meant for an algorithm. What is published is no secret, so nothing that is
    /// signed with a secret goes with it.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Fixed(key) => key.family().algorithms().contains(&algorithm),
            Self::Published(_) => !AlgorithmFamily::Hmac.algorithms().contains(&algorithm),
        }
    }

    /// The keys that may have signed a token.
    pub(super) async fn find(&self, header: &Header) -> Result<Vec<DecodingKey>, Refused> {
        match self {
            Self::Fixed(key) => Ok(vec![key.clone()]),
            Self::Published(published) => published.find(header).await,
        }
    }

    /// Keeps published keys fresh, for as long as the hub runs.
    pub(crate) fn keep_fresh(&self) {
        if let Self::Published(published) = self {
            let published = published.clone();
            tokio::spawn(async move {
                loop {
                    published.fetch(Instant::now()).await;
                    tokio::time::sleep(published.pause()).await;
                }
            });
        }
    }
}

fn of_secret(secret: &[u8]) -> Result<KeySource, String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "the secret has {} bytes; {SECRET_BYTES_MIN} or more keep it from being guessed (openssl rand -hex 32)",
            secret.len()
        ));
    }
    Ok(KeySource::Fixed(DecodingKey::from_secret(secret)))
}

fn of_pem(pem: &[u8]) -> Option<DecodingKey> {
    DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .ok()
}

impl Published {
    fn new(url: &str) -> Result<Self, String> {
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("`jwks_url`: {error}"))?;
        if parsed.scheme() != "https" && !(parsed.scheme() == "http" && is_local(&parsed)) {
            return Err("`jwks_url` is https:// (or http:// on this machine): who changes the keys on their way issues tokens".to_owned());
        }
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("`jwks_url`: {error}"))?;
        Ok(Self {
            url: parsed,
            client,
            state: Mutex::default(),
            fetching: AsyncMutex::default(),
        })
    }

    /// Until the next fetch that nobody asked for. After a failure the pause is short, longer with each that follows, and never
    /// the same on all nodes.
    fn pause(&self) -> Duration {
        let pause = match self.state.lock().failures.checked_sub(1) {
            None => FRESH_MAX,
            Some(again) => FETCH_PAUSE
                .saturating_mul(2_u32.saturating_pow(again))
                .min(BACKOFF_MAX),
        };
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    async fn find(self: &Arc<Self>, header: &Header) -> Result<Vec<DecodingKey>, Refused> {
        let asked = Instant::now();
        let found = self.known(header, asked);
        if !found.is_empty() {
            return Ok(found);
        }
        self.fetch_if_due(asked).await;
        let found = self.known(header, Instant::now());
        if !found.is_empty() {
            return Ok(found);
        }
        let state = self.state.lock();
        if let Some(error) = &state.error {
            let detail = format!("the issuer's keys can't be fetched: {error}");
            return Err(Refused::new(Check::Unavailable, detail));
        }
        let detail = match &header.kid {
            Some(kid) => format!("the issuer has no key `{}` (`kid`)", shown(kid)),
            None => "no key of the issuer fits the token's algorithm".to_owned(),
        };
        Err(Refused::new(Check::Key, detail))
    }

    fn known(&self, header: &Header, now: Instant) -> Vec<DecodingKey> {
        let state = self.state.lock();
        let usable = state
            .fetched
            .is_some_and(|fetched| now.duration_since(fetched) < STALE_MAX);
        if !usable {
            return Vec::new();
        }
        let fits = |key: &&PublishedKey| {
            key.key.family().algorithms().contains(&header.alg)
                && key
                    .algorithm
                    .is_none_or(|algorithm| algorithm == header.alg)
                && (header.kid.is_none() || key.id == header.kid)
        };
        state
            .keys
            .iter()
            .filter(fits)
            .take(TRIED_MAX)
            .map(|key| key.key.clone())
            .collect()
    }

    /// Fetches because a token asks for it, unless another has lately.
    async fn fetch_if_due(self: &Arc<Self>, now: Instant) {
        let due = {
            let mut state = self.state.lock();
            let due = state
                .asked
                .is_none_or(|asked| now.duration_since(asked) >= FETCH_PAUSE);
            if due {
                state.asked = Some(now);
            }
            due
        };
        if due {
            // In a task of its own: whoever sent the token may hang up, and others wait for the keys.
            let published = self.clone();
            let fetched = tokio::spawn(async move { published.fetch(now).await }).await;
            debug_assert!(fetched.is_ok(), "fetching does not panic");
        } else {
            // The other's fetch may be under way still.
            let _turn = self.fetching.lock().await;
        }
    }

    /// Fetches the keys, unless somebody has since `asked`.
    async fn fetch(&self, asked: Instant) {
        let _turn = self.fetching.lock().await;
        if self.state.lock().tried.is_some_and(|tried| tried > asked) {
            return;
        }
        let result = self.download().await;
        let mut state = self.state.lock();
        state.tried = Some(Instant::now());
        match result {
            Ok(keys) => {
                tracing::debug!(url = %self.url, keys = keys.len(), "fetched an issuer's keys");
                state.keys = Arc::new(keys);
                state.fetched = state.tried;
                state.error = None;
                state.failures = 0;
            }
            Err(error) => {
                tracing::warn!(url = %self.url, %error, "an issuer's keys can't be fetched; those known stay in use");
                state.error = Some(error);
                state.failures = state.failures.saturating_add(1);
            }
        }
    }

    async fn download(&self) -> Result<Vec<PublishedKey>, String> {
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(reason)?;
        if !response.status().is_success() {
            return Err(format!("the answer is {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reason)? {
            if body.len() + chunk.len() > SET_BYTES_MAX {
                return Err(format!("the answer has more than {SET_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let set: KeySet = serde_json::from_slice(&body)
            .map_err(|error| format!("the answer is no key set: {error}"))?;
        let keys: Vec<_> = set.keys.into_iter().filter_map(published_key).collect();
        if keys.is_empty() {
            return Err("the answer has no key for signatures that can be used".to_owned());
        }
        Ok(keys)
    }
}

/// What failed, and the cause of it, which reqwest leaves out: that sending failed helps nobody.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let (what, why) = (error.to_string(), cause.to_string());
    if what == why {
        what
    } else {
        format!("{what}: {why}")
    }
}

fn is_local(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// A key of a set, unless it is for something else than signatures, of a kind that is not known, or a secret that
/// should not be there.
fn published_key(jwk: Value) -> Option<PublishedKey> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|r#use| *r#use != PublicKeyUse::Signature)
    {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    if key.family() == AlgorithmFamily::Hmac {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        None => None,
        // One for encryption, say.
        Some(name) => Some(name.to_string().parse().ok()?),
    };
    Some(PublishedKey {
        id: jwk.common.key_id,
        algorithm,
        key,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A fetch used to end with the request that had asked for it, and none followed for a while.
    #[tokio::test]
    async fn who_hangs_up_takes_no_keys_from_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let published = Arc::new(Published::new(&url).expect("a URL"));
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("a".to_owned());

        let (asked, first) = (published.clone(), header.clone());
        let request = tokio::spawn(async move { asked.find(&first).await.is_ok() });
        let (mut issuer, _) = listener.accept().await.expect("a fetch");
        request.abort();
        assert!(request.await.is_err_and(|error| error.is_cancelled()));

        let _ = issuer.read(&mut [0; 4_096]).await.expect("a request");
        // The key of RFC 8037, appendix A.2.
        let set = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{set}",
            set.len()
        );
        issuer
            .write_all(answer.as_bytes())
            .await
            .expect("an answer");
        let found = published.find(&header).await;
        assert_eq!(found.map(|keys| keys.len()), Ok(1));
        // An issuer that stays away for long can't say that a key is not its own any more.
        let known_after = |time| published.known(&header, Instant::now() + time).len();
        assert_eq!(known_after(STALE_MAX / 2), 1);
        assert_eq!(known_after(STALE_MAX), 0);
    }

    #[tokio::test]
    async fn an_issuer_that_does_not_answer_is_asked_less_and_less() {
        // Nobody listens there.
        let published = Published::new("http://127.0.0.1:1/").expect("a URL");
        for expected_s in [10.0, 20.0, 40.0, 80.0, 160.0, 160.0] {
            published.fetch(Instant::now()).await;
            let pause = published.pause().as_secs_f64();
            let around = expected_s * 0.75..=expected_s * 1.25;
            assert!(around.contains(&pause), "{pause} s, not about {expected_s}");
        }
        published.state.lock().failures = u32::MAX;
        assert!(published.pause() <= BACKOFF_MAX * 2);
    }
}
