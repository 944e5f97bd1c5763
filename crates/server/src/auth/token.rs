//! JSON Web Tokens (RFC 7519): which issuer's a token is, whether it stands, and what it says.
//!
//! What is checked follows RFC 8725: the algorithm is one that the key is meant for, whatever the token's header says,
//! and a header with a critical extension is refused.

use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::KeySource;
use crate::config::{self, Auth, Grant};

/// Which check a credential failed: the `check` member of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// It can't be read at all.
    Format,
    /// Its algorithm is not one that this hub takes from the issuer.
    Algorithm,
    /// Nobody that this hub trusts has issued it.
    Issuer,
    /// No key of the issuer's fits.
    Key,
    /// The signature is not the issuer's.
    Signature,
    /// It is over.
    Expired,
    /// It has not begun.
    NotBefore,
    /// It is meant for somebody else.
    Audience,
    /// A claim is missing, or of the wrong type.
    Claim,
    /// What it says of rights can't be read.
    Rights,
    /// Whoever decides said no.
    Webhook,
    /// It could not be checked.
    Unavailable,
}

impl Check {
    /// Stable text for programs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Algorithm => "algorithm",
            Self::Issuer => "issuer",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotBefore => "not_before",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::Rights => "rights",
            Self::Webhook => "webhook",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a token does not stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) check: Check,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(check: Check, detail: impl Into<String>) -> Self {
        Self {
            check,
            detail: detail.into(),
        }
    }
}

/// What a token that stands says.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) user: Option<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) grant: Grant,
    pub(crate) expires_s: u64,
}

/// Everybody whose tokens count.
pub(crate) struct Issuers(Vec<Issuer>);

struct Issuer {
    config: config::Issuer,
    algorithms: Vec<Algorithm>,
    keys: KeySource,
    validation: Validation,
}

