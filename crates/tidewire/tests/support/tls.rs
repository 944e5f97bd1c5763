//! TLS for tests: a certificate that signs itself for the name `hub`, and clients that trust it alone.

use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tidewire::Tls;

/// The certificate and its key, both in PEM, and the certificate as clients trust it.
struct Identity {
    certificate: String,
    key: String,
    trusted: CertificateDer<'static>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let signed = rcgen::generate_simple_self_signed(["hub".to_owned()]).unwrap();
    Identity {
        certificate: signed.cert.pem(),
        key: signed.signing_key.serialize_pem(),
        trusted: signed.cert.der().clone(),
    }
});

/// What the server needs.
pub fn server() -> Tls {
    Tls::from_pem(IDENTITY.certificate.as_bytes(), IDENTITY.key.as_bytes()).unwrap()
}

/// What a client needs that offers this protocol.
pub fn client(alpn: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.trusted.clone()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

/// A client's end of a connection.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// TLS over a connection; the handshake comes with the first bytes.
    pub fn tls(stream: TcpStream) -> Self {
        let name = "hub".try_into().unwrap();
        let connection = ClientConnection::new(client(b"http/1.1"), name).unwrap();
        Self::Tls(Box::new(StreamOwned::new(connection, stream)))
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
