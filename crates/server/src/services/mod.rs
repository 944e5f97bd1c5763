//! Whole services on top of the hub, each with routes of its own, each with a switch in `services.*`.

mod broadcast_demo;
mod clients;
mod envelopes;
mod events;
mod metrics;
pub(crate) mod notifications;

use axum::response::{IntoResponse, Response};
use tidewire::problem::Problem;
use tidewire::{Cluster, Hub};

use self::notifications::Notifications;
use crate::config::Config;
use crate::guard::Routes;

/// The routes of the services that are switched on.
pub(crate) fn routes(
    hub: &Hub,
    cluster: &Cluster,
    notifications: Option<&Notifications>,
    config: &Config,
) -> Routes {
    let mut routes = Routes::new();
    if config.services.metrics {
        routes = routes.merge(metrics::routes(hub, config));
    }
    if config.services.events {
        routes = routes.merge(events::routes(hub, config));
    }
    if config.services.broadcast_demo {
        routes = routes.merge(broadcast_demo::routes(hub, config));
    }
    if let Some(notifications) = notifications {
        routes = routes.merge(notifications.routes(config));
    }
    if config.services.clients {
        routes = routes.merge(clients::routes(cluster, config));
    }
    routes
}

/// The answer to a request that is refused before any door has seen it, in the form of the door at its path.
pub(crate) fn refusal(path: &str, problem: Problem) -> Response {
    let is_below = |address: &&str| {
        let rest = path.strip_prefix(*address);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut envelopes = events::ADDRESSES.iter().chain(&broadcast_demo::ADDRESSES);
    if envelopes.any(is_below) {
        envelopes::Failure::from(problem).into_response()
    } else if metrics::ADDRESSES.iter().any(is_below) {
        metrics::Refused::from(problem).into_response()
    } else {
        problem.into_response()
    }
}

/// The same path under the first address of its door, of which some have several.
pub(crate) fn first_address(path: &str) -> String {
    for addresses in [&events::ADDRESSES, &broadcast_demo::ADDRESSES] {
        for address in addresses {
            let rest = path.strip_prefix(address);
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                return format!("{}{rest}", addresses[0]);
            }
        }
    }
    path.to_owned()
}

/// Adds the history rules of the services that are switched on, as far as nobody has set others for their topics.
pub(crate) fn add_history_rules(config: &mut Config) {
    if config.services.metrics {
        metrics::add_history_rule(&mut config.history);
    }
}
