//! `/api/v1/notifications`: the routes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use serde_json::json;
use tidewire::problem::{Code, Problem};
use tidewire::query::Query;
use tidewire::subscribe::or_come_back_later;
use tidewire::{Event, PublishError, Rights, Topic, UserId};
use uuid::Uuid;

use super::delivery::{Delivery, NotCreated, TOPIC, event};
use super::domain::{NewNotification, Notification};
use super::resume::{self, In, Place, Then};
use super::store::{ROWS_MAX, StoreError};
use crate::config::Limits;
use crate::guard::{Need, Publisher, Routes};
use crate::routes::{check_right, parse_object, read_body, unreadable_path, wrong_method};

/// Where the routes are.
pub(super) const ADDRESS: &str = "/api/v1/notifications";
/// Notifications of a page, where the request says nothing.
const PAGE_ROWS: i64 = 50;

type Id = Result<Path<String>, PathRejection>;
type SomeRights = Option<Extension<Arc<Rights>>>;

#[derive(Clone)]
struct Door {
    delivery: Arc<Delivery>,
    limits: Arc<Limits>,
}

pub(super) fn routes(delivery: Arc<Delivery>, limits: &Limits) -> Routes {
    let door = Door {
        delivery,
        limits: Arc::new(limits.clone()),
    };
    let all = |address: &str| {
        Routes::new().on(Method::GET, address, Need::User, list).on(
            Method::POST,
            address,
            Need::Publish,
            create,
        )
    };
    let below = all("/")
        .stream("/subscribe", Need::User, subscribe)
        .on(Method::GET, "/unread-count", Need::User, unread_count)
        .on(Method::POST, "/read-all", Need::User, read_all)
        .on(Method::POST, "/{id}/read", Need::User, read)
        .on(Method::DELETE, "/{id}", Need::User, remove)
        .wrong_method(wrong_method)
        .with_state(door.clone());
    // With and without the slash at its end.
    let plain = all(ADDRESS).wrong_method(wrong_method).with_state(door);
    Routes::new()
        .nest(&format!("{ADDRESS}/"), below)
        .merge(plain)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Refused(why) = error {
            let detail = format!("the database does not take it: {why}");
            return Self::new(Code::BadDocument, detail);
        }
        tracing::warn!(%error, "the store of notifications fails");
        let (code, detail) = match error {
            StoreError::Unknown(_) => (
                Code::OutcomeUnknown,
                "the database fell silent; with an Idempotency-Key the request can be repeated and makes no second one",
            ),
            _ => (
                Code::StoreUnavailable,
                "the store of notifications can't be used at the moment; repeat the request later",
            ),
        };
        Self::new(code, detail).retry_after_s(1 + fastrand::u32(0..4))
    }
}

impl From<NotCreated> for Problem {
    fn from(error: NotCreated) -> Self {
        match error {
            NotCreated::Event(error) => PublishError::from(error).into(),
            NotCreated::Store(error) => error.into(),
        }
    }
}

/// Whose notifications are meant: the authenticated user's. A hub without authentication, which serves this machine only,
/// takes anybody's word for who they are.
fn user(parts: &Parts) -> Result<String, Problem> {
    // An empty id is nobody's.
    if let Some(UserId(user)) = parts
        .extensions
        .get()
        .filter(|UserId(user)| !user.is_empty())
    {
        return Ok(user.clone());
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let detail = match (parts.extensions.get::<Arc<Rights>>(), query.get("user")) {
        (None, Some(user)) if !user.is_empty() => {
            if Topic::new(&format!("{TOPIC}{user}")).is_ok() {
                return Ok(user.to_owned());
            }
            "`user` is no user's id"
        }
        (None, _) => "this hub has no authentication; say whose notifications you mean: `?user=ID`",
        (Some(_), _) => "notifications are somebody's: send the user's token",
    };
    Err(Problem::new(Code::MissingCredential, detail))
}

async fn create(
    State(door): State<Door>,
    rights: SomeRights,
    publisher: Option<Extension<Publisher>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = read_body(body, &headers, &door.limits).await?;
    let new: NewNotification = parse_object(&body).map_err(|error| {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        let code = if is_json { Code::BadDocument } else { Code::BadJson };
        let detail = format!(
            "{error}; a notification is {{\"recipient_id\",\"type\",\"title\",\"body\"?,\"link\"?,\"data\"?}}"
        );
        Problem::new(code, detail)
    })?;
    new.validate()
        .map_err(|(field, why)| Problem::new(Code::BadDocument, why).with("field", field))?;
    let topic = format!("{TOPIC}{}", new.recipient_id);
    check_right(
        rights.as_ref().map(|Extension(rights)| &**rights),
        std::iter::once(topic.as_str()),
    )?;
    let source = source(
        &headers,
        publisher.as_ref().map(|Extension(publisher)| publisher),
    )?;
    let created = door.delivery.create(&new, source.as_deref()).await?;
    let mut notification = created.notification;
    if notification.recipient_id.is_empty() {
        // It was deleted since, and nobody knows what it said.
        notification = Notification {
            id: notification.id,
            created_at: notification.created_at,
            ..new.draft()
        };
    }
    if created.is_repeated && !new.is_of(&notification) {
        return Err(Problem::new(
            Code::KeyReused,
            "this Idempotency-Key was used for another notification; use a new key",
        ));
    }
    Ok((StatusCode::CREATED, Json(notification)).into_response())
}

/// What makes a repeated request known as such.
fn source(headers: &HeaderMap, publisher: Option<&Publisher>) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=256).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::new(
            Code::BadKey,
            "an Idempotency-Key has 1 to 256 characters of visible ASCII",
        )
    })?;
    let by = publisher.map_or("", |Publisher(name)| name);
    Ok(Some(format!("key:{}:{by}:{key}", by.len())))
}

