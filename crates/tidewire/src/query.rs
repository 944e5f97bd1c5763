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
    fn what_is_no_utf_8_is_refused() {
        for bad in ["topic=%FF", "%C3=1", "a=b&topic=%E2%82"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
