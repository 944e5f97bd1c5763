//! A service of the operator's that says who somebody is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::support::Hub;
use crate::{code, publish_as, refused};

/// Knows `alice`, refuses `mallory`, and fails for `crash`.
async fn decide(
    State(asked): State<Arc<AtomicUsize>>,
    Json(question): Json<Value>,
) -> (StatusCode, String) {
    asked.fetch_add(1, Ordering::SeqCst);
    let (status, answer) = match question["credential"].as_str() {
        Some("alice") => (
            StatusCode::OK,
            json!({ "user": "alice", "publish": ["room:{user}"], "roles": ["reader"], "expires_in_s": 60 }),
        ),
        Some("mallory") => (
            StatusCode::FORBIDDEN,
            json!({ "reason": "mallory is locked" }),
        ),
        Some("nonsense") => (StatusCode::OK, json!([])),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, json!({})),
    };
    (status, answer.to_string())
}

#[test]
fn a_webhook_decides_and_its_answer_is_kept() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = {
        let _context = runtime.enter();
        tidewire::bind(([127, 0, 0, 1], 0).into()).unwrap()
    };
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/", post(decide))
        .with_state(asked.clone());
    let server = runtime.spawn(async move { tidewire::serve(listener, router).await });
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__WEBHOOK__URL", &url),
            (
                "TIDEWIRE_AUTH__ROLES",
                "[{name = 'reader', subscribe = ['news']}]",
            ),
        ],
    );
    for _ in 0..20 {
        assert_eq!(publish_as(&hub, "room:alice", "alice").status, 200);
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "twenty requests, one question"
    );
    let denied = publish_as(&hub, "room:bob", "alice");
    assert_eq!((denied.status, code(&denied)), (403, "not_allowed".into()));
    let headers = [("Authorization", "Bearer alice")];
    for (path, status) in [
        ("/events?topic=news", 200),
        ("/events?topic=user:alice", 200),
        ("/events?topic=user:bob", 403),
    ] {
        let answer = hub.send("HEAD", path, &headers, b"");
        assert_eq!(answer.status, status, "{path}");
    }
    let (check, detail) = refused(&publish_as(&hub, "room:mallory", "mallory"));
    assert_eq!(
        (check.as_str(), detail.as_str()),
        ("webhook", "mallory is locked")
    );
    for broken in ["crash", "nonsense"] {
        let answer = publish_as(&hub, "room:alice", broken);
        assert_eq!(
            (answer.status, code(&answer)),
            (503, "auth_unavailable".into())
        );
    }
    // With the service away, who is known goes on, and nobody else gets in.
    server.abort();
    drop(runtime);
    assert_eq!(publish_as(&hub, "room:alice", "alice").status, 200);
    let answer = publish_as(&hub, "room:alice", "bob");
    assert_eq!(answer.status, 503, "{answer:?}");
}
