//! Events as publishers give them, and the rules they must keep to be put on the wire.
//!
//! What is refused here is what the event stream format can't carry (WHATWG HTML section 9.2), what could not come
//! back in a `Last-Event-ID` header (RFC 9110 section 5.5), and what is over a limit.

use std::error::Error;
use std::fmt;

use memchr::memchr2;
use serde::Serialize;

use crate::limits::{EVENT_NAME_BYTES_MAX, ID_BYTES_MAX};

/// An event to publish. [`validate`](Self::validate) says whether it can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The publisher's own id; without one the hub gives the event an id.
    pub id: Option<String>,
    /// The name that a client listens for; without one it is `message`.
    pub event: Option<String>,
    /// What the event says. Lines may end in CR, LF or CRLF; clients see LF.
    pub data: String,
    /// How long a client shall wait before it reconnects, in milliseconds.
    pub retry_ms: Option<u64>,
    /// Whether only subscribers with a right to the event's topics may have it.
    pub private: bool,
}

impl From<&str> for Event {
    fn from(data: &str) -> Self {
        Self::text(data)
    }
}

impl From<String> for Event {
    fn from(data: String) -> Self {
        Self::text(data)
    }
}

impl Event {
    /// An event with `data` and nothing else.
    pub fn text(data: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// An event called `name` with `value` as compact JSON, on one line.
    ///
    /// # Errors
    /// What [`serde_json::to_string`] fails with: `value` refuses to be serialized, or has a map with keys that are no
    /// strings.
    pub fn json(
        name: impl Into<String>,
        value: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::text(serde_json::to_string(value)?).named(name))
    }

    /// The event with this name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.event = Some(name.into());
        self
    }

    /// The event with this id in place of the hub's.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The event with this reconnection time for its receivers, in milliseconds.
    #[must_use]
    pub fn with_retry_ms(mut self, retry_ms: u64) -> Self {
        self.retry_ms = Some(retry_ms);
        self
    }

    /// The event for authorized subscribers only.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Checks that the event can be encoded, resumed from, and is not too large: its id, name and data together may
    /// have `event_bytes_max` bytes.
    ///
    /// # Errors
    /// An [`EventError`] that names the first rule that is broken.
    pub fn validate(&self, event_bytes_max: usize) -> Result<(), EventError> {
        let id = self.id.as_deref();
        let name = self.event.as_deref();
        let bytes = id.map_or(0, str::len) + name.map_or(0, str::len) + self.data.len();
        if bytes > event_bytes_max {
            return Err(EventError::TooLarge {
                bytes,
                bytes_max: event_bytes_max,
            });
        }
        id.map_or(Ok(()), check_id)?;
        name.map_or(Ok(()), check_name)
    }
}

fn check_id(id: &str) -> Result<(), EventError> {
    if id.is_empty() {
        return Err(EventError::IdEmpty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(EventError::IdTooLong { bytes: id.len() });
    }
    if id.starts_with('~') {
        return Err(EventError::IdReserved);
    }
    if id.contains(char::is_control) {
        return Err(EventError::IdControlCharacter);
    }
    if id.starts_with(' ') || id.ends_with(' ') {
        return Err(EventError::IdSpaceAtEnd);
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), EventError> {
    if name.len() > EVENT_NAME_BYTES_MAX {
        return Err(EventError::NameTooLong { bytes: name.len() });
    }
    if name.contains(['\r', '\n', '\0']) {
        return Err(EventError::NameLineBreak);
    }
    Ok(())
}

/// Why an event can't be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventError {
    /// The id is there and empty: on the wire that would make clients forget where they are.
    IdEmpty,
    /// The id is longer than [`ID_BYTES_MAX`].
    IdTooLong {
        /// How long it is, in bytes.
        bytes: usize,
    },
    /// The id has a control character, such as CR, LF or NUL, and could not be sent or not come back in a header.
    IdControlCharacter,
    /// The id begins or ends with a space, which HTTP takes off a header's value.
    IdSpaceAtEnd,
    /// The id begins with `~`, as the hub's own ids do.
    IdReserved,
    /// The name is longer than [`EVENT_NAME_BYTES_MAX`].
    NameTooLong {
        /// How long it is, in bytes.
        bytes: usize,
    },
    /// The name has a CR, LF or NUL.
    NameLineBreak,
    /// Id, name and data together are larger than the limit.
    TooLarge {
        /// How large they are, in bytes.
        bytes: usize,
        /// How large they may be, in bytes.
        bytes_max: usize,
    },
}

impl EventError {
    /// A stable name for this kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdEmpty => "id_empty",
            Self::IdTooLong { .. } => "id_too_long",
            Self::IdControlCharacter => "id_control_character",
            Self::IdSpaceAtEnd => "id_space_at_end",
            Self::IdReserved => "id_reserved",
            Self::NameTooLong { .. } => "event_name_too_long",
            Self::NameLineBreak => "event_name_line_break",
            Self::TooLarge { .. } => "event_too_large",
        }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdEmpty => f.write_str("the id is empty; leave it out to have the hub give one"),
            Self::IdTooLong { bytes } => {
                write!(f, "the id has {bytes} bytes; allowed are {ID_BYTES_MAX}")
            }
            Self::IdControlCharacter => f.write_str(
                "the id has a control character; allowed is text without CR, LF, NUL and the like",
            ),
            Self::IdSpaceAtEnd => {
                f.write_str("the id begins or ends with a space; spaces are allowed within it only")
            }
            Self::IdReserved => {
                f.write_str("the id begins with `~`; that is reserved for the hub's own ids")
            }
            Self::NameTooLong { bytes } => {
                write!(
                    f,
                    "the event name has {bytes} bytes; allowed are {EVENT_NAME_BYTES_MAX}"
                )
            }
            Self::NameLineBreak => {
                f.write_str("the event name has a CR, LF or NUL; allowed is any text on one line")
            }
            Self::TooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "the event's id, name and data have {bytes} bytes together; allowed are {bytes_max}"
                )
            }
        }
    }
}

