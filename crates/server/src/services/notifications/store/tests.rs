//! One suite for both databases, and what each says of its plans.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod postgres;

use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use self::postgres::Postgres;
use super::super::domain::{NewNotification, Notification};
use super::{After, BYTES_MAX, ROWS_MAX, Store, StoreError, Stored, queries};

fn new(user: &str, n: usize) -> NewNotification {
    NewNotification {
        recipient_id: user.to_owned(),
        kind: "test".to_owned(),
        title: format!("number {n}"),
        body: n
            .is_multiple_of(2)
            .then(|| "a body\nof two lines".to_owned()),
        link: None,
        data: Some(serde_json::json!({"n": n, "text": "ä"})),
    }
}

async fn create(store: &Store, user: &str, n: usize) -> String {
    let created = store
        .create(&new(user, n), None, Timestamp::now())
        .await
        .unwrap();
    assert!(!created.is_repeated);
    created.notification.id
}

async fn ids(store: &Store, user: &str, unread: bool) -> Vec<String> {
    names(&store.list(user, unread, None, 100).await.unwrap())
}

async fn suite(store: &Store) {
    what_is_stored_is_listed_newest_first(store).await;
    reading_and_deleting_are_the_users_own(store).await;
    a_source_makes_one_notification(store).await;
    what_is_unpublished_is_found(store).await;
    what_was_published_late_comes_after_what_was_published_before_it(store).await;
    what_is_published_after_the_clock_was_set_back_comes_last(store).await;
    all_is_read_in_steps(store).await;
    a_page_of_long_ones_is_short(store).await;
    what_is_old_is_deleted(store).await;
    writers_at_once_lose_nothing(store).await;
}

async fn what_is_stored_is_listed_newest_first(store: &Store) {
    let mut made = Vec::new();
    for n in 0..25 {
        made.push(create(store, "list", n).await);
    }
    made.reverse();
    assert_eq!(ids(store, "list", false).await, made);
    let (mut cursor, mut paged) = (None, Vec::new());
    loop {
        let page = store
            .list("list", false, cursor.as_deref(), 10)
            .await
            .unwrap();
        paged.extend(names(&page));
        cursor = paged.last().cloned();
        if page.is_all {
            break;
        }
    }
    assert_eq!(paged, made);
    let newest = store.list("list", false, None, 1).await.unwrap();
    let newest = &newest.notifications[0];
    assert_eq!(
        (newest.title.as_str(), newest.read, newest.body.as_deref()),
        ("number 24", false, Some("a body\nof two lines"))
    );
    assert_eq!(newest.data, new("list", 24).data);
    assert_eq!(newest.recipient_id, "list");
    assert!(newest.created_at.parse::<Timestamp>().is_ok());
}

async fn reading_and_deleting_are_the_users_own(store: &Store) {
    let (a, b) = (create(store, "own", 1).await, create(store, "own", 2).await);
    let now = Timestamp::now();
    assert_eq!(store.read("other", &a, now).await.unwrap(), None);
    assert!(!store.delete("other", &a).await.unwrap());
    assert_eq!(store.unread_count("own").await.unwrap(), 2);
    let (read, was_unread) = store.read("own", &a, now).await.unwrap().unwrap();
    assert!(read.read && was_unread && read.read_at.is_some());
    let (again, was_unread) = store.read("own", &a, now).await.unwrap().unwrap();
    assert_eq!((again, was_unread), (read, false), "read once");
    assert_eq!(ids(store, "own", true).await, std::slice::from_ref(&b));
    assert_eq!(store.unread_count("own").await.unwrap(), 1);
    assert_eq!(store.read_all("own", now).await.unwrap(), 1);
    assert_eq!(store.read_all("own", now).await.unwrap(), 0);
    assert!(store.delete("own", &b).await.unwrap());
    assert!(!store.delete("own", &b).await.unwrap());
    assert_eq!(ids(store, "own", false).await, [a]);
}

async fn a_source_makes_one_notification(store: &Store) {
    let now = Timestamp::now();
    let first = store
        .create(&new("source", 1), Some("s:1"), now)
        .await
        .unwrap();
    let again = store
        .create(&new("source", 2), Some("s:1"), now)
        .await
        .unwrap();
    assert!(again.is_repeated);
    assert_eq!(again.notification, first.notification);
    assert_eq!(ids(store, "source", false).await.len(), 1);
    // Nor when it was deleted since: a node that has died may have stored it and not said so.
    let id = &first.notification.id;
    assert!(!store.delete("other", id).await.unwrap());
    assert!(store.delete("source", id).await.unwrap());
    assert!(!store.delete("source", id).await.unwrap());
    let again = store
        .create(&new("source", 1), Some("s:1"), now)
        .await
        .unwrap();
    assert!(again.is_repeated);
    assert_eq!(again.notification.title, "", "nothing of it is kept");
    assert_eq!(ids(store, "source", false).await, [""; 0]);
    assert_eq!(store.unread_count("source").await.unwrap(), 0);
}

