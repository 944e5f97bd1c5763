//! What the commands that talk to a hub share: its address, the HTTP client, its errors, and how long to wait before
//! trying again.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use serde::Deserialize;

use crate::cli::HubArgs;

/// A connection that is not made by then is tried anew.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No wait is longer than this.
pub(crate) const WAIT_MAX: Duration = Duration::from_mins(1);

/// No wait is shorter than this, whatever a server asks for.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// Most of an error's body that is read: enough for any problem, too little to do harm.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// Writes a line for the user to standard error. Nobody there to read it is no reason to fail.
pub(crate) fn notice(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Parses a URL, with `http://` where no scheme is given.
///
/// # Errors
/// With a sentence for the user.
pub(crate) fn parse_url(text: &str) -> Result<Url, String> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&full).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(format!(
            "{text}: {scheme} is not supported; use an http or https URL"
        )),
    }
}

/// The address of a path on the hub, which may itself be served under a path.
pub(crate) fn on_hub(hub: &Url, path: &str) -> Url {
    let mut url = hub.clone();
    url.path_segments_mut()
        .expect("an http URL has a path")
        .pop_if_empty()
        .extend(path.split('/'));
    url
}

/// A URL as notices show it, without a password.
pub(crate) fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    // Neither can fail for an http URL, which always has a host.
    if url.password().is_some() {
        let _ = shown.set_password(Some("***"));
    } else if !url.username().is_empty() {
        let _ = shown.set_username("***");
    }
    shown
}

/// A client of the hub without an overall timeout, since streams have no end. For `None` one of any server, without a token.
///
/// # Errors
/// With a sentence for the user.
pub(crate) fn client(hub: Option<&HubArgs>, redirects: Policy) -> Result<Client, String> {
    let mut headers = HeaderMap::new();
    let mut builder = Client::builder();
    if let Some(file) = hub.and_then(|hub| hub.ca.as_ref()) {
        let failed =
            |error: &dyn std::error::Error| format!("{}: {}", file.display(), causes(error));
        let pem = std::fs::read(file).map_err(|error| failed(&error))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
        if certificates.is_empty() {
            return Err(format!("{}: there is no certificate in it", file.display()));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(token) = hub.and_then(|hub| hub.token.as_deref()) {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| "the token has characters that no HTTP header can have".to_owned())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    builder
        .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(redirects)
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| format!("the HTTP client can't be set up: {}", causes(&error)))
}

/// An error with its causes, without the URL that the notice has already.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Why a server is not to be spoken with, where its certificate is the reason. Waiting does not mend that, so whoever has
/// not been connected yet is told at once.
pub(crate) fn distrust(error: &reqwest::Error) -> Option<String> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        // What a TLS library says travels inside an error of the socket.
        let within = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let tls = within.map_or_else(|| cause.downcast_ref(), |within| within.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            return Some(format!(
                "its certificate is not trusted ({why}); --ca FILE names whom to trust beside the system"
            ));
        }
        next = within.map_or_else(
            || cause.source(),
            |within| Some(within as &dyn std::error::Error),
        );
    }
    None
}

/// What a hub says when it refuses: RFC 9457, or whatever another server answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) title: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) code: Option<String>,
    /// How many there may be, where there were too many.
    pub(crate) max: Option<usize>,
}

impl Problem {
    /// Reads the answer to a request that was not fulfilled.
    pub(crate) async fn read(mut response: Response) -> Self {
        let status = response.status();
        let mut body = Vec::new();
        // A body that breaks off is taken as far as it came; the status alone tells enough.
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > PROBLEM_BYTES_MAX {
                break;
            }
        }
        let mut problem: Self = serde_json::from_slice(&body).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_none() {
            problem.title = status.canonical_reason().map(str::to_owned);
        }
        problem
    }

    /// Whether it has this stable code.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.status,
            self.title.as_deref().unwrap_or("refused")
        )?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// The wait that an answer asks for.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

/// How long to wait before the next attempt: doubled with each failure, with jitter, so that clients that lost the
/// same hub don't come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    failures: u32,
}

impl Backoff {
    /// Begins at `base`.
    pub(crate) fn new(base: Duration) -> Self {
        Self { base, failures: 0 }
    }

    /// The wait that the server wants after a lost connection.
    pub(crate) fn set_base(&mut self, base: Duration) {
        self.base = base;
    }

    /// It worked: the next wait is the first again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt. The first is what the server asked for, for it knows best.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let base = self.base.clamp(WAIT_MIN, WAIT_MAX);
        let doubled = base
            .saturating_mul(1 << self.failures.min(16))
            .min(WAIT_MAX);
        let jitter = if self.failures == 0 {
            1.0
        } else {
            0.5 + fastrand::f64() / 2.0
        };
        self.failures += 1;
        doubled.mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_a_scheme_are_http_and_paths_are_kept() {
        let hub = parse_url("localhost:8080/hub/").unwrap();
        assert_eq!(
            on_hub(&hub, "events").as_str(),
            "http://localhost:8080/hub/events"
        );
        assert_eq!(
            on_hub(&parse_url("http://h").unwrap(), "events").as_str(),
            "http://h/events"
        );
        let secret = parse_url("http://me:hunter2@h/a@b:c").unwrap();
        assert_eq!(shown(&secret).as_str(), "http://me:***@h/a@b:c");
        assert!(parse_url("https://h").is_ok());
    }

    #[test]
    fn waits_grow_to_a_minute_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        assert_eq!(backoff.next_wait(), Duration::from_secs(2));
        for _ in 0..40 {
            let wait = backoff.next_wait();
            assert!(
                wait >= Duration::from_secs(2) && wait <= WAIT_MAX,
                "{wait:?}"
            );
        }
        assert!(backoff.next_wait() >= WAIT_MAX / 2);
        backoff.succeeded();
        backoff.set_base(Duration::ZERO);
        assert_eq!(backoff.next_wait(), WAIT_MIN);
    }
}
