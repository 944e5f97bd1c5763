//! A web application with a hub inside and sessions of its own: it takes orders, everyone who is signed in sees each
//! one, and who placed it gets a receipt that nobody else can read. `cargo run -p embed`, then see `docs/embedding.md`.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidewire::problem::Problem;
use tidewire::{Event, Hub, UserId};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Deserialize, Serialize)]
struct Order {
    item: String,
    count: u32,
}

/// Stands for your session store: from the cookie `session=…` to the id of a user.
fn user_of(headers: &HeaderMap) -> Option<UserId> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = cookies.split(';').filter_map(|c| c.trim().split_once('='));
    let user = match cookies.find(|(name, _)| *name == "session")?.1 {
        "ann-7f3a" => "ann",
        "bob-c41d" => "bob",
        _ => return None,
    };
    Some(UserId(user.to_owned()))
}

/// Lets in who is signed in. The hub reads the extension: a stream gets the topic `user:{id}` too, and no other user's.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let Some(user) = user_of(request.headers()) else {
        return (StatusCode::UNAUTHORIZED, "sign in first\n").into_response();
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// Answers when both events are stored, so a client that was told 201 can count on them.
async fn order(
    State(hub): State<Hub>,
    Extension(UserId(user)): Extension<UserId>,
    Json(order): Json<Order>,
) -> Result<StatusCode, Problem> {
    let event = Event::json("order_created", &order)?;
    hub.publish("orders", event).await?;
    let receipt = Event::json("receipt", &json!({ "for": user, "order": order }))?;
    hub.publish_to_user(&user, receipt).await?;
    Ok(StatusCode::CREATED)
}

async fn stats(State(hub): State<Hub>) -> Json<Value> {
    let stats = hub.stats();
    Json(json!({ "clients": stats.connections, "topics": stats.topics(), "drops": stats.drops() }))
}

fn router(hub: &Hub) -> Router {
    Router::new()
        .route("/orders", post(order))
        .route("/events", get(hub.subscribe()))
        .layer(from_fn(authenticate))
        .route("/stats", get(stats))
        .with_state(hub.clone())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let listener = tidewire::bind(address.as_deref().unwrap_or("127.0.0.1:8081").parse()?)?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    println!("http://{}/events", listener.local_addr()?);
    let hub = Hub::builder().max_connections(1_000).build();
    let server = tidewire::serve(listener, router(&hub));
    Ok(server.with_graceful_shutdown(stop).await?)
}
