//! Tokens: what is not signed by the issuer is never taken.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::request::{self, config};
use crate::auth::Issuers;

/// What the issuer has signed: its two first parts. Good until the year 2100.
const SIGNED: &str =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIiwiZXhwIjo0MTAyNDQ0ODAwfQ";
pub(super) const SECRET: &str = "the secret of the targets, 32 bytes or more";
const NOW_S: u64 = 1_800_000_000;

static ISSUERS: LazyLock<Issuers> =
    LazyLock::new(|| Issuers::new(&config().auth).expect("the settings are good"));

/// Any text as a token, and any JSON as the claims of one that is signed.
pub fn tokens(data: &[u8]) {
    if let Ok(token) = std::str::from_utf8(data)
        && stands(token)
    {
        assert_eq!(
            token.rsplit_once('.').map(|(signed, _)| signed),
            Some(SIGNED)
        );
    }
    let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(data) else {
        return;
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::default(), &claims, &key).expect("JSON is a token's content");
    if stands(&token) {
        assert!(claims.contains_key("exp"));
        request::ask(&format!(
            "GET /events?topic=a\nauthorization: Bearer {token}\n"
        ));
    }
}

/// Whether a token is taken. Nothing is waited for, as the issuer's secret is in the settings.
fn stands(token: &str) -> bool {
    let mut verifying = pin!(ISSUERS.verify(token, NOW_S));
    match verifying
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(result) => result.is_ok(),
        Poll::Pending => unreachable!("the secret is known"),
    }
}
