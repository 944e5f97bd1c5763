//! Events and control frames as bytes of an event stream (WHATWG HTML section 9.2.5).
//!
//! [`encode`] runs once for each published event and is the publisher's hot path: one reservation, then copies. The
//! control frames are written per connection. Fields are `name: value`, with the one space that parsers take off.

use memchr::{memchr2, memrchr};
use serde_json::json;

/// A sign of life. It has no blank line of its own: that makes some clients fire an empty message.
pub const HEARTBEAT_COMMENT: &[u8] = b":\n";

/// A sign of life that scripts can see, for clients that ask for it.
pub const HEARTBEAT_EVENT: &[u8] = b"event: heartbeat\ndata: {}\n\n";

/// What a block has besides its values, with the longest `retry:` and data on one line.
const BLOCK_OVERHEAD_BYTES: usize = 64;

/// Appends one event. `data` becomes a `data:` line for each of its lines, however those end; empty data becomes one
/// empty line, which makes clients fire an event (without any `data:` line they would not).
///
/// The id comes last: some clients take it as soon as they see its line, and would skip an event that breaks off behind
/// it when they resume.
///
/// `id` and `event` must have no CR, LF or NUL, see [`Event::validate`](crate::Event::validate).
pub fn encode(
    out: &mut Vec<u8>,
    id: Option<&[u8]>,
    event: Option<&str>,
    retry_ms: Option<u64>,
    data: &str,
) {
    let values = id.map_or(0, <[u8]>::len) + event.map_or(0, str::len) + data.len();
    out.reserve(values + BLOCK_OVERHEAD_BYTES);
    if let Some(event) = event {
        line(out, b"event: ", event.as_bytes());
    }
    if let Some(retry_ms) = retry_ms {
        retry_line(out, retry_ms);
    }
    let mut rest = data.as_bytes();
    while let Some(end) = memchr2(b'\r', b'\n', rest) {
        line(out, b"data: ", &rest[..end]);
        let end_bytes = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + end_bytes..];
    }
    line(out, b"data: ", rest);
    if let Some(id) = id {
        line(out, b"id: ", id);
    }
    out.push(b'\n');
}

/// The id of an encoded event.
pub(crate) fn id_of(encoded: &[u8]) -> Option<&str> {
    let lines = encoded.strip_suffix(b"\n\n")?;
    let last = &lines[memrchr(b'\n', lines).map_or(0, |end| end + 1)..];
    std::str::from_utf8(last.strip_prefix(b"id: ")?).ok()
}

/// Appends the line that names a topic of the event that follows; clients that don't know the field leave it out.
pub fn topic_line(out: &mut Vec<u8>, topic: &str) {
    line(out, b"topic: ", topic.as_bytes());
}

/// Appends a reconnection time, as a line that still needs a block to stand in.
pub fn retry_line(out: &mut Vec<u8>, retry_ms: u64) {
    line(
        out,
        b"retry: ",
        itoa::Buffer::new().format(retry_ms).as_bytes(),
    );
}

/// Appends a comment line of `bytes` bytes in all, to get past a proxy's or a browser's buffer. The shortest comment
/// has 2 bytes; for less nothing is written.
pub fn padding(out: &mut Vec<u8>, bytes: usize) {
    let Some(spaces) = bytes.checked_sub(2) else {
        return;
    };
    out.push(b':');
    out.resize(out.len() + spaces, b' ');
    out.push(b'\n');
}

/// Appends a block of just an id. Clients fire no event for it, and reconnect with that id.
pub fn checkpoint(out: &mut Vec<u8>, id: &[u8]) {
    line(out, b"id: ", id);
    out.push(b'\n');
}

/// The data of the event that says that events after the id `from` are missing, and why.
pub fn gap_data(from: Option<&str>, reason: &str) -> String {
    json!({ "from": from, "reason": reason }).to_string()
}

/// The data of the event that ends a topic.
pub fn end_data(topic: &str) -> String {
    json!({ "topic": topic }).to_string()
}

fn line(out: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    debug_assert!(
        memchr2(b'\r', b'\n', value).is_none(),
        "a value must not end its line"
    );
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before|".to_vec();
        write(&mut out);
        let text = String::from_utf8(out).expect("frames are UTF-8");
        text.strip_prefix("before|")
            .expect("frames are appended")
            .to_owned()
    }

    #[test]
    fn an_event_is_its_fields_and_a_blank_line() {
        assert_eq!(
            written(|out| encode(
                out,
                Some(b"~1-7"),
                Some("tick"),
                Some(u64::MAX),
                "{\"n\":1}"
            )),
            "event: tick\nretry: 18446744073709551615\ndata: {\"n\":1}\nid: ~1-7\n\n"
        );
        assert_eq!(
            written(|out| encode(out, None, None, None, "x")),
            "data: x\n\n"
        );
    }

    #[test]
    fn each_line_of_data_is_a_data_line_however_it_ends() {
        let cases = [
            ("", "data: \n\n"),
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\r\r\nb", "data: a\ndata: \ndata: b\n\n"),
            ("\n", "data: \ndata: \n\n"),
            ("a\r\n", "data: a\ndata: \n\n"),
            (" a", "data:  a\n\n"),
        ];
        for (data, expected) in cases {
            assert_eq!(
                written(|out| encode(out, None, None, None, data)),
                expected,
                "{data:?}"
            );
        }
    }

    #[test]
    fn the_id_of_an_encoded_event_is_read_off_its_end() {
        let mut out = Vec::new();
        encode(
            &mut out,
            Some(b"order 7"),
            Some("id: x"),
            None,
            "a\nid: y\n",
        );
        assert_eq!(id_of(&out), Some("order 7"));
        out.clear();
        encode(&mut out, None, None, None, "id: y");
        assert_eq!(id_of(&out), None);
    }

    #[test]
    fn the_reservation_holds_an_event_on_one_line() {
        let overhead = written(|out| encode(out, Some(b""), Some(""), Some(u64::MAX), ""));
        assert!(overhead.len() <= BLOCK_OVERHEAD_BYTES, "{}", overhead.len());
    }

    #[test]
    fn control_frames_are_as_documented() {
        assert_eq!(written(|out| retry_line(out, 2_500)), "retry: 2500\n");
        assert_eq!(written(|out| checkpoint(out, b"~1-7")), "id: ~1-7\n\n");
        for (bytes, expected) in [(0, ""), (1, ""), (2, ":\n"), (5, ":   \n")] {
            assert_eq!(written(|out| padding(out, bytes)), expected);
        }
    }

    #[test]
    fn texts_in_control_frames_are_escaped() {
        assert_eq!(
            gap_data(None, "lagged"),
            "{\"from\":null,\"reason\":\"lagged\"}"
        );
        assert_eq!(
            gap_data(Some("a\"\\\r\nb"), "unknown_id"),
            "{\"from\":\"a\\\"\\\\\\r\\nb\",\"reason\":\"unknown_id\"}"
        );
        assert_eq!(end_data("room:\"é\""), "{\"topic\":\"room:\\\"é\\\"\"}");
    }
}
