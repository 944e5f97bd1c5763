//! The metrics sample: an application of its own whose actions others follow as events.
//!
//! | part | what it is |
//! |---|---|
//! | `domain` | what metrics and readings are and what can be done with them; knows neither HTTP nor the hub |
//! | `repository` | where they are kept: in memory |
//! | `announcer` | the domain's port to the outside: what happened becomes an event on the topic `metrics` |
//! | `wire` | how a metric and a reading look as JSON, in answers and in events alike |
//! | `http` | the addresses |

mod announcer;
mod domain;
mod http;
mod repository;
mod wire;

use std::time::Duration;

use tidewire::Pattern;

pub(super) use self::http::{ADDRESSES, Refused, routes};
use crate::config::{History, HistoryRule};

/// Where all that happens is published.
const TOPIC: &str = "metrics";
/// How long a client may have been away to miss nothing, unless the configuration says otherwise.
const HISTORY_TTL: Duration = Duration::from_mins(1);

/// Gives the topic a history of a minute, unless there is a rule for it.
pub(super) fn add_history_rule(history: &mut History) {
    let is_for_topic = |rule: &HistoryRule| {
        // One that is no pattern stops the start later on.
        Pattern::new(&rule.pattern).is_ok_and(|pattern| pattern.matches(TOPIC))
    };
    if !history.rules.iter().any(is_for_topic) {
        history.rules.push(HistoryRule {
            pattern: TOPIC.to_owned(),
            ttl: Some(HISTORY_TTL.min(history.ttl)),
            events_max: None,
        });
    }
}
