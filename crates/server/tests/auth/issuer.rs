//! Somebody who issues tokens: keys of every kind, made for the test.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A secret of a length that the hub takes.
pub(crate) const SECRET: &str = "a secret that is long enough for HS256";

/// A key and what it signs with.
pub(crate) struct Issuer {
    key: EncodingKey,
    algorithm: Algorithm,
    public_pem: String,
    pub(crate) id: Option<String>,
}

impl Issuer {
    pub(crate) fn with_secret() -> Self {
        Self {
            key: EncodingKey::from_secret(SECRET.as_bytes()),
            algorithm: Algorithm::HS256,
            public_pem: String::new(),
            id: None,
        }
    }

    pub(crate) fn rsa() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of(key, Algorithm::RS256, &pair)
    }

    pub(crate) fn ec() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of(key, Algorithm::ES256, &pair)
    }

    pub(crate) fn ed() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of(key, Algorithm::EdDSA, &pair)
    }

    fn of(key: EncodingKey, algorithm: Algorithm, pair: &KeyPair) -> Self {
        Self {
            key,
            algorithm,
            public_pem: pair.public_key_pem(),
            id: None,
        }
    }

    /// Gives the key a name.
    pub(crate) fn named(self, id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..self
        }
    }

    pub(crate) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public key in a file; its path.
    pub(crate) fn key_file(&self, folder: &TempDir) -> String {
        let path = folder.path().join(format!("{:?}.pem", self.algorithm));
        fs::write(&path, &self.public_pem).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The public key as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match self.algorithm {
            // Of an Ed25519 key the library finds the public part in the public key alone.
            Algorithm::EdDSA => {
                let key = DecodingKey::from_ed_pem(self.public_pem.as_bytes()).unwrap();
                Jwk::from_decoding_key(&key, Some(self.algorithm)).unwrap()
            }
            _ => Jwk::from_encoding_key(&self.key, self.algorithm).unwrap(),
        };
        jwk.common.key_id.clone_from(&self.id);
        serde_json::to_value(jwk).unwrap()
    }

    /// A token that says this, with an hour to live unless it says otherwise.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        self.token_with(&header, claims)
    }

    /// A token with this header.
    pub(crate) fn token_with(&self, header: &Header, claims: &Value) -> String {
        let mut all = json!({ "exp": now_s() + 3_600 });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        if all["exp"].is_null() {
            all.as_object_mut().unwrap().remove("exp");
        }
        jsonwebtoken::encode(header, &all, &self.key).unwrap()
    }

    /// A token that lets its bearer publish to `orders`.
    pub(crate) fn publisher(&self) -> String {
        self.token(&json!({ "sub": "42", "tidewire": { "publish": ["orders"] } }))
    }
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Issuer {
    /// A token of this issuer's that names another key.
    pub(crate) fn with_name_only(of: &Self, id: &str) -> String {
        let mut header = Header::new(of.algorithm);
        header.kid = Some(id.to_owned());
        of.token_with(&header, &json!({}))
    }
}
