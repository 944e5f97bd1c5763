//! A network namespace with a host in it, and lines to it that can be cut.

use std::process::Command;

use super::{RedisServer, free_port};

/// A host of its own: `10.213.N.2` as seen over line N, counted from 0 for this process.
pub(crate) struct Namespace {
    name: String,
    lines: Vec<Line>,
}

/// A pair of network interfaces: one end here, one in the namespace.
struct Line {
    device: String,
    host: String,
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output();
    let output = output.expect("iproute2 is installed (scripts/setup.sh)");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {error} (network namespaces take root)",
        words.join(" ")
    );
}

impl Namespace {
    /// A namespace with so many lines.
    pub(crate) fn with_lines(count: u8) -> Self {
        let id = std::process::id();
        let name = format!("tidewire-{id}");
        let mut namespace = Self {
            name: name.clone(),
            lines: Vec::new(),
        };
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        for n in 0..count {
            // Names of devices have 15 characters at most.
            let (device, other) = (format!("tw{id}a{n}"), format!("tw{id}b{n}"));
            // Two test processes at once take different addresses.
            let net = format!(
                "10.{}.{}",
                128 + id % 64,
                (id / 64 * 4 + u32::from(n)) % 256
            );
            ip(&[
                "link", "add", &device, "type", "veth", "peer", "name", &other, "netns", &name,
            ]);
            ip(&["addr", "add", &format!("{net}.1/30"), "dev", &device]);
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("{net}.2/30"),
                "dev",
                &other,
            ]);
            ip(&["-n", &name, "link", "set", &other, "up"]);
            ip(&["link", "set", &device, "up"]);
            namespace.lines.push(Line {
                device,
                host: format!("{net}.2"),
            });
        }
        namespace
    }

    /// A Redis on the host, without a disk, and its URL over each line.
    pub(crate) fn redis<const LINES: usize>(&self) -> (RedisServer, [String; LINES]) {
        let port = free_port();
        let within = ["ip", "netns", "exec", &self.name];
        let options = ["--save", "", "--bind", "0.0.0.0"];
        let redis = RedisServer::start_at(&self.lines[0].host, port, &options, &within);
        let url = |line: usize| format!("redis://{}:{port}", self.lines[line].host);
        (redis, std::array::from_fn(url))
    }

    /// From now on nothing goes over a line, and nobody is told.
    pub(crate) fn cut(&self, line: usize) {
        ip(&["link", "set", &self.lines[line].device, "down"]);
    }

    pub(crate) fn heal(&self, line: usize) {
        ip(&["link", "set", &self.lines[line].device, "up"]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Takes the lines with it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
