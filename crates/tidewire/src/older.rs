//! Reading on from before the node's log: a broker's store may keep more than the log has in memory.
//!
//! A client that resumes from there is sent what the store has, page by page, and goes on from the log where that begins.
//! Pages are shared: clients that come back together, each from a place of its own, read the same ones. How many are read
//! and how many clients are at it is limited, and what a client holds is a place in a page.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared as SharedFuture;
use parking_lot::Mutex;
use tidewire_core::encode;
use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{Epoch, NativeId, Offset};
use tidewire_core::log::Log;
use tidewire_core::subscription::GapReason;
use tidewire_core::topic::Topic;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::broker::{BoxFuture, Broker, Page, Publication, id_of};
use crate::clock::now_ms;
use crate::hub::Hub;
use crate::live::Live;

/// Clients for which a frame is made at a time; others wait. One that takes its frame slowly, or not at all, is none of them
/// meanwhile: it would keep all others waiting.
const READERS_MAX: usize = 64;
/// Pages read from the store at a time. Stops those who come back from slowing down publishers.
const READS_MAX: usize = 2;
/// Pages that are kept for the next frame of a client, and for the next client.
const PAGES_MAX: usize = 32;
/// Events looked at for one client before it is told of a gap. Stops a client of a rare topic from reading all there is.
const LOOKED_AT_MAX: usize = 1_000_000;
/// How long a client waits for a node that has not read yet what the client has from another one, and how often it looks.
const BEHIND_MAX: Duration = Duration::from_secs(5);
const BEHIND_EVERY: Duration = Duration::from_millis(20);
/// How soon a store is asked again that could not be.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of one frame, but for its last event.
const FRAME_BYTES: usize = 16 * 1024;

type Reading = SharedFuture<BoxFuture<'static, Result<Arc<Page>, String>>>;

/// The pages of a hub's store.
pub(crate) struct Pages {
    readers: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The history that all of them are of.
    epoch: Option<Epoch>,
    /// With the place that each begins after.
    read: VecDeque<(Offset, Arc<Page>)>,
    reading: Vec<(Offset, Reading)>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            known: Mutex::default(),
        }
    }
}

impl Pages {
    /// A page with what is after a place; it may begin before it.
    fn find(self: &Arc<Self>, broker: &dyn Broker, epoch: Epoch, after: Offset) -> Option<Reading> {
        let mut known = self.known.lock();
        if known.epoch != Some(epoch) {
            // The same places may be those of other events now.
            *known = Known {
                epoch: Some(epoch),
                ..Known::default()
            };
        }
        let has = |(from, page): &&(Offset, Arc<Page>)| *from <= after && after < page.until;
        if let Some((_, page)) = known.read.iter().find(has) {
            let page = page.clone();
            let ready: BoxFuture<'static, _> = Box::pin(std::future::ready(Ok(page)));
            return Some(ready.shared());
        }
        // One that begins before may reach to here. It is known, or gone from this list, once it is read.
        let may_have = |(from, _): &&(Offset, Reading)| *from <= after;
        let nearest = known
            .reading
            .iter()
            .filter(may_have)
            .max_by_key(|(from, _)| *from);
        if let Some((_, reading)) = nearest {
            return Some(reading.clone());
        }
        let page = broker.older(after)?;
        let pages = self.clone();
        // A task, as it has to come to its end also when all who wait for it are gone: others wait for their turn.
        let read = tokio::spawn(async move {
            let permit = pages.reads.clone().acquire_owned().await;
            let page = page.await.map(Arc::new);
            drop(permit);
            let mut known = pages.known.lock();
            if known.epoch == Some(epoch) {
                known.reading.retain(|(from, _)| *from != after);
                if let Ok(page) = &page {
                    known.read.push_front((after, page.clone()));
                    known.read.truncate(PAGES_MAX);
                }
            }
            page
        });
        let read: BoxFuture<'static, _> = Box::pin(async move {
            read.await
                .unwrap_or_else(|error| Err(format!("reading has failed: {error}")))
        });
        let reading = read.shared();
        known.reading.push((after, reading.clone()));
        Some(reading)
    }
}

/// A client on its way through what is older than the log.
pub(crate) struct Older {
    hub: Hub,
    spec: FilterSpec,
    epoch: Epoch,
    /// The client's own id, for a gap.
    from_id: Option<String>,
    /// Everything up to here was sent or is none of the client's.
    after: Offset,
    looked_at: usize,
    /// Up to where the client was told that events are missing.
    gap_told: Offset,
    /// Whether a page was read anew that may have been older than the client.
    read_anew: bool,
    /// Since when the node is behind the client.
    behind_since: Option<Instant>,
    /// What the stream begins with, until it is sent.
    head: Vec<u8>,
    step: Step,
    /// One of [`READERS_MAX`], once it is there.
    permit: Option<OwnedSemaphorePermit>,
}

