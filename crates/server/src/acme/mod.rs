//! A certificate from a certificate authority (ACME, RFC 8555): got at the start, kept in a folder, renewed in time.
//!
//! The authority asks for a token at port 80 of each domain (HTTP-01), which `tls.redirect` answers. Until the first
//! certificate is there, the hub serves one that signs itself, so that it starts however the authority is.
//!
//! - `order`: the talk with the authority. `cache`: what is kept in the folder.

mod cache;
mod order;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use parking_lot::Mutex;
use tidewire::Tls;
use tidewire::problem::{Code, Problem};
use tokio::signal::unix::Signal;
use x509_parser::pem::parse_x509_pem;

use self::cache::Cache;
use crate::config;
use crate::tls::note_failure;

/// The pause behind the first attempt that fails; it doubles up to the longest. Authorities allow some failures an hour.
const RETRY_FIRST: Duration = Duration::from_mins(5);
const RETRY_MAX: Duration = Duration::from_hours(6);
/// Longest that one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_mins(5);
/// Where the authority asks (RFC 8555 section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/{token}";

/// What the authority is answered while it checks: by token. There are as many as domains.
#[derive(Clone, Default)]
pub(crate) struct Challenges(Arc<Mutex<HashMap<String, String>>>);

impl Challenges {
    /// Answers the authority on plain HTTP.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route(CHALLENGE_PATH, get(answer))
            .with_state(self.clone())
    }
}

async fn answer(
    State(challenges): State<Challenges>,
    Path(token): Path<String>,
) -> Result<String, Problem> {
    let known = challenges.0.lock().get(&token).cloned();
    known.ok_or_else(|| Problem::new(Code::NotFound, "there is no such challenge"))
}

/// A certificate that an authority issues, and the settings to get the next one by.
pub(crate) struct Issued {
    tls: Tls,
    settings: config::Acme,
    cache: Cache,
    challenges: Challenges,
    /// When the next one is asked for: at once, without one.
    due: SystemTime,
}

impl Issued {
    /// Takes the certificate that is kept, if it is for these domains.
    ///
    /// # Errors
    /// If the folder can't be used.
    pub(crate) fn load(settings: &config::Acme) -> Result<Self, String> {
        let folder = settings.cache.as_deref().unwrap_or_default();
        let cache =
            Cache::open(folder).map_err(|error| format!("tls.acme.cache: {folder}: {error}"))?;
        let kept = cache.certificate().and_then(|pem| {
            let tls = Tls::from_pem(pem.as_bytes(), pem.as_bytes()).ok()?;
            let covers = settings.domains.iter().all(|domain| tls.covers(domain));
            Some((tls, due(&pem)?)).filter(|_| covers)
        });
        let (tls, due) = match kept {
            Some(kept) => kept,
            None => (placeholder(&settings.domains)?, UNIX_EPOCH),
        };
        Ok(Self {
            tls,
            settings: settings.clone(),
            cache,
            challenges: Challenges::default(),
            due,
        })
    }

    /// What a server is given.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// What the authority is answered.
    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Gets certificates when they are due. The signal makes an attempt that waits after a failure be made at once.
    pub(crate) async fn keep_fresh(mut self, mut reload: Signal) {
        let mut failures = 0;
        let mut pause = until(self.due);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = reload.recv(), if failures > 0 => {}
            }
            match self.renew().await {
                Ok(()) => {
                    failures = 0;
                    pause = until(self.due);
                }
                Err(error) => {
                    failures += 1;
                    pause = retry_pause(failures);
                    let retry_s = pause.as_secs();
                    tracing::error!(
                        error,
                        retry_s,
                        "can't get a certificate (tls.acme); SIGHUP tries again at once"
                    );
                }
            }
            note_failure(failures > 0);
        }
    }

    async fn renew(&mut self) -> Result<(), String> {
        let ordering = order::certificate(&self.settings, &self.cache, &self.challenges);
        let ordered = tokio::time::timeout(ATTEMPT_MAX, ordering).await;
        self.challenges.0.lock().clear();
        let pem = ordered.map_err(|_| format!("no end after {} s", ATTEMPT_MAX.as_secs()))??;
        self.tls
            .replace(pem.as_bytes(), pem.as_bytes())
            .map_err(|error| error.to_string())?;
        self.due = due(&pem).ok_or("the certificate can't be read")?;
        if let Err(error) = self.cache.keep_certificate(&pem) {
            // It is served all the same.
            tracing::error!(%error, "can't keep the new certificate (tls.acme.cache); a restart asks for another");
        }
        tracing::info!(domains = ?self.settings.domains, "new connections get the certificate that was issued now");
        Ok(())
    }
}

/// When two thirds of a certificate's life are over, less a little by chance: nodes don't come all at once. A clock that is
/// wrong does not make it be ordered over and over: there is a sixth of a life between two orders.
fn due(pem: &str) -> Option<SystemTime> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let at = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    let begin = at(certificate.validity().not_before)?;
    let life = at(certificate.validity().not_after)?
        .duration_since(begin)
        .ok()?;
    let jitter = life.mul_f64(fastrand::f64() / 20.0);
    Some(begin + life * 2 / 3 - jitter)
}

fn until(due: SystemTime) -> Duration {
    due.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Twice as long after each failure, and between half and all of that by chance.
fn retry_pause(failures: u32) -> Duration {
    let longest = RETRY_FIRST
        .saturating_mul(1 << (failures - 1).min(16))
        .min(RETRY_MAX);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A certificate that nobody trusts, for these domains.
fn placeholder(domains: &[String]) -> Result<Tls, String> {
    let signed = rcgen::generate_simple_self_signed(domains)
        .map_err(|error| format!("tls.acme.domains: {error}"))?;
    let key = signed.signing_key.serialize_pem();
    Tls::from_pem(signed.cert.pem().as_bytes(), key.as_bytes()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, longest) in [
            (1, RETRY_FIRST),
            (2, 2 * RETRY_FIRST),
            (10, RETRY_MAX),
            (1_000, RETRY_MAX),
        ] {
            let pause = retry_pause(failures);
            assert!(
                pause >= longest / 2 && pause <= longest,
                "{failures}: {pause:?}"
            );
        }
    }
}
