//! What curl can agree upon with the hub, and what not.

use super::Files;

const SHOWN: &str = "%{http_code} %{http_version}";

#[test]
fn tls_1_2_and_1_3_are_spoken_and_what_is_older_is_refused() {
    let files = Files::new();
    let hub = files.hub(&[]);
    let get = |more: &[&str]| {
        let base = ["-o", "/dev/null", "-w", SHOWN];
        files.get(&hub, "/healthz", &[&base, more].concat())
    };
    assert_eq!(get(&["--tls-max", "1.2"]), "200 2");
    assert_eq!(get(&["--tlsv1.3"]), "200 2");
    assert_eq!(get(&["--http1.1"]), "200 1.1");
    assert_eq!(get(&["--no-alpn"]), "200 1.1");
    // Debian's OpenSSL offers 1.1 only at this level.
    let old = [
        "--tlsv1.1",
        "--tls-max",
        "1.1",
        "--ciphers",
        "DEFAULT@SECLEVEL=0",
    ];
    let refused = files.curl(&hub, "cert.pem", "/healthz", &old);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(35), "{error}");
    // Which alert depends on what else the client lacks; that it is one says that the hub refused.
    assert!(error.contains(" alert "), "{error}");
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let files = Files::new();
    let hub = files.hub(&[]);
    let answer = hub.get("/events?topic=a");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["code"], "bad_head");
    assert!(answer.body.contains("use https://"), "{answer:?}");
    assert!(hub.output().contains("serves on https://127.0.0.1:"));
}
