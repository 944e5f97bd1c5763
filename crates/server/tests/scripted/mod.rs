//! A hub that says what a test wants, one connection after the other, and the `tidewire` command that talks to it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Nothing in these tests takes as long; what does has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `attempt` gives something.
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A listening socket whose connections the test answers itself.
pub(crate) struct Hub {
    listener: TcpListener,
}

impl Hub {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    pub(crate) fn start_at(address: &str) -> Self {
        let listener = wait_for("the port", || TcpListener::bind(address).ok());
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The next request, on a connection of its own.
    pub(crate) fn request(&self) -> Request {
        let stream = wait_for("a connection", || match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Request::read(stream)
    }
}

/// A request that was read whole and waits for its answer. Dropped, its connection breaks.
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
    stream: TcpStream,
}

impl Request {
    fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                reader.read_line(&mut head).unwrap(),
                0,
                "the head breaks off: {head}"
            );
        }
        let mut request = Self {
            head,
            body: String::new(),
            stream,
        };
        let length = request
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        reader
            .take(length)
            .read_to_string(&mut request.body)
            .unwrap();
        request
    }

    /// Method and target.
    pub(crate) fn line(&self) -> &str {
        self.head
            .lines()
            .next()
            .unwrap()
            .strip_suffix(" HTTP/1.1")
            .unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Answers and ends the connection.
    pub(crate) fn answer(mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        self.stream.write_all(answer.as_bytes()).unwrap();
    }

    pub(crate) fn answer_json(self, body: &serde_json::Value) {
        self.answer(
            "200 OK",
            "content-type: application/json\r\n",
            &body.to_string(),
        );
    }

    pub(crate) fn problem(self, status: &str, code: &str, detail: &str) {
        let body = serde_json::json!({"type": "about:blank", "title": "No", "status": 1, "code": code, "detail": detail});
        self.answer(
            status,
            "content-type: application/problem+json\r\n",
            &body.to_string(),
        );
    }

    /// Begins an event stream, which ends when this is dropped.
    pub(crate) fn stream(mut self, text: &str) -> Self {
        let head =
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";
        self.stream
            .write_all(format!("{head}{text}").as_bytes())
            .unwrap();
        self
    }

    /// Goes on with the stream; whether there was still somebody to read it.
    pub(crate) fn send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).is_ok()
    }
}

/// A running command, ended when dropped.
pub(crate) struct Tidewire {
    child: Child,
    stdout: Option<Receiver<String>>,
    stderr: Receiver<String>,
}

impl Tidewire {
    pub(crate) fn run(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command
            .args(args)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Some(lines(child.stdout.take().unwrap()));
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Like [`run`](Self::run), with a standard output that nobody reads.
    pub(crate) fn run_unread(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout: None,
            stderr,
        }
    }

    /// Writes to standard input, which stays open.
    pub(crate) fn write(&mut self, text: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// The next line of standard output.
    pub(crate) fn out(&self) -> String {
        self.stdout
            .as_ref()
            .unwrap()
            .recv_timeout(PATIENCE)
            .expect("a line of output")
    }

    /// The next line of standard error.
    pub(crate) fn notice(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a notice")
    }

    /// Waits for the end: exit code, and the rest of standard output and error.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        self.close_stdin();
        let status = wait_for("the end of the command", || self.child.try_wait().unwrap());
        let rest = |lines: &Receiver<String>| lines.iter().collect::<Vec<_>>().join("\n");
        let out = self.stdout.as_ref().map(rest).unwrap_or_default();
        (status.code().expect("no signal"), out, rest(&self.stderr))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Tidewire {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}
