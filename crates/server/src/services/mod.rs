//! Whole services on top of the hub, each with routes of its own, each with a switch in `services.*`.

mod broadcast_demo;
mod envelopes;
mod events;
mod metrics;

use axum::Router;
use tidewire::Hub;

use crate::config::Config;

/// The routes of the services that are switched on.
pub(crate) fn router(hub: &Hub, config: &Config) -> Router {
    let mut router = Router::new();
    if config.services.metrics {
        router = router.merge(metrics::router(hub, config));
    }
    if config.services.events {
        router = router.merge(events::router(hub, config));
    }
    if config.services.broadcast_demo {
        router = router.merge(broadcast_demo::router(hub, config));
    }
    router
}

/// Adds the history rules of the services that are switched on, as far as nobody has set others for their topics.
pub(crate) fn add_history_rules(config: &mut Config) {
    if config.services.metrics {
        metrics::add_history_rule(&mut config.history);
    }
}
