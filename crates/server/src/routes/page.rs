//! The page at `/`: one file without a build step, part of the binary.

use axum::response::{Html, IntoResponse};
use http::{HeaderName, HeaderValue};

const INDEX: &str = include_str!("../../../../web/index.html");
/// The page needs nothing from anywhere else, and nobody needs it in a frame.
const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers `GET /`.
pub(super) async fn index() -> impl IntoResponse {
    let headers = [
        (
            HeaderName::from_static("content-security-policy"),
            HeaderValue::from_static(POLICY),
        ),
        (
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ),
        (
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    (headers, Html(INDEX))
}
