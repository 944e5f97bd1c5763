//! One connection, whichever kind of server it leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redis::aio::{ConnectionLike, MultiplexedConnection, SendError};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisFuture, Value};
use tokio::sync::{Notify, mpsc};

/// What a server pushes and nobody has taken yet: so many messages and bytes at most. Stops a slow reader from filling
/// the memory.
const PUSHES_MAX: usize = 8_192;
const PUSHES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a message takes beside its text, about.
const PUSH_BYTES: usize = 128;

/// A connection. Clones share it; commands of all are sent in the order in which they are given, and answered so.
#[derive(Clone)]
pub struct Connection {
    inner: Inner,
    alive: Arc<Alive>,
}

#[derive(Clone)]
enum Inner {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Whether a connection is still of use.
pub(super) struct Alive(AtomicBool);

impl Alive {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    /// Looks for the end of the connection among what the server pushes, and hands on the rest.
    pub(super) fn watch(
        self: &Arc<Self>,
        pushes: Option<Pushes>,
    ) -> impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static {
        let alive = self.clone();
        move |push| {
            if push.kind == PushKind::Disconnection {
                alive.0.store(false, Ordering::Release);
            }
            if let Some(pushes) = &pushes {
                pushes.put(push);
            }
            Ok(())
        }
    }
}

/// Where what a server pushes waits for whoever takes it.
#[derive(Clone)]
pub(super) struct Pushes {
    queue: mpsc::Sender<PushInfo>,
    waiting: Arc<Waiting>,
}

/// The other end.
pub(super) struct Pushed {
    queue: mpsc::Receiver<PushInfo>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// There was no room for something.
    lost: Notify,
}

impl Pushes {
    pub(super) fn new() -> (Self, Pushed) {
        let (sender, queue) = mpsc::channel(PUSHES_MAX);
        let waiting = Arc::<Waiting>::default();
        let pushed = Pushed {
            queue,
            waiting: waiting.clone(),
        };
        let pushes = Self {
            queue: sender,
            waiting,
        };
        (pushes, pushed)
    }

    pub(super) fn put(&self, push: PushInfo) {
        let bytes = bytes_of(&push);
        let before = self.waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > PUSHES_BYTES_MAX || self.queue.try_send(push).is_err() {
            self.waiting.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.waiting.lost.notify_one();
        }
    }
}

impl Pushed {
    /// The next one; `None` if there are no more, or one was lost.
    pub(super) async fn next(&mut self) -> Option<PushInfo> {
        tokio::select! {
            push = self.queue.recv() => {
                let push = push?;
                self.waiting.bytes.fetch_sub(bytes_of(&push), Ordering::AcqRel);
                Some(push)
            }
            () = self.waiting.lost.notified() => None,
        }
    }
}

fn bytes_of(push: &PushInfo) -> usize {
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    };
    PUSH_BYTES + push.data.iter().map(bytes).sum::<usize>()
}

impl Connection {
    pub(super) fn single(connection: MultiplexedConnection, alive: Arc<Alive>) -> Self {
        Self {
            inner: Inner::Single(connection),
            alive,
        }
    }

    pub(super) fn cluster(connection: ClusterConnection, alive: Arc<Alive>) -> Self {
        Self {
            inner: Inner::Cluster(connection),
            alive,
        }
    }

    /// Whether the connection has not been seen to end. A command that is sent over one that is dead was not carried out.
    pub fn is_alive(&self) -> bool {
        self.alive.0.load(Ordering::Acquire)
    }

    /// From now on nobody takes this connection.
    pub(super) fn give_up(&self) {
        self.alive.0.store(false, Ordering::Release);
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.inner {
            Inner::Single(connection) => connection.req_packed_command(cmd),
            Inner::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.inner {
            Inner::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Inner::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.inner {
            Inner::Single(connection) => connection.get_db(),
            Inner::Cluster(connection) => connection.get_db(),
        }
    }
}
