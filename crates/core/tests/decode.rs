//! The decoder against a table of the rules in WHATWG HTML section 9.2.6, with each stream cut in every possible way
//! into two chunks, and into single bytes; and against the encoder.

use proptest::prelude::*;
use tidewire_core::encode::{
    HEARTBEAT_COMMENT, HEARTBEAT_EVENT, checkpoint, encode, gap_data, padding, retry_line,
};
use tidewire_core::{Decoded, Decoder};

const EVENT_BYTES_MAX: usize = 1_000;

/// What a client knows at the end of a stream.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<Decoded>,
    last_event_id: String,
    retry_ms: Option<u64>,
    comments: u64,
}

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(event) = decoder
            .next_event()
            .expect("the stream is within the limits")
        {
            events.push(event);
        }
    }
    Outcome {
        events,
        last_event_id: decoder.last_event_id().to_owned(),
        retry_ms: decoder.retry_ms(),
        comments: decoder.comments(),
    }
}

fn assert_decodes(stream: &[u8], expected: &Outcome) {
    let shown = String::from_utf8_lossy(stream);
    for cut in 0..=stream.len() {
        let (first, second) = stream.split_at(cut);
        assert_eq!(&decode([first, second]), expected, "{shown:?} cut at {cut}");
    }
    assert_eq!(
        &decode(stream.chunks(1)),
        expected,
        "{shown:?} byte by byte"
    );
}

fn event(id: &str, event: &str, data: &str) -> Decoded {
    Decoded {
        id: id.into(),
        event: event.into(),
        data: data.into(),
        topics: Vec::new(),
    }
}

/// A case whose events are all named `message` and without an id.
fn assert_messages(stream: impl AsRef<[u8]>, data: &[&str]) {
    let events = data.iter().map(|data| event("", "message", data)).collect();
    assert_decodes(
        stream.as_ref(),
        &Outcome {
            events,
            ..Outcome::default()
        },
    );
}

#[test]
fn the_examples_of_the_standard() {
    assert_messages("data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10"]);
    assert_decodes(
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        &Outcome {
            events: vec![
                event("1", "message", "first event"),
                event("", "message", "second event"),
                event("", "message", " third event"),
            ],
            comments: 1,
            ..Outcome::default()
        },
    );
    assert_messages("data\n\ndata\ndata\n\ndata:", &["", "\n"]);
    assert_messages("data:test\n\ndata: test\n\n", &["test", "test"]);
    assert_decodes(
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        &Outcome {
            events: vec![
                event("", "add", "73857293"),
                event("", "remove", "2153"),
                event("", "add", "113411"),
            ],
            ..Outcome::default()
        },
    );
}

