//! Why a credential does not stand, for programs (`check`) and for people, and the answer that says so.

use tidewire::problem::{Code, Problem};

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

    /// How far a token got.
    pub(super) fn stage(self) -> u8 {
        match self {
            Self::Format | Self::Issuer | Self::Webhook => 0,
            Self::Algorithm => 1,
            Self::Key | Self::Unavailable => 2,
            Self::Signature => 3,
            Self::Expired | Self::NotBefore | Self::Audience | Self::Claim | Self::Rights => 4,
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

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        if refused.check == Check::Unavailable {
            return Self::new(Code::AuthUnavailable, refused.detail).retry_after_s(5);
        }
        unauthorized(refused.check, refused.detail)
    }
}

/// The answer to a credential that does not stand.
pub(super) fn unauthorized(check: Check, detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadCredential, detail).with("check", check.as_str())
}

/// What somebody else wrote, short and harmless in a log and on a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
