//! Who gets in while there are no tokens: everyone from this machine, or anyone with the rights of anonymous.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, Version, header};
use tidewire::problem::{Code, Problem};
use tidewire::{Pattern, Rights};

use crate::config::Config;

/// How requests are let in.
pub(crate) enum Access {
    /// No authentication is configured: everyone may do everything, and only this machine's programs get in. A page
    /// of a foreign site could reach the hub through the browser of someone on this machine (DNS rebinding), and a
    /// proxy could make it public: both show in a request's headers.
    Open,
    /// Whoever comes has these rights.
    Anonymous(Arc<Rights>),
}

impl Access {
    /// As configured.
    ///
    /// # Errors
    /// If a pattern of a right is not valid; says which.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let Some(anonymous) = &config.auth.anonymous else {
            return Ok(Self::Open);
        };
        let patterns = |key: &str, texts: &[String]| {
            let parse = |text: &String| {
                Pattern::new(text).map_err(|error| {
                    format!("auth.anonymous.{key}: `{text}` is no pattern: {error}")
                })
            };
            texts.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self::Anonymous(Arc::new(Rights {
            subscribe: patterns("subscribe", &anonymous.subscribe)?,
            publish: patterns("publish", &anonymous.publish)?,
            admin: anonymous.admin,
        })))
    }
}

/// Lets a request pass with its rights in the extensions, or refuses it.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    match &*access {
        Access::Open => check_that_local(&request)?,
        Access::Anonymous(rights) => {
            request.extensions_mut().insert(rights.clone());
        }
    }
    Ok(next.run(request).await)
}

fn check_that_local(request: &Request) -> Result<(), Problem> {
    if let Some(name) = proxy_header(request.headers()) {
        let detail = format!(
            "the request came through a proxy (`{name}`), and this hub has no authentication; set `auth.anonymous` \
             with the rights that everyone shall have"
        );
        return Err(Problem::new(Code::Proxied, detail));
    }
    let host = request.headers().get(header::HOST);
    let authority = match (request.uri().authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.to_str().ok().and_then(|host| host.parse().ok()),
        // No browser sends this.
        (None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        (None, None) => None,
    };
    if authority.as_ref().is_some_and(is_local) {
        return Ok(());
    }
    let shown = authority.map_or_else(|| "none".to_owned(), |authority| format!("`{authority}`"));
    let detail = format!(
        "this hub has no authentication and answers to `localhost` and loopback addresses only, not to host {shown}; \
         set `auth.anonymous` with the rights that everyone shall have"
    );
    Err(Problem::new(Code::ForeignHost, detail))
}

fn proxy_header(headers: &HeaderMap) -> Option<&str> {
    let by_proxy =
        |name: &str| name == "forwarded" || name == "via" || name.starts_with("x-forwarded-");
    headers
        .keys()
        .map(header::HeaderName::as_str)
        .find(|name| by_proxy(name))
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host().trim_end_matches('.');
    let ip = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
        .parse::<IpAddr>();
    if let Ok(ip) = ip {
        return ip.is_loopback();
    }
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Refuses those who may not read figures or close connections.
pub(super) fn check_admin(rights: Option<&Arc<Rights>>) -> Result<(), Problem> {
    match rights {
        Some(rights) if !rights.admin => Err(Problem::new(
            Code::NotAllowed,
            "no right to administrate (`admin`)",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.8.9.1",
            "[::1]:80",
            "app.localhost",
            "localhost.",
        ] {
            assert!(is_local(&local.parse().expect("an authority")), "{local}");
        }
        for foreign in [
            "example.com",
            "localhost.example.com",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "notlocalhost",
        ] {
            assert!(
                !is_local(&foreign.parse().expect("an authority")),
                "{foreign}"
            );
        }
    }
}
