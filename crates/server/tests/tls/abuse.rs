//! Clients that mean no good: slow handshakes and floods of frames.

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

type Connection = StreamOwned<ClientConnection, TcpStream>;

fn connect(files: &Files, hub: &Hub, alpn: &[u8]) -> Connection {
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
fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
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

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM_AND_HEADERS: u8 = 5;

/// The head of `GET https://localhost/events?topic=a` in HPACK, without its dynamic table.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x87]; // :method GET, :scheme https
    for (name, value) in [(4, "/events?topic=a"), (1, "localhost")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

#[test]
fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let files = Files::new();
    let hub = files.hub(&[]);
    let mut stream = connect(&files, &hub, b"h2");
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for n in 0..10_000 {
        bytes.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 2 * n + 1, &head()));
        bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    // The hub hangs up before all are sent, or else the end would be waited for in vain.
    let _ = stream.write_all(&bytes);
    read_to_end(&mut stream);
    let stats = files.get(&hub, "/api/v1/stats", &["-f"]);
    assert!(stats.contains("\"connections\":0"), "{stats}");
}

#[test]
fn a_flood_of_settings_holds_nobody_up_and_fills_no_memory() {
    let files = Files::new();
    let hub = files.hub(&[]);
    files.get(&hub, "/readyz", &["-f"]);
    let before = crate::support::process::memory_bytes(hub.pid());
    let mut stream = connect(&files, &hub, b"h2");
    stream
        .sock
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]).repeat(1_000_000));
    // Each asks for an answer, and none is read: the hub stops to read at some point.
    let _ = stream.write_all(&bytes);
    files.get(&hub, "/readyz", &["-f"]);
    let grown = crate::support::process::memory_bytes(hub.pid()).saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
}
