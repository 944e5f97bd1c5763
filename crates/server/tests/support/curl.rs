//! `curl -N` in the loop that its users write: it sends the last id as `Last-Event-ID` and waits as long as `retry:` says.
//!
//! curl hands over bytes, so the decoding is done here, as the standard has it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// A running loop. It ends on drop.
pub(crate) struct Curl {
    /// Never sent on: that it is dropped says stop.
    stop: Option<Sender<()>>,
    /// The curl of now, so that it can be ended from outside. None once the loop is to end.
    process: Arc<Mutex<Option<Slot>>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the curl of now is, if one runs.
type Slot = Option<Child>;

impl Curl {
    /// Prints as the client scripts do, into `lines`.
    pub(crate) fn spawn(url: &str, lines: Sender<Value>) -> Self {
        let process = Arc::new(Mutex::new(Some(None)));
        let (stop, stopped) = channel();
        let thread = thread::spawn({
            let (url, process) = (url.to_owned(), Arc::clone(&process));
            move || run(&url, &process, &lines, &stopped)
        });
        Self {
            stop: Some(stop),
            process,
            thread: Some(thread),
        }
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        drop(self.stop.take());
        let slot = self
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Some(mut process)) = slot {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(url: &str, process: &Mutex<Option<Slot>>, lines: &Sender<Value>, stopped: &Receiver<()>) {
    let mut decoder = Decoder::default();
    loop {
        let Some(status) = read_stream(url, process, &mut decoder, lines) else {
            return;
        };
        // Whoever listened may be gone.
        let _ = lines
            .send(json!({"kind": "error", "detail": format!("status {status}, then the end")}));
        if status == 204 {
            let _ = lines.send(json!({"kind": "closed"}));
            return;
        }
        if stopped.recv_timeout(decoder.retry) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Runs one curl to its end; returns the status that it got (0 without an answer), or None when the loop is to end.
fn read_stream(
    url: &str,
    process: &Mutex<Option<Slot>>,
    decoder: &mut Decoder,
    lines: &Sender<Value>,
) -> Option<u16> {
    let mut child = {
        let mut slot = process.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slot.as_mut()?;
        let child = slot.insert(start(url, &decoder.last_event_id));
        BufReader::new(child.stdout.take().expect("stdout is piped"))
    };
    let status = read_head(&mut child);
    if status == 200 {
        let _ = lines.send(json!({"kind": "open"}));
        decoder.start();
        while let Some(line) = read_line(&mut child) {
            if let Some(event) = decoder.line(&line) {
                let _ = lines.send(event);
            }
        }
    }
    let ended = process
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()?
        .take();
    let _ = ended?.wait();
    Some(status)
}

fn start(url: &str, last_event_id: &str) -> Child {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--no-buffer",
        "--include",
        "--header",
        "Accept: text/event-stream",
    ]);
    if !last_event_id.is_empty() {
        command.args(["--header", &format!("Last-Event-ID: {last_event_id}")]);
    }
    let command = command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start curl: {error}; run `make setup`"))
}

fn read_head(body: &mut impl BufRead) -> u16 {
    let mut status = 0;
    while let Some(line) = read_line(body).filter(|line| !line.is_empty()) {
        if line.starts_with("HTTP/") {
            status = line
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .unwrap_or(0);
        }
    }
    status
}

/// The next line without its end, or None: what is left at the end of a response is no line.
fn read_line(body: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    body.read_until(b'\n', &mut line).ok()?;
    let line = line.strip_suffix(b"\n")?;
    Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
}

/// The standard's interpretation of an event stream, of LF and CRLF lines.
struct Decoder {
    last_event_id: String,
    retry: Duration,
    id: Option<String>,
    event: String,
    data: Vec<String>,
}

impl Default for Decoder {
    fn default() -> Self {
        let retry = Duration::from_secs(3); // what browsers take until told otherwise
        Self {
            last_event_id: String::new(),
            retry,
            id: None,
            event: String::new(),
            data: Vec::new(),
        }
    }
}

impl Decoder {
    /// A new response: what was begun in the last one is forgotten.
    fn start(&mut self) {
        (self.id, self.event, self.data) = (None, String::new(), Vec::new());
    }

    fn line(&mut self, line: &str) -> Option<Value> {
        if line.is_empty() {
            return self.block();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => self.data.push(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().map_or(self.retry, Duration::from_millis),
            _ => {} // a comment, or a field that the standard does not know
        }
        None
    }

    fn block(&mut self) -> Option<Value> {
        if let Some(id) = self.id.take() {
            self.last_event_id = id;
        }
        let event = Some(std::mem::take(&mut self.event)).filter(|event| !event.is_empty());
        let data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return None;
        }
        let event = event.unwrap_or_else(|| "message".to_owned());
        Some(
            json!({"kind": "event", "event": event, "id": self.last_event_id, "data": data.join("\n")}),
        )
    }
}