async fn what_is_unpublished_is_found(store: &Store) {
    let (a, b) = (
        create(store, "later", 1).await,
        create(store, "later", 2).await,
    );
    note(store, "later", &a, None).await;
    let soon = Timestamp::now() + SignedDuration::from_secs(1);
    let found = store.unpublished(soon).await.unwrap();
    let found = found.notifications.into_iter();
    let found: Vec<_> = found
        .filter(|n| n.recipient_id == "later")
        .map(|n| n.id)
        .collect();
    assert_eq!(found, std::slice::from_ref(&b));
    let unpublished = store.unpublished_of("later").await.unwrap();
    assert_eq!(names(&unpublished), std::slice::from_ref(&b));
    note(store, "later", &b, None).await;
    assert_eq!(
        names(&store.unpublished_of("later").await.unwrap()),
        [""; 0]
    );
    assert_eq!(
        published_after(store, "later", &a).await,
        std::slice::from_ref(&b)
    );
    assert_eq!(published_after(store, "later", &b).await, [""; 0]);
    assert_eq!(store.published_ms("nobody", &a).await.unwrap(), None);
}

fn names(stored: &Stored) -> Vec<String> {
    stored
        .notifications
        .iter()
        .map(|one| one.id.clone())
        .collect()
}

async fn note(store: &Store, user: &str, id: &str, at: Option<Timestamp>) {
    let notification = Notification {
        id: id.to_owned(),
        ..new(user, 1).draft()
    };
    store.note_published(&notification, at).await.unwrap();
}

async fn published_after(store: &Store, user: &str, id: &str) -> Vec<String> {
    let after = After {
        published_ms: store.published_ms(user, id).await.unwrap().unwrap(),
        id: id.to_owned(),
    };
    names(&store.published_after(user, &after).await.unwrap())
}

/// Who has the newer one, which was published at once, lacked the older one, which was published when the broker was back.
async fn what_was_published_late_comes_after_what_was_published_before_it(store: &Store) {
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(create(store, "order", n).await);
    }
    let now = Timestamp::now();
    let at = |seconds| Some(now + SignedDuration::from_secs(seconds));
    note(store, "order", &made[1], at(1)).await;
    note(store, "order", &made[0], at(2)).await;
    note(store, "order", &made[2], at(3)).await;
    // Noted once: another node that finds it published does not move it.
    note(store, "order", &made[1], at(9)).await;
    assert_eq!(
        published_after(store, "order", &made[1]).await,
        [made[0].clone(), made[2].clone()]
    );
    assert_eq!(
        published_after(store, "order", &made[0]).await,
        [made[2].clone()]
    );
    assert_eq!(published_after(store, "order", &made[2]).await, [""; 0]);
}

/// Before, who had the first one and came back later never got the others.
async fn what_is_published_after_the_clock_was_set_back_comes_last(store: &Store) {
    let mut made = Vec::new();
    for n in 0..3 {
        made.push(create(store, "clock", n).await);
    }
    let now = Timestamp::now();
    for (id, seconds) in made.iter().zip([3_600, 0, 1]) {
        let at = now + SignedDuration::from_secs(seconds);
        note(store, "clock", id, Some(at)).await;
    }
    assert_eq!(published_after(store, "clock", &made[0]).await, made[1..]);
    assert_eq!(published_after(store, "clock", &made[1]).await, made[2..]);
}

/// All of them, though they are more than one statement changes; not what comes meanwhile.
async fn all_is_read_in_steps(store: &Store) {
    for n in 0..=ROWS_MAX {
        create(store, "many", usize::try_from(n).unwrap()).await;
    }
    let updated = store.read_all("many", Timestamp::now()).await.unwrap();
    assert_eq!(i64::try_from(updated), Ok(ROWS_MAX + 1));
    assert_eq!(store.unread_count("many").await.unwrap(), 0);
}

/// Five hundred of the longest were some 64 MB for each request.
async fn a_page_of_long_ones_is_short(store: &Store) {
    let mut made = Vec::new();
    for n in 0..10 {
        let long = NewNotification {
            body: Some("x".repeat(60_000)),
            ..new("long", n)
        };
        let created = store.create(&long, None, Timestamp::now()).await.unwrap();
        note(store, "long", &created.notification.id, None).await;
        made.push(created.notification.id);
    }
    let page = store.list("long", false, None, 100).await.unwrap();
    let len = BYTES_MAX / 60_000 + 1;
    assert_eq!((page.notifications.len(), page.is_all), (len, false));
    let after = After {
        published_ms: 0,
        id: String::new(),
    };
    let page = store.published_after("long", &after).await.unwrap();
    assert_eq!(
        (names(&page).as_slice(), page.is_all),
        (&made[..len], false)
    );
    // The connection is of use as before.
    assert_eq!(store.unread_count("long").await.unwrap(), 10);
}

