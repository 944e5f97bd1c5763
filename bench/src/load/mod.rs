//! The one thread that publishes and reads.
//!
//! One epoll instance has all sockets. A reader is a socket and a few bytes; what it receives is looked at in one
//! buffer that all share, and forgotten.

mod publish;

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{Timespec, epoll::Event};
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::ledger::Ledger;
use crate::net;
use crate::process::{self, Memory};
use crate::publisher::{Answer, Publisher};
use crate::scan::{Broken, Scanner};
use crate::server::Endpoint;
use crate::stamp;

/// The customary patience.
const PATIENCE: Duration = Duration::from_secs(10);
/// No load takes longer; a server that works more and more for each event is given up.
const LOAD_MAX: Duration = Duration::from_mins(5);
/// Bytes taken from a socket at a time.
const READ_BYTES: usize = 256 * 1024;
/// Sockets looked at per wake-up.
const READY_MAX: usize = 1_024;
/// How often the server's memory is looked at while it is watched.
const MEMORY_EVERY: Duration = Duration::from_millis(250);
/// Set in the token of a publisher's socket.
const PUBLISHER: u64 = 1 << 63;

/// What a group of readers asks for.
#[derive(Clone)]
pub struct Group {
    /// Topics, by index.
    pub topics: Vec<u32>,
    /// The request, the same for all of the group.
    pub request: Rc<[u8]>,
    /// Events of each topic that the readers have seen before.
    pub seen: u32,
    /// Whether the readers stop reading once their streams are open.
    pub stops: bool,
}

struct Reader {
    socket: OwnedFd,
    scanner: Scanner,
    index: u32,
    /// Until it was sent.
    request: Option<Rc<[u8]>>,
    stops: bool,
    gone: bool,
}

/// A load on one server.
pub struct Load<'a> {
    server: &'a Endpoint,
    epoll: OwnedFd,
    ready: Vec<Event>,
    buffer: Vec<u8>,
    readers: Vec<Reader>,
    publishers: Vec<Publisher>,
    idle: Vec<u32>,
    ledger: Ledger,
    began: Instant,
    /// Streams that are open, of those asked for.
    open: usize,
    gone: usize,
    answers: u64,
    peak: Option<(Instant, Memory)>,
    /// Bytes of an event's data.
    pub event_bytes: usize,
    /// Without any delivery or answer for this long, what is outstanding is taken for lost.
    pub patience: Duration,
}

