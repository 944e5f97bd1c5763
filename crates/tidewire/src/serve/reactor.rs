//! Reactors: threads that own the sockets of plain HTTP/1.1 streams, one epoll instance and one slab each.
//!
//! A reactor sleeps until its inbox or a socket wakes it. It then serves the connections that have news, a bounded slice
//! at a time, and looks at inbox and sockets again after each slice; what arrived meanwhile is one more write for
//! everything that a client lacks. Within a slice, connections that read the same filter from the same place send the
//! same bytes, gathered once.
//!
//! **No lost wake-up.** A connection is queued at most once. A wake-up is taken from the inbox only between slices, and
//! what a slice gathers is read from the log within it: so a wake-up that found its connection queued is for an event
//! that the coming slice sees.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll as Epoll, Token, Waker};
use parking_lot::Mutex;
use slab::Slab;
use tidewire_core::subscription::CloseReason;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::direct::{Direct, Outcome, Scratch};
use crate::clock::Moment;
use crate::live::Live;

/// Connections served between two looks at the inbox and the sockets.
pub(super) const SLICE: usize = 256;
/// The inbox's token; connections have those of their slots.
const INBOX: Token = Token(usize::MAX);
/// Bytes that a client may send on a stream, where none are expected. More and it is closed.
const UNWANTED_BYTES_MAX: u32 = 64 * 1024;

/// What others leave for a reactor.
enum Note {
    Adopt(Box<Adoption>),
    /// There is something to do for the connection in this slot, or for whoever was there before.
    Wake(u32),
    Stop,
}

/// A stream and its socket, on their way from hyper.
pub(super) struct Adoption {
    pub(super) live: Live,
    pub(super) stream: TcpStream,
    /// Held while the connection lives: the server waits for it.
    pub(super) token: TaskTrackerToken,
}

/// The way to a reactor.
pub(crate) struct Inbox {
    notes: Mutex<Notes>,
    waker: Waker,
}

#[derive(Default)]
struct Notes {
    list: Vec<Note>,
    /// Nobody reads them any more.
    ended: bool,
}

impl Inbox {
    /// There is something to do for a connection.
    pub(crate) fn wake(&self, slot: u32) {
        self.put(Note::Wake(slot));
    }

    /// Here is a connection to carry on.
    pub(super) fn adopt(&self, adoption: Adoption) {
        self.put(Note::Adopt(Box::new(adoption)));
    }

    /// Drops all connections and ends.
    pub(super) fn stop(&self) {
        self.put(Note::Stop);
    }

    fn put(&self, note: Note) {
        let mut notes = self.notes.lock();
        if notes.ended {
            drop(notes);
            return note.give_up();
        }
        notes.list.push(note);
        // The others were told when the first one came.
        let first = notes.list.len() == 1;
        drop(notes);
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "can't wake a reactor");
        }
    }

    fn take(&self, into: &mut Vec<Note>) {
        std::mem::swap(into, &mut self.notes.lock().list);
    }
}

