//! What a bad configuration says about itself: the key, where it was written, what was given and what is allowed.

use std::fmt;
use std::sync::Arc;

use super::schema::KEYS;
use super::tree::Origin;

/// Why a configuration was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConfigError {
    /// The file could not be read or is not TOML or YAML.
    File {
        /// As it was named.
        path: Arc<str>,
        /// From 1, where it is known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// A setting is unknown or has a bad value.
    Setting(Box<SettingError>),
}

/// What is wrong with one setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SettingError {
    /// The full key, such as `history.rules[0].ttl`.
    pub(crate) key: String,
    /// In a few words.
    pub(crate) problem: String,
    /// The value, as it was written.
    pub(crate) given: Option<String>,
    /// Where it was written.
    pub(crate) origin: Origin,
    /// What may be written instead.
    pub(crate) allowed: Option<String>,
    /// What was probably meant.
    pub(crate) hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
                problem,
            } => write!(f, "{path}:{line}: {problem}"),
            Self::File {
                path,
                line: None,
                problem,
            } => write!(f, "{path}: {problem}"),
            Self::Setting(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.given {
            Some(given) => write!(f, "\n  given    {given} ({})", self.origin)?,
            None => write!(f, "\n  given    in {}", self.origin)?,
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "\n  allowed  {allowed}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint     {hint}")?;
        }
        Ok(())
    }
}

/// How alike two names must be for one to be suggested for the other, from 0 to 1.
const LIKENESS_MIN: f64 = 0.8;

/// The names most like `given`, best first, at most three.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let given = plain(given);
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, &plain(name)), name))
        .filter(|(score, _)| *score >= LIKENESS_MIN)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = scored.first().map_or(0.0, |first| first.0);
    // Far worse than the best is noise, not a suggestion.
    scored
        .into_iter()
        .take_while(|(score, _)| *score > best - 0.05)
        .take(3)
        .map(|(_, name)| name)
        .collect()
}

/// The settings that an unknown key may mean: one with a name like it, or one of that name at another place.
pub(crate) fn nearest_keys(given: &str) -> Vec<&'static str> {
    let last = |key: &str| plain(key.rsplit('.').next().unwrap_or(key));
    let moved: Vec<&str> = KEYS
        .iter()
        .copied()
        .filter(|key| last(key) == last(given))
        .collect();
    if moved.is_empty() {
        nearest(given, KEYS.iter().copied())
    } else {
        moved.into_iter().take(3).collect()
    }
}

/// "did you mean …?", if there is something to suggest.
pub(crate) fn did_you_mean<T: fmt::Display>(names: &[T]) -> Option<String> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// A name without what people get wrong about it: case, and which separator it is written with.
fn plain(name: &str) -> String {
    name.to_lowercase()
        .replace("__", "_")
        .replace(['.', '-'], "_")
}
