//! A client that real users have, running, as the lines that it prints: see `tests/clients/report.mjs`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::WAIT_MAX;
use super::curl::Curl;

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A page of `examples/`, in headless Chromium: see `tests/examples/open.mjs`.
    ExamplePage,
    /// `EventSource` of headless Chromium.
    Chromium,
    /// `curl -N` in a loop.
    Curl,
    /// `eventsource` from npm.
    EventSource,
    /// `@microsoft/fetch-event-source` from npm.
    FetchEventSource,
    /// A page with many `EventSource`s over TLS, in headless Chromium: see `tests/tls/many.mjs`.
    ManyStreams,
    /// `httpx-sse` from `PyPI`.
    HttpxSse,
    /// The hub's own page, in headless Chromium.
    Page,
    /// `sseclient-py` from `PyPI`.
    SseclientPy,
}

/// A subscribed client. It ends on drop.
pub(crate) struct Client {
    kind: Kind,
    lines: Receiver<Value>,
    /// Every line so far.
    seen: Vec<Value>,
    running: Running,
}

enum Running {
    Script(Script),
    Curl(Curl),
}

struct Script {
    process: Child,
    /// Its temporary files, which go with it even if it is killed, and [`ERRORS`].
    folder: TempDir,
}

impl Client {
    /// Starts it. [`Client::wait_for_open`] tells when it has subscribed.
    pub(crate) fn spawn(kind: Kind, url: &str) -> Self {
        Self::spawn_with(kind, url, &[])
    }

    /// As [`spawn`](Self::spawn), with more on the command line.
    pub(crate) fn spawn_with(kind: Kind, url: &str, more: &[&str]) -> Self {
        let script = |interpreter, name, url| script(interpreter, name, url, more);
        let (lines, running) = match kind {
            Kind::Chromium => script(NODE, "chromium.mjs", url),
            Kind::ExamplePage => script(NODE, "../examples/open.mjs", url),
            Kind::EventSource => script(NODE, "eventsource.mjs", url),
            Kind::FetchEventSource => script(NODE, "fetch_event_source.mjs", url),
            Kind::ManyStreams => script(NODE, "../tls/many.mjs", url),
            Kind::HttpxSse => script(PYTHON, "httpx_sse_client.py", url),
            Kind::Page => script(NODE, "page.mjs", url),
            Kind::SseclientPy => script(PYTHON, "sseclient_py.py", url),
            Kind::Curl => {
                let (sender, lines) = channel();
                (lines, Running::Curl(Curl::spawn(url, sender)))
            }
        };
        Self {
            kind,
            lines,
            seen: Vec::new(),
            running,
        }
    }

    /// Reads lines up to the first that `wanted` takes, and returns that one. Lines read once are not read again.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.fail(&format!("not within {WAIT_MAX:?}: {what}"))
                }
                Err(RecvTimeoutError::Disconnected) => self.fail(&format!("ended before: {what}")),
            }
        }
    }

    pub(crate) fn wait_for_open(&mut self) {
        self.wait_for("open", |line| line["kind"] == "open");
    }

    /// Waits for an event of this name.
    pub(crate) fn wait_for_event(&mut self, name: &str) -> Value {
        self.wait_for(name, |line| {
            line["kind"] == "event" && line["event"] == name
        })
    }

    /// Writes a line to a client that reads some: see `page.mjs`.
    pub(crate) fn tell(&mut self, line: &Value) {
        let Running::Script(script) = &mut self.running else {
            panic!("{:?} reads nothing", self.kind)
        };
        let stdin = script.process.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{line}").expect("a client that runs takes a line");
    }

    /// Every line so far of a kind.
    pub(crate) fn lines(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.seen.iter().filter(move |line| line["kind"] == kind)
    }

    /// Every event so far, in the order of arrival.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Value> {
        self.seen.iter().filter(|line| line["kind"] == "event")
    }

    fn fail(&self, problem: &str) -> ! {
        let from = self.seen.len().saturating_sub(20);
        let last: Vec<_> = self.seen[from..].iter().map(ToString::to_string).collect();
        let errors = match &self.running {
            Running::Script(script) => {
                fs::read_to_string(script.folder.path().join(ERRORS)).unwrap_or_default()
            }
            Running::Curl(_) => String::new(),
        };
        let kind = self.kind;
        panic!(
            "{kind:?} {problem}\nits last lines:\n{}\nits errors:\n{errors}",
            last.join("\n")
        )
    }
}

/// The file in its folder that takes its standard error.
const ERRORS: &str = "errors.log";
const NODE: &str = ".tools/bin/node";
const PYTHON: &str = ".venv/bin/python";

fn script(interpreter: &str, name: &str, url: &str, more: &[&str]) -> (Receiver<Value>, Running) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let errors =
        File::create(folder.path().join(ERRORS)).expect("a file can be made in a new folder");
    let mut process = Command::new(installed(interpreter))
        .arg(clients.join(name))
        .arg(url)
        .args(more)
        .env("TMPDIR", folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}; run `make setup`"));
    let stdout = BufReader::new(process.stdout.take().expect("stdout is piped"));
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let line =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    (lines, Running::Script(Script { process, folder }))
}

/// A tool that `make setup` puts into the checkout.
pub(crate) fn installed(tool: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(tool);
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node_modules");
    assert!(
        path.exists() && modules.exists(),
        "{tool} or a client is not installed: run `make setup`"
    );
    path
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.process.stdin.take()); // asks it to end, so that Chromium ends with it
        let deadline = Instant::now() + WAIT_MAX;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
