//! The services on top of the hub over real HTTP.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod metrics;
mod metrics_client;
mod metrics_files;
