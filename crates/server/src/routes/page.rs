//! The page at `/`: one file without a build step, part of the binary.

use std::sync::LazyLock;

use axum::response::{Html, IntoResponse};
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

const INDEX: &str = include_str!("../../../../web/index.html");

/// The page needs nothing from anywhere else, nobody needs it in a frame, and no script runs but the one that is in it (CSP
/// level 3, section 2.3.1).
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (hash_of("script"), hash_of("style"));
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src '{script}'; style-src '{style}'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("plain text")
});

/// The hash of what an element of the page has in it.
fn hash_of(element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = INDEX
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    let text = inside.expect("the page has one of each").0;
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// Answers `GET /`.
pub(super) async fn index() -> impl IntoResponse {
    let header = |name, value| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let headers = [
        (
            HeaderName::from_static("content-security-policy"),
            POLICY.clone(),
        ),
        // For browsers that don't know `frame-ancestors`.
        header("x-frame-options", "DENY"),
        header("referrer-policy", "no-referrer"),
        // A page that opened this one gets no hold of it.
        header("cross-origin-opener-policy", "same-origin"),
        header(
            "permissions-policy",
            "camera=(), geolocation=(), microphone=()",
        ),
    ];
    (headers, Html(INDEX))
}
