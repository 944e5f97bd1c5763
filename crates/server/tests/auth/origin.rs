//! Where a request comes from, as a proxy says: counted and shown if the proxy is trusted, and not otherwise.

use crate::support::Hub;

fn hub(settings: &[(&str, &str)]) -> Hub {
    let mut all = vec![
        ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
        ("TIDEWIRE_AUTH__ANONYMOUS__ADMIN", "true"),
        ("TIDEWIRE_LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "1"),
    ];
    all.extend(settings);
    Hub::spawn(&[], &all)
}

fn remotes(hub: &Hub) -> Vec<String> {
    let listed = hub.get("/api/v1/connections").json();
    let rows = listed["connections"].as_array().unwrap();
    rows.iter()
        .map(|row| row["remote"].as_str().unwrap().to_owned())
        .collect()
}

fn status(hub: &Hub, headers: &[(&str, &str)]) -> u16 {
    hub.send("GET", "/events", headers, b"").status
}

#[test]
fn the_word_of_a_trusted_proxy_counts() {
    let hub = hub(&[("TIDEWIRE_PROXIES__TRUSTED", "127.0.0.0/8,::1")]);
    let _first = hub.stream_with("/events", &[("X-Forwarded-For", "192.0.2.1")]);
    let _second = hub.stream_with(
        "/events",
        &[("X-Forwarded-For", "192.0.2.1, 192.0.2.2, 127.0.0.9")],
    );
    let _v6 = hub.stream_with("/events", &[("X-Forwarded-For", "2001:db8:0:1::1")]);
    assert_eq!(remotes(&hub), ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1"]);
    // Who is there already, and the same network of IPv6.
    assert_eq!(status(&hub, &[("X-Forwarded-For", "192.0.2.1")]), 429);
    assert_eq!(
        status(&hub, &[("X-Forwarded-For", "6.6.6.6, 192.0.2.2")]),
        429
    );
    assert_eq!(
        status(&hub, &[("X-Forwarded-For", "2001:db8:0:1:ffff::9")]),
        429
    );
    let _other = hub.stream_with("/events", &[("X-Forwarded-For", "2001:db8:0:2::1")]);
    // The header that the proxy does not write.
    let _third = hub.stream_with(
        "/events",
        &[
            ("X-Forwarded-For", "192.0.2.3"),
            ("Forwarded", "for=192.0.2.9"),
        ],
    );
    assert_eq!(remotes(&hub)[4], "192.0.2.3");
}

#[test]
fn forwarded_counts_where_it_is_set() {
    let hub = hub(&[
        ("TIDEWIRE_PROXIES__TRUSTED", "127.0.0.1"),
        ("TIDEWIRE_PROXIES__HEADER", "forwarded"),
    ]);
    let _first = hub.stream_with(
        "/events",
        &[
            ("Forwarded", "for=\"[2001:db8::7]:99\";proto=https"),
            ("X-Forwarded-For", "192.0.2.9"),
        ],
    );
    assert_eq!(remotes(&hub), ["[2001:db8::7]:99"]);
}

#[test]
fn nobody_else_says_where_they_come_from() {
    for trusted in ["", "10.0.0.0/8"] {
        let hub = hub(&[("TIDEWIRE_PROXIES__TRUSTED", trusted)]);
        let _first = hub.stream_with("/events", &[("X-Forwarded-For", "192.0.2.1")]);
        assert!(
            remotes(&hub)[0].starts_with("127.0.0.1:"),
            "{:?}",
            remotes(&hub)
        );
        let spoofed = [
            ("X-Forwarded-For", "192.0.2.2"),
            ("Forwarded", "for=192.0.2.2"),
        ];
        assert_eq!(
            status(&hub, &spoofed),
            429,
            "the limit is got around by a header"
        );
    }
}
