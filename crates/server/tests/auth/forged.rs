//! Tokens that stand, and tokens that must not: each refusal says which check it was.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::issuer::{Issuer, SECRET, now_s};
use crate::support::Hub;
use crate::{publish_as, refused};

fn hub(issuers: &str) -> Hub {
    Hub::spawn(&[], &[("TIDEWIRE_AUTH__ISSUERS", issuers)])
}

fn hub_with_secret(more: &str) -> Hub {
    hub(&format!("[{{secret = '{SECRET}'{more}}}]"))
}

#[test]
fn every_kind_of_key_signs_tokens_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let [secret, rsa, ec, ed] = [
        Issuer::with_secret(),
        Issuer::rsa(),
        Issuer::ec(),
        Issuer::ed(),
    ];
    let file = |name: &str, issuer: &Issuer| {
        format!(
            "{{issuer = '{name}', key_file = '{}'}}",
            issuer.key_file(&folder)
        )
    };
    let hub = hub(&format!(
        "[{{issuer = 'hs', secret = '{SECRET}'}}, {}, {}, {}]",
        file("rsa", &rsa),
        file("ec", &ec),
        file("ed", &ed)
    ));
    for (name, issuer) in [("hs", &secret), ("rsa", &rsa), ("ec", &ec), ("ed", &ed)] {
        let claims = json!({ "iss": name, "tidewire": { "publish": ["orders"] } });
        let answer = publish_as(&hub, "orders", &issuer.token(&claims));
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    // Signed well, by somebody who is trusted, in the name of somebody else.
    let claims = json!({ "iss": "ec", "tidewire": { "publish": ["orders"] } });
    let (check, _) = refused(&publish_as(&hub, "orders", &ed.token(&claims)));
    assert_eq!(check, "algorithm");
    let claims = json!({ "iss": "nobody" });
    let (check, detail) = refused(&publish_as(&hub, "orders", &ed.token(&claims)));
    assert_eq!(check, "issuer");
    assert!(detail.contains("`nobody`"), "{detail}");
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    let folder = tempfile::tempdir().unwrap();
    let rsa = Issuer::rsa();
    let hub = hub(&format!("[{{key_file = '{}'}}]", rsa.key_file(&folder)));
    assert_eq!(publish_as(&hub, "orders", &rsa.publisher()).status, 200);
    let claims = json!({ "exp": now_s() + 60, "tidewire": { "publish": ["orders"] } });
    let key = EncodingKey::from_secret(rsa.public_pem().as_bytes());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
        let (check, detail) = refused(&publish_as(&hub, "orders", &token));
        assert_eq!(check, "algorithm", "{detail}");
    }
}

#[test]
fn what_is_not_signed_is_nothing() {
    let hub = hub_with_secret("");
    let good = Issuer::with_secret().publisher();
    let parts: Vec<&str> = good.split('.').collect();
    let base64 = |value: &Value| jsonwebtoken_part(&value.to_string());
    let claims = parts[1];
    for alg in ["none", "None", "NONE", "nOnE", "HS256\0", ""] {
        let header = base64(&json!({ "alg": alg, "typ": "JWT" }));
        for signature in ["", parts[2]] {
            let (check, detail) = refused(&publish_as(
                &hub,
                "orders",
                &format!("{header}.{claims}.{signature}"),
            ));
            assert_eq!(check, "algorithm", "{alg}: {detail}");
        }
    }
    // The right header, the claims changed or the signature missing.
    let admin = jsonwebtoken_part(
        &json!({ "exp": now_s() + 60, "tidewire": { "admin": true } }).to_string(),
    );
    for (token, expected) in [
        (format!("{}.{admin}.{}", parts[0], parts[2]), "signature"),
        (format!("{}.{claims}.", parts[0]), "signature"),
        (
            format!("{}.{claims}.{}", parts[0], &parts[2][1..]),
            "signature",
        ),
        (format!("{}.{claims}", parts[0]), "format"),
        (format!("{good}.x"), "format"),
        ("x".to_owned(), "format"),
        ("..".to_owned(), "algorithm"),
        ("a.b.c".to_owned(), "format"),
    ] {
        let (check, detail) = refused(&publish_as(&hub, "orders", &token));
        assert_eq!(check, expected, "{token}: {detail}");
    }
    assert_eq!(publish_as(&hub, "orders", &good).status, 200);
}

/// Base64url without padding, as the parts of a token are.
fn jsonwebtoken_part(text: &str) -> String {
    // A token's middle part is what the library encodes of its claims; this one takes any text.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    out
}

#[test]
fn a_header_can_bring_no_key_and_no_extension() {
    let hub = hub_with_secret("");
    let other = Issuer::ec();
    let issuer = Issuer::with_secret();
    let claims = json!({ "tidewire": { "publish": ["orders"] } });
    // Signed with a key that the token itself brings along (CVE-2018-0114).
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(serde_json::from_value(other.jwk()).unwrap());
    let (check, _) = refused(&publish_as(
        &hub,
        "orders",
        &other.token_with(&header, &claims),
    ));
    assert_eq!(check, "algorithm");
    // An extension that says how to read the token, which this hub does not know (RFC 7515 section 4.1.11).
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let (check, _) = refused(&publish_as(
        &hub,
        "orders",
        &issuer.token_with(&header, &claims),
    ));
    assert_eq!(check, "format");
    // A name of a key that does not matter where there is one key.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("../../etc/passwd".to_owned());
    assert_eq!(
        publish_as(&hub, "orders", &issuer.token_with(&header, &claims)).status,
        200
    );
}

