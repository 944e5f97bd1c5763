//! Whole services on top of the hub, each with routes of its own, each with a switch in `services.*`.

use axum::Router;
use tidewire::Hub;

use crate::config::Config;

/// The routes of the services that are switched on.
pub(crate) fn router(_hub: &Hub, _config: &Config) -> Router {
    Router::new()
}
