//! Notifications of users: stored, delivered to every open tab, and there for those who were away.
//!
//! | file | what lives there |
//! |---|---|
//! | `domain/` | what a notification is; rules that make one of a domain event |
//! | `store/` | SQLite or PostgreSQL |
//! | `delivery.rs` | stored, published, marked; what was left in between |
//! | `http.rs` | the routes |
//! | `resume.rs` | what a client is sent of the store that comes back from before the log |
//! | `consumer.rs` | domain events from a Redis Stream |
//! | `channels.rs` | Redis Pub/Sub, in and out |

mod channels;
mod consumer;
mod delivery;
mod domain;
mod http;
mod resume;
mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewire::Hub;
use tidewire::redis::Redis;
use tokio::sync::Notify;

use self::channels::Announcer;
use self::consumer::{Consumer, ConsumerFigures, ConsumerOptions};
use self::delivery::Delivery;
use self::domain::Rule;
pub(crate) use self::domain::check_template;
use self::store::Store;
use crate::config::{BrokerKind, Config, NotificationRule};
use crate::guard::Routes;

/// The service, at work in the background.
#[derive(Clone)]
pub(crate) struct Notifications {
    delivery: Arc<Delivery>,
    consumer: Arc<ConsumerFigures>,
}

/// Figures about domain events since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) handled: u64,
    pub(crate) retried: u64,
    pub(crate) dead: u64,
    pub(crate) lag: u64,
}

impl Notifications {
    /// Begins the service. Needs tokio.
    ///
    /// # Errors
    /// If the Redis of the configuration can't be meant.
    pub(crate) fn start(hub: &Hub, config: &Config) -> Result<Self, String> {
        let settings = &config.notifications;
        let own = settings.redis_url.as_ref();
        let shared = config.broker.url.as_ref();
        let url = own.or_else(|| shared.filter(|_| config.broker.kind == BrokerKind::Redis));
        let redis = url
            .map(|url| Redis::new(url.reveal(), config.broker.prefix()).map(Arc::new))
            .transpose()
            .map_err(|error| format!("notifications.redis_url: {error}"))?;
        let announced = redis.clone().filter(|_| settings.announce);
        let delivery = Arc::new(Delivery {
            hub: hub.clone(),
            event_bytes_max: config.limits.event_bytes_max,
            store: Store::new(settings.database.reveal()),
            announcer: announced.map(Announcer),
            retention: Some(settings.retention).filter(|kept| *kept > Duration::ZERO),
            used: Notify::new(),
        });
        tokio::spawn(delivery.clone().run());
        let figures = Arc::new(ConsumerFigures::default());
        if let Some(redis) = redis {
            let bytes_max = config.limits.event_bytes_max;
            tokio::spawn(channels::follow(hub.clone(), redis.clone(), bytes_max));
            if let Some(stream) = &settings.stream {
                let node = config.node.id.clone();
                let options = ConsumerOptions {
                    stream: stream.clone(),
                    group: settings.group.clone(),
                    name: node.unwrap_or_else(|| format!("node-{:08x}", fastrand::u32(..))),
                    rules: settings.rules.iter().map(rule).collect(),
                    attempts_max: settings.attempts_max,
                    retry_after: settings.retry_after,
                };
                let consumer = Consumer::new(redis, delivery.clone(), options, figures.clone());
                delivery.used.notify_one();
                tokio::spawn(consumer.run());
            }
        }
        Ok(Self {
            delivery,
            consumer: figures,
        })
    }

    /// The routes.
    pub(crate) fn routes(&self, config: &Config) -> Routes {
        http::routes(self.delivery.clone(), &config.limits)
    }

    /// Figures.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            handled: self.consumer.handled.load(Ordering::Relaxed),
            retried: self.consumer.retried.load(Ordering::Relaxed),
            dead: self.consumer.dead.load(Ordering::Relaxed),
            lag: self.consumer.lag.load(Ordering::Relaxed),
        }
    }
}

fn rule(rule: &NotificationRule) -> Rule {
    Rule {
        on: rule.on.clone(),
        recipient: rule.recipient.clone(),
        kind: rule
            .kind
            .clone()
            .unwrap_or_else(|| rule.on.replace('.', "_")),
        title: rule.title.clone(),
        body: rule.body.clone(),
        link: rule.link.clone(),
    }
}
