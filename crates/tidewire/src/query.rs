//! The query of a request, read strictly: what is not valid UTF-8 is an error, not a question mark.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::problem::{Code, Problem};

/// Names and values in order, decoded as `application/x-www-form-urlencoded` (WHATWG URL section 5.1).
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the part of an address behind the `?`.
    ///
    /// # Errors
    /// If a name or value is no valid UTF-8.
    pub fn parse(query: &'a str) -> Result<Self, Problem> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_ref())
    }

    /// Refuses a name that is one of these with a slip in it, as it would be lost in silence. Any other one passes: what
    /// stands between a client and the hub may add its own, against caches for example.
    ///
    /// # Errors
    /// With the name that was meant.
    pub fn check_names(&self, known: &[&str]) -> Result<(), Problem> {
        let names = self.0.iter().map(|(name, _)| name.as_ref());
        for name in names.filter(|name| !known.contains(name)) {
            if let Some(meant) = meant_by(name, known) {
                let shown: String = name.chars().take(100).collect();
                let detail =
                    format!("there is no parameter `{shown}` here; is `{meant}` what you mean?");
                return Err(Problem::new(Code::BadParameter, detail).with("parameter", shown));
            }
        }
        Ok(())
    }
}

/// Names shorter than this have too many neighbours: `id` is one letter from anything.
const NAME_BYTES_WITH_SLIPS_MIN: usize = 5;

/// Which of these a name is in another spelling (`Topic`, `last-event-id`, `topics[]`), or else with a slip.
fn meant_by<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| -> Vec<u8> {
        let letters = name.bytes().filter(|c| !b"-_[]".contains(c));
        letters.map(|c| c.to_ascii_lowercase()).collect()
    };
    let name = plain(name);
    let slip = |known: &str| {
        known.len() >= NAME_BYTES_WITH_SLIPS_MIN && is_a_slip_apart(&name, &plain(known))
    };
    let respelt = known.iter().find(|known| plain(known) == name);
    respelt
        .or_else(|| known.iter().find(|known| slip(known)))
        .copied()
}

/// Whether two words differ by one letter that is missing, added or another one, or by two that have changed places.
fn is_a_slip_apart(name: &[u8], known: &[u8]) -> bool {
    let same = name
        .iter()
        .zip(known)
        .take_while(|(one, other)| one == other)
        .count();
    let (name, known) = (&name[same..], &known[same..]);
    match (name, known) {
        ([one, two, rest @ ..], [first, second, known @ ..]) if (one, two) == (second, first) => {
            rest == known
        }
        ([_, name_rest @ ..], [_, known_rest @ ..]) => {
            name_rest == known_rest || name_rest == known || name == known_rest
        }
        ([_], []) | ([], [_]) => true,
        _ => false,
    }
}

/// Decodes one percent-encoded component.
///
/// # Errors
/// If the result is no valid UTF-8.
fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    let spaced: Cow<'_, str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    let decoded = percent_decode(spaced.as_bytes())
        .decode_utf8()
        .map(Cow::into_owned);
    match decoded {
        Ok(decoded) if decoded == text => Ok(text.into()),
        Ok(decoded) => Ok(decoded.into()),
        Err(_) => Err(Problem::new(
            Code::BadQuery,
            "a query parameter is no percent-encoded UTF-8",
        )),
    }
}

/// Decodes a segment of a path, where `+` means itself.
///
/// # Errors
/// If the result is no valid UTF-8.
pub fn decode_path_segment(text: &str) -> Result<String, Problem> {
    let decoded = percent_decode(text.as_bytes())
        .decode_utf8()
        .map(Cow::into_owned);
    decoded.map_err(|_| Problem::new(Code::BadQuery, "the path is no percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let query = Query::parse("topic=a%2Fb&topic=c+d&&since&x=1=2&e=%F0%9F%8C%8A")
            .map_err(|p| p.to_json());
        let query = query.expect("valid");
        assert_eq!(query.all("topic").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(
            (query.get("since"), query.get("x"), query.get("e")),
            (Some(""), Some("1=2"), Some("🌊"))
        );
        assert_eq!(query.get("nothing"), None);
    }

    #[test]
    fn a_name_with_a_slip_is_refused_and_a_foreign_one_passes() {
        let known = ["topic", "topics", "since", "last_event_id", "id"];
        let meant = |query: &str| {
            let query = Query::parse(query).map_err(|p| p.to_json()).expect("valid");
            query
                .check_names(&known)
                .err()
                .map(|p| p.detail().to_owned())
        };
        for (name, of) in [
            ("topcis", "topics"),
            ("topc", "topic"),
            ("topicss", "topics"),
            ("xtopics", "topics"),
            ("tobic", "topic"),
            ("Topic", "topic"),
            ("topic[]", "topic"),
            ("topics%5B%5D", "topics"),
            ("sinc", "since"),
            ("lastEventID", "last_event_id"),
            ("Last-Event-ID", "last_event_id"),
            ("ID", "id"),
        ] {
            let detail = meant(&format!("topic=a&{name}=1"));
            assert!(
                detail.is_some_and(|detail| detail.contains(&format!("is `{of}` what"))),
                "{name}"
            );
        }
        for name in [
            "_",
            "t",
            "ts",
            "cb",
            "v",
            "time",
            "timestamp",
            "nocache",
            "rand",
            "token",
            "access_token",
            "utm_source",
            "",
            "topic",
            "topics",
            "last_event_id",
        ] {
            assert_eq!(meant(&format!("{name}=1")), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_refused() {
        for bad in ["topic=%FF", "%C3=1", "a=b&topic=%E2%82"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
