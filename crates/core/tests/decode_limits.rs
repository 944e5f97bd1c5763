//! What the decoder does with streams that are too large, endless, or cut to cost it time.

use tidewire_core::encode::encode;
use tidewire_core::limits::FIELDS_BYTES_MAX;
use tidewire_core::{DecodeError, Decoded, Decoder};

const EVENT_BYTES_MAX: usize = 1_000;

fn data_of(result: Result<Option<Decoded>, DecodeError>) -> Option<String> {
    result
        .expect("the stream is within the limits")
        .map(|event| event.data)
}

#[test]
fn an_event_may_be_as_large_as_the_limit_and_no_larger() {
    // An id and line ends are not counted: a publisher's limit knows nothing of the hub's id.
    let newlines = "\n".repeat(EVENT_BYTES_MAX - 1);
    let mut stream = Vec::new();
    encode(&mut stream, Some(&[b'i'; 300]), Some("e"), None, &newlines);
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    decoder.push(&stream);
    assert_eq!(data_of(decoder.next_event()), Some(newlines));

    for stream in [
        format!("event: ee\ndata: {}\n", "x".repeat(999)),
        "data\n".repeat(1_002),
        "e".repeat(300_000),
    ] {
        let mut decoder = Decoder::new(EVENT_BYTES_MAX);
        decoder.push(stream.as_bytes());
        let error = decoder.next_event().expect_err("too large");
        decoder.push(b"\n\ndata: a\n\n");
        assert_eq!(
            decoder.next_event(),
            Err(error),
            "a decoder that failed gives no more events"
        );
    }
}

#[test]
fn an_error_says_what_the_limit_is() {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    decoder.push(format!("data: {}\n\n", "x".repeat(1_001)).as_bytes());
    let error = decoder.next_event().expect_err("one byte too large");
    assert_eq!(
        (error.code(), &error),
        (
            "event_too_large",
            &DecodeError::EventTooLarge { bytes_max: 1_000 }
        )
    );
    assert!(
        error.to_string().contains("`event_bytes_max`, 1000 bytes"),
        "{error}"
    );
}

#[test]
fn ids_and_topics_have_a_limit_of_their_own() {
    let topics = |bytes: usize| format!("id: 1\n{}", "topic: 123456789\n".repeat(bytes / 33));
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    decoder.push(topics(FIELDS_BYTES_MAX - 33).as_bytes());
    assert_eq!(decoder.next_event(), Ok(None));
    for end_of_block in ["\n", "data: a\n\n"] {
        decoder.push(end_of_block.as_bytes());
        decoder.push(topics(FIELDS_BYTES_MAX - 33).as_bytes());
        while data_of(decoder.next_event()).is_some() {}
    }
    decoder.push(b"\n");
    decoder.push(topics(FIELDS_BYTES_MAX + 33).as_bytes());
    assert_eq!(decoder.next_event(), Err(DecodeError::FieldsTooLarge));
}

#[test]
fn an_endless_comment_is_no_error() {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    decoder.push(b":");
    for _ in 0..1_000 {
        decoder.push(&[b'x'; 1_000]);
        assert_eq!(decoder.next_event(), Ok(None));
    }
    decoder.push(b"\ndata: a\n\n");
    assert_eq!(data_of(decoder.next_event()).as_deref(), Some("a"));
    assert_eq!(decoder.comments(), 1);
}
