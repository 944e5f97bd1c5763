//! One connection, whichever kind of server it leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::{ConnectionLike, MultiplexedConnection, SendError};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisFuture, Value};
use tokio::sync::mpsc;

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
        pushes: Option<mpsc::Sender<PushInfo>>,
    ) -> impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static {
        let alive = self.clone();
        move |push| {
            if push.kind == PushKind::Disconnection {
                alive.0.store(false, Ordering::Release);
            }
            if let Some(pushes) = &pushes {
                // What there is no room for is lost, as Pub/Sub has it.
                let _ = pushes.try_send(push);
            }
            Ok(())
        }
    }
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
