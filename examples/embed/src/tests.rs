//! The example does what its first lines say.

use std::future::IntoFuture;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tidewire::Hub;

/// Sends a request and returns the lines of the answer as they come.
fn request(address: SocketAddr, text: &str) -> impl Iterator<Item = String> + use<> {
    let mut stream = TcpStream::connect(address).expect("the application listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    stream
        .write_all(text.as_bytes())
        .expect("a request is taken");
    BufReader::new(stream)
        .lines()
        .map(|line| line.expect("a line in time"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_those_who_follow() {
    let hub = Hub::builder().build();
    let listener = tidewire::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(tidewire::serve(listener, super::router(&hub)).into_future());

    let seen = tokio::task::spawn_blocking(move || {
        let mut lines = request(
            address,
            "GET /events?topic=orders HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        lines
            .find(|line| line.starts_with("retry:"))
            .expect("the stream is open");
        let order = r#"{"item": "tea", "count": 2}"#;
        let head = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close";
        let mut answer = request(
            address,
            &format!("{head}\r\nContent-Length: {}\r\n\r\n{order}", order.len()),
        );
        assert_eq!(answer.next().as_deref(), Some("HTTP/1.1 201 Created"));
        lines
            .skip_while(|line| !line.starts_with("event:"))
            .take(2)
            .collect::<Vec<_>>()
    });
    let seen = seen.await.expect("no panic");
    assert_eq!(
        seen,
        ["event: order_created", r#"data: {"item":"tea","count":2}"#]
    );
}