impl<'a> Load<'a> {
    /// A load with this many connections that publish.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(server: &'a Endpoint, publishers: usize) -> io::Result<Self> {
        let mut load = Self {
            server,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(READY_MAX),
            buffer: vec![0; READ_BYTES],
            readers: Vec::new(),
            publishers: Vec::new(),
            idle: Vec::new(),
            ledger: Ledger::default(),
            began: Instant::now(),
            open: 0,
            gone: 0,
            answers: 0,
            peak: None,
            event_bytes: stamp::EVENT_BYTES,
            patience: PATIENCE,
        };
        for index in 0..publishers {
            let socket = net::open(server.address(), 0)?;
            let token = EventData::new_u64(PUBLISHER | index as u64);
            epoll::add(&load.epoll, &socket, token, EventFlags::IN)?;
            load.publishers.push(Publisher::new(socket));
            load.idle.push(index as u32);
        }
        // A loopback connection is there at once; this is for a server whose backlog is full.
        std::thread::sleep(Duration::from_millis(20));
        Ok(load)
    }

    /// The books.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Streams that the server ended or refused.
    pub fn gone(&self) -> usize {
        self.gone
    }

    /// From now on the server's memory is watched.
    pub fn watch_memory(&mut self) {
        self.peak = Some((Instant::now(), Memory::default()));
    }

    /// The most memory that was seen.
    pub fn peak_memory(&self) -> Memory {
        self.peak.map(|(_, memory)| memory).unwrap_or_default()
    }

    /// Opens streams, with up to `window` of them on their way at a time, and waits until all have begun.
    ///
    /// # Errors
    /// If a connection can't be opened, or a stream does not begin.
    pub fn open(
        &mut self,
        groups: impl IntoIterator<Item = Group>,
        window: usize,
    ) -> io::Result<()> {
        let mut progress = (Instant::now(), self.open);
        for group in groups {
            while self.readers.len() - self.open - self.gone >= window {
                self.turn(self.patience)?;
                self.check_opening(&mut progress)?;
            }
            self.open_one(group)?;
        }
        while self.open + self.gone < self.readers.len() {
            self.turn(Duration::from_secs(1))?;
            self.check_opening(&mut progress)?;
        }
        Ok(())
    }

    fn check_opening(&self, progress: &mut (Instant, usize)) -> io::Result<()> {
        if self.gone > 0 {
            return Err(io::Error::other("the server refused or ended a stream"));
        }
        if self.open > progress.1 {
            *progress = (Instant::now(), self.open);
        }
        if progress.0.elapsed() > self.patience {
            let text = format!("only {} of {} streams began", self.open, self.readers.len());
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    fn open_one(&mut self, group: Group) -> io::Result<()> {
        let token = self.readers.len();
        let socket = net::open(self.server.address(), token)?;
        epoll::add(
            &self.epoll,
            &socket,
            EventData::new_u64(token as u64),
            EventFlags::OUT,
        )?;
        let topics: &[u32] = if group.stops { &[] } else { &group.topics };
        self.readers.push(Reader {
            socket,
            scanner: Scanner::default(),
            index: self.ledger.add_reader(topics, group.seen),
            request: Some(group.request),
            stops: group.stops,
            gone: false,
        });
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Waits for sockets, and deals with those that are ready.
    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        if self.began.elapsed() > LOAD_MAX {
            let text = format!("not done within {} s", LOAD_MAX.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.sample_memory()?;
        let timeout = Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let buffer = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &ready {
            let token = event.data.u64();
            if token & PUBLISHER != 0 {
                self.publisher_ready((token & !PUBLISHER) as u32)?;
            } else {
                self.reader_ready(token as usize)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn sample_memory(&mut self) -> io::Result<()> {
        if let Some((at, peak)) = &mut self.peak
            && at.elapsed() > MEMORY_EVERY
        {
            let now = process::memory(self.server.pid())?;
            peak.pss_kb = peak.pss_kb.max(now.pss_kb);
            peak.rss_kb = peak.rss_kb.max(now.rss_kb);
            *at = Instant::now();
        }
        Ok(())
    }

    fn publisher_ready(&mut self, index: u32) -> io::Result<()> {
        let publisher = &mut self.publishers[index as usize];
        if publisher.wants_to_send() {
            publisher.send_on()?;
            return self.interest(index);
        }
        match publisher.read(&mut self.buffer)? {
            Answer::Pending => {}
            Answer::Status(200..300) => {
                self.answers += 1;
                self.idle.push(index);
            }
            Answer::Status(status) => {
                let text = format!("a publish was answered with {status}");
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }

    fn interest(&self, index: u32) -> io::Result<()> {
        let publisher = &self.publishers[index as usize];
        let flags = if publisher.wants_to_send() {
            EventFlags::OUT
        } else {
            EventFlags::IN
        };
        let token = EventData::new_u64(PUBLISHER | u64::from(index));
        Ok(epoll::modify(
            &self.epoll,
            publisher.socket(),
            token,
            flags,
        )?)
    }

    fn reader_ready(&mut self, token: usize) -> io::Result<()> {
        let reader = &mut self.readers[token];
        if reader.gone {
            return Ok(());
        }
        if let Some(request) = reader.request.take() {
            // Requests are small and the socket is empty: it takes all or is broken.
            let sent = send(&reader.socket, &request, SendFlags::NOSIGNAL)?;
            debug_assert_eq!(sent, request.len());
            let token = EventData::new_u64(token as u64);
            return Ok(epoll::modify(
                &self.epoll,
                &reader.socket,
                token,
                EventFlags::IN,
            )?);
        }
        let bytes = match recv(&reader.socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((bytes, _)) => bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(_) => 0,
        };
        let was_open = reader.scanner.is_open();
        let (index, now_ns) = (reader.index, self.began.elapsed().as_nanos() as u64);
        let ledger = &mut self.ledger;
        let mut deliver = |number| ledger.deliver(index, number, now_ns);
        let fed = if bytes == 0 {
            Err(Broken::Ended)
        } else {
            reader.scanner.feed(&self.buffer[..bytes], &mut deliver)
        };
        let opened = !was_open && reader.scanner.is_open();
        self.open += usize::from(opened);
        if fed.is_err() {
            reader.gone = true;
            self.open -= usize::from(reader.scanner.is_open());
            self.gone += 1;
            epoll::delete(&self.epoll, &reader.socket)?;
        } else if opened && reader.stops {
            epoll::delete(&self.epoll, &reader.socket)?;
        }
        Ok(())
    }
}
