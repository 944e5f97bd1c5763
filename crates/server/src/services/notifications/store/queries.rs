//! Every statement, as both databases understand it.

/// For each connection to SQLite.
pub(super) const SQLITE_SETTINGS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;";

/// Around what must outlive a power failure too, as its sender is answered for it. The rest can be done once more.
pub(super) const SQLITE_SYNCED: &str = "PRAGMA synchronous = FULL";
pub(super) const SQLITE_QUICK: &str = "PRAGMA synchronous = NORMAL";

/// Version, name and statements. One that was published is never changed.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "notifications", NOTIFICATIONS),
    (2, "order of publication", ORDER_OF_PUBLICATION),
    (3, "by recipient", BY_RECIPIENT),
];

const NOTIFICATIONS: &str = "CREATE TABLE notifications (
        id TEXT PRIMARY KEY,
        recipient TEXT NOT NULL,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT,
        link TEXT,
        data TEXT,
        created_ms BIGINT NOT NULL,
        read_ms BIGINT,
        published BIGINT NOT NULL DEFAULT 0,
        source TEXT UNIQUE
    );
    CREATE INDEX notifications_of_recipient ON notifications (recipient, id);
    CREATE INDEX notifications_unread ON notifications (recipient, id) WHERE read_ms IS NULL;
    CREATE INDEX notifications_unpublished ON notifications (created_ms) WHERE published = 0;
    CREATE INDEX notifications_by_age ON notifications (created_ms);";

/// `published` says when, in milliseconds since 1970, as who resumes lacks what was published after and not what was made
/// after.
const ORDER_OF_PUBLICATION: &str =
    "UPDATE notifications SET published = created_ms WHERE published = 1;
    CREATE INDEX notifications_by_publication ON notifications (recipient, published, id);";

/// The key begins with the recipient: where there is an index on the id alone, PostgreSQL goes through everybody's newest to
/// find one user's, however long ago that user had any.
const BY_RECIPIENT: &str = "CREATE TABLE notifications_by_recipient (
        recipient TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT,
        link TEXT,
        data TEXT,
        created_ms BIGINT NOT NULL,
        read_ms BIGINT,
        published BIGINT NOT NULL DEFAULT 0,
        source TEXT UNIQUE,
        PRIMARY KEY (recipient, id)
    );
    INSERT INTO notifications_by_recipient
        (recipient, id, kind, title, body, link, data, created_ms, read_ms, published, source)
        SELECT recipient, id, kind, title, body, link, data, created_ms, read_ms, published, source FROM notifications;
    DROP TABLE notifications;
    ALTER TABLE notifications_by_recipient RENAME TO notifications;
    CREATE INDEX notifications_unread ON notifications (recipient, id) WHERE read_ms IS NULL;
    CREATE INDEX notifications_by_publication ON notifications (recipient, published, id);
    CREATE INDEX notifications_unpublished ON notifications (created_ms) WHERE published = 0;
    CREATE INDEX notifications_by_age ON notifications (created_ms);";

pub(super) const INSERT: &str = "INSERT INTO notifications
    (id, recipient, kind, title, body, link, data, created_ms, source)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (source) DO NOTHING
    RETURNING id, recipient, kind, title, body, link, data, created_ms, read_ms";

pub(super) const BY_SOURCE: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE source = $1";

pub(super) const BY_ID: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE recipient = $1 AND id = $2";

/// `< 1` and not `= 0`, here and below: that keeps PostgreSQL from the index of all that is unpublished, which it takes to be
/// empty, and which is long when the broker was away.
///
/// Behind all of the user's that were published before it, also where the clock was set back since, or another node's is
/// ahead: who resumes from one of them would miss it.
pub(super) const PUBLISHED: &str = "UPDATE notifications SET published = CASE
        WHEN $1 < (SELECT MAX(published) FROM notifications WHERE recipient = $2)
        THEN (SELECT MAX(published) + 1 FROM notifications WHERE recipient = $2)
        ELSE COALESCE($1, created_ms) END
    WHERE recipient = $2 AND id = $3 AND published < 1";

pub(super) const UNPUBLISHED: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE published = 0 AND created_ms < $1 ORDER BY created_ms LIMIT $2";

pub(super) const PUBLISHED_MS: &str =
    "SELECT CASE published WHEN 0 THEN created_ms ELSE published END
    FROM notifications WHERE recipient = $1 AND id = $2";

pub(super) const PUBLISHED_AFTER: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE recipient = $1 AND published <> 0 AND (published, id) > ($2, $3)
    ORDER BY published, id LIMIT $4";

pub(super) const UNPUBLISHED_OF: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE recipient = $1 AND published < 1 ORDER BY id LIMIT $2";

pub(super) const LIST: &str =
    "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE recipient = $1 AND id < $2 ORDER BY id DESC LIMIT $3";

pub(super) const LIST_UNREAD: &str = "SELECT id, recipient, kind, title, body, link, data, created_ms, read_ms
    FROM notifications WHERE recipient = $1 AND id < $2 AND read_ms IS NULL ORDER BY id DESC LIMIT $3";

/// The bound, which is above every id, leads SQLite to the index that has the unread alone.
pub(super) const UNREAD_COUNT: &str =
    "SELECT COUNT(*) FROM notifications WHERE recipient = $1 AND id < 'g' AND read_ms IS NULL";

pub(super) const READ: &str = "UPDATE notifications SET read_ms = $1
    WHERE recipient = $2 AND id = $3 AND read_ms IS NULL";

pub(super) const NEWEST_UNREAD: &str = "SELECT id FROM notifications
    WHERE recipient = $1 AND read_ms IS NULL ORDER BY id DESC LIMIT 1";

pub(super) const READ_ALL: &str = "UPDATE notifications SET read_ms = $1
    WHERE recipient = $2 AND read_ms IS NULL AND id IN
    (SELECT id FROM notifications WHERE recipient = $2 AND id > $3 AND id <= $4 AND read_ms IS NULL ORDER BY id LIMIT $5)
    RETURNING id";

/// `COALESCE`, as PostgreSQL would go through the index of all without a source.
pub(super) const DELETE: &str =
    "DELETE FROM notifications WHERE recipient = $1 AND id = $2 AND COALESCE(source, '') = ''";

/// Nobody's id is empty. What remains says that its source has made it, until it is too old.
pub(super) const FORGET: &str = "UPDATE notifications
    SET recipient = '', title = '', body = NULL, link = NULL, data = NULL, read_ms = 0, published = 1
    WHERE recipient = $1 AND id = $2";

pub(super) const EXPIRE: &str = "DELETE FROM notifications WHERE (recipient, id) IN
    (SELECT recipient, id FROM notifications WHERE created_ms < $1 ORDER BY created_ms LIMIT $2)";

/// Every statement that a request may cause: none may go through a table.
#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    BY_SOURCE,
    BY_ID,
    PUBLISHED,
    UNPUBLISHED,
    UNPUBLISHED_OF,
    PUBLISHED_MS,
    PUBLISHED_AFTER,
    LIST,
    LIST_UNREAD,
    UNREAD_COUNT,
    READ,
    NEWEST_UNREAD,
    READ_ALL,
    DELETE,
    FORGET,
    EXPIRE,
];
