//! A server for routers that answer with streams: many long connections, and an end without a bang.
//!
//! What it does beyond `axum::serve`: a backlog that takes connection storms, time and size limits on request heads,
//! readable answers where hyper would answer with an empty one, clients that read nothing are cut off, and a drain.
//!
//! **Drain.** When the shutdown signal comes and there are streams, connections are accepted for `drain_grace` longer,
//! as load balancers need a moment to notice. Then listening stops, idle connections are closed, and streams are
//! closed at an even pace over `drain_time` at most, each told to come back at a time of its own.

mod connection;
mod direct;
mod handover;
mod http2;
mod io;
mod reactor;
mod signals;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use axum::Router;
use http::Version;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::handover::Handover;
pub(crate) use self::reactor::Inbox;
pub(crate) use self::signals::Signals;
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsError};
use crate::hub::{Hub, Shared};

/// Connections that the kernel keeps for us while we are busy. The customary 128 drops connection storms.
const BACKLOG: i32 = 4_096;
/// The drain never closes more streams than this per second, so that few streams don't wait and many don't rush.
const DRAIN_PACE: Duration = Duration::from_millis(5);
/// How long after the drain's end a connection may take to finish its last answer.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// Listens on an address, with a backlog fit for connection storms.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Limits of the server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Largest request head, in bytes; at least 8,192. Stops heads from filling the memory.
    pub head_bytes_max: usize,
    /// Longest time for a TLS handshake and a request's head to arrive, and for a connection to be idle between requests. Stops slow heads.
    pub head_timeout: Duration,
    /// The kernel's buffer for each socket, in bytes: all that is kept for a client that doesn't read.
    pub send_buffer_bytes: usize,
    /// How long a peer may fail to acknowledge bytes before the kernel gives it up; and an answer over HTTP/2, other than
    /// a stream, wait for room.
    pub peer_timeout: Duration,
    /// How long connections are still accepted after the shutdown signal, where there are streams.
    pub drain_grace: Duration,
    /// The longest time over which streams are closed.
    pub drain_time: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            send_buffer_bytes: 64 * 1024,
            peer_timeout: Duration::from_mins(1),
            drain_grace: Duration::from_secs(5),
            drain_time: Duration::from_mins(1),
        }
    }
}

/// Serves a router on a listener. `.await` it.
pub fn serve(listener: TcpListener, router: Router) -> Serve {
    Serve {
        listener,
        router,
        options: ServeOptions::default(),
        signal: Box::pin(std::future::pending()),
        #[cfg(feature = "tls")]
        tls: None,
    }
}

/// A server that is about to run. Made by [`serve`].
pub struct Serve {
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Serve {
    /// Sets limits.
    #[must_use]
    pub fn with_options(mut self, options: ServeOptions) -> Self {
        self.options = options;
        self
    }

    /// Serves over TLS only: HTTP/2 with clients that offer it, else HTTP/1.1.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Drains and ends when the signal comes.
    #[must_use]
    pub fn with_graceful_shutdown(
        mut self,
        signal: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.signal = Box::pin(signal);
        self
    }

    async fn run(mut self) -> std::io::Result<()> {
        let server = Server::new(self.options.clone());
        #[cfg(feature = "tls")]
        let server = server.with_tls(self.tls.take());
        let server = Arc::new(server);
        tokio::select! {
            () = accept(&self.listener, &self.router, &server) => {}
            () = &mut self.signal => {}
        }
        let streams = server.streams();
        tracing::info!(streams, "shutting down");
        if streams > 0 {
            let _ = tokio::time::timeout(self.options.drain_grace, async {
                accept(&self.listener, &self.router, &server).await;
            })
            .await;
        }
        drop(self.listener);
        server.closing.cancel();
        server.close_streams().await;
        let tasks = &server.tasks;
        tasks.close();
        if tokio::time::timeout(LAST_ANSWER, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = tasks.len(),
                "cutting off connections that did not end in time"
            );
            server.abort.cancel();
        }
        server.stop_reactors();
        tasks.wait().await;
        Ok(())
    }
}

