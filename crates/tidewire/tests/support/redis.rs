//! A real redis-server on a free port, with a folder of its own; it ends with the value.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(20);
/// How many ports are tried.
const START_TRIES: usize = 5;
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);

/// The server.
pub struct RedisServer {
    child: Option<Child>,
    host: String,
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    /// What starts the program, where it runs elsewhere.
    within: Vec<String>,
}

impl RedisServer {
    /// A server that keeps nothing over its end.
    pub fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// A server that has on its disk what it has answered.
    pub fn start_durable() -> Self {
        Self::start_with(&[
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ])
    }

    /// A server with options of its own.
    pub fn start_with(options: &[&str]) -> Self {
        for _ in 0..START_TRIES {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let mut server = Self::new("127.0.0.1", port, options, &[]);
            if server.try_run() {
                return server;
            }
        }
        panic!("redis-server ends at once with {options:?}");
    }

    /// A server with another address, started by other programs: in a network namespace, say.
    pub fn start_at(host: &str, port: u16, options: &[&str], within: &[&str]) -> Self {
        let mut server = Self::new(host, port, options, within);
        server.run();
        server
    }

    fn new(host: &str, port: u16, options: &[&str], within: &[&str]) -> Self {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        Self {
            child: None,
            host: host.to_owned(),
            port,
            folder: tempfile::tempdir().expect("a folder"),
            options: texts(options),
            within: texts(within),
        }
    }

    /// Starts the server, on the data that it has.
    pub fn run(&mut self) {
        assert!(self.try_run(), "redis-server has ended");
    }

    /// False if it ends at once: somebody else may have taken its port meanwhile.
    fn try_run(&mut self) -> bool {
        let port = self.port.to_string();
        let mut words = self.within.clone();
        words.push("redis-server".to_owned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args([
                "--port",
                &port,
                "--bind",
                &self.host,
                "--loglevel",
                "warning",
            ])
            .args(["--protected-mode", "no", "--dir"])
            .arg(self.folder.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed (scripts/setup.sh)");
        self.child = Some(child);
        let deadline = Instant::now() + START_MAX;
        // One that wants a password has started too.
        let has_started = |answer: String| answer.starts_with('+') || answer.starts_with("-NOAUTH");
        while !self.try_command(&["PING"]).is_some_and(has_started) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
            if ended.is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(POLL);
        }
        true
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// Forgets everything, while the server does not run.
    pub fn forget(&mut self) {
        assert!(
            self.child.is_none(),
            "a server that runs has its data in memory"
        );
        for entry in self.folder.path().read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }

    /// Stops the process, so that it is silent and holds its connections open.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.expect("kill").success());
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its data.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The URL.
    pub fn url(&self) -> String {
        format!("redis://{}:{}", self.host, self.port)
    }

    /// Sends a command, and answers what comes back, in the protocol's form (RESP2).
    ///
    /// # Panics
    /// If there is no answer.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).expect("Redis answers")
    }

    fn try_command(&self, words: &[&str]) -> Option<String> {
        let mut socket = TcpStream::connect((self.host.as_str(), self.port)).ok()?;
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.extend(["$", &word.len().to_string(), "\r\n", word, "\r\n"]);
        }
        // The answer is whole when that to a second command is there.
        request += "*2\r\n$4\r\nECHO\r\n$9\r\n~the-end~\r\n";
        socket.write_all(request.as_bytes()).ok()?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = socket.read(&mut buffer).ok().filter(|n| *n > 0)?;
            answer.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&answer);
            let end = [
                "$9\r\n~the-end~\r\n",
                "-NOAUTH Authentication required.\r\n",
            ]
            .iter()
            .find_map(|end| text.strip_suffix(end));
            if let Some(answer) = end {
                return Some(answer.to_owned());
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
