//! Tests of what the direct transport does with its sockets, and what they share.

mod cuts;
mod reactors;

use futures_util::FutureExt;
use tidewire_core::Event;
use tidewire_core::decode::{Decoded, Decoder};
use tidewire_core::filter::FilterSpec;
use tidewire_core::log::Retention;
use tidewire_core::subscribe::Start;
use tidewire_core::subscription::SlowClient;
use tidewire_core::topic::Topic;

use crate::hub::{Hub, Opened};
use crate::live::Live;
use crate::stream::StreamOptions;

/// A hub that keeps so many bytes of history.
fn hub(memory_bytes: usize, slow_client: SlowClient) -> Hub {
    let retention = Retention {
        memory_bytes,
        ..Retention::default()
    };
    Hub::builder()
        .history(retention)
        .slow_client(slow_client)
        .build()
}

/// A stream of a topic's next events.
fn live(hub: &Hub, topic: &str) -> Live {
    let filter = FilterSpec {
        topics: vec![Topic::new(topic).unwrap()],
        ..FilterSpec::default()
    };
    match hub.open(&filter, &Start::Live, StreamOptions::default()) {
        Opened::Stream(stream) => stream.into_live(),
        Opened::Over | Opened::Full(_) => panic!("the stream opens"),
    }
}

/// Publishes; the memory broker never keeps anybody waiting.
fn publish(hub: &Hub, topic: &str, data: &str) {
    let event = Event::text(data).named("tick");
    hub.publish(topic, event)
        .now_or_never()
        .expect("the memory broker answers at once")
        .unwrap();
}

/// How a chunked body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    /// With its last chunk.
    Last,
    /// Between two chunks, with more to come.
    Open,
    /// Within a chunk.
    WithinChunk,
}

/// Takes a chunked body apart, to the letter of RFC 9112 section 7.1.
fn dechunk(mut body: &[u8]) -> (Vec<u8>, BodyEnd) {
    let mut payload = Vec::new();
    while !body.is_empty() {
        let Some(head_len) = memchr::memmem::find(body, b"\r\n") else {
            assert!(body.len() < 10, "no chunk's head: {:?}", show(body));
            return (payload, BodyEnd::WithinChunk);
        };
        let head = std::str::from_utf8(&body[..head_len]).unwrap();
        let len = usize::from_str_radix(head, 16)
            .unwrap_or_else(|_| panic!("no chunk's head: {:?}", show(body)));
        body = &body[head_len + 2..];
        payload.extend_from_slice(&body[..len.min(body.len())]);
        let Some(rest) = body.get(len..).filter(|rest| rest.len() >= 2) else {
            return (payload, BodyEnd::WithinChunk);
        };
        assert_eq!(&rest[..2], b"\r\n", "a chunk ends where its head says");
        body = &rest[2..];
        if len == 0 {
            assert!(body.is_empty(), "nothing follows the last chunk");
            return (payload, BodyEnd::Last);
        }
    }
    (payload, BodyEnd::Open)
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}

/// The events of a payload.
fn decode(payload: &[u8]) -> Vec<Decoded> {
    let mut decoder = Decoder::new(4 * 1024 * 1024);
    decoder.push(payload);
    std::iter::from_fn(|| decoder.next_event().unwrap()).collect()
}

/// The data of a payload's events that are named `tick`.
fn ticks(payload: &[u8]) -> Vec<String> {
    let events = decode(payload).into_iter();
    events
        .filter(|event| event.event == "tick")
        .map(|event| event.data)
        .collect()
}
