//! Tidewire's body path: the crate's own server, with streams that stay HTTP bodies, as they do over TLS and HTTP/2.

use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use tidewire::core::log::Retention;
use tidewire::{Event, Hub};

const CONNECTIONS_MAX: usize = 100_000;

#[derive(Deserialize)]
struct Topic {
    topic: String,
}

async fn publish(
    State(hub): State<Hub>,
    Query(query): Query<Topic>,
    data: String,
) -> Result<String, (StatusCode, String)> {
    match hub.publish(&query.topic, Event::text(data)).await {
        Ok(id) => Ok(id.to_string()),
        Err(error) => Err((StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(bytes)) = (arguments.next(), arguments.next()) else {
        return Err(std::io::Error::other(
            "usage: bench-tidewire-body ADDRESS:PORT HISTORY_BYTES",
        ));
    };
    tidewire_bench::net::raise_descriptor_limit();
    let hub = Hub::builder()
        .max_connections(CONNECTIONS_MAX)
        .history(Retention {
            memory_bytes: bytes.parse().map_err(std::io::Error::other)?,
            ..Retention::default()
        })
        .build();
    // No socket is taken over whose response says that it is encoded.
    let as_body = |mut response: Response| async {
        let identity = HeaderValue::from_static("identity");
        response.headers_mut().insert(CONTENT_ENCODING, identity);
        response
    };
    let router = Router::new()
        .route("/events", get(hub.subscribe()).post(publish))
        .layer(map_response(as_body))
        .with_state(hub);
    let listener = tidewire::bind(address.parse().map_err(std::io::Error::other)?)?;
    // As for the binary: publishers wait with open connections until all readers have come.
    let options = tidewire::ServeOptions {
        head_timeout: Duration::from_mins(2),
        ..tidewire::ServeOptions::default()
    };
    tidewire::serve(listener, router)
        .with_options(options)
        .await
}