impl IntoFuture for Serve {
    type Output = std::io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// What all connections of a server share.
struct Server {
    options: ServeOptions,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    /// The hubs whose streams went through this server: those that have to be drained.
    hubs: Mutex<Vec<Weak<Shared>>>,
    closing: CancellationToken,
    abort: CancellationToken,
    /// Everything that lives on after the listener: tasks, and connections in reactors.
    tasks: TaskTracker,
    /// Started when the first stream leaves hyper.
    reactors: OnceLock<Vec<Arc<Inbox>>>,
    next_reactor: AtomicUsize,
}

impl Server {
    fn new(options: ServeOptions) -> Self {
        Self {
            options,
            #[cfg(feature = "tls")]
            tls: None,
            hubs: Mutex::default(),
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            reactors: OnceLock::new(),
            next_reactor: AtomicUsize::new(0),
        }
    }

    #[cfg(feature = "tls")]
    fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    fn reactors(&self) -> &[Arc<Inbox>] {
        self.reactors.get_or_init(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            let spawn = |number| {
                reactor::spawn(number)
                    .inspect_err(|error| tracing::error!(%error, "can't start a reactor"))
                    .ok()
            };
            (0..cores).map_while(spawn).collect()
        })
    }

    /// The reactor for the next connection; `None` where there are none.
    fn reactor(&self) -> Option<&Arc<Inbox>> {
        let reactors = self.reactors();
        let turn = self.next_reactor.fetch_add(1, Ordering::Relaxed);
        reactors.get(turn.checked_rem(reactors.len())?)
    }

    fn stop_reactors(&self) {
        for reactor in self.reactors.get().into_iter().flatten() {
            reactor.stop();
        }
    }

    fn hubs(&self) -> Vec<Hub> {
        self.hubs
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .map(|shared| Hub { shared })
            .collect()
    }

    fn streams(&self) -> usize {
        self.hubs()
            .iter()
            .map(|hub| hub.shared.connections.len())
            .sum()
    }

    async fn close_streams(&self) {
        for hub in self.hubs() {
            hub.start_draining();
            let streams = hub.shared.connections.len() as u32;
            hub.close_all(self.options.drain_time.min(DRAIN_PACE * streams))
                .await;
        }
    }
}

/// Where the server's future was dropped instead of being told to end, nobody else stops the threads.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop_reactors();
    }
}

/// What the server tells the handlers about the sender of a request, in the request's extensions.
#[derive(Clone)]
pub struct Client {
    remote: SocketAddr,
    /// Set where the connection serves one request at a time and can be cut off without harm to others.
    signals: Option<Arc<Signals>>,
    /// Set where a stream may leave hyper.
    handover: Option<Arc<Handover>>,
    server: Arc<Server>,
}

impl Client {
    /// Where the request comes from.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Where a stream that answers a request of this version may be offered to the reactors.
    pub(crate) fn handover(&self, version: Version) -> Option<Arc<Handover>> {
        let may_leave = version == Version::HTTP_11 && !self.server.reactors().is_empty();
        self.handover.clone().filter(|_| may_leave)
    }

    pub(crate) fn signals(&self) -> Option<Arc<Signals>> {
        self.signals.clone()
    }

    /// Notes that the hub has streams here, which a shutdown has to close.
    pub(crate) fn serves(&self, hub: &Hub) {
        let mut hubs = self.server.hubs.lock();
        let known = |weak: &Weak<Shared>| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(&hub.shared));
        if !hubs.iter().any(known) {
            hubs.push(Arc::downgrade(&hub.shared));
        }
    }
}

/// Accepts connections for ever.
async fn accept(listener: &TcpListener, router: &Router, server: &Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if let Err(error) = prepare(&stream, &server.options) {
                    tracing::debug!(%remote, %error, "connection was gone before it began");
                    continue;
                }
                server.tasks.spawn(connection::run(
                    stream,
                    remote,
                    router.clone(),
                    server.clone(),
                ));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Most likely out of descriptors: those in use live on, and new ones wait in the backlog.
                tracing::error!(%error, "can't accept connections; trying again in 100 ms");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

fn prepare(stream: &TcpStream, options: &ServeOptions) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(options.send_buffer_bytes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.peer_timeout))?;
    Ok(())
}
