//! API keys: random text that the hub made, and of which the configuration has only a hash.
//!
//! A key has 256 random bits, so a plain SHA-256 of it can't be searched for; the slow hashes that passwords need would
//! only slow down requests.

use std::fmt::Write;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest, Sha256};

use super::grant::Grant;
use crate::config;

/// Every key begins so, which lets it be found in places where it should not be, and told from a token.
pub(crate) const PREFIX: &str = "tw_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// How a hash is written.
const HASH_PREFIX: &str = "sha256:";

/// A key that may be presented.
pub(crate) struct ApiKey {
    pub(crate) name: String,
    hash: [u8; 32],
    pub(super) grant: Grant,
}

/// All keys.
pub(crate) struct ApiKeys(Vec<ApiKey>);

impl ApiKeys {
    /// As configured.
    ///
    /// # Errors
    /// If a hash or a pattern is not valid.
    pub(crate) fn new(keys: &[config::ApiKey]) -> Result<Self, String> {
        let key = |key: &config::ApiKey| {
            let of = format!("auth.keys, `{}`", key.name);
            let hash = parse_hash(&key.hash)
                .ok_or_else(|| format!("{of}: `hash` is `sha256:` and 64 hexadecimal digits, as `tidewire token --new-key` prints it"))?;
            Ok(ApiKey {
                name: key.name.clone(),
                hash,
                grant: Grant::new(&of, &key.grant())?,
            })
        };
        keys.iter()
            .map(key)
            .collect::<Result<_, String>>()
            .map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that was presented. Takes as long whichever it is, and tells nothing of how much of it was right: hashes
    /// are compared, whole, and all of them.
    pub(crate) fn find(&self, presented: &str) -> Option<&ApiKey> {
        let hash = hash(presented);
        let mut found = None;
        for key in &self.0 {
            if verify_slices_are_equal(&key.hash, &hash).is_ok() {
                found = Some(key);
            }
        }
        found
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(HASH_PREFIX)?;
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Makes a key: what the client presents, and its hash for the configuration.
///
/// # Errors
/// If the system has no random bytes.
pub(crate) fn make() -> Result<(String, String), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes)?;
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let key = format!("{PREFIX}{}", hex(&bytes));
    let hash = format!("{HASH_PREFIX}{}", hex(&hash(&key)));
    Ok((key, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_alone() {
        let (key, hash) = make().expect("random bytes");
        let configured = config::ApiKey {
            name: "ci".to_owned(),
            hash,
            ..config::ApiKey::default()
        };
        let keys = ApiKeys::new(&[configured]).expect("a hash");
        assert_eq!(keys.find(&key).map(|key| key.name.as_str()), Some("ci"));
        assert!(keys.find(&key[..key.len() - 1]).is_none());
        assert!(keys.find("").is_none());
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "sha256:", "sha256:00", "md5:00", &"0".repeat(64)] {
            assert!(parse_hash(text).is_none(), "{text}");
        }
        assert!(parse_hash(&format!("sha256:{}", "g".repeat(64))).is_none());
        assert!(parse_hash(&format!("sha256:{}", "+1".repeat(32))).is_none());
    }
}
