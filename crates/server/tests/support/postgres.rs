//! A real PostgreSQL on a free port, with a folder of its own; it ends with the value.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long it may take to be made and to start.
const START_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// The server.
pub(crate) struct Postgres {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
}

/// Debian has the newest of its versions in the last of these folders.
fn programs() -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (scripts/setup.sh)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    versions.sort();
    versions
        .pop()
        .expect("PostgreSQL's server is installed (scripts/setup.sh)")
}

/// PostgreSQL does not run as root.
fn command(program: &str) -> Command {
    let path = programs().join(program);
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
        ]);
        command.arg(path);
        command
    } else {
        Command::new(path)
    }
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown")
                .arg("postgres:postgres")
                .arg(folder.path())
                .status();
            assert!(given.expect("chown").success());
        }
        let mut server = Self {
            child: None,
            port,
            folder,
        };
        let made = command("initdb")
            .args([
                "--auth",
                "trust",
                "--username",
                "postgres",
                "--no-sync",
                "--encoding",
                "UTF8",
                "--locale",
                "C.UTF-8",
                "-D",
            ])
            .arg(server.data())
            .current_dir(server.folder.path())
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb").success());
        server.run();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, on the data that it has.
    pub(crate) fn run(&mut self) {
        let child = command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"])
            .arg(format!("port={}", self.port))
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                self.folder.path().display()
            ))
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("postgres"));
        let deadline = Instant::now() + START_MAX;
        let port = self.port.to_string();
        let ready = || {
            let asked = Command::new(programs().join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &port])
                .status();
            asked.is_ok_and(|status| status.success())
        };
        while !ready() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(POLL);
        }
    }

    /// Ends it at once; [`run`](Self::run) starts it again.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = command("pg_ctl")
                .args(["stop", "-m", "immediate", "-s", "-D"])
                .arg(self.data())
                .current_dir(self.folder.path())
                .status();
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Carries out statements, and answers what they answer.
    pub(crate) fn sql(&self, text: &str) -> String {
        let done = Command::new(programs().join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text])
            .arg(self.url())
            .output()
            .expect("psql");
        assert!(done.status.success(), "{text}: {done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
