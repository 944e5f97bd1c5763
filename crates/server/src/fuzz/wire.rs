//! The event stream format, in both directions: what comes from a hub, and what a publisher can make it send.

use tidewire::Publication;
use tidewire::core::decode::{Decoded, Decoder};
use tidewire::core::encode::encode;

use crate::routes::document::{self, Documents};

const EVENT_BYTES_MAX: usize = 256;
const EVENTS_MAX: usize = 4;

/// Any bytes are a stream, and it does not matter where they are cut.
pub fn decoder(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = read(&[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(cut).max(1)).collect();
    assert_eq!(whole, read(&pieces));
}

/// The events, and whether the stream could be read to its end.
fn read(pieces: &[&[u8]]) -> (Vec<Decoded>, bool) {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return (events, false),
            }
        }
    }
    (events, true)
}

/// Any bytes as what is published. What is taken comes out of the wire as the one event that it is: nobody can forge a
/// field or an event.
pub fn documents(json: &[u8]) {
    let accepted = match document::parse(json, &["from-the-query"], EVENTS_MAX) {
        Ok(Documents::One(publication)) => vec![publication],
        Ok(Documents::Many(publications)) => publications,
        Err(_) => return,
    };
    for publication in accepted {
        if publication.validate(EVENT_BYTES_MAX).is_ok() {
            assert_comes_out_alone(&publication);
        }
    }
}

fn assert_comes_out_alone(publication: &Publication) {
    let event = &publication.event;
    let id = event.id.as_deref().unwrap_or("~id");
    let mut wire = Vec::new();
    let name = event.event.as_deref();
    encode(
        &mut wire,
        Some(id.as_bytes()),
        name,
        event.retry_ms,
        &event.data,
    );
    let (events, is_whole) = read(&[&wire]);
    let expected = Decoded {
        id: id.to_owned(),
        event: name
            .filter(|name| !name.is_empty())
            .unwrap_or("message")
            .to_owned(),
        data: event.data.replace("\r\n", "\n").replace('\r', "\n"),
        topics: Vec::new(),
    };
    assert_eq!((events, is_whole), (vec![expected], true));
}