enum Step {
    Wait(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
    Read(Reading),
    /// Until the node's log has come to where the client is.
    Behind(Pin<Box<Sleep>>),
}

fn wait_for_turn(hub: &Hub) -> Step {
    let readers = hub.shared.pages.readers.clone();
    Step::Wait(Box::pin(async move { readers.acquire_owned().await.ok() }))
}

/// Where the node's log is, seen from a client's place.
enum LogIs {
    /// It has not read up to there.
    Behind,
    /// It has all that comes after; or it is another one, which says what is missing.
    There,
    /// It begins later.
    Later,
}

/// What there is to do next.
pub(crate) enum Frame {
    /// Bytes to send.
    Bytes(Vec<u8>),
    /// All that is older was sent: the log is next, after this place.
    Log(NativeId),
}

impl Hub {
    /// Waits until this node's log has what the broker's store has now, so that an event that another node was answered for
    /// is there. After `longest` it goes on without.
    pub async fn catch_up(&self, longest: Duration) {
        let caught_up = async {
            // One that can't ask is cut off, and so behind for all that is known.
            while let Some(Err(error)) = self.try_catch_up().await {
                tracing::debug!(error, "it is unknown what this node lacks");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        if tokio::time::timeout(longest, caught_up).await.is_err() {
            tracing::debug!("this node is behind");
        }
    }

    /// `None` where there is no store beside the log.
    async fn try_catch_up(&self) -> Option<Result<(), String>> {
        let (epoch, head) = self.shared.read_log(|log| (log.epoch(), log.head()));
        let newest = match self.shared.broker().older(head)?.await {
            Ok(page) => page.newest,
            Err(error) => return Some(Err(error)),
        };
        let is_behind = |log: &Log| log.epoch() == epoch && log.head() < newest;
        while self.shared.read_log(is_behind) {
            tokio::time::sleep(BEHIND_EVERY).await;
        }
        Some(Ok(()))
    }
}

impl Older {
    /// `None` where the broker's store has no more than the log.
    pub(crate) fn new(
        hub: &Hub,
        spec: &FilterSpec,
        epoch: Epoch,
        after: Offset,
        from_id: Option<String>,
    ) -> Option<Self> {
        drop(hub.shared.broker().older(after)?);
        Some(Self {
            step: wait_for_turn(hub),
            hub: hub.clone(),
            spec: spec.clone(),
            epoch,
            from_id,
            after,
            looked_at: 0,
            gap_told: Offset::ZERO,
            read_anew: false,
            behind_since: None,
            head: Vec::new(),
            permit: None,
        })
    }

    /// What the stream begins with.
    pub(crate) fn begin_with(&mut self, head: Vec<u8>) {
        self.head = head;
    }

    /// The next bytes, or that there are no more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, live: &Live) -> Poll<Frame> {
        if !self.head.is_empty() {
            return Poll::Ready(Frame::Bytes(std::mem::take(&mut self.head)));
        }
        loop {
            let frame = match &mut self.step {
                Step::Wait(permit) => {
                    self.permit = std::task::ready!(permit.as_mut().poll(cx));
                    self.read_next()
                }
                Step::Read(reading) => match std::task::ready!(Pin::new(reading).poll(cx)) {
                    Ok(page) => self.take_page(&page, live),
                    Err(error) => {
                        // The log says what the client misses.
                        tracing::warn!(error, "older events can't be read");
                        Some(self.done())
                    }
                },
                Step::Behind(sleep) => {
                    std::task::ready!(sleep.as_mut().poll(cx));
                    self.look_again()
                }
            };
            if let Some(frame) = frame {
                return Poll::Ready(frame);
            }
        }
    }

    /// Takes from a page what is the client's. `None` if that is nothing, and there is another step.
    fn take_page(&mut self, page: &Page, live: &Live) -> Option<Frame> {
        if page.until <= self.after && !page.events.is_empty() {
            return self.read_next();
        }
        if page.newest < self.after {
            // Read before the client had its id from another node; or nobody ever had it, as the log will say.
            let again = std::mem::replace(&mut self.read_anew, true);
            return if again {
                Some(self.done())
            } else {
                self.read_next()
            };
        }
        // Also later on: what is older may be trimmed faster than a client reads.
        if page.lost > self.after.max(self.gap_told) {
            self.gap_told = page.lost;
            let gap = self.gap(live, self.after);
            return Some(self.frame(gap));
        }
        let bytes = self.write_page(page, live);
        if !bytes.is_empty() {
            return Some(self.frame(bytes));
        }
        let goes_on = page.until > self.after || !page.events.is_empty();
        self.after = self.after.max(page.until);
        self.go_on(goes_on)
    }

    /// Writes the events of a page that the client lacks, up to a frame.
    fn write_page(&mut self, page: &Page, live: &Live) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut delivered = 0;
        let at = page.events.partition_point(|(at, _)| *at <= self.after);
        for (offset, publication) in &page.events[at..] {
            if bytes.len() >= FRAME_BYTES {
                break;
            }
            self.looked_at += 1;
            self.after = *offset;
            let is_read = write(&mut bytes, &self.spec, self.epoch, *offset, publication);
            delivered += usize::from(is_read);
        }
        live.note_delivered(delivered);
        bytes
    }

