//! Where notifications are kept: SQLite or PostgreSQL, with the same queries.

mod queries;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
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
/// How long a query may take, that wait included. Stops a database that is locked or silent from collecting requests.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows that one call changes or answers.
pub(super) const ROWS_MAX: i64 = 500;
/// Bytes that one call answers, but for the last row. Stops requests from filling the memory with long bodies.
pub(super) const BYTES_MAX: usize = 256 * 1_024;

/// The database does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreError {
    /// It can't be used now.
    Away(String),
    /// It fell silent after it was asked to store: whether it did is unknown.
    Unknown(String),
    /// It takes no such values, today or later.
    Refused(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Away(why) | Self::Unknown(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        // PostgreSQL's classes for bad data and for what is over a limit of the database; SQLite's numbers are shorter.
        let is_refused = code.is_some_and(|code| {
            code.len() == 5 && (code.starts_with("22") || code.starts_with("54"))
        });
        if is_refused {
            Self::Refused(error.to_string())
        } else {
            Self::Away(error.to_string())
        }
    }
}

/// Notifications that the store has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stored {
    pub(super) notifications: Vec<Notification>,
    /// Whether there are no more of them.
    pub(super) is_all: bool,
}

/// Reads rows up to a number of them, which is what was asked for, or about [`BYTES_MAX`].
async fn up_to(
    limit: i64,
    mut rows: impl Stream<Item = sqlx::Result<AnyRow>> + Unpin,
) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    let mut bytes = 0;
    while let Some(row) = in_time(rows.try_next()).await? {
        let notification = notification(&row)?;
        bytes += notification.size();
        stored.notifications.push(notification);
        if bytes >= BYTES_MAX {
            return Ok(stored);
        }
    }
    stored.is_all = i64::try_from(stored.notifications.len()).is_ok_and(|rows| rows < limit);
    Ok(stored)
}

/// The answer to a query, if it comes in time.
async fn in_time<T>(query: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(QUERY_TIMEOUT, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::Away(format!(
            "the database has not answered within {QUERY_TIMEOUT:?}"
        ))),
    }
}

/// Stored, now or before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Created {
    pub(super) notification: Notification,
    /// Whether its source has made it before.
    pub(super) is_repeated: bool,
}

/// A place in the order in which a user's notifications were published: behind this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct After {
    pub(super) published_ms: i64,
    pub(super) id: String,
}

/// The store. Nothing is opened until it is used.
pub(super) struct Store {
    url: String,
    pool: OnceCell<AnyPool>,
    migrated: OnceCell<()>,
}

impl Store {
    /// `sqlite:path` or `postgres://…`.
    pub(super) fn new(url: &str) -> Self {
        sqlx::any::install_default_drivers();
        Self {
            url: url.to_owned(),
            pool: OnceCell::new(),
            migrated: OnceCell::new(),
        }
    }

    fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    async fn pool(&self) -> Result<&AnyPool, StoreError> {
        let pool = self.pool.get_or_try_init(async || self.open()).await?;
        if self.migrated.initialized() {
            return Ok(pool);
        }
        // Asked by each for itself: who waits for a database that is away waits once, and not for those before, too.
        drop(pool.acquire().await?);
        self.migrated.get_or_try_init(|| migrate(pool)).await?;
        Ok(pool)
    }

    fn open(&self) -> Result<AnyPool, StoreError> {
        let is_sqlite = self.is_sqlite();
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
            .connect_lazy(&url)?;
        Ok(pool)
    }

