//! The programs under test: how each is started, subscribed to and published to.
//!
//! Each runs on a free port of the loopback address, with its files in a folder of its own, and ends with its
//! [`Server`].

mod command;
mod endpoint;
mod requests;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::ops::Deref;
use std::process::Child;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use self::endpoint::Endpoint;
use crate::{net, process};

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The release binary.
    Tidewire,
    /// The crate within a plain `axum::serve`.
    TidewireBody,
    /// One thread, epoll, one `send()` of the same bytes for each socket and event.
    Floor,
    /// axum's `Sse` over tokio's broadcast channel.
    AxumBroadcast,
    /// nginx with Debian's nchan module, one worker.
    Nchan,
    /// The `durable-streams` server of crates.io, without fsync.
    DurableStreams,
}

impl Kind {
    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidewire => "tidewire",
            Self::TidewireBody => "tidewire-body",
            Self::Floor => "floor",
            Self::AxumBroadcast => "axum-broadcast",
            Self::Nchan => "nchan",
            Self::DurableStreams => "durable-streams",
        }
    }

    /// Whether one subscription may name several topics.
    pub fn has_topic_lists(self) -> bool {
        !matches!(self, Self::Floor | Self::DurableStreams)
    }

    /// Whether a client may resume where it was.
    pub fn resumes(self) -> bool {
        !matches!(self, Self::Floor | Self::AxumBroadcast)
    }

    /// Whether topics exist without subscribers.
    pub fn keeps_topics(self) -> bool {
        self.resumes()
    }
}

/// What a scenario sets of a server.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Events that a topic keeps, where a server counts so.
    pub history_events: usize,
    /// Bytes of history, where a server counts so.
    pub history_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            history_events: 32 * 1024,
            history_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A server that runs; it ends when dropped.
pub struct Server {
    endpoint: Endpoint,
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// If its program is not there, or it does not answer in time.
    pub fn start(kind: Kind, tuning: Tuning) -> io::Result<Self> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, net::free_port()?);
        let folder = TempDir::with_prefix("tidewire-bench-")?;
        let command = command::command(kind, address, folder.path(), tuning)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = command::ending_with_us(&command)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Self {
            endpoint: Endpoint::new(kind, address, child.id()),
            child,
            folder,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(self.endpoint.address()).is_err() {
            if self.child.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                let text = format!(
                    "{} does not start ({log}); `make bench-peers` builds and installs all programs",
                    self.endpoint.kind().name()
                );
                return Err(io::Error::other(text));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // What a start leaves behind is not to be measured.
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }
}

impl Deref for Server {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Workers outlive a master that is killed, so all of them are. Some may have ended; either way nothing is left.
        for pid in process::family(self.child.id()) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}