impl Issuers {
    /// As configured.
    ///
    /// # Errors
    /// If a key can't be used, or an algorithm does not go with it.
    pub(crate) fn new(auth: &Auth) -> Result<Self, String> {
        let issuer = |(index, issuer): (usize, &config::Issuer)| {
            Issuer::new(issuer, auth)
                .map_err(|error| format!("auth.issuers, `{}`: {error}", issuer.label(index)))
        };
        auth.issuers
            .iter()
            .enumerate()
            .map(issuer)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins to fetch published keys.
    pub(crate) fn keep_fresh(&self) {
        for issuer in &self.0 {
            issuer.keys.keep_fresh();
        }
    }

    /// Checks a token.
    ///
    /// # Errors
    /// The check that it failed. Where several issuers could have made it, that of the one with which it got furthest.
    pub(crate) async fn verify(&self, token: &str, now_s: u64) -> Result<Claims, Refused> {
        let (header, claims) = peek(token)?;
        let of = claims.get("iss").and_then(Value::as_str);
        let mut furthest: Option<Refused> = None;
        for issuer in &self.0 {
            if issuer.config.issuer.is_some() && issuer.config.issuer.as_deref() != of {
                continue;
            }
            match issuer.verify(token, &header, now_s).await {
                Ok(claims) => return Ok(claims),
                Err(refused) => {
                    if furthest
                        .as_ref()
                        .is_none_or(|known| known.check.stage() < refused.check.stage())
                    {
                        furthest = Some(refused);
                    }
                }
            }
        }
        Err(furthest.unwrap_or_else(|| self.foreign(of)))
    }

    fn foreign(&self, of: Option<&str>) -> Refused {
        let detail = match of {
            _ if self.0.is_empty() => "this hub takes no tokens".to_owned(),
            Some(of) => format!(
                "the token is from `{}` (`iss`), which this hub does not trust",
                shown(of)
            ),
            None => "the token does not say who issued it (`iss`)".to_owned(),
        };
        Refused::new(Check::Issuer, detail)
    }
}

impl Check {
    /// How far a token got.
    fn stage(self) -> u8 {
        match self {
            Self::Format | Self::Issuer | Self::Webhook => 0,
            Self::Algorithm => 1,
            Self::Key | Self::Unavailable => 2,
            Self::Signature => 3,
            Self::Expired | Self::NotBefore | Self::Audience | Self::Claim | Self::Rights => 4,
        }
    }
}

impl Issuer {
    fn new(issuer: &config::Issuer, auth: &Auth) -> Result<Self, String> {
        let keys = KeySource::new(issuer)?;
        let algorithms = match &issuer.algorithms[..] {
            [] => keys.algorithms().to_vec(),
            names => names
                .iter()
                .map(|name| algorithm(name))
                .collect::<Result<_, _>>()?,
        };
        if let Some(name) = algorithms.iter().find(|&&algorithm| !keys.fits(algorithm)) {
            return Err(format!("`algorithms`: {name:?} does not go with the key"));
        }
        let mut validation = Validation::new(algorithms[0]);
        validation.algorithms.clone_from(&algorithms);
        validation.leeway = auth.leeway.as_secs();
        validation.validate_nbf = true;
        if !issuer.audience.is_empty() {
            validation.set_audience(&issuer.audience);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(name) = &issuer.issuer {
            validation.set_issuer(&[name]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Ok(Self {
            config: issuer.clone(),
            algorithms,
            keys,
            validation,
        })
    }

    async fn verify(&self, token: &str, header: &Header, now_s: u64) -> Result<Claims, Refused> {
        if !self.algorithms.contains(&header.alg) {
            let taken: Vec<_> = self.algorithms.iter().map(|a| format!("{a:?}")).collect();
            let detail = format!(
                "the token is signed with {:?}; this hub takes {}",
                header.alg,
                taken.join(", ")
            );
            return Err(Refused::new(Check::Algorithm, detail));
        }
        let keys = self.keys.find(header).await?;
        let mut failure = Refused::new(Check::Key, "no key of the issuer fits the token");
        for key in keys {
            match self.decode(token, &key, now_s) {
                Ok(claims) => return self.claims(&claims),
                Err(refused) => failure = refused,
            }
            if failure.check != Check::Signature {
                break;
            }
        }
        Err(failure)
    }

    fn decode(
        &self,
        token: &str,
        key: &DecodingKey,
        now_s: u64,
    ) -> Result<Map<String, Value>, Refused> {
        // One family at a time, or the library holds the key against the algorithms that it is not for.
        let mut validation = self.validation.clone();
        validation
            .algorithms
            .retain(|algorithm| key.family().algorithms().contains(algorithm));
        jsonwebtoken::decode(token, key, &validation)
            .map(|data| data.claims)
            .map_err(|error| self.explain(token, error.kind(), now_s))
    }

    fn explain(&self, token: &str, error: &ErrorKind, now_s: u64) -> Refused {
        // Only after its signature was found good does the library look at a claim.
        let claim = |name: &str| {
            peek(token)
                .ok()
                .and_then(|(_, claims)| claims.get(name).cloned())
        };
        let ago = |name: &str| {
            let at = claim(name).as_ref().and_then(seconds).unwrap_or(0);
            span(now_s.abs_diff(at))
        };
        match error {
            ErrorKind::ExpiredSignature => Refused::new(
                Check::Expired,
                format!("the token expired {} ago", ago("exp")),
            ),
            ErrorKind::ImmatureSignature => Refused::new(
                Check::NotBefore,
                format!("the token is valid in {} only (`nbf`)", ago("nbf")),
            ),
            ErrorKind::InvalidAudience if self.config.audience.is_empty() => Refused::new(
                Check::Audience,
                "the token is meant for an audience (`aud`), and this hub's is not set (`auth.issuers`, `audience`)",
            ),
            ErrorKind::InvalidAudience => Refused::new(
                Check::Audience,
                format!(
                    "the token is meant for {} (`aud`), not for {}",
                    claim("aud").map_or_else(|| "nobody".to_owned(), |aud| shown(&aud.to_string())),
                    self.config.audience.join(", ")
                ),
            ),
            ErrorKind::InvalidIssuer => {
                Refused::new(Check::Issuer, "the token is from another issuer (`iss`)")
            }
            ErrorKind::MissingRequiredClaim(name) => {
                Refused::new(Check::Claim, format!("the token has no `{name}`"))
            }
            ErrorKind::InvalidClaimFormat(name) => Refused::new(
                Check::Claim,
                format!("the token's `{name}` is of the wrong type"),
            ),
            ErrorKind::InvalidAlgorithm => Refused::new(
                Check::Algorithm,
                "the token's algorithm does not go with the issuer's key",
            ),
            // Its other parts were decoded before.
            ErrorKind::InvalidSignature | ErrorKind::Base64(_) => Refused::new(
                Check::Signature,
                "the token's signature is not the issuer's",
            ),
            ErrorKind::Json(_) => Refused::new(
                Check::Claim,
                "one of `exp`, `nbf`, `aud`, `iss` and `sub` is of the wrong type",
            ),
            _ => Refused::new(Check::Format, "the token can't be read"),
        }
    }

    /// Reads what a token with a good signature says.
    fn claims(&self, claims: &Map<String, Value>) -> Result<Claims, Refused> {
        let config = &self.config;
        let user = match claims.get(&config.user_claim) {
            None | Some(Value::Null) => None,
            Some(Value::String(user)) => Some(user.clone()),
            Some(Value::Number(user)) => Some(user.to_string()),
            Some(_) => return Err(claim_type(&config.user_claim, "text")),
        };
        let roles = match claims.get(&config.roles_claim) {
            None | Some(Value::Null) => Vec::new(),
            Some(value) => {
                roles(value).ok_or_else(|| claim_type(&config.roles_claim, "a list of names"))?
            }
        };
        let grant = match claims.get(&config.rights_claim) {
            None | Some(Value::Null) => Grant::default(),
            Some(value) => Grant::deserialize(value).map_err(|error| {
                let detail = format!("the token's `{}`: {error}", config.rights_claim);
                Refused::new(Check::Rights, detail)
            })?,
        };
        // The library has found it there, and a number.
        let expires_s = claims.get("exp").and_then(seconds).unwrap_or(0);
        Ok(Claims {
            user,
            roles,
            grant,
            // In the second itself it is still good.
            expires_s: expires_s.saturating_add(self.validation.leeway + 1),
        })
    }
}

/// A time as tokens have it: seconds since the Unix epoch, perhaps with a fraction (RFC 7519 section 2).
fn seconds(value: &Value) -> Option<u64> {
    let rounded = || Duration::try_from_secs_f64(value.as_f64()?).ok();
    value
        .as_u64()
        .or_else(|| rounded().map(|time| time.as_secs()))
}

fn claim_type(name: &str, wanted: &str) -> Refused {
    Refused::new(
        Check::Claim,
        format!("the token's `{name}` is not {wanted}"),
    )
}

/// A list of names, or names with spaces between them, as in OAuth's `scope`.
fn roles(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// The parts of a token before anything of it is believed.
pub(crate) fn peek(token: &str) -> Result<(Header, Map<String, Value>), Refused> {
    if token.split('.').count() != 3 {
        let detail = "the credential is neither a token (three parts with dots between them) nor a key of this hub";
        return Err(Refused::new(Check::Format, detail));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => Refused::new(
            Check::Algorithm,
            "the token's header can't be read, or names an algorithm that is never taken (`none` is not)",
        ),
        _ => Refused::new(Check::Format, "the token's header can't be read"),
    })?;
    if header.crit.is_some() {
        return Err(Refused::new(
            Check::Format,
            "the token's header has critical extensions (`crit`)",
        ));
    }
    let claims = jsonwebtoken::dangerous::insecure_decode_claims(token)
        .map_err(|_| Refused::new(Check::Format, "the token's claims can't be read"))?;
    Ok((header, claims))
}

/// Reads an algorithm's name (RFC 7518 section 3.1).
fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|_| {
        format!("`algorithms`: `{name}` is none of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")
    })
}

/// What somebody else wrote, short and harmless in a log and on a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// A length of time for people: the largest unit is enough.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
