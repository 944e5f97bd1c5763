//! The floor: what delivering costs when nothing else is done. One thread, one epoll instance, and for each event one
//! `send()` of the same bytes to each socket.
//!
//! It knows one topic, keeps no history and drops a client that does not take a whole event. Its bytes are those that
//! Tidewire sends: the same fields, with an id of the same length, framed as one chunk.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddrV4;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with,
};

const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 4_096;
const READ_BYTES: usize = 64 * 1024;
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn main() -> io::Result<()> {
    let usage = || io::Error::other("usage: bench-floor ADDRESS:PORT");
    let address = std::env::args().nth(1).ok_or_else(usage)?;
    let address: SocketAddrV4 = address.parse().map_err(io::Error::other)?;
    tidewire_bench::net::raise_descriptor_limit();
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&listener, true)?;
    bind(&listener, &address)?;
    listen(&listener, BACKLOG)?;
    Floor {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listener,
        clients: HashMap::new(),
        subscribers: Vec::new(),
        next_token: 0,
        published: 0,
        buffer: vec![0; READ_BYTES],
    }
    .run()
}

struct Floor {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// Those that may still send requests: not subscribed, or publishing.
    clients: HashMap<u64, OwnedFd>,
    subscribers: Vec<OwnedFd>,
    next_token: u64,
    published: u64,
    buffer: Vec<u8>,
}

impl Floor {
    fn run(mut self) -> io::Result<()> {
        let token = EventData::new_u64(LISTENER);
        epoll::add(&self.epoll, &self.listener, token, EventFlags::IN)?;
        let mut ready = Vec::with_capacity(1_024);
        loop {
            ready.clear();
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut ready),
                None,
            )?;
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    token => self.read(token)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(socket) = accept_with(&self.listener, flags) {
            set_tcp_nodelay(&socket, true)?;
            let token = EventData::new_u64(self.next_token);
            epoll::add(&self.epoll, &socket, token, EventFlags::IN)?;
            self.clients.insert(self.next_token, socket);
            self.next_token += 1;
        }
        Ok(())
    }

    /// Reads one request, which comes in one piece from this generator.
    fn read(&mut self, token: u64) -> io::Result<()> {
        let Some(socket) = self.clients.get(&token) else {
            return Ok(());
        };
        let bytes = match recv(socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((bytes, _)) => bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(_) => 0,
        };
        let request = &self.buffer[..bytes];
        if request.starts_with(b"GET ") {
            send_all(socket, HEAD);
            if let Some(socket) = self.clients.remove(&token) {
                epoll::delete(&self.epoll, &socket)?;
                self.subscribers.push(socket);
            }
        } else if let Some(body) = memchr::memmem::find(request, b"\r\n\r\n") {
            send_all(socket, ACCEPTED);
            self.published += 1;
            let data = String::from_utf8_lossy(&request[body + 4..]);
            let event = format!("data: {data}\nid: ~6wd9263p-{}\n\n", self.published);
            let chunk = format!("{:X}\r\n{event}\r\n", event.len());
            self.subscribers
                .retain(|socket| send_all(socket, chunk.as_bytes()));
        } else {
            self.clients.remove(&token);
        }
        Ok(())
    }
}

fn send_all(socket: impl AsFd, bytes: &[u8]) -> bool {
    send(socket, bytes, SendFlags::NOSIGNAL) == Ok(bytes.len())
}