    /// Stores a notification, unless its source has made one before.
    pub(super) async fn create(
        &self,
        new: &NewNotification,
        source: Option<&str>,
        now: Timestamp,
    ) -> Result<Created, StoreError> {
        let mut connection = in_time(self.pool().await?.acquire()).await?;
        if self.is_sqlite() {
            in_time(connection.execute(queries::SQLITE_SYNCED)).await?;
        }
        let data = new.data.as_ref().map(ToString::to_string);
        // All rows, though there is one at most: SQLite commits when there is no further one, and only then says if it can't.
        let insert = sqlx::query(queries::INSERT)
            .bind(Uuid::now_v7().to_string())
            .bind(&new.recipient_id)
            .bind(&new.kind)
            .bind(&new.title)
            .bind(&new.body)
            .bind(&new.link)
            .bind(data)
            .bind(now.as_millisecond())
            .bind(source)
            .fetch_all(&mut *connection);
        let inserted = match tokio::time::timeout(QUERY_TIMEOUT, insert).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) if error.as_database_error().is_some() => return Err(error.into()),
            Ok(Err(error)) => return Err(StoreError::Unknown(error.to_string())),
            Err(late) => return Err(StoreError::Unknown(late.to_string())),
        };
        if self.is_sqlite() {
            // One that stays as it is only waits for the disk more often.
            let _ = in_time(connection.execute(queries::SQLITE_QUICK)).await;
        }
        if let Some(row) = inserted.first() {
            return Ok(Created {
                notification: notification(row)?,
                is_repeated: false,
            });
        }
        let row = sqlx::query(queries::BY_SOURCE)
            .bind(source)
            .fetch_one(&mut *connection);
        Ok(Created {
            notification: notification(&in_time(row).await?)?,
            is_repeated: true,
        })
    }

    /// Notes that a notification has been published, and when; `None` if that was as soon as it was made.
    pub(super) async fn note_published(
        &self,
        notification: &Notification,
        at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let noted = sqlx::query(queries::PUBLISHED)
            .bind(at.map(Timestamp::as_millisecond))
            .bind(&notification.recipient_id)
            .bind(&notification.id)
            .execute(self.pool().await?);
        in_time(noted).await?;
        Ok(())
    }

    /// What was stored before a time and not published yet, oldest first.
    pub(super) async fn unpublished(&self, before: Timestamp) -> Result<Stored, StoreError> {
        let rows = sqlx::query(queries::UNPUBLISHED)
            .bind(before.as_millisecond())
            .bind(ROWS_MAX)
            .fetch(self.pool().await?);
        up_to(ROWS_MAX, rows).await
    }

    /// What of a user is stored and not noted as published, oldest first.
    pub(super) async fn unpublished_of(&self, user: &str) -> Result<Stored, StoreError> {
        let rows = sqlx::query(queries::UNPUBLISHED_OF)
            .bind(user)
            .bind(ROWS_MAX)
            .fetch(self.pool().await?);
        up_to(ROWS_MAX, rows).await
    }

    /// When a user's notification was published, in milliseconds since 1970; `None` if the user has none of this id.
    pub(super) async fn published_ms(
        &self,
        user: &str,
        id: &str,
    ) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query(queries::PUBLISHED_MS)
            .bind(user)
            .bind(id)
            .fetch_optional(self.pool().await?);
        Ok(in_time(row).await?.map(|row| row.try_get(0)).transpose()?)
    }

    /// What was published for a user after a place, in the order of publication.
    pub(super) async fn published_after(
        &self,
        user: &str,
        after: &After,
    ) -> Result<Stored, StoreError> {
        let rows = sqlx::query(queries::PUBLISHED_AFTER)
            .bind(user)
            .bind(after.published_ms)
            .bind(&after.id)
            .bind(ROWS_MAX)
            .fetch(self.pool().await?);
        up_to(ROWS_MAX, rows).await
    }

    /// A user's notifications that are older than a cursor, newest first; up to `limit`.
    pub(super) async fn list(
        &self,
        user: &str,
        unread: bool,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Stored, StoreError> {
        let sql = if unread {
            queries::LIST_UNREAD
        } else {
            queries::LIST
        };
        let rows = sqlx::query(sql)
            .bind(user)
            // Ids are of hexadecimal digits and hyphens, after which this comes in every collation.
            .bind(cursor.unwrap_or("g"))
            .bind(limit)
            .fetch(self.pool().await?);
        up_to(limit, rows).await
    }

    pub(super) async fn unread_count(&self, user: &str) -> Result<i64, StoreError> {
        let row = sqlx::query(queries::UNREAD_COUNT)
            .bind(user)
            .fetch_one(self.pool().await?);
        Ok(in_time(row).await?.try_get(0)?)
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
            .execute(pool);
        let marked = in_time(marked).await?;
        let row = sqlx::query(queries::BY_ID)
            .bind(user)
            .bind(id)
            .fetch_optional(pool);
        let row = in_time(row).await?;
        let found = row.as_ref().map(notification).transpose()?;
        Ok(found.map(|found| (found, marked.rows_affected() > 0)))
    }

    /// Marks as read what a user has now; answers how many were not. So many rows at a time that others can write in between.
    pub(super) async fn read_all(&self, user: &str, now: Timestamp) -> Result<u64, StoreError> {
        let pool = self.pool().await?;
        let newest = sqlx::query(queries::NEWEST_UNREAD)
            .bind(user)
            .fetch_optional(pool);
        let Some(newest) = in_time(newest).await? else {
            return Ok(0);
        };
        let newest: String = newest.try_get(0)?;
        let (mut updated, mut from) = (0, String::new());
        loop {
            let marked = sqlx::query(queries::READ_ALL)
                .bind(now.as_millisecond())
                .bind(user)
                .bind(&from)
                .bind(&newest)
                .bind(ROWS_MAX)
                .fetch_all(pool);
            let marked = in_time(marked).await?;
            updated += marked.len() as u64;
            for row in &marked {
                from = from.max(row.try_get(0)?);
            }
            if i64::try_from(marked.len()).is_ok_and(|rows| rows < ROWS_MAX) {
                return Ok(updated);
            }
        }
    }

    /// Deletes a user's notification; false if the user has none of this id. Its source makes no second one: that it has made
    /// one is remembered, and nothing else of it.
    pub(super) async fn delete(&self, user: &str, id: &str) -> Result<bool, StoreError> {
        let pool = self.pool().await?;
        for sql in [queries::DELETE, queries::FORGET] {
            let deleted = sqlx::query(sql).bind(user).bind(id).execute(pool);
            if in_time(deleted).await?.rows_affected() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes some of what is older than a time; answers how many.
    pub(super) async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        let deleted = sqlx::query(queries::EXPIRE)
            .bind(before.as_millisecond())
            .bind(ROWS_MAX)
            .execute(self.pool().await?);
        Ok(in_time(deleted).await?.rows_affected())
    }

    /// Whether the database answers, where it was ever used.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        in_time(self.pool().await?.execute("SELECT 1")).await?;
        Ok(())
    }
}

/// Makes and changes the tables. May take its time.
async fn migrate(pool: &AnyPool) -> Result<(), StoreError> {
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
        .run(pool)
        .await;
    migrated.map_err(|error| StoreError::Away(error.to_string()))
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
