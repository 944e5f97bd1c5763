//! The hub as its users run it: the binary, in a process and a folder of its own, on a free port.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Response, Stream, WAIT_MAX, free_port, http};

/// Runs these tests against another build (`target/release/tidewire`, say) than the one that cargo made for them.
const OTHER_BINARY: &str = "TIDEWIRE_TEST_BINARY";

/// The file in its folder that takes what it writes.
const OUTPUT: &str = "output.log";

/// Services that say something by themselves, which a test of something else does not want to see. One that does sets
/// these variables to `true`.
const TALKATIVE: [&str; 2] = [
    "TIDEWIRE_SERVICES__EVENTS",
    "TIDEWIRE_SERVICES__BROADCAST_DEMO",
];

/// A running hub. It is killed on drop; if the test failed, what it wrote is shown.
pub(crate) struct Hub {
    port: u16,
    /// A program that starts it, with that program's arguments; nothing for none.
    under: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// Where it runs, so that it neither reads nor writes a file of the checkout. Outlives restarts, as does [`OUTPUT`].
    folder: TempDir,
    process: Child,
}

impl Hub {
    /// Starts `tidewire serve` with these arguments and this environment; returns when it is ready.
    pub(crate) fn spawn(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn_under(&[], args, env)
    }

    /// The same by way of another program, which changes what the hub inherits and becomes it.
    pub(crate) fn spawn_under(under: &[&str], args: &[&str], env: &[(&str, &str)]) -> Self {
        let port = free_port();
        let under: Vec<_> = under.iter().map(ToString::to_string).collect();
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        let env: Vec<_> = env
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let process = start(port, &under, &args, &env, &folder);
        let mut hub = Self {
            port,
            under,
            args,
            env,
            folder,
            process,
        };
        hub.wait_until_ready();
        hub
    }

    /// Kills it as a crash would, and starts it again on the same port and in the same folder.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = start(self.port, &self.under, &self.args, &self.env, &self.folder);
        self.wait_until_ready();
    }

    /// Kills it; [`restart`](Self::restart) starts it again.
    pub(crate) fn stop(&mut self) {
        self.kill();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end, as a service manager would.
    pub(crate) fn terminate(&self) {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        )
        .expect("the hub runs");
    }

    /// Waits for its end by itself.
    pub(crate) fn wait_for_exit(&mut self, longest: Duration) -> ExitStatus {
        let deadline = Instant::now() + longest;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the hub has not ended within {longest:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// `GET /api/v1/stats`.
    pub(crate) fn stats(&self) -> Value {
        self.get("/api/v1/stats").json()
    }

    /// Waits until the figures of the hub satisfy `done`.
    pub(crate) fn wait_for_stats(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + 3 * WAIT_MAX;
        loop {
            let stats = self.stats();
            if done(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "not in time: {what}; {stats}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, None)
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        content: Option<(&str, &str)>,
    ) -> Response {
        http::request(self.port, method, path, content)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request with these headers, and with a `Content-Length` where there is a body.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.exchange(&http::request_bytes(self.port, method, path, headers, body))
    }

    /// Sends bytes as they are, and reads the answer.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Response {
        http::exchange(self.port, bytes).unwrap_or_else(|error| {
            panic!(
                "{error}, after {}",
                bytes[..bytes.len().min(200)].escape_ascii()
            )
        })
    }

    /// Publishes a JSON document, or several.
    pub(crate) fn post_json(&self, document: &Value) -> Response {
        let body = document.to_string();
        self.request("POST", "/events", Some(("application/json", &body)))
    }

    /// Subscribes.
    pub(crate) fn stream(&self, path: &str) -> Stream {
        self.stream_with(path, &[])
    }

    /// Subscribes with these request headers.
    pub(crate) fn stream_with(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let stream = Stream::open(self.port, path, headers);
        assert_eq!(stream.status(), 200, "{path}: {}", stream.head());
        stream
    }

    /// Publishes an event named `tick`; returns its id.
    pub(crate) fn publish(&self, topic: &str, data: &Value) -> String {
        publish(self.port, topic, data)
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + WAIT_MAX;
        // Over TLS plain requests are told so.
        let of_tls = ["TIDEWIRE_TLS__CERT", "TIDEWIRE_TLS__ACME__DOMAINS"];
        let is_tls = self.env.iter().any(|(key, _)| of_tls.contains(&&**key));
        let ready = if is_tls { 400 } else { 200 };
        while !http::request(self.port, "GET", "/readyz", None)
            .is_ok_and(|answer| answer.status == ready)
        {
            if let Some(status) = self.process.try_wait().expect("a child can be waited for") {
                panic!("the hub ended before it was ready: {status}");
            }
            assert!(
                Instant::now() < deadline,
                "the hub is not ready after {WAIT_MAX:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join(OUTPUT)).expect("the output is in a file")
    }

    fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let output = fs::read_to_string(self.folder.path().join(OUTPUT)).unwrap_or_default();
            eprintln!("--- the hub on port {} wrote:\n{output}---", self.port);
        }
    }
}

/// As [`Hub::publish`], for a thread that doesn't own the hub.
pub(crate) fn publish(port: u16, topic: &str, data: &Value) -> String {
    let body = json!({"topic": topic, "event": "tick", "data": data}).to_string();
    let answer = http::request(port, "POST", "/events", Some(("application/json", &body)))
        .unwrap_or_else(|error| panic!("publishing {body}: {error}"));
    assert_eq!(answer.status, 200, "publishing {body}: {answer:?}");
    answer.json()["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {answer:?}"))
        .to_owned()
}

fn start(
    port: u16,
    under: &[String],
    args: &[String],
    env: &[(String, String)],
    folder: &TempDir,
) -> Child {
    let binary =
        std::env::var(OTHER_BINARY).unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidewire").to_owned());
    let output = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join(OUTPUT));
    let output = output.expect("a file can be made in a new folder");
    let words: Vec<&str> = under.iter().map(String::as_str).chain([&*binary]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("TIDEWIRE_")) {
        command.env_remove(key); // what a developer has set is none of the test's
    }
    command
        .arg("serve")
        .args(args)
        .env("TIDEWIRE_LISTEN", format!("127.0.0.1:{port}"))
        .envs(TALKATIVE.map(|service| (service, "false")))
        .envs(env.iter().map(|(key, value)| (key, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a file can be cloned"))
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {binary}: {error}"))
}
