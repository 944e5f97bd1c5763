//! A real nginx with the project's own settings, in a temporary folder, on a free port.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::support::{Hub, WAIT_MAX, free_port, until};

const SETTINGS: &str = include_str!("../../../../deploy/nginx/tidewire.conf");
const ERRORS: &str = "errors.log";

/// A running nginx. It is ended on drop, with its workers; if the test failed, what it logged is shown.
pub(crate) struct Nginx {
    port: u16,
    folder: TempDir,
    master: Child,
}

impl Nginx {
    /// In front of this hub. `main` are settings outside of `http { }`.
    pub(crate) fn spawn(hub: &Hub, main: &str) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let settings = replaced(SETTINGS, "listen 80;", &format!("listen 127.0.0.1:{port};"));
        let hub = format!("server 127.0.0.1:{};", hub.port());
        let settings = replaced(&settings, "server 127.0.0.1:8080;", &hub);
        fs::write(folder.path().join("tidewire.conf"), settings).unwrap();
        fs::write(folder.path().join("nginx.conf"), around(main)).unwrap();
        let master = start(folder.path());
        let mut nginx = Self {
            port,
            folder,
            master,
        };
        nginx.wait_until_it_serves();
        nginx
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// `nginx -s reload`: new workers serve, the old ones finish what they have.
    pub(crate) fn reload(&self) {
        let done = nginx(self.folder.path()).args(["-s", "reload"]).status();
        assert!(done.unwrap().success());
    }

    /// Ends it at once, with all connections, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.master = start(self.folder.path());
        self.wait_until_it_serves();
    }

    /// Process ids of its workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let id = self.master.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    }

    /// Ends it as `nginx -s stop` does. Its workers would outlive a kill.
    fn stop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.master), Signal::TERM); // an error says that it has ended
        let deadline = Instant::now() + WAIT_MAX;
        while matches!(self.master.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.master.kill();
                let _ = self.master.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_until_it_serves(&mut self) {
        let port = self.port;
        let master = &mut self.master;
        until("nginx serves", || {
            if let Some(status) = master.try_wait().unwrap() {
                panic!("nginx has ended: {status}");
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let errors = fs::read_to_string(self.folder.path().join(ERRORS)).unwrap_or_default();
            eprintln!("--- nginx on port {} wrote:\n{errors}---", self.port);
        }
    }
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old:?} in tidewire.conf");
    text.replace(old, new)
}

/// What a distribution's `nginx.conf` has around it, with all files in the folder.
fn around(main: &str) -> String {
    let user = if geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {of};\n"))
        .concat();
    format!(
        "daemon off;\npid nginx.pid;\nworker_processes 1;\n{user}\n{main}\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{temporary}include tidewire.conf;\n}}\n"
    )
}

fn nginx(folder: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder);
    command.args(["-c", "nginx.conf", "-e", ERRORS]);
    command.stdin(Stdio::null()).env("PATH", path());
    command
}

/// Debian keeps nginx where the `PATH` of users other than root doesn't lead.
fn path() -> String {
    format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default())
}

fn start(folder: &Path) -> Child {
    nginx(folder)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start nginx: {error}; run `make setup`"))
}
