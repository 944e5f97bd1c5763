//! Where a request carries its credential: the `Authorization` header, else the query, else a cookie.

use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;

use super::token::Check;
use super::unauthorized;

/// Longest credential that is looked at, in bytes. The request's head is bounded as well; this bounds the work of
/// checking a signature.
const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;

/// The parameter of the query (RFC 6750 section 2.3).
const QUERY_PARAMETER: &str = "access_token";

/// Which places are looked at beside the `Authorization` header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// The name of a cookie.
    pub(crate) cookie: Option<String>,
    /// Whether the query counts.
    pub(crate) query: bool,
}

/// Where a credential was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The `Authorization` header.
    Header,
    /// The query.
    Query,
    /// A cookie, which browsers send without being asked.
    Cookie,
}

/// What a request presents.
pub(crate) struct Credential {
    pub(crate) secret: String,
    pub(crate) place: Place,
}

/// Finds the credential of a request.
///
/// # Errors
/// If one is there that can't be read.
pub(crate) fn find(request: &Parts, places: &Places) -> Result<Option<Credential>, Problem> {
    let found = match in_header(request)? {
        Some(secret) => Some((secret, Place::Header)),
        None => match in_query(request, places)? {
            Some(secret) => Some((secret, Place::Query)),
            None => in_cookie(request, places).map(|secret| (secret, Place::Cookie)),
        },
    };
    let Some((secret, place)) = found else {
        return Ok(None);
    };
    if secret.len() > CREDENTIAL_BYTES_MAX {
        let detail = format!("a credential has {CREDENTIAL_BYTES_MAX} bytes at most");
        return Err(unauthorized(Check::Format, &detail));
    }
    Ok(Some(Credential { secret, place }))
}

fn in_header(request: &Parts) -> Result<Option<String>, Problem> {
    let mut values = request.headers.get_all(AUTHORIZATION).into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let detail = "there is more than one `Authorization` header";
        return Err(unauthorized(Check::Format, detail));
    }
    let bearer = value.to_str().ok().and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    match bearer {
        Some(secret) if !secret.is_empty() => Ok(Some(secret.to_owned())),
        _ => Err(unauthorized(
            Check::Format,
            "the `Authorization` header is not understood; send `Authorization: Bearer TOKEN`",
        )),
    }
}

fn in_query(request: &Parts, places: &Places) -> Result<Option<String>, Problem> {
    let query = Query::parse(request.uri.query().unwrap_or_default())?;
    match query.get(QUERY_PARAMETER) {
        None | Some("") => Ok(None),
        Some(secret) if places.query => Ok(Some(secret.to_owned())),
        // Ignoring it would answer as to anyone, and the reason would be hard to find.
        Some(_) => Err(Problem::new(
            Code::BadCredential,
            "this hub takes no token from the query; send `Authorization: Bearer TOKEN`, or set `auth.query_token`",
        )
        .with("check", Check::Format.as_str())),
    }
}

fn in_cookie(request: &Parts, places: &Places) -> Option<String> {
    let name = places.cookie.as_deref()?;
    let values = request.headers.get_all(COOKIE).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(given, value)| *given == name && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"').to_owned())
}