impl Error for EventError {}

/// Appends the JSON text `raw` to `out` without the whitespace between its tokens (RFC 8259 section 2), so that it is
/// one line. `raw` must be valid JSON; of any other text an unspecified part is left out, and nothing worse happens.
pub fn compact_json(raw: &str, out: &mut String) {
    let bytes = raw.as_bytes();
    out.reserve(raw.len());
    let (mut kept_from, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1),
            b' ' | b'\t' | b'\n' | b'\r' => {
                // Whitespace is ASCII, so both cuts are between characters.
                out.push_str(&raw[kept_from..at]);
                at += 1;
                kept_from = at;
            }
            _ => at += 1,
        }
    }
    out.push_str(&raw[kept_from..]);
}

/// Where the JSON string whose inside begins at `at` is over.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if bytes[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(event: &Event) -> Option<&'static str> {
        event.validate(1_000).err().map(|error| error.code())
    }

    #[test]
    fn builders_set_what_they_name() {
        let event = Event::json("order_created", &vec![1, 2])
            .expect("integers are JSON")
            .with_id("a")
            .with_retry_ms(5);
        let expected = Event {
            id: Some("a".into()),
            event: Some("order_created".into()),
            data: "[1,2]".into(),
            retry_ms: Some(5),
            private: true,
        };
        assert_eq!(event.private(), expected);
        assert_eq!(
            Event::text("x"),
            Event {
                data: "x".into(),
                ..Event::default()
            }
        );
    }

    #[test]
    fn ids_that_could_not_be_resumed_from_are_refused() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        let cases = [
            ("a", None),
            ("a b-é", None),
            (&long[1..], None),
            ("", Some("id_empty")),
            (&long, Some("id_too_long")),
            ("a\rb", Some("id_control_character")),
            ("a\nb", Some("id_control_character")),
            ("a\0b", Some("id_control_character")),
            ("a\tb", Some("id_control_character")),
            (" a", Some("id_space_at_end")),
            ("a ", Some("id_space_at_end")),
            ("~a", Some("id_reserved")),
        ];
        for (id, code) in cases {
            assert_eq!(code_of(&Event::text("x").with_id(id)), code, "{id:?}");
        }
    }

    #[test]
    fn names_that_would_break_the_line_are_refused() {
        let long = "x".repeat(EVENT_NAME_BYTES_MAX + 1);
        let cases = [
            ("", None),
            ("order\tcreated ~é", None),
            (&long[1..], None),
            (&long, Some("event_name_too_long")),
            ("a\rb", Some("event_name_line_break")),
            ("a\nb", Some("event_name_line_break")),
            ("a\0b", Some("event_name_line_break")),
        ];
        for (name, code) in cases {
            assert_eq!(code_of(&Event::text("x").named(name)), code, "{name:?}");
        }
    }

    #[test]
    fn the_size_is_that_of_id_name_and_data() {
        let event = Event::text("12345").with_id("123").named("12");
        assert_eq!(event.validate(10), Ok(()));
        let error = event.validate(9).expect_err("one byte too large");
        assert_eq!(
            error,
            EventError::TooLarge {
                bytes: 10,
                bytes_max: 9
            }
        );
        assert_eq!(error.code(), "event_too_large");
        assert!(
            error.to_string().contains("10 bytes") && error.to_string().ends_with('9'),
            "{error}"
        );
    }

    #[test]
    fn whitespace_between_tokens_is_stripped_and_in_strings_kept() {
        let cases = [
            ("{\"a\":[1,2]}", "{\"a\":[1,2]}"),
            (" { \"a\" :\r\n\t[ 1 , 2 ] } ", "{\"a\":[1,2]}"),
            (r#"[ "a b" , "\" , \\" , " " ]"#, r#"["a b","\" , \\"," "]"#),
            (r#""é \\" "#, r#""é \\""#),
            ("\n1\n", "1"),
        ];
        for (raw, compact) in cases {
            let mut out = String::from(">");
            compact_json(raw, &mut out);
            assert_eq!(out, format!(">{compact}"));
        }
    }

    #[test]
    fn text_that_is_not_json_does_no_harm() {
        for raw in ["", "\"", "\"\\", "\"\\é", "\"\\é\" \u{2028} x", "é \" é"] {
            compact_json(raw, &mut String::new());
        }
    }
}