impl Note {
    /// Ends a stream that came too late for a reactor that has ended: it must not wait there for ever.
    fn give_up(self) {
        if let Self::Adopt(adoption) = self {
            let connection = adoption.live.connection();
            connection.request_close(CloseReason::Shutdown);
        }
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

/// Starts a reactor.
pub(super) fn spawn(number: usize) -> std::io::Result<Arc<Inbox>> {
    let mut reactor = Reactor::new()?;
    let inbox = reactor.inbox.clone();
    std::thread::Builder::new()
        .name(format!("tidewire-reactor-{number}"))
        .spawn(move || reactor.run())?;
    Ok(inbox)
}

/// A connection in its slot.
struct Connection {
    direct: Direct,
    /// Whether it stands in the ready queue.
    queued: bool,
    unwanted_bytes: u32,
    _token: TaskTrackerToken,
}

/// What a connection takes of a reactor's slab, in bytes.
#[cfg(test)]
pub(super) const fn entry_size() -> usize {
    // A slab of one entry is a vector of one.
    size_of::<Option<Connection>>()
}

pub(super) struct Reactor {
    epoll: Epoll,
    pub(super) inbox: Arc<Inbox>,
    connections: Slab<Connection>,
    ready: VecDeque<u32>,
    notes: Vec<Note>,
    scratch: Scratch,
}

impl Reactor {
    pub(super) fn new() -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        let inbox = Inbox {
            notes: Mutex::default(),
            waker: Waker::new(epoll.registry(), INBOX)?,
        };
        Ok(Self {
            epoll,
            inbox: Arc::new(inbox),
            connections: Slab::new(),
            ready: VecDeque::new(),
            notes: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(1_024);
        loop {
            let timeout = (!self.ready.is_empty()).then_some(std::time::Duration::ZERO);
            if let Err(error) = self.epoll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "a reactor can't wait for its sockets");
                return;
            }
            for event in &events {
                if event.token() == INBOX {
                    continue;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(event.token());
                }
                if event.is_writable() {
                    self.writable(event.token());
                }
            }
            if !self.take_notes() {
                return;
            }
            self.serve_slice();
        }
    }

    /// Takes what is in the inbox. False when it is time to end.
    pub(super) fn take_notes(&mut self) -> bool {
        let mut notes = std::mem::take(&mut self.notes);
        self.inbox.take(&mut notes);
        for note in notes.drain(..) {
            match note {
                Note::Wake(slot) => {
                    if let Some(connection) = self.connections.get(slot as usize) {
                        connection.direct.live().connection().note_taken();
                    }
                    self.enqueue(slot);
                }
                Note::Adopt(adoption) => self.adopt(*adoption),
                Note::Stop => {
                    self.end();
                    return false;
                }
            }
        }
        if notes.capacity() <= 16 * 1024 {
            self.notes = notes;
        }
        true
    }

    /// Ends the streams that are left, each told to come back.
    fn end(&mut self) {
        for connection in self.connections.drain() {
            connection
                .direct
                .close(CloseReason::Shutdown, &mut self.scratch);
        }
    }

    fn enqueue(&mut self, slot: u32) {
        if let Some(connection) = self.connections.get_mut(slot as usize)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(slot);
        }
    }

    fn writable(&mut self, token: Token) {
        if let Some(connection) = self.connections.get_mut(token.0) {
            connection.direct.socket_is_writable();
            self.enqueue(token.0 as u32);
        }
    }

    fn adopt(&mut self, adoption: Adoption) {
        let Adoption {
            live,
            mut stream,
            token,
        } = adoption;
        let entry = self.connections.vacant_entry();
        let slot = entry.key() as u32;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.epoll
                .registry()
                .register(&mut stream, Token(entry.key()), interest)
        {
            tracing::warn!(%error, "can't carry a connection on");
            return;
        }
        tracing::trace!(connection = %live.connection().id, slot, "carried by a reactor");
        // From now on wake-ups come here; those before are made up for by the first turn.
        live.connection().carried_by(self.inbox.clone(), slot);
        entry.insert(Connection {
            direct: Direct::new(live, stream),
            queued: false,
            unwanted_bytes: 0,
            _token: token,
        });
        self.enqueue(slot);
    }

    /// Reads what a client sends, which is nothing unless it hangs up.
    fn read(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token.0) else {
            return;
        };
        let mut bytes = [0; 4_096];
        loop {
            match connection.direct.stream().read(&mut bytes) {
                Ok(n) if n > 0 && connection.unwanted_bytes < UNWANTED_BYTES_MAX => {
                    connection.unwanted_bytes += n as u32;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.connections
            .remove(token.0)
            .direct
            .close(CloseReason::ClientGone, &mut self.scratch);
    }

    pub(super) fn serve_slice(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let now = Moment::now();
        // What was gathered in an earlier slice may lack what wake-ups since then were for.
        self.scratch.forget();
        for _ in 0..SLICE.min(self.ready.len()) {
            let Some(slot) = self.ready.pop_front() else {
                return;
            };
            let Some(connection) = self.connections.get_mut(slot as usize) else {
                continue;
            };
            connection.queued = false;
            match connection.direct.serve(now, &mut self.scratch) {
                Outcome::Sleep => {}
                Outcome::Again => self.enqueue(slot),
                Outcome::Close(reason) => {
                    self.connections
                        .remove(slot as usize)
                        .direct
                        .close(reason, &mut self.scratch);
                }
            }
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        let mut late = Vec::new();
        let mut notes = self.inbox.notes.lock();
        notes.ended = true;
        std::mem::swap(&mut late, &mut notes.list);
        drop(notes);
        late.into_iter().for_each(Note::give_up);
    }
}
