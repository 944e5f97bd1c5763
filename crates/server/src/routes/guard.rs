//! Who gets in: everyone from this machine while nothing says otherwise, else whoever `auth.*` lets in.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version, header};
use jiff::Timestamp;
use tidewire::problem::{Code, Problem};
use tidewire::subscribe::or_come_back_later;
use tidewire::{ExpiresAt, Rights, UserId};

use crate::auth::{Authenticator, Place};
use crate::config::Config;
use crate::services;

/// How requests are let in.
pub(crate) enum Access {
    /// No authentication is configured: everyone may do everything, and only this machine's programs get in. A page
    /// of a foreign site could reach the hub through the browser of someone on this machine (DNS rebinding), and a
    /// proxy could make it public: both show in a request's headers.
    Open,
    /// Whoever comes has the rights of their credential, or of anonymous.
    Checked(Box<Checked>),
}

/// Who publishes, in the request's extensions: keys of one are none of another's business.
#[derive(Clone)]
pub(crate) struct Publisher(pub(crate) Arc<str>);

/// What requests are held against.
pub(crate) struct Checked {
    authenticator: Authenticator,
    /// Pages that may act with a cookie.
    origins: Vec<String>,
}

impl Access {
    /// As configured.
    ///
    /// # Errors
    /// If a pattern of a right or a key is not valid; says which.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        if !config.auth.is_set() {
            return Ok(Self::Open);
        }
        Ok(Self::Checked(Box::new(Checked {
            authenticator: Authenticator::new(&config.auth)?,
            origins: config.cors.origins.clone(),
        })))
    }

    /// Begins what goes on in the background.
    pub(crate) fn start(&self) {
        if let Self::Checked(checked) = self {
            checked.authenticator.start();
        }
    }
}

/// Lets a request pass with its rights in the extensions, or refuses it.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let admitted = match &*access {
        Access::Open => check_that_local(&parts),
        Access::Checked(checked) => checked.admit(&mut parts).await,
    };
    let refused = match admitted {
        Ok(()) => return next.run(Request::from_parts(parts, body)).await,
        Err(problem) if problem.code() == Code::AuthUnavailable => {
            or_come_back_later(&parts.headers, problem)
        }
        Err(problem) => Err(problem),
    };
    refused.unwrap_or_else(|problem| services::refusal(parts.uri.path(), problem))
}

impl Checked {
    /// Notes who a request is from.
    async fn admit(&self, request: &mut Parts) -> Result<(), Problem> {
        // A preflight carries no credentials (Fetch, section 3.3.5) and is answered before any handler.
        if request.method == Method::OPTIONS {
            return Ok(());
        }
        let now_s = Timestamp::now().as_second().max(0).cast_unsigned();
        let identity = self.authenticator.identify(request, now_s).await?;
        if identity.place == Some(Place::Cookie) {
            self.check_origin(request)?;
        }
        if let Some(user) = &identity.user {
            request.extensions.insert(UserId(user.to_string()));
        }
        request.extensions.insert(Publisher(identity.publisher()));
        if let Some(expires_s) = identity.expires_s {
            request
                .extensions
                .insert(ExpiresAt(expires_s.saturating_mul(1_000)));
        }
        request.extensions.insert(identity.rights.clone());
        Ok(())
    }

    /// A browser sends cookies with requests that a foreign page makes. What changes something needs to come from a page
    /// of this site, or of one that is configured.
    fn check_origin(&self, request: &Parts) -> Result<(), Problem> {
        if [Method::GET, Method::HEAD].contains(&request.method) {
            return Ok(());
        }
        let text = |name| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let allowed = match text(header::ORIGIN) {
            Some(origin) => {
                // HTTP/2 names the host in the address, and may do without the header.
                let host = request.uri.authority().map(Authority::as_str);
                let own = host.or_else(|| text(header::HOST)).is_some_and(|host| {
                    origin
                        .split_once("://")
                        .is_some_and(|(_, of)| of.eq_ignore_ascii_case(host))
                });
                own || self.origins.iter().any(|allowed| allowed == origin)
            }
            // Browsers name the origin with every request that may change something; who does not is none.
            None => text(header::HeaderName::from_static("sec-fetch-site"))
                .is_some_and(|site| ["same-origin", "none"].contains(&site)),
        };
        if allowed {
            return Ok(());
        }
        Err(Problem::new(
            Code::ForeignOrigin,
            "a request with a cookie that changes something must come from a page of this site or of `cors.origins`; \
             programs send `Authorization: Bearer TOKEN`",
        ))
    }
}

fn check_that_local(request: &Parts) -> Result<(), Problem> {
    if let Some(name) = proxy_header(&request.headers) {
        let detail = format!(
            "the request came through a proxy (`{name}`), and this hub has no authentication; set `auth.anonymous` \
             with the rights that everyone shall have"
        );
        return Err(Problem::new(Code::Proxied, detail));
    }
    let host = request.headers.get(header::HOST);
    let authority = match (request.uri.authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.to_str().ok().and_then(|host| host.parse().ok()),
        // No browser sends this.
        (None, None) if request.version == Version::HTTP_10 => return Ok(()),
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
pub(crate) fn check_admin(rights: Option<&Arc<Rights>>) -> Result<(), Problem> {
    match rights {
        Some(rights) if !rights.admin => Err(rights.refuse("no right to administrate (`admin`)")),
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