#[test]
fn each_claim_is_checked_and_named() {
    let hub = hub_with_secret(", issuer = 'https://id.example', audience = ['tidewire', 'events']");
    let issuer = Issuer::with_secret();
    let token = |change: &Value| {
        let mut claims = json!({
            "iss": "https://id.example",
            "aud": ["other", "events"],
            "sub": "42",
            "tidewire": { "publish": ["orders"] },
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        issuer.token(&claims)
    };
    let now = now_s();
    for good in [
        json!({}),
        json!({ "aud": "tidewire" }),
        json!({ "exp": now - 10 }), // within the leeway
        json!({ "nbf": now + 10 }),
        json!({ "sub": null }),
        json!({ "sub": 42 }),
        json!({ "roles": "a b" }),
        json!({ "roles": ["a"] }),
    ] {
        let answer = publish_as(&hub, "orders", &token(&good));
        assert_eq!(answer.status, 200, "{good}: {answer:?}");
    }
    for (change, check, said) in [
        (json!({ "exp": now - 200 }), "expired", "expired 3 min ago"),
        (
            json!({ "exp": now - 100_000 }),
            "expired",
            "expired 27 h ago",
        ),
        (json!({ "exp": null }), "claim", "no `exp`"),
        (json!({ "exp": "tomorrow" }), "claim", "`exp`"),
        (json!({ "nbf": now + 200 }), "not_before", "3 min"),
        (json!({ "nbf": [] }), "claim", "`nbf`"),
        (json!({ "aud": "somebody" }), "audience", "somebody"),
        (
            json!({ "aud": ["a", "b"] }),
            "audience",
            "not for tidewire, events",
        ),
        (json!({ "aud": null }), "claim", "no `aud`"),
        (
            json!({ "iss": "https://evil.example" }),
            "issuer",
            "evil.example",
        ),
        (json!({ "iss": ["https://id.example"] }), "issuer", "`iss`"),
        (json!({ "iss": null }), "issuer", "`iss`"),
        (json!({ "sub": ["42"] }), "claim", "`sub`"),
        (json!({ "roles": 7 }), "claim", "`roles`"),
        (json!({ "tidewire": "all" }), "rights", "`tidewire`"),
        (
            json!({ "tidewire": { "publsh": ["orders"] } }),
            "rights",
            "publsh",
        ),
        (
            json!({ "tidewire": { "publish": [""] } }),
            "rights",
            "publish",
        ),
    ] {
        let (failed, detail) = refused(&publish_as(&hub, "orders", &token(&change)));
        assert_eq!(failed, check, "{change}: {detail}");
        assert!(detail.contains(said), "{change}: {detail}");
        assert!(!detail.contains(SECRET), "{detail}");
    }
}

#[test]
fn a_token_for_an_audience_is_refused_where_none_is_set() {
    let hub = hub_with_secret("");
    let token = Issuer::with_secret().token(&json!({ "aud": "another-service" }));
    let (check, detail) = refused(&publish_as(&hub, "orders", &token));
    assert_eq!(check, "audience");
    assert!(detail.contains("audience"), "{detail}");
}

#[test]
fn a_token_of_a_megabyte_costs_nothing() {
    let hub = hub_with_secret("");
    let huge = Issuer::with_secret().token(&json!({ "x": "x".repeat(1_000_000) }));
    let answer = publish_as(&hub, "orders", &huge);
    assert_eq!(answer.status, 431, "{answer:?}");
    let large = Issuer::with_secret().token(&json!({ "x": "x".repeat(8_000) }));
    let (check, detail) = refused(&publish_as(&hub, "orders", &large));
    assert_eq!(check, "format");
    assert!(detail.contains("8192 bytes"), "{detail}");
    assert_eq!(
        publish_as(&hub, "orders", &Issuer::with_secret().publisher()).status,
        200
    );
}

#[test]
fn a_short_secret_or_a_key_that_does_not_fit_stops_the_start() {
    for (issuers, said) in [
        ("[{secret = 'short'}]", "32 or more"),
        ("[{issuer = 'a'}]", "set one of"),
        ("[{secret_file = '/nonexistent'}]", "/nonexistent"),
        ("[{key_file = '/dev/null'}]", "no public key"),
        ("[{jwks_url = 'http://id.example/keys'}]", "https://"),
        (
            "[{jwks_url = 'https://id.example/keys', algorithms = ['HS256']}]",
            "does not go with the key",
        ),
        (
            "[{jwks_url = 'https://id.example/keys', algorithms = ['none']}]",
            "`none` is none of",
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .env("TIDEWIRE_AUTH__ISSUERS", issuers)
            .env("TIDEWIRE_LISTEN", "127.0.0.1:0")
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{issuers}: {error}");
        assert!(error.contains(said), "{issuers}: {error}");
    }
}
