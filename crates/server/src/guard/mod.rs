//! Who gets in: everyone from this machine while nothing says otherwise, else whoever `auth.*` lets in; how often; and
//! what of it is written down.
//!
//! - `routes`: every route with what it needs. `origin`: where a request comes from. `rates`: how often.
//! - `audit`: what was refused, and what administrators did.

mod audit;
mod origin;
mod rates;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use jiff::Timestamp;
use tidewire::problem::{Code, Problem};
use tidewire::serve::Client;
use tidewire::subscribe::or_come_back_later;
use tidewire::{ClientAddress, ExpiresAt, Rights, UserId, network_of};

use self::audit::{Asked, Audit};
pub(crate) use self::origin::Trust;
pub(crate) use self::rates::Publishing;
use self::rates::Rates;
use self::routes::Needs;
pub(crate) use self::routes::Routes;
pub use self::routes::{Declared, Need};
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

/// All that stands between a request and its handler.
pub(crate) struct Gate {
    access: Access,
    needs: Needs,
    trust: Trust,
    rates: Arc<Rates>,
    audit: Audit,
    /// Whether figures are for administrators.
    protect_metrics: bool,
}

impl Gate {
    /// As configured, for these routes.
    pub(crate) fn new(access: Access, declared: Vec<Declared>, config: &Config) -> Self {
        Self {
            access,
            needs: Needs::new(declared),
            trust: Trust::new(&config.proxies),
            rates: Arc::new(Rates::new(&config.limits)),
            audit: Audit::new(),
            protect_metrics: config.auth.protect_metrics,
        }
    }

    /// Notes who a request is from, and whether they may ask for this at all.
    async fn admit(&self, request: &mut Parts, asked: &mut Asked) -> Result<(), Problem> {
        let route = self.needs.of(request).cloned();
        let address = asked.client.map(|client| network_of(client.ip()));
        // Before the credential, as to check it is work too.
        if route.as_ref().is_some_and(|route| route.is_stream) {
            self.rates.connect(address)?;
        }
        match &self.access {
            Access::Open => check_that_local(request)?,
            Access::Checked(checked) => {
                let (who, by_cookie) = checked.admit(request).await?;
                // Known also where the page is refused, for the audit log.
                asked.who = who;
                if by_cookie {
                    checked.check_origin(
                        request,
                        route.as_ref().is_some_and(|route| route.is_stream),
                    )?;
                }
            }
        }
        if let Some(client) = asked.client {
            request.extensions.insert(ClientAddress(client));
        }
        let admin = match route.as_ref().map(|route| route.need) {
            Some(Need::Admin) => true,
            Some(Need::Figures) => self.protect_metrics,
            // Not where a `GET` needs the right: nothing is published by it.
            Some(Need::Publish) if !request.method.is_safe() => {
                // Before the body is read, or whoever may publish nothing could make the hub hold any number of them.
                check_publisher(request.extensions.get())?;
                let publishing = Publishing {
                    rates: self.rates.clone(),
                    address,
                    key: asked.who.clone().filter(|_| is_known(request)),
                };
                publishing.count(1)?;
                request.extensions.insert(publishing);
                false
            }
            _ => false,
        };
        if admin {
            check_admin(request.extensions.get())?;
        }
        Ok(())
    }
}

/// Whether a request has a credential, whose it then is.
fn is_known(request: &Parts) -> bool {
    request.extensions.get::<Known>().is_some()
}

/// In the extensions of a request with a credential that stands.
#[derive(Clone)]
struct Known;

/// Lets a request pass with what is known of it in the extensions, or refuses it.
pub(crate) async fn check(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let socket = parts.extensions.get::<Client>().map(Client::remote);
    let mut asked = Asked {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        who: None,
        client: socket.map(|socket| gate.trust.client(socket, &parts.headers)),
    };
    let is_admin = gate
        .needs
        .of(&parts)
        .is_some_and(|route| route.need == Need::Admin);
    let mut response = match gate.admit(&mut parts, &mut asked).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(problem) => refuse(&parts, problem),
    };
    let refused = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = refused.filter(|problem| is_refusal(problem.code().status())) {
        gate.audit.refused(&asked, &problem);
    } else if is_admin && !asked.method.is_safe() {
        gate.audit.done(&asked, response.status());
    }
    // Data that somebody published is never to be taken for a page.
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // What somebody may read by a cookie is not for a cache that others ask.
    let caching = response.headers_mut().entry(header::CACHE_CONTROL);
    caching.or_insert(HeaderValue::from_static("no-store"));
    response
}

fn is_refusal(status: StatusCode) -> bool {
    [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
    ]
    .contains(&status)
}

/// Says no in the form of the door; to a stream that shall come back, in a way that it understands.
fn refuse(request: &Parts, problem: Problem) -> Response {
    let comes_back = matches!(
        problem.code(),
        Code::AuthUnavailable | Code::TooManyRequests
    );
    let refused = if comes_back {
        or_come_back_later(&request.headers, problem)
    } else {
        Err(problem)
    };
    refused.unwrap_or_else(|problem| services::refusal(request.uri.path(), problem))
}

impl Checked {
    /// Notes who a request is from. Answers what their credential is called, and whether a browser may have sent it by itself.
    async fn admit(&self, request: &mut Parts) -> Result<(Option<Arc<str>>, bool), Problem> {
        // A preflight carries no credentials (Fetch, section 3.3.5) and is answered before any handler.
        if request.method == Method::OPTIONS {
            return Ok((None, false));
        }
        let now_s = Timestamp::now().as_second().max(0).cast_unsigned();
        let identity = self.authenticator.identify(request, now_s).await?;
        if let Some(user) = &identity.user {
            request.extensions.insert(UserId(user.to_string()));
        }
        let publisher = identity.publisher();
        request.extensions.insert(Publisher(publisher.clone()));
        if let Some(expires_s) = identity.expires_s {
            request
                .extensions
                .insert(ExpiresAt(expires_s.saturating_mul(1_000)));
        }
        if identity.place.is_some() {
            request.extensions.insert(Known);
        }
        request.extensions.insert(identity.rights.clone());
        Ok((Some(publisher), identity.place == Some(Place::Cookie)))
    }

    /// A browser sends cookies with requests that a foreign page makes. What changes something needs to come from a page
    /// of this site, or of one that is configured. A stream does: it takes the place of another one of its client, or of
    /// those that its user may have.
    fn check_origin(&self, request: &Parts, is_stream: bool) -> Result<(), Problem> {
        let is_safe = [Method::GET, Method::HEAD].contains(&request.method);
        if is_safe && !is_stream {
            return Ok(());
        }
        let text = |name| {
            request
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let mut origins = request.headers.get_all(header::ORIGIN).into_iter();
        let allowed = match (origins.next(), origins.next()) {
            // No browser sends two, and one that is good says nothing of the other.
            (Some(_), Some(_)) => false,
            (Some(origin), None) => {
                let origin = origin.to_str().unwrap_or_default();
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
            // With a `GET` of their own site they do not; old ones, and programs, say nothing at all.
            (None, _) => text(header::HeaderName::from_static("sec-fetch-site"))
                .map_or(is_safe, |site| ["same-origin", "none"].contains(&site)),
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

/// Refuses those who may publish nothing at all. Where the others may publish to is known with the body.
fn check_publisher(rights: Option<&Arc<Rights>>) -> Result<(), Problem> {
    match rights {
        Some(rights) if rights.publish.is_empty() => {
            Err(rights.refuse("no right to publish to any topic"))
        }
        _ => Ok(()),
    }
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
