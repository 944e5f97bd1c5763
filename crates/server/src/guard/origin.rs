//! Where a request comes from: the socket's address, or what a trusted proxy says.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{AsHeaderName, FORWARDED};
use ipnet::IpNet;

use crate::config::{Proxies, ProxyHeader, network_of_text};

/// Proxies that a request went through, at most. Stops long headers from being read to their beginning.
const HOPS_MAX: usize = 32;

/// Whose word counts.
pub(crate) struct Trust {
    proxies: Vec<IpNet>,
    header: ProxyHeader,
}

impl Trust {
    /// As configured. The networks were checked with the configuration.
    pub(crate) fn new(proxies: &Proxies) -> Self {
        Self {
            proxies: proxies
                .trusted
                .iter()
                .filter_map(|text| network_of_text(text))
                .collect(),
            header: proxies.header,
        }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.proxies.iter().any(|network| network.contains(&ip))
    }

    /// The client behind a socket. Each proxy adds whom it got the request from at the end, so the list is read from
    /// there, for as long as the one who wrote an entry is trusted. What stands before that, the client may have made up.
    pub(crate) fn client(&self, socket: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = socket;
        if !self.trusts(socket.ip()) {
            return client;
        }
        let hops = match self.header {
            ProxyHeader::XForwardedFor => entries(headers, "x-forwarded-for"),
            ProxyHeader::Forwarded => entries(headers, FORWARDED),
        };
        for entry in hops.into_iter().rev().take(HOPS_MAX) {
            let node = match self.header {
                ProxyHeader::XForwardedFor => Some(entry),
                ProxyHeader::Forwarded => for_of(entry),
            };
            // A name that stands for nobody ("unknown", "_hidden") leaves the proxy that gave it.
            let Some(address) = node.and_then(address) else {
                break;
            };
            client = address;
            if !self.trusts(address.ip()) {
                break;
            }
        }
        client
    }
}

/// The entries of all lines of a list header (RFC 9110 section 5.6.1).
fn entries(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<&str> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        // What is no text can't be read, and must not be skipped, nor spoil what a proxy has added to its line.
        .map(|entry| std::str::from_utf8(entry).unwrap_or("?"))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// The `for` of an element of `Forwarded` (RFC 7239 section 4). No address has a comma or a semicolon, quoted or not.
fn for_of(element: &str) -> Option<&str> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, node) = pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    let quoted = node
        .strip_prefix('"')
        .and_then(|node| node.strip_suffix('"'));
    Some(quoted.unwrap_or(node))
}

/// An address with or without a port, which is 0 then: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<SocketAddr> {
    let ip = |text: &str| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    ip(bare.unwrap_or(text)).or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(header: ProxyHeader, socket: &str, lines: &[(&'static str, &str)]) -> String {
        let trust = Trust::new(&Proxies {
            trusted: vec![
                "10.0.0.0/8".into(),
                "127.0.0.1".into(),
                "2001:db8::/32".into(),
            ],
            header,
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                *name,
                HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"),
            );
        }
        let socket = SocketAddr::new(socket.parse().expect("an address"), 9);
        trust.client(socket, &headers).ip().to_string()
    }

    #[test]
    fn only_the_word_of_a_trusted_proxy_counts() {
        let xff = |socket: &str, value: &str| {
            client(
                ProxyHeader::XForwardedFor,
                socket,
                &[("x-forwarded-for", value)],
            )
        };
        for (socket, value, expected) in [
            ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("::ffff:127.0.0.1", "1.2.3.4", "1.2.3.4"),
            ("1.1.1.1", "1.2.3.4", "1.1.1.1"),
            ("127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.1.1.1", "1.2.3.4"),
            ("127.0.0.1", "10.1.1.1, 10.1.1.2", "10.1.1.1"),
            ("127.0.0.1", "1.2.3.4:99", "1.2.3.4"),
            ("127.0.0.1", "2001:db9::1", "2001:db9::1"),
            ("2001:db8::9", "[2001:db9::1]:99", "2001:db9::1"),
            ("127.0.0.1", "1.2.3.4, unknown", "127.0.0.1"),
            ("127.0.0.1", "1.2.3.4, unknown, 10.1.1.1", "10.1.1.1"),
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", ",,", "127.0.0.1"),
        ] {
            assert_eq!(xff(socket, value), expected, "{socket} {value}");
        }
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        assert_eq!(
            client(ProxyHeader::XForwardedFor, "127.0.0.1", &lines),
            "1.2.3.4"
        );
        assert_eq!(xff("127.0.0.1", "\u{e9}, 1.2.3.4"), "1.2.3.4");
        let endless = "10.0.0.1, ".repeat(100_000) + "10.0.0.2";
        assert_eq!(xff("127.0.0.1", &endless), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_where_it_is_the_proxys() {
        let forwarded = |value: &str| {
            client(
                ProxyHeader::Forwarded,
                "127.0.0.1",
                &[("forwarded", value), ("x-forwarded-for", "6.6.6.6")],
            )
        };
        for (value, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("proto=https;FOR=\"1.2.3.4:80\";by=10.0.0.1", "1.2.3.4"),
            ("for=\"[2001:db9::1]:99\"", "2001:db9::1"),
            ("for=6.6.6.6, for=1.2.3.4, for=10.0.0.1", "1.2.3.4"),
            ("for=1.2.3.4, proto=https", "127.0.0.1"),
            ("for=_hidden", "127.0.0.1"),
            ("for=", "127.0.0.1"),
            ("for=\"", "127.0.0.1"),
        ] {
            assert_eq!(forwarded(value), expected, "{value}");
        }
        let lines = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(
            client(ProxyHeader::XForwardedFor, "127.0.0.1", &lines),
            "1.2.3.4"
        );
    }
}
