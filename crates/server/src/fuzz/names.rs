//! What clients name: topics, patterns, ids and parameters.

use tidewire::core::id::NativeId;
use tidewire::core::topic::is_reserved;
use tidewire::query::{Query, decode_path_segment};
use tidewire::subscribe::parse_since;
use tidewire::{Pattern, Topic};

/// Names of more bytes are left out: the plain matcher takes the square of it.
const NAME_BYTES_MAX: usize = 256;

/// Lines as two patterns and a topic: matching is what a plain matcher says, and what a pattern covers it matches.
pub fn patterns(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let mut pattern = || Pattern::new(lines.next()?).ok();
    let (Some(wide), Some(narrow)) = (pattern(), pattern()) else {
        return;
    };
    let covers = wide.covers(&narrow);
    if wide.is_literal() {
        assert_eq!(covers, wide == narrow);
    }
    let Some(topic) = lines.next().and_then(|name| Topic::new(name).ok()) else {
        return;
    };
    let topic = topic.as_str();
    for pattern in [&wide, &narrow] {
        let matches = pattern.matches(topic);
        assert!(!matches || topic.starts_with(pattern.literal_prefix()));
        let is_short = pattern.as_str().len().max(topic.len()) <= NAME_BYTES_MAX;
        if is_short && !is_reserved(topic) {
            assert_eq!(matches, matches_plainly(pattern.as_str(), topic));
        }
        assert!(!matches || !is_reserved(topic) || is_reserved(pattern.as_str()));
    }
    assert!(!covers || !narrow.matches(topic) || wide.matches(topic));
}

/// The definition of a glob, as a table over all beginnings of the topic.
fn matches_plainly(pattern: &str, topic: &str) -> bool {
    let topic = topic.as_bytes();
    let mut reached = vec![false; topic.len() + 1];
    reached[0] = true;
    let mut rest = pattern.as_bytes();
    while let Some(&byte) = rest.first() {
        let stars = rest.iter().take_while(|byte| **byte == b'*').count();
        rest = &rest[stars.max(1)..];
        let mut next = vec![false; topic.len() + 1];
        for at in 0..=topic.len() {
            next[at] = match (stars, at.checked_sub(1)) {
                (0, Some(before)) => reached[before] && topic[before] == byte,
                (0, None) => false,
                (1, Some(before)) => {
                    reached[at] || next[before] && !b":/.".contains(&topic[before])
                }
                (_, Some(before)) => reached[at] || next[before],
                (_, None) => reached[at],
            };
        }
        reached = next;
    }
    reached[topic.len()]
}

/// Any text as a `Last-Event-ID` and as `since`: an id that is taken has one spelling.
pub fn ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(id) = NativeId::parse(text) {
        assert_eq!(id.to_string(), text);
    }
    let _ = parse_since(Some(text), 1);
    let _ = parse_since(Some(text), u64::MAX);
}

/// Any text as a query: each of its names has a value.
pub fn queries(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(query) = Query::parse(text) else {
        return;
    };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text: &str| decode_path_segment(&text.replace('+', "%20")).ok();
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
            panic!("{pair} was read, and can't be");
        };
        assert!(query.all(&name).any(|known| known == value), "{pair}");
    }
}
