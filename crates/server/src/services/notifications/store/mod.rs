//! Where notifications are kept: SQLite or PostgreSQL, with the same queries.

mod queries;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyPool, Executor, Row, SqlStr};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::domain::{NewNotification, Notification};

/// Connections to the database.
const CONNECTIONS_MAX: u32 = 8;
/// How long a query waits for one of them.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Rows that one call changes or answers.
pub(super) const ROWS_MAX: i64 = 500;

/// The database can't be used now, or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreError(String);

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

/// Stored, now or before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Created {
    pub(super) notification: Notification,
    /// Whether its source has made it before.
    pub(super) is_repeated: bool,
}

/// The store. Nothing is opened until it is used.
pub(super) struct Store {
    url: String,
    pool: OnceCell<AnyPool>,
}

impl Store {
    /// `sqlite:path` or `postgres://…`.
    pub(super) fn new(url: &str) -> Self {
        sqlx::any::install_default_drivers();
        Self {
            url: url.to_owned(),
            pool: OnceCell::new(),
        }
    }

    async fn pool(&self) -> Result<&AnyPool, StoreError> {
        self.pool.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<AnyPool, StoreError> {
        let is_sqlite = self.url.starts_with("sqlite:");
        let url = if is_sqlite && !self.url.contains('?') {
            format!("{}?mode=rwc", self.url)
        } else {
            self.url.clone()
        };
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        // Readers don't wait for the writer, and a writer waits for another one.
                        connection.execute(queries::SQLITE_SETTINGS).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await?;
        let migrations = queries::MIGRATIONS.iter().map(|(version, name, sql)| {
            Migration::new(
                *version,
                Cow::Borrowed(*name),
                MigrationType::Simple,
                SqlStr::from_static(sql),
                false,
            )
        });
        let migrated = Migrator::with_migrations(migrations.collect())
            .run(&pool)
            .await;
        migrated.map_err(|error| StoreError(error.to_string()))?;
        Ok(pool)
    }

    /// Stores a notification, unless its source has made one before.
    pub(super) async fn create(
        &self,
        new: &NewNotification,
        source: Option<&str>,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        let pool = self.pool().await?;
        let data = new.data.as_ref().map(ToString::to_string);
        let inserted = sqlx::query(queries::INSERT)
            .bind(Uuid::now_v7().to_string())
            .bind(&new.recipient_id)
            .bind(&new.kind)
            .bind(&new.title)
            .bind(&new.body)
            .bind(&new.link)
            .bind(data)
            .bind(now.as_millisecond())
            .bind(source)
            .fetch_optional(pool)
            .await?;
        if let Some(row) = inserted {
            return Ok(Created {
                notification: notification(&row)?,
                is_repeated: false,
            });
        }
        let row = sqlx::query(queries::BY_SOURCE)
            .bind(source)
            .fetch_one(pool)
            .await?;
        Ok(Created {
            notification: notification(&row)?,
            is_repeated: true,
        })
    }

    /// Notes that a notification has been published.
    pub(super) async fn note_published(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query(queries::PUBLISHED)
            .bind(id)
            .execute(self.pool().await?)
            .await?;
        Ok(())
    }

    /// What was stored before a time and not published yet, oldest first.
    pub(super) async fn unpublished(
        &self,
        before: Timestamp,
    ) -> Result<Vec<Notification>, StoreError> {
        let rows = sqlx::query(queries::UNPUBLISHED)
            .bind(before.as_millisecond())
            .bind(ROWS_MAX)
            .fetch_all(self.pool().await?)
            .await?;
        rows.iter().map(notification).collect()
    }

    /// What was published for a user after a notification, oldest first.
    pub(super) async fn published_after(
        &self,
        user: &str,
        id: &str,
    ) -> Result<Vec<Notification>, StoreError> {
        let rows = sqlx::query(queries::PUBLISHED_AFTER)
            .bind(user)
            .bind(id)
            .bind(ROWS_MAX)
            .fetch_all(self.pool().await?)
            .await?;
        rows.iter().map(notification).collect()
    }

    /// A user's notifications that are older than a cursor, newest first.
    pub(super) async fn list(
        &self,
        user: &str,
        unread: bool,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Notification>, StoreError> {
        let sql = if unread {
            queries::LIST_UNREAD
        } else {
            queries::LIST
        };
        let rows = sqlx::query(sql)
            .bind(user)
            // Ids are of hexadecimal digits and hyphens, after which this comes in every collation.
            .bind(cursor.unwrap_or("g"))
            .bind(limit.min(ROWS_MAX))
            .fetch_all(self.pool().await?)
            .await?;
        rows.iter().map(notification).collect()
    }

    pub(super) async fn unread_count(&self, user: &str) -> Result<i64, StoreError> {
        let row = sqlx::query(queries::UNREAD_COUNT)
            .bind(user)
            .fetch_one(self.pool().await?);
        Ok(row.await?.try_get(0)?)
    }

    /// Marks a user's notification as read; `None` if the user has none of this id. And whether it was unread.
    pub(super) async fn read(
        &self,
        user: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<(Notification, bool)>, StoreError> {
        let pool = self.pool().await?;
        let marked = sqlx::query(queries::READ)
            .bind(now.as_millisecond())
            .bind(user)
            .bind(id)
            .execute(pool)
            .await?;
        let row = sqlx::query(queries::BY_ID)
            .bind(user)
            .bind(id)
            .fetch_optional(pool)
            .await?;
        let found = row.as_ref().map(notification).transpose()?;
        Ok(found.map(|found| (found, marked.rows_affected() > 0)))
    }

    /// Marks all of a user's notifications as read; answers how many were not.
    pub(super) async fn read_all(&self, user: &str, now: Timestamp) -> Result<u64, StoreError> {
        let marked = sqlx::query(queries::READ_ALL)
            .bind(now.as_millisecond())
            .bind(user)
            .execute(self.pool().await?)
            .await?;
        Ok(marked.rows_affected())
    }

    /// Deletes a user's notification; false if the user has none of this id.
    pub(super) async fn delete(&self, user: &str, id: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query(queries::DELETE)
            .bind(user)
            .bind(id)
            .execute(self.pool().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    /// Deletes some of what is older than a time; answers how many.
    pub(super) async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        let deleted = sqlx::query(queries::EXPIRE)
            .bind(before.as_millisecond())
            .bind(ROWS_MAX)
            .execute(self.pool().await?)
            .await?;
        Ok(deleted.rows_affected())
    }

    /// Whether the database answers, where it was ever used.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        self.pool().await?.execute("SELECT 1").await?;
        Ok(())
    }
}

fn notification(row: &AnyRow) -> Result<Notification, StoreError> {
    let at = |ms: i64| {
        Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| at.to_string())
    };
    let read_ms: Option<i64> = row.try_get("read_ms")?;
    let data: Option<String> = row.try_get("data")?;
    Ok(Notification {
        id: row.try_get("id")?,
        recipient_id: row.try_get("recipient")?,
        kind: row.try_get("kind")?,
        title: row.try_get("title")?,
        body: row.try_get("body")?,
        link: row.try_get("link")?,
        data: data.and_then(|text| serde_json::from_str(&text).ok()),
        read: read_ms.is_some(),
        read_at: read_ms.map(at),
        created_at: at(row.try_get("created_ms")?),
    })
}
