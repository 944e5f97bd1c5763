//! A web application with a hub inside: it takes orders, and whoever follows `GET /events` sees each one.
//!
//! ```text
//! cargo run -p embed
//! curl -N 'http://127.0.0.1:8081/events?topic=orders'
//! curl http://127.0.0.1:8081/orders -H 'Content-Type: application/json' -d '{"item": "tea", "count": 2}'
//! ```

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tidewire::problem::{Code, Problem};
use tidewire::{Event, Hub};

#[cfg(test)]
mod tests;

#[derive(Deserialize, Serialize)]
struct Order {
    item: String,
    count: u32,
}

/// The application's own route. It answers when the event is stored, so a client that was told 201 can count on it.
async fn create(State(hub): State<Hub>, Json(order): Json<Order>) -> Result<StatusCode, Problem> {
    let event = Event::json("order_created", &order)
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    hub.publish("orders", event).await?;
    Ok(StatusCode::CREATED)
}

fn router(hub: &Hub) -> Router {
    Router::new()
        .route("/orders", post(create))
        .route("/events", get(hub.subscribe()))
        .with_state(hub.clone())
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let hub = Hub::builder().max_connections(1_000).build();
    let listener = tidewire::bind(([127, 0, 0, 1], 8081).into())?;
    println!("http://{}/events?topic=orders", listener.local_addr()?);
    let stop = async {
        // An error means that there will be no signal to wait for: better to end than to be unstoppable.
        let _ = tokio::signal::ctrl_c().await;
    };
    tidewire::serve(listener, router(&hub))
        .with_graceful_shutdown(stop)
        .await
}
