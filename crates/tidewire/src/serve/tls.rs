//! TLS: certificates that can be replaced while the server runs, and the handshake.
//!
//! A stream over TLS stays with hyper: its bytes have to pass the connection's cipher.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Server;

/// Bytes that a connection keeps encrypted for a client that does not take them. Stops slow clients from filling the memory.
const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// The name of HTTP/2 in the handshake (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
/// What every TLS connection begins with: a record of the handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The certificate and key of a server. A clone is the same pair, and [`replace`](Self::replace) counts for all of them.
#[derive(Clone)]
pub struct Tls {
    pair: Arc<RwLock<Pair>>,
}

/// A certificate as it is served. Each has a configuration of its own, so that no session of another is resumed.
#[derive(Clone)]
struct Pair {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

impl Tls {
    /// Reads a certificate with its chain, and its key, both in PEM.
    ///
    /// # Errors
    /// If one can't be read, or they don't belong together; says which and why.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            pair: Arc::new(RwLock::new(Pair::from_pem(certificates, key)?)),
        })
    }

    /// As [`from_pem`](Self::from_pem), from files.
    ///
    /// # Errors
    /// As there, or if a file can't be read.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let certificates = std::fs::read(certificates).map_err(TlsError::certificate)?;
        Self::from_pem(&certificates, &std::fs::read(key).map_err(TlsError::key)?)
    }

    /// Serves another certificate from now on. Connections that are open live on.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); the pair from before is then still served.
    pub fn replace(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let pair = Pair::from_pem(certificates, key)?;
        *self.pair.write() = pair;
        Ok(())
    }

    /// Whether the certificate is one for this host: a name, or an address without brackets.
    pub fn covers(&self, host: &str) -> bool {
        let certificate = self.pair.read().certificate.clone();
        match (
            ServerName::try_from(host),
            ParsedCertificate::try_from(&certificate),
        ) {
            (Ok(name), Ok(certificate)) => verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.pair.read().config.clone().into()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Pair {
    fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::certificate)?;
        let Some(certificate) = chain.first().cloned() else {
            return Err(TlsError::certificate("no certificate in PEM is in it"));
        };
        ParsedCertificate::try_from(&certificate).map_err(TlsError::certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                TlsError::key("no private key in PEM is in it, or it has a passphrase")
            }
            error => TlsError::key(error),
        })?;
        let provider = aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::certificate)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InvalidCertificate(CertificateError::BadEncoding) => {
                    TlsError::certificate(error)
                }
                Error::InconsistentKeys(_) => {
                    TlsError::key("it does not belong to the certificate")
                }
                error => TlsError::key(error),
            })?;
        config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        // Clients that come back all at once after a restart of their network need no signature each.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::key)?;
        Ok(Self {
            config: config.into(),
            certificate,
        })
    }
}

/// Why a certificate and its key can't be served.
#[derive(Debug)]
pub struct TlsError {
    in_key: bool,
    reason: String,
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` calls them")]
impl TlsError {
    fn certificate(reason: impl ToString) -> Self {
        let reason = reason.to_string();
        Self {
            in_key: false,
            reason,
        }
    }

    fn key(reason: impl ToString) -> Self {
        let reason = reason.to_string();
        Self {
            in_key: true,
            reason,
        }
    }
}

impl TlsError {
    /// Whether it is the key that can't be used; else it is the certificate.
    pub fn is_in_key(&self) -> bool {
        self.in_key
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.in_key { "key" } else { "certificate" };
        write!(f, "the {part} can't be used: {}", self.reason)
    }
}

impl std::error::Error for TlsError {}

/// What a client of a TLS server turned out to speak.
pub(super) enum Opened {
    Http1(Box<TlsStream<TcpStream>>),
    Http2(Box<TlsStream<TcpStream>>),
    /// It has sent something else, most likely plain HTTP.
    Plain(TcpStream),
}

/// Shakes hands until the deadline. `None` where that fails: the client has been told why, as far as TLS can say it.
pub(super) async fn open(
    stream: TcpStream,
    remote: SocketAddr,
    tls: &Tls,
    deadline: Instant,
) -> Option<Opened> {
    match timeout_at(deadline, shake_hands(stream, tls)).await {
        Ok(Ok(opened)) => Some(opened),
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%remote, "TLS handshake took longer than the head's time limit");
            None
        }
    }
}

async fn shake_hands(stream: TcpStream, tls: &Tls) -> std::io::Result<Opened> {
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first[0] != HANDSHAKE_RECORD {
        return Ok(Opened::Plain(stream));
    }
    let limit = |connection: &mut rustls::ServerConnection| {
        connection.set_buffer_limit(Some(SEND_BUFFER_BYTES));
    };
    let stream = Box::new(tls.acceptor().accept_with(stream, limit).await?);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    Ok(if is_http2 {
        Opened::Http2(stream)
    } else {
        Opened::Http1(stream)
    })
}

/// When a connection that begins now must have sent its first head.
pub(super) fn deadline(server: &Server) -> Instant {
    Instant::now() + server.options.head_timeout
}

/// What is left until then.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