async fn what_is_old_is_deleted(store: &Store) {
    let now = Timestamp::now();
    let old = now - SignedDuration::from_hours(48);
    store.create(&new("old", 1), None, old).await.unwrap();
    let young = create(store, "old", 2).await;
    assert!(
        store
            .expire(now - SignedDuration::from_hours(24))
            .await
            .unwrap()
            >= 1
    );
    assert_eq!(ids(store, "old", false).await, [young]);
}

async fn writers_at_once_lose_nothing(store: &Store) {
    let writing = (0..8).map(|writer| async move {
        for n in 0..25 {
            create(store, &format!("writers-{}", writer % 2), n).await;
        }
    });
    futures_util_join(writing.collect()).await;
    assert_eq!(store.unread_count("writers-0").await.unwrap(), 100);
    assert_eq!(store.unread_count("writers-1").await.unwrap(), 100);
}

/// Polls all of them until each is done.
async fn futures_util_join(futures: Vec<impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|cx| {
        for slot in &mut futures {
            if slot
                .as_mut()
                .is_some_and(|f| f.as_mut().poll(cx).is_ready())
            {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

fn sqlite(folder: &TempDir) -> Store {
    Store::new(&format!("sqlite:{}", folder.path().join("n.db").display()))
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    suite(&sqlite(&folder)).await;
    // A second process opens what the first one made.
    assert_eq!(sqlite(&folder).unread_count("list").await.unwrap(), 25);
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let server = Postgres::start();
    let store = Store::new(&server.url());
    suite(&store).await;
    // What PostgreSQL has no place for is no outage.
    let nul = NewNotification {
        title: "a\0b".into(),
        ..new("nul", 1)
    };
    let refused = store.create(&nul, None, Timestamp::now()).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(
        Store::new(&server.url())
            .unread_count("list")
            .await
            .unwrap(),
        25
    );
}

/// What a database says of each statement; `$1` and so on stand for nothing in particular there.
async fn plans(store: &Store, explain: &str, column: &str) -> Vec<(&'static str, String)> {
    let pool = store.pool().await.unwrap();
    let mut plans = Vec::new();
    for statement in queries::ALL {
        let mut text = format!("{explain} {statement}");
        for n in [5, 4, 3, 2, 1] {
            let is_number = statement.contains(&format!("LIMIT ${n}"))
                || statement.contains(&format!("created_ms < ${n}"))
                || statement.contains(&format!("read_ms = ${n}"))
                || statement.contains(&format!("id) > (${n},"))
                || statement.contains(&format!("COALESCE(${n},"))
                || statement.contains(&format!("WHEN ${n} <"));
            text = text.replace(&format!("${n}"), if is_number { "1" } else { "'1'" });
        }
        let rows = sqlx::query(AssertSqlSafe(text))
            .fetch_all(pool)
            .await
            .unwrap();
        let lines: Vec<String> = rows
            .iter()
            .map(|row| row.try_get(column).unwrap())
            .collect();
        plans.push((*statement, lines.join("\n")));
    }
    plans
}

#[tokio::test]
async fn no_statement_goes_through_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder);
    for (statement, plan) in plans(&store, "EXPLAIN QUERY PLAN", "detail").await {
        assert!(!plan.contains("SCAN notifications"), "{statement}\n{plan}");
        if statement.contains("read_ms IS NULL") && statement.starts_with("SELECT") {
            assert!(plan.contains("notifications_unread"), "{statement}\n{plan}");
        }
    }
    let server = Postgres::start();
    let store = Store::new(&server.url());
    let fill = "INSERT INTO notifications (id, recipient, kind, title, created_ms, source)
        SELECT to_char(n, 'FM000000'), CASE WHEN n < 5000 THEN '1' ELSE 'u' || (n % 1000) END, 'k', 't', n, 's' || n
        FROM generate_series(1, 50000) n";
    let pool = store.pool().await.unwrap();
    sqlx::query(fill).execute(pool).await.unwrap();
    sqlx::query("UPDATE notifications SET published = 1")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("ANALYZE notifications")
        .execute(pool)
        .await
        .unwrap();
    for (statement, plan) in plans(&store, "EXPLAIN", "QUERY PLAN").await {
        assert!(!plan.contains("Seq Scan"), "{statement}\n{plan}");
        // Nor through what others have: a user who had many, long ago, was looked for among all that came since.
        if statement.contains("recipient = $") {
            let is_by_recipient = ["Cond: (recipient = '", "Cond: ((recipient = '"]
                .iter()
                .any(|condition| plan.contains(condition));
            assert!(is_by_recipient, "{statement}\n{plan}");
        }
    }
}
