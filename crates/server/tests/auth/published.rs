//! Keys that an issuer publishes: fetched, rotated, away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::issuer::Issuer;
use crate::support::Hub;
use crate::{code, publish_as, refused};

/// A server of a key set that the test changes.
pub(crate) struct KeyServer {
    pub(crate) url: String,
    answer: Arc<Mutex<(StatusCode, Value)>>,
    fetched: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl KeyServer {
    fn new(keys: &[&Issuer]) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = {
            let _context = runtime.enter();
            tidewire::bind(([127, 0, 0, 1], 0).into()).unwrap()
        };
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new((StatusCode::OK, set(keys))));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (answers, counter) = (answer.clone(), fetched.clone());
        let handler = move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let (status, set) = answers.lock().clone();
            std::future::ready((status, set.to_string()))
        };
        let router = Router::new().route("/keys", get(handler));
        runtime.spawn(async move { tidewire::serve(listener, router).await });
        Self {
            url,
            answer,
            fetched,
            _runtime: runtime,
        }
    }

    fn publish(&self, keys: &[&Issuer]) {
        *self.answer.lock() = (StatusCode::OK, set(keys));
    }

    fn fail(&self) {
        self.answer.lock().0 = StatusCode::BAD_GATEWAY;
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    fn hub(&self) -> Hub {
        let issuers = format!("[{{jwks_url = '{}'}}]", self.url);
        Hub::spawn(&[], &[("TIDEWIRE_AUTH__ISSUERS", &issuers)])
    }
}

fn set(keys: &[&Issuer]) -> Value {
    let keys: Vec<_> = keys.iter().map(|issuer| issuer.jwk()).collect();
    json!({ "keys": keys })
}

#[test]
fn keys_of_every_kind_are_found_by_name() {
    let [a, b, c] = [
        Issuer::rsa().named("a"),
        Issuer::ec().named("b"),
        Issuer::ed().named("c"),
    ];
    let server = KeyServer::new(&[&a, &b, &c]);
    let hub = server.hub();
    for issuer in [&a, &b, &c] {
        let answer = publish_as(&hub, "orders", &issuer.publisher());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // The name of one key on the signature of another.
    let confused = Issuer::ec().named("b");
    assert_eq!(
        refused(&publish_as(&hub, "orders", &confused.publisher())).0,
        "signature"
    );
}

#[test]
fn a_new_key_counts_at_once_and_an_old_one_no_longer() {
    let [old, new] = [Issuer::ec().named("2025"), Issuer::ec().named("2026")];
    let server = KeyServer::new(&[&old]);
    let hub = server.hub();
    assert_eq!(publish_as(&hub, "orders", &old.publisher()).status, 200);
    let before = server.fetched();
    server.publish(&[&new]);
    let answer = publish_as(&hub, "orders", &new.publisher());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        refused(&publish_as(&hub, "orders", &old.publisher())).0,
        "key"
    );
    for n in 0..50 {
        let made_up = Issuer::with_name_only(&new, &format!("made up {n}"));
        assert_eq!(refused(&publish_as(&hub, "orders", &made_up)).0, "key");
    }
    let fetched = server.fetched() - before;
    assert!(fetched <= 2, "{fetched} fetches for unknown names");
}

#[test]
fn an_issuer_that_is_away_makes_503_and_known_keys_stay_in_use() {
    let issuer = Issuer::ec().named("a");
    let server = KeyServer::new(&[&issuer]);
    server.fail();
    let hub = server.hub();
    let answer = publish_as(&hub, "orders", &issuer.publisher());
    assert_eq!(
        (answer.status, code(&answer)),
        (503, "auth_unavailable".into())
    );
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.body.contains("502"), "{answer:?}");
    // A browser's EventSource would give up for ever on a 503.
    let token = crate::bearer(&issuer.publisher());
    let headers = [
        ("Authorization", token.as_str()),
        ("Accept", "text/event-stream"),
    ];
    let mut stream = hub.stream_with("/events?topic=orders", &headers);
    assert!(stream.rest().is_empty());
    assert!(stream.retry_ms().unwrap() >= 1_000);

    let server = KeyServer::new(&[&issuer]);
    let hub = server.hub();
    assert_eq!(publish_as(&hub, "orders", &issuer.publisher()).status, 200);
    server.fail();
    assert_eq!(publish_as(&hub, "orders", &issuer.publisher()).status, 200);
}

/// One key of a kind that the hub does not know used to make it refuse the whole set.
#[test]
fn keys_that_are_for_something_else_take_no_others_with_them() {
    let [good, encrypts] = [Issuer::ec().named("a"), Issuer::rsa().named("b")];
    let server = KeyServer::new(&[&good, &encrypts]);
    {
        let mut answer = server.answer.lock();
        let keys = answer.1["keys"].as_array_mut().unwrap();
        keys[1]["alg"] = json!("RSA-OAEP-256");
        keys.push(json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "c", "pub": "AA" }));
        keys.push(json!({ "kty": "EC", "crv": "secp256k1", "kid": "d", "x": "AA", "y": "AA" }));
        keys.push(json!("no key at all"));
    }
    let hub = server.hub();
    let answer = publish_as(&hub, "orders", &good.publisher());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        refused(&publish_as(&hub, "orders", &encrypts.publisher())).0,
        "key"
    );
}

#[test]
fn a_secret_in_a_published_set_is_no_key() {
    let server = KeyServer::new(&[&Issuer::with_secret().named("a"), &Issuer::ec().named("b")]);
    let hub = server.hub();
    let token = Issuer::with_secret().named("a").publisher();
    assert_eq!(refused(&publish_as(&hub, "orders", &token)).0, "algorithm");
}

#[test]
fn the_log_says_why_keys_can_not_be_fetched() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let issuers = format!(
        "[{{jwks_url = 'http://{}/keys'}}]",
        closed.local_addr().unwrap()
    );
    drop(closed);
    let hub = Hub::spawn(&[], &[("TIDEWIRE_AUTH__ISSUERS", &issuers)]);
    let answer = publish_as(&hub, "orders", &Issuer::ec().named("a").publisher());
    assert_eq!(answer.status, 503, "{answer:?}");
    let is_said = |text: &str| text.contains("fetched") && text.contains("Connection refused");
    assert!(is_said(&answer.body), "{answer:?}");
    assert!(hub.output().lines().any(is_said), "{}", hub.output());
}
