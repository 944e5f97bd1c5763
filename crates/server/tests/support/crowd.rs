//! Thousands of subscribers in one process: plain TCP, one task each, every byte decoded and checked as it comes.
//!
//! What they are sent is numbered: see [`numbered`]. A reader notes where it stands in each series, and what broke the
//! order; one that was told of a `gap` may miss numbers once.

use std::fmt::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use super::wire::{End, Seen, Wire};

/// How long a whole crowd may take for something. Far above what it does take, for a busy machine.
const CROWD_WAIT_MAX: Duration = Duration::from_mins(2);
/// Connects under way at a time: less than the hub's backlog, so that none is dropped and tried again after a second.
const CONNECTS_AT_A_TIME: usize = 500;
/// The receive buffer of those that shall stall: the kernel takes little in their place.
const SMALL_BUFFER_BYTES: u32 = 4 * 1024;

/// A series of events as lines for `POST /events?topic=…`: their data is the series' name, a number and padding.
pub(crate) fn numbered(series: &str, numbers: Range<u64>, data_bytes: usize) -> String {
    let mut lines = String::new();
    for number in numbers {
        let start = format!("{series} {number} ");
        let padding = "x".repeat(data_bytes.saturating_sub(start.len()));
        let _ = writeln!(lines, "{{\"data\":\"{start}{padding}\"}}"); // a string takes everything
    }
    lines
}

/// What a reader is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Read,
    Pause,
    HangUp,
}

/// One subscriber.
pub(crate) struct Reader {
    seen: Mutex<Seen>,
    order: watch::Sender<Order>,
}

impl Reader {
    /// What it has got so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pause(&self) {
        self.order.send_replace(Order::Pause);
    }

    pub(crate) fn resume(&self) {
        self.order.send_replace(Order::Read);
    }

    pub(crate) fn hang_up(&self) {
        self.order.send_replace(Order::HangUp);
    }

    fn end(&self, end: End) {
        self.seen().end = Some((end, Instant::now()));
    }
}

/// All subscribers of a test. They hang up on drop.
pub(crate) struct Crowd {
    runtime: Runtime,
    port: u16,
    connects: Arc<Semaphore>,
}

impl Crowd {
    pub(crate) fn new(port: u16) -> Self {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        Self {
            runtime,
            port,
            connects: Arc::new(Semaphore::new(CONNECTS_AT_A_TIME)),
        }
    }

    /// Subscribes `count` readers, reader `n` to `path(n)`; returns when all have got the head of their answer.
    pub(crate) fn join(&self, count: usize, path: impl Fn(usize) -> String) -> Vec<Arc<Reader>> {
        self.join_with(count, None, path)
    }

    /// As [`join`](Self::join), with small receive buffers.
    pub(crate) fn join_slow(
        &self,
        count: usize,
        path: impl Fn(usize) -> String,
    ) -> Vec<Arc<Reader>> {
        self.join_with(count, Some(SMALL_BUFFER_BYTES), path)
    }

    fn join_with(
        &self,
        count: usize,
        receive_buffer: Option<u32>,
        path: impl Fn(usize) -> String,
    ) -> Vec<Arc<Reader>> {
        let readers: Vec<_> = (0..count)
            .map(|n| {
                let reader = Arc::new(Reader {
                    seen: Mutex::default(),
                    order: watch::Sender::new(Order::Read),
                });
                let connects = self.connects.clone();
                let (port, path, connected) = (self.port, path(n), reader.clone());
                self.runtime.spawn(async move {
                    let permit = connects.acquire().await.expect("never closed");
                    match connect(port, receive_buffer, &path).await {
                        Ok(stream) => {
                            read(&connected, &stream, permit).await;
                        }
                        Err(error) => {
                            connected.seen().fault = Some(format!("no connection: {error}"));
                        }
                    }
                });
                reader
            })
            .collect();
        wait_for_all(&readers, "the head of the answer", |seen| seen.status > 0);
        readers
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let idle = tokio::runtime::Builder::new_current_thread().build();
        let runtime = std::mem::replace(&mut self.runtime, idle.expect("a runtime can be made"));
        // Tasks are dropped where they wait, and their sockets with them.
        runtime.shutdown_timeout(CROWD_WAIT_MAX);
    }
}

/// Waits until what every reader has seen satisfies `done`; a reader that saw something wrong fails the test.
pub(crate) fn wait_for_all(readers: &[Arc<Reader>], what: &str, done: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + CROWD_WAIT_MAX;
    let mut first = 0;
    while let Some(reader) = readers.get(first) {
        let seen = reader.seen();
        if let Some(fault) = &seen.fault {
            panic!("reader {first}: {fault}: {seen:?}");
        }
        if done(&seen) {
            first += 1;
            continue;
        }
        assert!(
            Instant::now() < deadline,
            "reader {first} has not got, within {CROWD_WAIT_MAX:?}: {what}; it has {seen:?}"
        );
        drop(seen);
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn connect(port: u16, receive_buffer: Option<u32>, path: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
    );
    let mut rest = head.as_bytes();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stream)
}

/// Reads to the end, or until told to hang up. The permit is given back at the head of the answer.
async fn read(reader: &Reader, stream: &TcpStream, permit: tokio::sync::SemaphorePermit<'_>) {
    let mut permit = Some(permit);
    let mut wire = Wire::default();
    let mut orders = reader.order.subscribe();
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Order::HangUp => return,
            Order::Pause => {
                if orders.changed().await.is_err() {
                    return;
                }
            }
            Order::Read => tokio::select! {
                _ = orders.changed() => {}
                ready = stream.readable() => {
                    if ready.is_err() || !take_in(reader, stream, &mut wire) {
                        return;
                    }
                    if reader.seen().status > 0 {
                        drop(permit.take());
                    }
                }
            },
        }
    }
}

/// Takes in what has arrived; false at the end.
fn take_in(reader: &Reader, stream: &TcpStream, wire: &mut Wire) -> bool {
    // On the stack, so that ten thousand readers share it.
    let mut buffer = [0; 16 * 1024];
    match stream.try_read(&mut buffer) {
        Ok(0) => {
            reader.end(wire.end_of_bytes());
            false
        }
        Ok(n) => {
            let whole = wire.push(&buffer[..n], &mut reader.seen());
            if whole {
                reader.end(End::Whole);
            }
            !whole
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => true,
        Err(error) => {
            reader.end(End::CutOff(error.to_string()));
            false
        }
    }
}
