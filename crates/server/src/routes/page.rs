//! The pages at `/` and `/docs`: each one file without a build step, part of the binary.

use std::sync::LazyLock;

use axum::response::{Html, IntoResponse};
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

const INDEX: &str = include_str!("../../../../web/index.html");
const DOCS: &str = include_str!("../../../../web/docs.html");

static INDEX_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy_of(INDEX));
static DOCS_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy_of(DOCS));

/// A page needs nothing from anywhere else, nobody needs it in a frame, and no script runs but the one that is in it (CSP
/// level 3, section 2.3.1).
fn policy_of(page: &str) -> HeaderValue {
    let (script, style) = (hash_of(page, "script"), hash_of(page, "style"));
    let policy = format!(
        "default-src 'none'; connect-src 'self'; script-src '{script}'; style-src '{style}'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("plain text")
}

/// The hash of what an element of a page has in it.
fn hash_of(page: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = page
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    let text = inside.expect("the page has one of each").0;
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// Answers `GET /`.
pub(super) async fn index() -> impl IntoResponse {
    answer(INDEX, &INDEX_POLICY)
}

/// Answers `GET /docs`: the reader of `/openapi.json`.
pub(super) async fn docs() -> impl IntoResponse {
    answer(DOCS, &DOCS_POLICY)
}

fn answer(page: &'static str, policy: &HeaderValue) -> impl IntoResponse + use<> {
    let header = |name, value| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let headers = [
        (
            HeaderName::from_static("content-security-policy"),
            policy.clone(),
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
    (headers, Html(page))
}