#[test]
fn lines_end_in_lf_cr_or_crlf() {
    assert_messages("data: a\n\ndata: b\n\n", &["a", "b"]);
    assert_messages("data: a\r\rdata: b\r\r", &["a", "b"]);
    assert_messages("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
    assert_messages(
        "data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r",
        &["a\nb\nc", "d"],
    );
    assert_messages("data: a\n\r\n\r", &["a"]);
    assert_messages(
        "data: a\u{b}b\u{2028}c\u{85}\n\n",
        &["a\u{b}b\u{2028}c\u{85}"],
    );
}

#[test]
fn a_cr_ends_its_line_without_waiting_for_an_lf() {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    decoder.push(b"data: a\r\r");
    assert_eq!(decoder.next_event(), Ok(Some(event("", "message", "a"))));
    decoder.push(b"\ndata: b\n\n");
    assert_eq!(decoder.next_event(), Ok(Some(event("", "message", "b"))));
    assert_eq!(decoder.next_event(), Ok(None));
}

#[test]
fn one_byte_order_mark_is_dropped_and_only_at_the_start() {
    assert_messages("\u{feff}data: a\n\n", &["a"]);
    assert_messages("\u{feff}\u{feff}data: a\n\ndata: b\n\n", &["b"]);
    assert_messages("\u{feff}\ndata: a\n\n", &["a"]);
    assert_messages("\n\u{feff}data: a\n\ndata: b\n\n", &["b"]);
    assert_messages("data: \u{feff}a\n\n", &["\u{feff}a"]);
    assert_messages(b"\xef\xbbdata: a\n\ndata: b\n\n", &["b"]);
    let comment = Outcome {
        comments: 1,
        ..Outcome::default()
    };
    assert_decodes("\u{feff}:data: a\n\n".as_bytes(), &comment);
}

#[test]
fn invalid_utf8_becomes_replacement_characters() {
    assert_messages("data: grüße 🌊\n\n", &["grüße 🌊"]);
    assert_messages(
        b"data: \xff\xf0\x9f\x8cx\xc3\n\n",
        &["\u{fffd}\u{fffd}x\u{fffd}"],
    );
    assert_messages(
        b"data: \xe0\x80\xed\xa0\x80\n\n",
        &["\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"],
    );
    assert_messages(b"data\xff: a\ndata: b\n\n", &["b"]);
}

#[test]
fn fields_are_cut_at_the_first_colon_and_lose_one_space() {
    assert_messages("data:a:b: c\n\n", &["a:b: c"]);
    assert_messages("data:  a \n\n", &[" a "]);
    assert_messages("data:\ta\n\n", &["\ta"]);
    assert_messages(
        "data: a\n data: b\ndata : c\nDATA: d\nunknown: e\nunknown\n\n",
        &["a"],
    );
}

#[test]
fn a_block_without_data_is_no_event() {
    assert_messages("event: a\n\ndata: b\n\n", &["b"]);
    assert_messages("\n\n\r\n\r", &[]);
    assert_messages("data:\n\ndata: \n\ndata\n\n", &["", "", ""]);
    assert_messages("topic: a\n\ndata: b\n\n", &["b"]);
}

#[test]
fn the_last_name_of_a_block_counts_and_an_empty_one_is_message() {
    let named = |name| Outcome {
        events: vec![event("", name, "x")],
        ..Outcome::default()
    };
    assert_decodes(b"event: a\nevent: b\ndata: x\n\n", &named("b"));
    assert_decodes(b"event: a\nevent:\ndata: x\n\n", &named("message"));
    assert_decodes(b"data: x\nevent:  a\n\n", &named(" a"));
}

#[test]
fn a_block_that_is_not_ended_is_dropped_with_its_id() {
    let seen = Outcome {
        events: vec![event("1", "message", "a")],
        last_event_id: "1".into(),
        ..Outcome::default()
    };
    assert_decodes(b"id: 1\ndata: a\n\nid: 2\ndata: b\n", &seen);
    assert_decodes(b"id: 1\ndata: a\n\nid: 2\ndata: b", &seen);
}

#[test]
fn ids_last_until_the_next_one() {
    assert_decodes(
        b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid: 3\0\ndata: d\n\nid\ndata: e\n\nid: 4\n\n",
        &Outcome {
            events: vec![
                event("1", "message", "a"),
                event("1", "message", "b"),
                event("2", "message", "c"),
                event("2", "message", "d"),
                event("", "message", "e"),
            ],
            last_event_id: "4".into(),
            ..Outcome::default()
        },
    );
}

#[test]
fn retry_is_taken_if_it_is_of_digits_only() {
    let cases = [
        ("retry: 2500\n", Some(2_500)),
        ("retry:007\n\n", Some(7)),
        ("retry: 1\nretry: 2\n", Some(2)),
        ("retry: 99999999999999999999\n", Some(u64::MAX)),
        (
            "retry: 5\nretry: -1\nretry: 1.5\nretry: 1 \nretry:  1\nretry: x\nretry:\nretry\nretry: \u{661}\n",
            Some(5),
        ),
        ("retry: 25", None),
    ];
    for (stream, retry_ms) in cases {
        assert_decodes(
            stream.as_bytes(),
            &Outcome {
                retry_ms,
                ..Outcome::default()
            },
        );
    }
}

#[test]
fn comments_are_counted_and_change_nothing() {
    let events = vec![event("", "message", "a\nb")];
    assert_decodes(
        b":\ndata: a\n: data: x\n:::\r\ndata: b\n\n:",
        &Outcome {
            events,
            comments: 3,
            ..Outcome::default()
        },
    );
}

#[test]
fn topics_are_those_of_their_event() {
    let topics = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let events = vec![
        Decoded {
            topics: topics(&["order:7", "orders"]),
            ..event("", "message", "a")
        },
        event("", "message", "b"),
    ];
    assert_decodes(
        b"topic: order:7\ntopic: orders\ndata: a\n\ndata: b\n\n",
        &Outcome {
            events,
            ..Outcome::default()
        },
    );
}

#[test]
fn control_frames_are_understood() {
    let mut stream = Vec::new();
    padding(&mut stream, 40);
    retry_line(&mut stream, 3_000);
    checkpoint(&mut stream, b"~1-7");
    stream.extend_from_slice(HEARTBEAT_COMMENT);
    let data = gap_data(Some("~1-3"), "expired");
    encode(&mut stream, Some(b"~1-9"), Some("gap"), None, &data);
    stream.extend_from_slice(HEARTBEAT_EVENT);
    assert_decodes(
        &stream,
        &Outcome {
            events: vec![
                event("~1-9", "gap", r#"{"from":"~1-3","reason":"expired"}"#),
                event("~1-9", "heartbeat", "{}"),
            ],
            last_event_id: "~1-9".into(),
            retry_ms: Some(3_000),
            comments: 2,
        },
    );
}

fn field() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[^\r\n\0]{0,12}|[ -~]{1,8}")
}

fn data() -> impl Strategy<Value = String> {
    prop_oneof!["[a :\r\n]{0,12}", "\\PC{0,20}", any::<String>()]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_in_any_chunks(
        events in prop::collection::vec((field(), field(), prop::option::of(any::<u64>()), data()), 1..6),
        sizes in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let mut stream = Vec::new();
        let mut expected = Outcome::default();
        for (id, name, retry_ms, data) in &events {
            encode(&mut stream, id.as_deref().map(str::as_bytes), name.as_deref(), *retry_ms, data);
            expected.last_event_id = id.clone().unwrap_or(expected.last_event_id);
            expected.retry_ms = retry_ms.or(expected.retry_ms);
            let name = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("message");
            let data = data.replace("\r\n", "\n").replace('\r', "\n");
            expected.events.push(event(&expected.last_event_id, name, &data));
        }
        let mut rest = stream.as_slice();
        let mut sizes = sizes.iter().cycle();
        let chunks = std::iter::from_fn(|| {
            let (chunk, after) = rest.split_at(rest.len().min(*sizes.next()?));
            rest = after;
            (!chunk.is_empty()).then_some(chunk)
        });
        prop_assert_eq!(decode(chunks), expected);
    }
}
