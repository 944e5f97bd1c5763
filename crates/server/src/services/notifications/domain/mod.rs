//! What a notification is, and how a domain event becomes one. Knows neither HTTP nor SQL nor Redis.

mod rule;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub(super) use self::rule::Rule;
pub(crate) use self::rule::check_template;

/// Longest recipient, type, title, link in bytes. Stops records from being used as storage.
const SHORT_BYTES_MAX: usize = 256;
const TITLE_BYTES_MAX: usize = 1_024;
const LINK_BYTES_MAX: usize = 2_048;
/// Longest body and data, in bytes.
const LONG_BYTES_MAX: usize = 64 * 1_024;

/// A notification as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewNotification {
    /// The user who gets it.
    pub(super) recipient_id: String,
    /// What it is about, for programs: `story_assigned`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// A line for people.
    pub(super) title: String,
    /// More for people.
    #[serde(default)]
    pub(super) body: Option<String>,
    /// Where it leads.
    #[serde(default)]
    pub(super) link: Option<String>,
    /// Anything for programs.
    #[serde(default)]
    pub(super) data: Option<Value>,
}

impl NewNotification {
    /// Whether it may be stored.
    ///
    /// # Errors
    /// The field that is in the way, and why.
    pub(super) fn validate(&self) -> Result<(), (&'static str, String)> {
        let required = [
            ("recipient_id", &self.recipient_id, SHORT_BYTES_MAX),
            ("type", &self.kind, SHORT_BYTES_MAX),
            ("title", &self.title, TITLE_BYTES_MAX),
        ];
        for (name, text, max) in required {
            if text.trim().is_empty() {
                return Err((name, format!("`{name}` is needed, and not empty")));
            }
            check_text(name, text, max)?;
        }
        let id = &self.recipient_id;
        if id.contains(|c: char| c.is_control() || c == '*') {
            let why = "`recipient_id` has a character that no user's id has".to_owned();
            return Err(("recipient_id", why));
        }
        let optional = [
            ("body", &self.body, LONG_BYTES_MAX),
            ("link", &self.link, LINK_BYTES_MAX),
        ];
        for (name, text, max) in optional {
            text.as_ref()
                .map_or(Ok(()), |text| check_text(name, text, max))?;
        }
        if let Some(data) = &self.data {
            check_length("data", &data.to_string(), LONG_BYTES_MAX)?;
        }
        Ok(())
    }

    /// Whether a stored one is what this asks for.
    pub(super) fn is_of(&self, stored: &Notification) -> bool {
        // As it is after it was stored: numbers may change when they are written and read.
        let data = self.data.as_ref().map(ToString::to_string);
        let data = data.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        self.recipient_id == stored.recipient_id
            && self.kind == stored.kind
            && self.title == stored.title
            && self.body == stored.body
            && self.link == stored.link
            && data == stored.data
    }

    /// As it will be, but for its id and the time.
    pub(super) fn draft(&self) -> Notification {
        Notification {
            id: Uuid::nil().to_string(),
            recipient_id: self.recipient_id.clone(),
            kind: self.kind.clone(),
            title: self.title.clone(),
            body: self.body.clone(),
            link: self.link.clone(),
            data: self.data.clone(),
            read: false,
            read_at: None,
            created_at: Timestamp::UNIX_EPOCH.to_string(),
        }
    }
}

fn check_text(name: &'static str, text: &str, max: usize) -> Result<(), (&'static str, String)> {
    // PostgreSQL takes no text with it.
    if text.contains('\0') {
        return Err((
            name,
            format!("`{name}` has a NUL character, which no text has"),
        ));
    }
    check_length(name, text, max)
}

fn check_length(name: &'static str, text: &str, max: usize) -> Result<(), (&'static str, String)> {
    if text.len() <= max {
        return Ok(());
    }
    let len = text.len();
    Err((
        name,
        format!("`{name}` has {len} bytes, and may have {max}"),
    ))
}

/// A notification as it is stored, listed and delivered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Notification {
    /// A UUID of version 7: ids sort by age. It is the event's id, too.
    pub(super) id: String,
    pub(super) recipient_id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) title: String,
    pub(super) body: Option<String>,
    pub(super) link: Option<String>,
    pub(super) data: Option<Value>,
    pub(super) read: bool,
    /// RFC 3339, in UTC.
    pub(super) read_at: Option<String>,
    pub(super) created_at: String,
}

impl Notification {
    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let data = self.data.as_ref();
        let data = data.map_or(0, |data| data.to_string().len());
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.title.len() + optional(&self.body) + optional(&self.link) + data + 512
    }
}
