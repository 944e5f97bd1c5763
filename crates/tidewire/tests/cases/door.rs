//! Streams of a door with a greeting and a dialect of its own.

use tidewire::EventData;
use tidewire::core::id::{NativeId, Tombstone};

use super::start;
use crate::support::client::{Client, End};
use crate::support::server::Carrier;

const TOPIC: &str = "door:a";

/// The next message, which must be an envelope, and its id.
fn envelope(client: &mut Client) -> (EventData, String) {
    let event = client.event();
    assert_eq!(event.event, "message", "{event:?}");
    let envelope = serde_json::from_str(&event.data).unwrap_or_else(|_| panic!("{event:?}"));
    (envelope, event.id)
}

fn types(client: &mut Client, count: usize) -> Vec<String> {
    let next = |_| envelope(client).0.event_type;
    (0..count).map(next).collect()
}

pub(crate) fn a_greeting_has_the_id_of_the_place_where_the_stream_starts(carrier: Carrier) {
    let server = start(carrier);
    let before = server.publish(TOPIC, "before").to_string();
    let mut client = Client::at(&server, "/door?padding=100", None);
    let (greeting, id) = envelope(&mut client);
    assert_eq!(greeting.event_type, "connection");
    assert_eq!(greeting.stream_id.as_deref(), Some("a"));
    assert_eq!(
        greeting.data.unwrap()["client_id"],
        client.header("tidewire-connection")
    );
    assert_eq!(
        (id.as_str(), client.header("last-event-id")),
        (&*before, &*before)
    );
    drop(client);
    server.publish(TOPIC, "while it was away");
    let mut client = Client::at(&server, "/door", Some(&id));
    let (greeting, again) = envelope(&mut client);
    assert_eq!((greeting.event_type.as_str(), &again), ("connection", &id));
    assert_eq!(client.tick(), "while it was away");

    let mut early = Client::at(&server, "/door?since=earliest", None);
    let (_, id) = envelope(&mut early);
    assert_eq!(early.tick(), "before");
    let mut resumed = Client::at(&server, "/door", Some(&id));
    envelope(&mut resumed);
    assert_eq!(resumed.tick(), "before", "the greeting's id skips nothing");
}

pub(crate) fn everything_that_a_door_says_is_in_its_dialect(carrier: Carrier) {
    let server = start(carrier);
    server.publish(TOPIC, "held");
    let mut client = Client::at(&server, "/door", Some("nobody's"));
    let (greeting, id) = envelope(&mut client);
    assert_eq!(
        (greeting.event_type.as_str(), id.as_str()),
        ("connection", "nobody's"),
        "a client that saw only this is told of the gap when it comes again"
    );
    let (gap, _) = envelope(&mut client);
    assert_eq!(
        (gap.event_type.as_str(), gap.stream_id.as_deref()),
        ("gap", Some("a"))
    );
    assert_eq!(gap.data.unwrap()["from"], "nobody's");
    assert_eq!(client.tick(), "held");

    for id in ["a%0Adata:%20x", "%0D", "a%00b"] {
        let target = format!("/door?last_event_id={id}");
        let mut odd = Client::at(&server, &target, None);
        let (_, id) = envelope(&mut odd);
        assert_eq!(id, "", "an id that would break the line is left out");
        assert_eq!(types(&mut odd, 1), ["gap"]);
    }

    let connection = client.header("tidewire-connection").parse().unwrap();
    assert!(server.hub.close(connection));
    let (closed, id) = envelope(&mut client);
    assert_eq!(closed.event_type, "closed");
    let tombstone = NativeId::parse(&id).unwrap().tombstone;
    assert_eq!(tombstone, Some(Tombstone::Closed));
    assert_eq!(client.finish().1, End::Clean);
    assert_eq!(Client::at(&server, "/door", Some(&id)).status, 204);

    let mut client = Client::at(&server, "/door", None);
    assert_eq!(types(&mut client, 1), ["connection"]);
    let mut native = Client::open(&server, "topic=door:a");
    native.read_until("retry: ");
    let topic = tidewire::Topic::new(TOPIC).unwrap();
    let end = server.runtime.block_on(server.hub.close_topic(topic));
    let (ended, id) = envelope(&mut client);
    assert_eq!(
        (ended.event_type.as_str(), &id),
        ("end", &end.unwrap().to_string())
    );
    assert_eq!(client.finish().1, End::Clean);
    assert_eq!(
        native.event().event,
        "end",
        "others have the hub's own form"
    );
}
