//! Tidewire: a server-sent events hub to embed in any axum or tower application.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tidewire::{Event, Hub};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder().build();
//! let router = Router::new().route("/events", get(hub.subscribe()));
//! let listener = tidewire::bind("127.0.0.1:8080".parse()?)?;
//! tokio::spawn(tidewire::serve(listener, router).into_future());
//!
//! hub.publish("orders", Event::json("order_created", &["tea", "milk"])?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A client of `GET /events?topic=orders` gets every event of the topic in order, and after any disconnect carries on
//! exactly where it was, as every event carries an id and `Last-Event-ID` is a position in the hub's log.
//!
//! | module | what lives there |
//! |---|---|
//! | [`hub`] | [`Hub`]: publish, subscribe, figures |
//! | [`subscribe`], [`stream`] | from a request to a stream; the stream as an HTTP body |
//! | [`broadcaster`] | [`Broadcaster`]: named streams of JSON envelopes on top of a hub |
//! | [`broker`] | where events are stored |
//! | [`cluster`] | [`Cluster`]: connections by the client's id, on whichever node |
//! | `redis` | what everything shares that speaks to Redis |
//! | [`serve`](mod@serve) | a server with limits and a graceful drain |
//! | [`problem`] | errors as `application/problem+json` |

pub mod broadcaster;
pub mod broker;
mod clock;
pub mod cluster;
pub mod connections;
mod counters;
mod duration;
mod fanout;
pub mod hub;
mod live;
mod older;
pub mod problem;
pub mod publish;
pub mod query;
#[cfg(feature = "redis")]
pub mod redis;
mod rights;
pub mod serve;
pub mod stream;
pub mod subscribe;
mod waiting;

pub use tidewire_core as core;
pub use tidewire_core::{Dialect, Event, Notice, Pattern, Topic};

pub use crate::broadcaster::{BroadcastError, Broadcaster, EventData, StreamClient};
pub use crate::broker::{EventId, Publication};
pub use crate::cluster::Cluster;
pub use crate::connections::{AtCapacity, ConnectionId, NoRoom, network_of};
pub use crate::counters::Totals;
pub use crate::duration::parse_duration;
pub use crate::hub::{Hub, HubBuilder};
pub use crate::publish::PublishError;
pub use crate::rights::{ClientAddress, ExpiresAt, Rights, UserId};
pub use crate::serve::{ServeOptions, bind, serve};
#[cfg(feature = "tls")]
pub use crate::serve::{Tls, TlsError};
pub use crate::stream::EventStream;

/// The guides' Rust, compiled and run with the documentation's.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/coming-from-topics-package.md")]
    struct ComingFromTopicsPackage;
}
