//! What one writes by hand: axum's `Sse` over `tokio::sync::broadcast`, a channel for each topic.
//!
//! The channels are as long as the longest run, so that no reader of it lags behind and loses events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{Stream, StreamExt, select_all};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Sender = broadcast::Sender<Arc<str>>;

#[derive(Clone)]
struct Hub {
    topics: Arc<Mutex<HashMap<String, Sender>>>,
    capacity: usize,
}

impl Hub {
    fn topic(&self, name: &str) -> Sender {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.get(name) {
            return sender.clone();
        }
        let sender = broadcast::channel(self.capacity).0;
        topics.insert(name.to_owned(), sender.clone());
        sender
    }
}

#[derive(Deserialize)]
struct Topics {
    topics: String,
}

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

async fn subscribe(
    State(hub): State<Hub>,
    Query(query): Query<Topics>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let streams = query.topics.split(',').map(|name| {
        BroadcastStream::new(hub.topic(name).subscribe())
            // A reader that lags ends.
            .take_while(|event| std::future::ready(event.is_ok()))
    });
    let events = select_all(streams)
        .filter_map(|event| std::future::ready(event.ok()))
        .map(|event| Ok(Event::default().data(&*event)));
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn publish(State(hub): State<Hub>, Query(query): Query<Topic>, data: String) {
    // Without a subscriber there is nobody to get it.
    let _ = hub.topic(&query.topic).send(data.into());
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(capacity)) = (arguments.next(), arguments.next()) else {
        return Err(std::io::Error::other(
            "usage: bench-axum-broadcast ADDRESS:PORT CAPACITY",
        ));
    };
    tidewire_bench::net::raise_descriptor_limit();
    let hub = Hub {
        topics: Arc::default(),
        capacity: capacity.parse().map_err(std::io::Error::other)?,
    };
    let router = Router::new()
        .route("/events", get(subscribe).post(publish))
        .with_state(hub);
    let listener = tidewire::bind(address.parse().map_err(std::io::Error::other)?)?;
    axum::serve(listener, router).await
}