async fn subscribe(State(door): State<Door>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let headers = parts.headers.clone();
    match stream(&door, parts).await {
        // An `EventSource` that gets an error never comes back.
        Err(problem) if problem.code() == Code::StoreUnavailable => {
            or_come_back_later(&headers, problem)
        }
        answer => answer,
    }
}

async fn stream(door: &Door, parts: Parts) -> Result<Response, Problem> {
    let user = user(&parts)?;
    let delivery = &door.delivery;
    delivery.used.notify_one();
    let topic = format!("{TOPIC}{user}");
    let topic =
        Topic::new(&topic).map_err(|error| Problem::new(Code::BadTopic, error.to_string()))?;
    let greeting = json!({ "user": user }).to_string();
    let handler = delivery
        .hub
        .subscribe_to([])
        .joining(topic.clone())
        .greeting({
            let greeting = greeting.clone();
            move |_| Event::text(greeting.clone()).named("connected")
        });
    let came_with = Place::of(&parts)?;
    // Taken before the store is asked, so that what is published meanwhile is in the one or after the other.
    let position = delivery.hub.position().to_string();
    let (place, events, from) = match came_with {
        // The log knows the place, or says that it does not.
        Place::Log => return handler.respond(&http::Request::from_parts(parts, ())),
        Place::New => {
            let from = resume::stamped(&position);
            (None, Vec::new(), from)
        }
        Place::Known(last) => match resume::after(delivery, &user, &topic, &last).await? {
            In::Log(place) => (Some(place), Vec::new(), last),
            In::Store(after) => {
                let stored = resume::missed(delivery, &user, &after).await?;
                let page = resume::next_page(&delivery.hub, &stored).await;
                let events = page.notifications.iter().map(event).collect();
                match page.then {
                    Then::Store => return Ok(resume::finite(&greeting, events)),
                    Then::LogAfter(id) => (Some(id.to_owned()), events, last),
                    Then::Log => (Some(position), events, last),
                }
            }
        },
    };
    let parts = resume::from_place(parts, place.as_deref());
    handler
        .preceded_by(events, from)
        .respond(&http::Request::from_parts(parts, ()))
}

async fn list(State(door): State<Door>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let user = user(&parts)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let bad = |name: &str, allowed: &str| {
        let detail = format!("`{name}` is not understood; allowed: {allowed}");
        Problem::new(Code::BadParameter, detail).with("parameter", name)
    };
    let unread = match query.get("unread") {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(bad("unread", "`true`, `false`")),
    };
    let limit = match query.get("limit") {
        None | Some("") => PAGE_ROWS,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=ROWS_MAX).contains(&limit) => limit,
            _ => return Err(bad("limit", &format!("1 to {ROWS_MAX}"))),
        },
    };
    let cursor = query.get("cursor").filter(|cursor| !cursor.is_empty());
    let cursor = cursor.map(Uuid::parse_str).transpose();
    let cursor = cursor.map_err(|_| bad("cursor", "the `next` of the page before"))?;
    let cursor = cursor.map(|id| id.to_string());
    let page = door
        .delivery
        .store
        .list(&user, unread, cursor.as_deref(), limit)
        .await?;
    // A page may have fewer than asked for, where they are long.
    let last = page.notifications.last().filter(|_| !page.is_all);
    let next = last.map(|last| last.id.clone());
    Ok(Json(json!({ "notifications": page.notifications, "next": next })).into_response())
}

async fn unread_count(State(door): State<Door>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let unread = door.delivery.store.unread_count(&user(&parts)?).await?;
    Ok(Json(json!({ "unread": unread })).into_response())
}

async fn read(State(door): State<Door>, id: Id, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let user = user(&parts)?;
    let id = known_form(id)?;
    let found = door
        .delivery
        .store
        .read(&user, &id, Timestamp::now())
        .await?;
    let (notification, was_unread) = found.ok_or_else(|| unknown(&id))?;
    if was_unread {
        door.delivery
            .tell(&user, "notification.read", &json!({ "id": id }))
            .await;
    }
    Ok(Json(notification).into_response())
}

async fn read_all(State(door): State<Door>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let user = user(&parts)?;
    let updated = door
        .delivery
        .store
        .read_all(&user, Timestamp::now())
        .await?;
    if updated > 0 {
        door.delivery
            .tell(&user, "notification.read", &json!({ "all": true }))
            .await;
    }
    Ok(Json(json!({ "updated": updated })).into_response())
}

async fn remove(State(door): State<Door>, id: Id, request: Request) -> Result<StatusCode, Problem> {
    let (parts, _) = request.into_parts();
    let user = user(&parts)?;
    let id = known_form(id)?;
    if !door.delivery.store.delete(&user, &id).await? {
        return Err(unknown(&id));
    }
    door.delivery
        .tell(&user, "notification.deleted", &json!({ "id": id }))
        .await;
    Ok(StatusCode::NO_CONTENT)
}

/// An id as the store has them. Any other is nobody's, and not what a database can be asked for.
fn known_form(id: Id) -> Result<String, Problem> {
    let Path(id) = id.map_err(unreadable_path)?;
    match Uuid::parse_str(&id) {
        Ok(parsed) => Ok(parsed.to_string()),
        Err(_) => Err(unknown(&id)),
    }
}

/// Also where it is somebody else's, so that nobody learns which ids there are.
fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().take(100).collect();
    Problem::new(
        Code::NoSuchNotification,
        format!("you have no notification `{shown}`"),
    )
}
