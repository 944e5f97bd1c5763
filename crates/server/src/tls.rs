//! TLS from files: the certificate that is served, taken anew when its files change, and the address that leads from plain
//! HTTP to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{StatusCode, header};
use tidewire::problem::{Code, Problem};
use tidewire::{Tls, TlsError};
use tokio::signal::unix::Signal;

#[cfg(feature = "acme")]
use crate::acme::Issued;
use crate::config;

/// How often the files are looked at. What changed is taken when it has stayed the same for two looks, so that nobody has
/// to write a certificate and its key at the same moment.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The port that `https://` means.
const HTTPS_PORT: u16 = 443;
/// The permission of a file that lets everyone on the machine read it.
const READABLE_BY_OTHERS: u32 = 0o004;

/// Whether the files hold what can't be served, while an older certificate is.
static RELOAD_FAILED: AtomicBool = AtomicBool::new(false);

/// Whether the files hold what can't be served, while an older certificate is.
pub(crate) fn reload_failed() -> bool {
    RELOAD_FAILED.load(Ordering::Relaxed)
}

/// Says whether it failed to get another certificate.
pub(crate) fn note_failure(failed: bool) {
    RELOAD_FAILED.store(failed, Ordering::Relaxed);
}

/// Where the certificate of a hub comes from.
pub(crate) enum Source {
    Files(Certificate),
    #[cfg(feature = "acme")]
    Authority(Box<Issued>),
}

impl Source {
    /// As the settings say; `None` for plain HTTP.
    ///
    /// # Errors
    /// If files can't be served, or the folder of what was issued can't be used.
    pub(crate) fn load(settings: &config::Tls) -> Result<Option<Self>, String> {
        if settings.acme.domains.is_empty() {
            return Ok(Certificate::load(settings)?.map(Self::Files));
        }
        #[cfg(feature = "acme")]
        return Ok(Some(Self::Authority(Box::new(Issued::load(
            &settings.acme,
        )?))));
        #[cfg(not(feature = "acme"))]
        Err("tls.acme.domains: this program was built without the feature `acme`".to_owned())
    }

    /// What a server is given.
    pub(crate) fn tls(&self) -> &Tls {
        match self {
            Self::Files(certificate) => &certificate.tls,
            #[cfg(feature = "acme")]
            Self::Authority(issued) => issued.tls(),
        }
    }

    /// What plain HTTP is answered, where TLS is on this port.
    pub(crate) fn redirect(&self, port: u16) -> Router {
        let router = redirect(self.tls(), port);
        match self {
            Self::Files(_) => router,
            #[cfg(feature = "acme")]
            Self::Authority(issued) => router.merge(issued.challenges().router()),
        }
    }

    /// Takes or gets the next certificate when it is time, and at the signal.
    pub(crate) async fn keep_fresh(self, reload: Signal) {
        match self {
            Self::Files(certificate) => certificate.keep_fresh(reload).await,
            #[cfg(feature = "acme")]
            Self::Authority(issued) => issued.keep_fresh(reload).await,
        }
    }
}

/// What the files hold, or why that is not known.
type Content = Result<(Vec<u8>, Vec<u8>), String>;

/// The certificate of a hub and the files that it comes from.
pub(crate) struct Certificate {
    tls: Tls,
    files: Files,
    /// What was last taken from the files, or tried to.
    tried: Content,
}

#[derive(Clone)]
struct Files {
    certificate: String,
    key: String,
}

impl Files {
    fn read(&self) -> Content {
        let read = |setting: &str, path: &str| {
            fs::read(path).map_err(|error| format!("{setting}: {path}: {error}"))
        };
        let certificate = read("tls.cert", &self.certificate)?;
        Ok((certificate, read("tls.key", &self.key)?))
    }

    /// Says which setting and file an error is about.
    fn explain(&self, error: &TlsError) -> String {
        let (setting, path) = if error.is_in_key() {
            ("tls.key", &self.key)
        } else {
            ("tls.cert", &self.certificate)
        };
        format!("{setting}: {path}: {}", error.reason())
    }

    fn warn_of_permissions(&self) {
        let mode = fs::metadata(Path::new(&self.key)).map(|file| file.permissions().mode());
        if mode.is_ok_and(|mode| mode & READABLE_BY_OTHERS != 0) {
            tracing::warn!(
                file = self.key,
                "everyone on this machine can read the private key (tls.key); chmod 600 it"
            );
        }
    }
}

impl Certificate {
    /// Reads the files that the settings name, if they name any.
    ///
    /// # Errors
    /// If they can't be served; says which file and why.
    fn load(settings: &config::Tls) -> Result<Option<Self>, String> {
        let (Some(certificate), Some(key)) = (&settings.cert, &settings.key) else {
            return Ok(None);
        };
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        files.warn_of_permissions();
        let (certificate, key) = files.read()?;
        let tls = Tls::from_pem(&certificate, &key).map_err(|error| files.explain(&error))?;
        Ok(Some(Self {
            tls,
            files,
            tried: Ok((certificate, key)),
        }))
    }

    /// Takes the files anew whenever they change, and at the signal.
    async fn keep_fresh(mut self, mut reload: Signal) {
        let mut before = self.tried.clone();
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                _ = reload.recv() => true,
            };
            let files = self.files.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || files.read()).await else {
                return;
            };
            if asked || (content != self.tried && content == before) {
                self.take(content.clone());
            }
            before = content;
        }
    }

    fn take(&mut self, content: Content) {
        let result = match &content {
            Ok((certificate, key)) => self
                .tls
                .replace(certificate, key)
                .map_err(|error| self.files.explain(&error)),
            Err(error) => Err(error.clone()),
        };
        self.tried = content;
        note_failure(result.is_err());
        match result {
            Ok(()) => {
                self.files.warn_of_permissions();
                tracing::info!("new connections get the certificate that is now in the files");
            }
            Err(error) => tracing::error!(
                error,
                "can't take the new certificate; the one from before is still served"
            ),
        }
    }
}

/// Leads every request to the same address over TLS on this port.
fn redirect(tls: &Tls, port: u16) -> Router {
    Router::new()
        .fallback(to_https)
        .with_state((tls.clone(), port))
}

/// Answers with the address to go to. Only to hosts that the certificate is for: a `Host` that somebody made up (and that
/// a cache might keep) leads nowhere.
async fn to_https(State((tls, port)): State<(Tls, u16)>, request: Request) -> Response {
    let named = request.headers().get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let authority = request.uri().authority().cloned().or(named);
    let host = authority.as_ref().map_or("", Authority::host);
    if !tls.covers(host.trim_start_matches('[').trim_end_matches(']')) {
        let detail = "the `Host` is none that this hub's certificate is for";
        return Problem::new(Code::BadHead, detail).into_response();
    }
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let location = if port == HTTPS_PORT {
        format!("https://{host}{target}")
    } else {
        format!("https://{host}:{port}{target}")
    };
    (
        StatusCode::PERMANENT_REDIRECT,
        [(header::LOCATION, location)],
    )
        .into_response()
}