    /// What comes behind a page.
    fn go_on(&mut self, goes_on: bool) -> Option<Frame> {
        match self.log() {
            LogIs::Behind => {
                self.wait_for_log();
                None
            }
            LogIs::Later if goes_on && self.looked_at <= LOOKED_AT_MAX => self.read_next(),
            LogIs::Later if goes_on => {
                tracing::debug!("a client is told of a gap, as its topic is rare in what is older");
                Some(self.done())
            }
            LogIs::There | LogIs::Later => Some(self.done()),
        }
    }

    /// Looks whether the log has come to where the client is.
    fn look_again(&mut self) -> Option<Frame> {
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if matches!(self.log(), LogIs::Behind) && since.elapsed() < BEHIND_MAX {
            self.wait_for_log();
            return None;
        }
        Some(self.done())
    }

    /// Hands a frame over. It is the client's to take its time now, so it keeps neither its turn nor the page.
    fn frame(&mut self, bytes: Vec<u8>) -> Frame {
        self.permit = None;
        self.step = wait_for_turn(&self.hub);
        Frame::Bytes(bytes)
    }

    fn wait_for_log(&mut self) {
        self.behind_since.get_or_insert_with(Instant::now);
        self.step = Step::Behind(Box::pin(tokio::time::sleep(BEHIND_EVERY)));
    }

    /// The next step is to read on. If the store has no more, the log is next.
    fn read_next(&mut self) -> Option<Frame> {
        let shared = &self.hub.shared;
        let reading = shared.pages.find(shared.broker(), self.epoch, self.after);
        let Some(reading) = reading else {
            return Some(self.done());
        };
        self.step = Step::Read(reading);
        None
    }

    fn log(&self) -> LogIs {
        self.hub.shared.read_log(|log| {
            if log.epoch() != self.epoch {
                LogIs::There
            } else if log.head() < self.after {
                LogIs::Behind
            } else if log.holds_all_after(self.after) {
                LogIs::There
            } else {
                LogIs::Later
            }
        })
    }

    fn done(&mut self) -> Frame {
        self.permit = None;
        Frame::Log(NativeId::new(self.epoch, self.after))
    }

    fn gap(&self, live: &Live, place: Offset) -> Vec<u8> {
        self.hub.shared.counters.add_gap();
        let data = encode::gap_data(self.from_id.as_deref(), GapReason::Expired.as_str());
        let id = NativeId::new(self.epoch, place).to_string();
        let filter = live.subscription().filter();
        let mut out = Vec::new();
        self.hub.shared.read_log(|log| {
            log.write_notice(&mut out, filter, &id, ("gap", &data), now_ms());
        });
        out
    }
}

/// Writes an event if the filter matches it.
fn write(
    out: &mut Vec<u8>,
    spec: &FilterSpec,
    epoch: Epoch,
    offset: Offset,
    publication: &Publication,
) -> bool {
    let event = &publication.event;
    let topics = || publication.topics.iter().map(Topic::as_str);
    if !spec.matches(topics(), event.private) {
        return false;
    }
    if spec.topic_lines {
        for topic in topics().filter(|name| spec.reads(name)) {
            encode::topic_line(out, topic);
        }
    }
    let id = id_of(publication, epoch, offset).to_string();
    encode::encode(
        out,
        Some(id.as_bytes()),
        event.event.as_deref(),
        event.retry_ms,
        &event.data,
    );
    true
}
