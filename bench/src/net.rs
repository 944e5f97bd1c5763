//! Sockets of the generator: many, cheap, and gone at once when closed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections for each source address: the system's range of ports has some 28,000.
const CONNECTIONS_PER_ADDRESS: usize = 25_000;

/// Raises the limit of descriptors as far as it goes, for this process and those that it starts; answers it.
pub fn raise_descriptor_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it fails, the limit stays, and opening too many connections says so.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Begins to connect, as the `index`-th connection to this server.
///
/// # Errors
/// What the system says.
pub fn open(server: SocketAddrV4, index: usize) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    let block = index / CONNECTIONS_PER_ADDRESS;
    if block > 0 {
        let source = Ipv4Addr::new(127, 0, 0, 1 + block as u8);
        bind(&socket, &SocketAddrV4::new(source, 0))?;
    }
    set_tcp_nodelay(&socket, true)?;
    // Closing resets the connection: no port waits for a minute after a run.
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// A port of the loopback address that nobody listens on now.
///
/// # Errors
/// What the system says.
pub fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
