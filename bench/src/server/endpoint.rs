//! A server as the generator sees it: an address, a process, and how to talk to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use super::{Kind, requests};

/// A server that runs, whoever started it.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    kind: Kind,
    address: SocketAddrV4,
    pid: u32,
}

impl Endpoint {
    /// A program that listens there, as this process.
    pub fn new(kind: Kind, address: SocketAddrV4, pid: u32) -> Self {
        Self { kind, address, pid }
    }

    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Makes topics that can be published and subscribed to, where they don't exist by themselves.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn create_topics(&self, topics: impl IntoIterator<Item = u32>) -> io::Result<()> {
        if self.kind != Kind::DurableStreams {
            return Ok(());
        }
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; 4_096];
        for topic in topics {
            stream.write_all(&requests::create(self.address, topic))?;
            let bytes = stream.read(&mut answer)?;
            if !answer[..bytes].starts_with(b"HTTP/1.1 20") {
                let text = String::from_utf8_lossy(&answer[..bytes]).into_owned();
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }

    /// A request for a stream of some topics, live or from a position on.
    pub fn subscribe_request(&self, topics: &[u32], position: Option<&str>) -> Vec<u8> {
        requests::subscribe(self.kind, self.address, topics, position)
    }

    /// A request that publishes an event.
    pub fn publish_request(&self, topic: u32, data: &str) -> Vec<u8> {
        requests::publish(self.kind, self.address, topic, data)
    }

    /// A request that publishes many events at once (Tidewire only).
    pub fn batch_request<'a>(&self, events: impl Iterator<Item = (u32, &'a str)>) -> Vec<u8> {
        requests::batch(self.address, events)
    }

    /// Reads a stream until it tells the position after event `number`.
    ///
    /// # Errors
    /// If it doesn't within 5 seconds.
    pub fn position_after(&self, stream: &mut TcpStream, number: u32) -> io::Result<String> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (mut text, mut buffer) = (String::new(), [0; 4_096]);
        loop {
            let bytes = stream.read(&mut buffer)?;
            text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
            if let Some(position) = requests::position(self.kind, &text, number) {
                return Ok(position);
            }
            if bytes == 0 {
                return Err(io::Error::other(format!("no position in {text:?}")));
            }
        }
    }
}
