//! The pure core of Tidewire: events, the log that holds them, and the subscriptions that read it.
//!
//! Nothing here knows a clock, a socket or a runtime: time is an argument, randomness comes from outside, and no
//! call blocks. So a test can own all of it.
//!
//! | module | what lives there |
//! |---|---|
//! | [`event`], [`topic`], [`pattern`], [`id`] | the nouns, and the rules for their text |
//! | [`encode`], [`decode`] | the event stream format, both ways |
//! | [`log`] | every event once, bounded, with chains by topic and pattern |
//! | [`filter`], [`namespace`] | what a client reads, interned; which topics of a namespace are read |
//! | [`coalesce`] | how long readers may wait for news |
//! | [`dialect`] | what the hub itself says on a stream, in another form |
//! | [`subscribe`], [`subscription`] | where a client starts; a position, and what to send from there |
//! | [`limits`] | every fixed limit, with the threat that it stops |
//!
//! **The contract.** Whoever drives a [`Log`](log::Log) appends events, takes the touched filters, and polls their
//! subscriptions until each says [`Idle`](subscription::Poll::Idle). Then every subscription has been given every
//! matching event after its position, in the log's order, or was told by a `gap` or a close that it was not.

mod batch;
pub mod coalesce;
pub mod decode;
pub mod dialect;
pub mod encode;
pub mod event;
pub mod filter;
pub mod id;
pub mod limits;
pub mod log;
pub mod namespace;
pub mod pattern;
mod reason;
pub mod subscribe;
pub mod subscription;
pub mod topic;

pub use decode::{DecodeError, Decoded, Decoder};
pub use dialect::{Dialect, Notice};
pub use event::{Event, EventError};
pub use pattern::Pattern;
pub use topic::{RESERVED_PREFIXES, Topic, TopicError, is_reserved};
