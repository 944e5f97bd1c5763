//! The application as it is run: a process, its users, and its end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, COOKIE};
use reqwest::{Client, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};

/// Nothing that these tests wait for takes this long.
const WAIT_MAX: Duration = Duration::from_secs(20);
const ANN: &str = "theme=dark; session=ann-7f3a";
const BOB: &str = "session=bob-c41d";

/// A running application, killed on drop.
struct Application {
    process: Child,
    base: String,
    client: Client,
}

impl Application {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_embed"))
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            process,
            base: line.trim().strip_suffix("/events").unwrap().to_owned(),
            client: Client::new(),
        }
    }

    async fn get(&self, path: &str, cookie: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.base));
        request.header(COOKIE, cookie).send().await.unwrap()
    }

    async fn order(&self, cookie: &str, body: &'static str) -> StatusCode {
        let request = self.client.post(format!("{}/orders", self.base));
        let request = request
            .header(COOKIE, cookie)
            .header(CONTENT_TYPE, "application/json");
        request.body(body).send().await.unwrap().status()
    }

    async fn stats(&self) -> String {
        self.get("/stats", "").await.text().await.unwrap()
    }

    /// Asks it to end as a service manager would, and waits until it has.
    async fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let ended = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, ended).await.unwrap()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads a stream until it has this text.
async fn read_until(stream: &mut Response, text: &mut String, wanted: &str) {
    let read = async {
        while !text.contains(wanted) {
            let chunk = stream.chunk().await.unwrap().expect("the stream goes on");
            *text += std::str::from_utf8(&chunk).unwrap();
        }
    };
    let in_time = tokio::time::timeout(WAIT_MAX, read).await.is_ok();
    assert!(in_time, "no {wanted:?} in {text:?}");
}

#[tokio::test]
async fn everyone_sees_an_order_and_its_buyer_a_receipt() {
    let app = Application::start();
    let mut streams = Vec::new();
    for (cookie, topics) in [(ANN, "orders"), (BOB, "user:bob,orders")] {
        let mut stream = app.get(&format!("/events?topics={topics}"), cookie).await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        let mut text = String::new();
        read_until(&mut stream, &mut text, "retry:").await;
        streams.push((stream, text));
    }
    assert_eq!(
        app.stats().await,
        r#"{"clients":2,"topics":3,"drops":0}"#,
        "two clients; the topics orders, user:ann and user:bob"
    );

    let tea = r#"{"item": "tea", "count": 2}"#;
    assert_eq!(app.order(ANN, tea).await, StatusCode::CREATED);
    let milk = r#"{"item": "milk", "count": 1}"#;
    assert_eq!(app.order(BOB, milk).await, StatusCode::CREATED);
    for ((mut stream, mut text), (own, other)) in
        streams.into_iter().zip([("ann", "bob"), ("bob", "ann")])
    {
        read_until(&mut stream, &mut text, "\"item\":\"milk\"").await;
        read_until(&mut stream, &mut text, &format!("{{\"for\":\"{own}\"")).await;
        assert!(text.contains("event: order_created\ndata: {\"item\":\"tea\",\"count\":2}\n"));
        assert!(
            text.contains("event: receipt\n") && !text.contains(&format!("\"for\":\"{other}\""))
        );
    }
}

#[tokio::test]
async fn nobody_reads_what_is_not_theirs() {
    let app = Application::start();
    for query in ["topic=user:bob", "topics=orders,user:bob", "topic=user:*"] {
        let answer = app.get(&format!("/events?{query}"), ANN).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{query}");
    }
    for cookie in ["", "session=", "session=ann-0000", "other=ann-7f3a"] {
        let answer = app.get("/events?topic=orders", cookie).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{cookie}");
    }
    let order = app.order("", r#"{"item": "tea", "count": 2}"#).await;
    assert_eq!(order, StatusCode::UNAUTHORIZED);
    let order = app.order(ANN, r#"{"item": "tea"}"#).await;
    assert_eq!(order, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_stop_ends_streams_in_good_order() {
    let mut app = Application::start();
    let mut stream = app.get("/events", ANN).await;
    read_until(&mut stream, &mut String::new(), "retry:").await;
    assert!(app.stop().await.success());
    let rest = stream
        .text()
        .await
        .expect("an end, not a broken connection");
    assert!(rest.starts_with("retry: "), "{rest:?}");
}
