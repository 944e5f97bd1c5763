//! What goes over a broadcaster's streams: one JSON envelope per message, whoever speaks.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidewire_core::dialect::{Dialect, Notice};
use tidewire_core::event::Event;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::connections::ConnectionId;

/// An event of a [`Broadcaster`](super::Broadcaster): on the wire it is the `data:` of an event without a name, so that a
/// browser's `onmessage` gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventData {
    /// `evt_…`, another one for each event. Not the `id:` of the wire, which is a place in the hub's order.
    pub id: String,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What happened, for people.
    pub message: String,
    /// What happened, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// When, in seconds since the Unix epoch.
    pub timestamp: u64,
    /// The stream that it was sent to; none for an event to all streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
}

impl EventData {
    /// An event of now. Data that is `null` is none.
    pub fn new(
        stream_id: Option<&str>,
        event_type: impl Into<String>,
        message: impl Into<String>,
        data: Option<Value>,
    ) -> Self {
        Self {
            id: format!("evt_{}", Uuid::now_v7().simple()),
            event_type: event_type.into(),
            message: message.into(),
            data: data.filter(|data| !data.is_null()),
            timestamp: now_ms() / 1_000,
            stream_id: stream_id.map(str::to_owned),
        }
    }

    /// The event that carries it.
    pub(super) fn to_event(&self) -> Event {
        Event::text(serde_json::to_string(self).expect("texts, numbers and JSON are JSON"))
    }
}

/// The first event of a client.
pub(super) fn greeting(stream_id: &str, client: ConnectionId) -> Event {
    let message = format!("Connected to stream: {stream_id}");
    let data = json!({ "client_id": client.to_string() });
    EventData::new(Some(stream_id), "connection", message, Some(data)).to_event()
}

/// The hub's own words as envelopes: their `type` is the name that they have elsewhere.
pub(super) static ENVELOPES: Dialect = Dialect {
    name: "broadcaster",
    render,
};

fn render(notice: &Notice<'_>) -> Event {
    let message = match notice.name {
        "gap" => "Some events are missing here",
        "end" => "The stream has ended",
        "closed" => "The connection was closed on request",
        "replaced" => "Another connection has taken over",
        other => other,
    };
    let data = serde_json::from_str(notice.data).ok();
    let has_members = |data: &Value| data.as_object().is_none_or(|object| !object.is_empty());
    let stream_id = notice.topic.split_once(':').map(|(_, id)| id.to_owned());
    let envelope = EventData {
        // The same for the same notice, as it may go out in pieces that are rendered one by one.
        id: format!("evt_{}", notice.id.trim_start_matches('~')),
        event_type: notice.name.to_owned(),
        message: message.to_owned(),
        data: data.filter(has_members),
        timestamp: notice.at_ms / 1_000,
        stream_id,
    };
    envelope.to_event()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_the_members_that_clients_know_in_their_order() {
        let mut event = EventData::new(Some("s"), "t", "m", Some(json!({"b": 1, "a": [2]})));
        assert!(event.id.starts_with("evt_"), "{event:?}");
        event.id = "evt_1".into();
        event.timestamp = 7;
        let text = r#"{"id":"evt_1","type":"t","message":"m","data":{"b":1,"a":[2]},"timestamp":7,"stream_id":"s"}"#;
        assert_eq!(event.to_event(), Event::text(text));
        assert_eq!(serde_json::from_str::<EventData>(text).unwrap(), event);
        let bare = EventData::new(None, "t", "m", Some(Value::Null));
        let members: serde_json::Map<String, Value> =
            serde_json::from_str(&bare.to_event().data).unwrap();
        let names: Vec<_> = members.keys().map(String::as_str).collect();
        assert_eq!(names, ["id", "type", "message", "timestamp"]);
    }

    #[test]
    fn a_notice_is_an_envelope_with_everything_in_it() {
        let notice = |name, data| Notice {
            name,
            data,
            id: "~e-7",
            topic: "stream:a:b",
            at_ms: 9_999,
        };
        let gap = render(&notice("gap", r#"{"from":null,"reason":"expired"}"#));
        assert_eq!(
            gap.data,
            r#"{"id":"evt_e-7","type":"gap","message":"Some events are missing here","data":{"from":null,"reason":"expired"},"timestamp":9,"stream_id":"a:b"}"#
        );
        assert_eq!(gap.event, None);
        let closed: EventData =
            serde_json::from_str(&render(&notice("closed", "{}")).data).unwrap();
        assert_eq!((closed.event_type.as_str(), closed.data), ("closed", None));
    }
}
