//! What the property tests are made of: random scripts, a model that says what every client must get, clients that
//! check it, and a world in which all of that meets a log.

pub(crate) mod client;
mod drive;
pub(crate) mod model;
pub(crate) mod script;
pub(crate) mod world;

/// What a check answers; the text says which rule was broken.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// Fails the check with a text unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;
