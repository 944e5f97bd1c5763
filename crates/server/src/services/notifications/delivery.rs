//! From the store to the streams: a notification is stored, then published, then marked as published. What a crash or a
//! broker that is away has left between the steps is found and published later, under the same id, so that nobody gets
//! it twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidewire::core::event::EventError;
use tidewire::core::log::Refused;
use tidewire::{Event, Hub, PublishError};
use tokio::sync::Notify;
use uuid::Uuid;

use super::channels::Announcer;
use super::domain::{NewNotification, Notification};
use super::store::{Created, Store, StoreError};

/// Topics with this prefix are a user's notifications.
pub(super) const TOPIC: &str = "notification:";
/// How old what is unpublished must be until somebody else than its creator publishes it.
const LEFT_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// How long whoever made it waits for the broker: it is stored, and published later where that takes longer.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked for, and what is too old is deleted.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a notification was not made.
pub(super) enum NotCreated {
    /// It could never be delivered.
    Event(EventError),
    Store(StoreError),
}

impl From<StoreError> for NotCreated {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Stores and publishes.
pub(super) struct Delivery {
    pub(super) hub: Hub,
    pub(super) event_bytes_max: usize,
    pub(super) store: Store,
    pub(super) announcer: Option<Announcer>,
    /// How long notifications are kept; `None` for ever.
    pub(super) retention: Option<Duration>,
    /// From the first use on there may be something left.
    pub(super) used: Notify,
}

impl Delivery {
    /// Stores a notification and delivers it.
    pub(super) async fn create(
        &self,
        new: &NewNotification,
        source: Option<&str>,
    ) -> Result<Created, NotCreated> {
        let checked = event(&new.draft()).validate(self.event_bytes_max);
        checked.map_err(NotCreated::Event)?;
        let created = self.store.create(new, source, Timestamp::now()).await?;
        self.used.notify_one();
        if !created.is_repeated {
            self.publish(&created.notification).await;
        }
        Ok(created)
    }

    /// Publishes what is stored. False if it can't be done now, but later.
    async fn publish(&self, notification: &Notification) -> bool {
        let event = event(notification);
        let topic = format!("{TOPIC}{}", notification.recipient_id);
        let now = Timestamp::now();
        let published = self.hub.publish(&topic, event);
        let Ok(published) = tokio::time::timeout(PUBLISH_TIMEOUT, published).await else {
            tracing::debug!(id = notification.id, "a notification is published later");
            return false;
        };
        let at = match published {
            Ok(_) => Some(now),
            // It was published before, and only not noted.
            Err(PublishError::Refused(Refused::IdTaken(_))) => None,
            Err(error) if may_be_done_later(&error) => {
                tracing::debug!(%error, id = notification.id, "a notification is published later");
                return false;
            }
            // It stays in the list; whoever is connected now can't be told.
            Err(error) => {
                tracing::warn!(%error, id = notification.id, "a notification can't be published");
                Some(now)
            }
        };
        if let Some(announcer) = &self.announcer {
            announcer.announce(notification).await;
        }
        if let Err(error) = self.store.note_published(notification, at).await {
            // It is published once more, and refused as its id is taken.
            tracing::debug!(%error, id = notification.id, "a notification is not marked as published");
            return false;
        }
        true
    }

    /// Tells a user's other tabs, if the broker takes it now: what is stored holds, whoever is told.
    pub(super) async fn tell(&self, user: &str, name: &str, what: &Value) {
        let topic = format!("{TOPIC}{user}");
        // Under an id that says when, like a notification's, so that the store knows what comes after it.
        let id = Uuid::now_v7().to_string();
        let event = Event::text(what.to_string()).named(name).with_id(id);
        let told = tokio::time::timeout(PUBLISH_TIMEOUT, self.hub.publish(&topic, event)).await;
        if !told.as_ref().is_ok_and(Result::is_ok) {
            tracing::debug!(?told, name, "other tabs are not told");
        }
    }

    /// Publishes what was left, and deletes what is too old, for as long as the hub lives.
    pub(super) async fn run(self: Arc<Self>) {
        // A store that nobody uses is not opened.
        self.used.notified().await;
        loop {
            if let Err(error) = self.look_after().await {
                tracing::warn!(%error, "the store of notifications can't be looked after");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        loop {
            let left = self.store.unpublished(now - LEFT_AFTER).await?;
            let mut is_done = true;
            for notification in &left.notifications {
                is_done &= self.publish(notification).await;
            }
            if left.is_all || !is_done {
                break;
            }
        }
        let retention = self
            .retention
            .and_then(|kept| SignedDuration::try_from(kept).ok());
        if let Some(before) = retention.and_then(|kept| now.checked_sub(kept).ok()) {
            while self.store.expire(before).await? > 0 {}
        }
        Ok(())
    }
}

/// Whether nothing is wrong with the event, and only the broker does not take it now.
fn may_be_done_later(error: &PublishError) -> bool {
    matches!(
        error,
        PublishError::NotStored(_) | PublishError::StorageFull(_) | PublishError::OutcomeUnknown(_)
    )
}

/// A notification as an event: plain data, under its own id.
pub(super) fn event(notification: &Notification) -> Event {
    Event::text(json!(notification).to_string()).with_id(&*notification.id)
}
