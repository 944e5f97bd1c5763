//! Tidewire's load generator, and the programs that it measures.
//!
//! | module | what lives there |
//! |---|---|
//! | [`stamp`] | the 100 bytes that are published, and how a reader knows one event from another |
//! | [`scan`] | from a socket's bytes to numbers of events: heads, chunks, markers, with no buffer per connection |
//! | [`ledger`] | what was published, and whether each reader got all of it, once and in order |
//! | [`load`] | the one thread that publishes and reads |
//! | [`publisher`], [`net`] | one connection that publishes; opening many connections |
//! | [`process`], [`histogram`] | a server's CPU time and memory; latencies |
//! | [`server`] | the programs under test: how to start each, and its requests |
//! | [`scenario`] | what is measured: one function for each row of the targets |
//! | [`suite`] | which scenarios run on which programs, in turn |
//! | [`record`] | what came out, with the machine and the command |
//! | [`targets`], [`table`], [`plot`] | the same held against the targets, as Markdown, as SVG |

// Figures are for people: nobody reads their sixteenth digit, and none is negative.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

pub mod histogram;
pub mod ledger;
pub mod load;
pub mod net;
pub mod plot;
pub mod process;
pub mod publisher;
pub mod record;
pub mod scan;
pub mod scenario;
pub mod server;
pub mod stamp;
pub mod suite;
pub mod table;
pub mod targets;
