//! What proxies and clients say of where a request comes from.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Proxies, ProxyHeader};
use crate::guard::Trust;

/// Takes a list header's lines, each on a line of the input; the first byte says which header it is. Whatever a client
/// writes into it, what the trusted proxy adds is what counts.
///
/// # Panics
/// If something that must hold does not.
pub fn origins(input: &[u8]) {
    let Some((first, lines)) = input.split_first() else {
        return;
    };
    let (header, name, added) = match first % 2 {
        0 => (ProxyHeader::XForwardedFor, "x-forwarded-for", "192.0.2.9"),
        _ => (ProxyHeader::Forwarded, "forwarded", "for=192.0.2.9"),
    };
    let trust = Trust::new(&Proxies {
        trusted: vec!["10.0.0.0/8".to_owned()],
        header,
    });
    let name = HeaderName::from_static(name);
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(&name, value);
        }
    }
    let proxy = SocketAddr::from(([10, 0, 0, 1], 1));
    let stranger = SocketAddr::from(([192, 0, 2, 1], 1));
    assert_eq!(trust.client(stranger, &headers), stranger, "not trusted");
    let client = trust.client(proxy, &headers);
    // A proxy adds to the last line (RFC 9110 section 5.3), or a line.
    let lines: Vec<_> = headers.get_all(&name).iter().cloned().collect();
    headers.append(&name, HeaderValue::from_static(added));
    let expected: IpAddr = [192, 0, 2, 9].into();
    assert_eq!(trust.client(proxy, &headers).ip(), expected, "{client}");
    if let Some(last) = lines.last() {
        let joined = [last.as_bytes(), b", ", added.as_bytes()].concat();
        headers.remove(&name);
        for line in &lines[..lines.len() - 1] {
            headers.append(&name, line.clone());
        }
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.append(&name, joined);
            assert_eq!(trust.client(proxy, &headers).ip(), expected, "{client}");
        }
    }
}
