//! `examples/python`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use serde_json::json;

use crate::support::{Proxy, WAIT_MAX, installed};
use crate::{broadcast, hub};

fn python(hub: &str, args: &[&str]) -> Command {
    let script = "../../examples/python/tidewire_streams.py";
    let mut command = Command::new(installed(".venv/bin/python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .args(["--hub", hub])
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TZ", "UTC");
    command
}

fn run(hub: &str, args: &[&str]) -> Output {
    python(hub, args).output().unwrap()
}

/// A client that follows a stream, as the lines that it prints. Killed on drop.
struct Follower {
    process: Child,
    printed: Receiver<String>,
    said: Receiver<String>,
}

impl Follower {
    fn start(hub: &str, stream: &str) -> Self {
        let mut process = python(hub, &["stream", stream])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            printed: lines(process.stdout.take().unwrap()),
            said: lines(process.stderr.take().unwrap()),
            process,
        }
    }

    /// Waits until it says so on standard error.
    fn wait_until_it_says(&self, wanted: &str) {
        while !next(&self.said, wanted).starts_with(wanted) {}
    }

    /// The next event, without its time.
    fn event(&self) -> String {
        let line = next(&self.printed, "an event");
        let (time, event) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "12:10:56".len(), "{line}");
        event.to_owned()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line); // a test that is over reads no more
        }
    });
    lines
}

fn next(lines: &Receiver<String>, what: &str) -> String {
    let started = Instant::now();
    let line = lines.recv_timeout(WAIT_MAX);
    line.unwrap_or_else(|_| panic!("{what}: nothing for {:?}", started.elapsed()))
}

#[test]
fn python_streams_broadcasts_and_resumes() {
    let hub = hub();
    let proxy = Proxy::spawn(hub.port());
    let follower = Follower::start(&proxy.url(""), "shop");
    follower.wait_until_it_says("connected: ");

    let order = [
        "broadcast",
        "shop",
        "order_created",
        "An order",
        r#"{"id": 7}"#,
    ];
    let answer = run(&hub.url(""), &order);
    let printed = String::from_utf8(answer.stdout).unwrap();
    assert_eq!(printed, "Event broadcasted to stream: shop\n");
    assert_eq!(follower.event(), r#"order_created: An order {"id": 7}"#);

    for n in 0..3 {
        proxy.set_down(true);
        proxy.drop_all();
        follower.wait_until_it_says("disconnected");
        let missed = format!("While away {n}");
        broadcast(&hub, "shop", "order_paid", &missed, &json!({}));
        proxy.set_down(false);
        follower.wait_until_it_says("connected: ");
        assert_eq!(follower.event(), format!("order_paid: {missed}"));
    }
    let all = run(&hub.url(""), &["broadcast", "", "global", "To all"]);
    let printed = String::from_utf8(all.stdout).unwrap();
    assert_eq!(printed, "Event broadcasted to all streams\n");
    assert_eq!(follower.event(), "global: To all", "each once, and no gap");
}

#[test]
fn python_says_what_is_wrong() {
    let hub = hub();
    let cases: [(&[&str], &str); 3] = [
        (&["broadcast", "shop", "", "No type"], "refused: 400"),
        (&["stream", "no stream"], "refused: 400"),
        (
            &["broadcast", "a", "b", "c", "{no json"],
            "invalid loads value",
        ),
    ];
    for (args, wanted) in cases {
        let output = run(&hub.url(""), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{said}");
        assert!(!said.contains("Traceback"), "{said}");
    }
    let away = run("http://127.0.0.1:1", &["broadcast", "a", "b", "c"]);
    let said = String::from_utf8(away.stderr).unwrap();
    assert!(said.contains("can't be reached"), "{said}");
}
