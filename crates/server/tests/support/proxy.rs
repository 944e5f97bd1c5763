//! A TCP proxy in front of a hub that loses connections when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::free_port;

/// Passes bytes both ways between its port and the hub's, until told otherwise.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

struct State {
    target_port: u16,
    down: AtomicBool,
    stopped: AtomicBool,
    /// Where to cut: see [`Proxy::cut_after`].
    marker: Mutex<Option<String>>,
    /// Both ends of every connection since the last `drop_all`.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn spawn(target_port: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port was free just now");
        let state = Arc::new(State {
            target_port,
            down: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            marker: Mutex::default(),
            open: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let state = Arc::clone(&state);
            move || accept(&listener, &state)
        });
        Self {
            port,
            state,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Drops every connection there is, as a network does: without a word.
    pub(crate) fn drop_all(&self) {
        for stream in lock(&self.state.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // an error says that it is gone already
        }
    }

    /// While down, a new connection is closed at once. Those there are go on.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Drops one connection, the first on which the hub sends `marker`, right behind it: what follows is not passed on.
    pub(crate) fn cut_after(&self, marker: &str) {
        *lock(&self.state.marker) = Some(marker.to_owned());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the acceptor, which then sees `stopped`
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.drop_all();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming().map_while(Result::ok) {
        if state.stopped.load(Ordering::SeqCst) {
            return;
        }
        if state.down.load(Ordering::SeqCst) {
            continue;
        }
        // A hub that is not there is a connection that closes at once.
        if let Ok(hub) = TcpStream::connect(("127.0.0.1", state.target_port)) {
            connect(&client, &hub, state).expect("a socket can be cloned");
        }
    }
}

fn connect(client: &TcpStream, hub: &TcpStream, state: &Arc<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    hub.set_nodelay(true)?;
    lock(&state.open).extend([client.try_clone()?, hub.try_clone()?]);
    let (from, to) = (client.try_clone()?, hub.try_clone()?);
    thread::spawn(move || pass_on(from, to, |_| None));
    let (from, to, state) = (hub.try_clone()?, client.try_clone()?, Arc::clone(state));
    thread::spawn(move || pass_on(from, to, |bytes| state.cut(bytes)));
    Ok(())
}

/// Copies until one end closes, or until `cut` says how many of these bytes are the last. Then closes both.
fn pass_on(mut from: TcpStream, mut to: TcpStream, cut: impl Fn(&[u8]) -> Option<usize>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let last = cut(&buffer[..len]);
        if to.write_all(&buffer[..last.unwrap_or(len)]).is_err() || last.is_some() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl State {
    /// Where in `bytes` the connection is to be cut. The marker is used up by that.
    fn cut(&self, bytes: &[u8]) -> Option<usize> {
        let mut marker = lock(&self.marker);
        let wanted = marker.as_ref()?.as_bytes();
        let end = bytes
            .windows(wanted.len())
            .position(|window| window == wanted)?
            + wanted.len();
        *marker = None;
        Some(end)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
