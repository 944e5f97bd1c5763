//! Clients that mean no good: slow handshakes and silence.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Files;
use crate::support::{Hub, http};

const LIMIT: (&str, &str) = ("TIDEWIRE_LIMITS__HEAD_TIMEOUT", "300ms");
/// Far below the usual limit of 10 s, far above the one set here.
const IN_TIME: Duration = Duration::from_secs(5);

pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn connect(files: &Files, hub: &Hub, alpn: &[u8]) -> Connection {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(files.path("cert.pem")).unwrap();
    roots.add(certificate).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = "localhost".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, http::connect(hub.port()).unwrap());
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    stream
}

/// Reads to the end, however it comes.
pub(crate) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
            ),
            "{error}"
        ),
    }
    bytes
}

#[test]
fn slow_handshakes_and_silent_connections_are_cut_off_in_time() {
    let files = Files::new();
    let hub = files.hub(&[LIMIT]);
    let began = Instant::now();
    let mut silent = http::connect(hub.port()).unwrap();
    assert!(read_to_end(&mut silent).is_empty());
    // The beginning of a record of a handshake.
    let mut slow = http::connect(hub.port()).unwrap();
    slow.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    read_to_end(&mut slow);
    let mut headless = connect(&files, &hub, b"http/1.1");
    headless.write_all(b"GET / HT").unwrap();
    let answer = read_to_end(&mut headless);
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        answer.escape_ascii()
    );
    read_to_end(&mut connect(&files, &hub, b"h2"));
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    files.get(&hub, "/readyz", &["-f"]);
}
