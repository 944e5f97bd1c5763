//! From plain HTTP to TLS, and nowhere else.

use super::Files;
use crate::support::{free_port, http};

#[test]
fn plain_requests_are_led_to_tls_and_to_hosts_of_the_certificate_only() {
    let files = Files::new();
    let port = free_port();
    let hub = files.hub(&[("TIDEWIRE_TLS__REDIRECT", &format!("127.0.0.1:{port}"))]);
    let ask = |method: &str, path: &str, host: &str| {
        let bytes = http::request_bytes(port, method, path, &[("Host", host)], b"");
        http::exchange(port, &bytes).unwrap()
    };
    for (method, path, host) in [
        ("GET", "/events?topic=a&since=5m", "localhost"),
        ("HEAD", "/", "LOCALHOST:8080"),
        ("POST", "//elsewhere.example/%2e", "127.0.0.1"),
    ] {
        let answer = ask(method, path, host);
        assert_eq!(answer.status, 308, "{answer:?}");
        let host = host.split(':').next().unwrap();
        let expected = format!("https://{host}:{}{path}", hub.port());
        assert_eq!(answer.header("location"), Some(expected.as_str()));
    }
    for host in [
        "elsewhere.example",
        "localhost.elsewhere.example",
        "a@b",
        "",
    ] {
        let answer = ask("GET", "/", host);
        assert_eq!((answer.status, answer.header("location")), (400, None));
    }
    let shown = files.get(
        &hub,
        "/",
        &[
            "-L",
            "-o",
            "/dev/null",
            "-w",
            "%{url_effective} %{http_code}",
            &format!("http://localhost:{port}/healthz"),
        ],
    );
    assert!(
        shown.contains(&format!("https://localhost:{}/healthz 200", hub.port())),
        "{shown}"
    );
}
