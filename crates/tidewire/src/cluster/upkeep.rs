//! What keeps the registry and the node in step: heartbeats, giving back, clearing away, comparing.

use std::collections::HashSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::registry::{Entry, NodeInfo, Unavailable};
use super::{EVERY_CLIENT, Inner};
use crate::connections::ConnectionId;

/// Pages that one comparison reads. Stops one that never ends where entries come and go.
const PAGES_MAX: usize = 10_000;

/// What is done about an entry that should not be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inconsistency {
    /// It is corrected, logged and counted.
    #[default]
    AutoCorrect,
    /// The node says that it is not ready, and why, until the next comparison finds nothing.
    FailFast,
}

/// How the registry is kept in step.
#[derive(Clone, Debug)]
pub struct UpkeepOptions {
    /// How long entries and nodes live without a heartbeat; there is one every third of that. Default: 30 s.
    pub ttl: Duration,
    /// How often what is here is compared with what the registry says. Default: 30 s; `None` for never.
    pub check_every: Option<Duration>,
    /// What is done about what does not agree.
    pub inconsistency: Inconsistency,
    /// How often what dead nodes left is cleared away. Default: 60 s; `None` for never.
    pub sweep_every: Option<Duration>,
    /// How often leaks are looked for. Default: 5 min; `None` for never.
    pub leaks_every: Option<Duration>,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            check_every: Some(Duration::from_secs(30)),
            inconsistency: Inconsistency::default(),
            sweep_every: Some(Duration::from_mins(1)),
            leaks_every: Some(Duration::from_mins(5)),
        }
    }
}

/// Figures about a node of a cluster since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterFigures {
    /// Clients that are connected to this node.
    pub clients: usize,
    /// Clients whose connection was taken over by another one.
    pub replaced: u64,
    /// Entries of the registry that did not agree with what was here.
    pub inconsistencies: u64,
    /// Entries of dead nodes that this node cleared away.
    pub swept: u64,
    /// Connections that nobody owned, and owners without a connection.
    pub leaks: u64,
    /// Heartbeats that the registry did not take.
    pub missed_beats: u64,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) figures: ClusterFigures,
    pub(super) trouble: Option<String>,
}

/// What is due when.
struct Due {
    every: Option<Duration>,
    at: Instant,
}

impl Due {
    fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            at: Instant::now() + every.unwrap_or_default(),
        }
    }

    fn is_now(&mut self) -> bool {
        let Some(every) = self.every.filter(|_| Instant::now() >= self.at) else {
            return false;
        };
        self.at = Instant::now() + every;
        true
    }
}

/// Goes on until the cluster's last handle is gone.
pub(super) async fn run(inner: Weak<Inner>, options: UpkeepOptions) {
    let shortest = [
        Some(options.ttl / 3),
        options.check_every,
        options.sweep_every,
        options.leaks_every,
    ];
    let tick = shortest.into_iter().flatten().min().unwrap_or(options.ttl);
    let mut ticks = interval(tick.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beat = Due::new(Some(options.ttl / 3));
    beat.at = Instant::now();
    let (mut check, mut sweep) = (Due::new(options.check_every), Due::new(options.sweep_every));
    let mut leaks = Due::new(options.leaks_every);
    let (mut suspects, mut ownerless) = (HashSet::new(), HashSet::new());
    loop {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        // What ends in one go is given back in one go.
        tokio::select! {
            () = inner.local.left.notified() => inner.give_back().await,
            _ = ticks.tick() => {}
        }
        if beat.is_now() {
            inner.beat().await;
        }
        if check.is_now() {
            let strategy = options.inconsistency;
            inner.note(inner.compare(strategy, &mut suspects).await);
        }
        if sweep.is_now() {
            inner.note(inner.sweep().await);
        }
        if leaks.is_now() {
            inner.look_for_leaks(&mut ownerless);
        }
    }
}

impl Inner {
    fn note(&self, result: Result<(), Unavailable>) {
        if let Err(error) = result {
            self.state.lock().figures.missed_beats += 1;
            tracing::debug!(%error, node = self.node, "upkeep is put off");
        }
    }

    async fn give_back(&self) {
        let leaving = self.local.take_leaving();
        if let Err(error) = self.registry.unregister(&self.node, &leaving).await {
            // They are over with their time to live, or found by the next comparison.
            tracing::debug!(%error, count = leaving.len(), "entries are not given back");
        }
    }

    async fn beat(&self) {
        let info = NodeInfo {
            node: self.node.clone(),
            version: self.version.clone(),
            started_ms: self.started_ms,
            connections: self.hub.stats().connections,
            lag_ms: self.hub.broker_figures().lag_ms,
            draining: self.draining.load(Ordering::Relaxed),
        };
        let result = async {
            self.registry.beat(&info).await?;
            self.renew(&self.local.entries()).await
        };
        self.note(result.await);
    }

    async fn renew(&self, entries: &[Entry]) -> Result<(), Unavailable> {
        let lost = self.registry.renew(&self.node, entries).await?;
        for (client, place) in lost {
            let Some(connection) = self.local.find(&client) else {
                continue;
            };
            if connection < place.connection {
                tracing::info!(
                    client,
                    node = place.node,
                    "a client is connected elsewhere by now"
                );
                self.replace(connection);
            }
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), Unavailable> {
        let mut swept = 0;
        loop {
            match self.registry.sweep().await? {
                0 => break,
                n => swept += n,
            }
        }
        if swept > 0 {
            tracing::info!(swept, "entries of dead nodes were cleared away");
            self.state.lock().figures.swept += swept as u64;
        }
        Ok(())
    }

    /// Looks for entries of this node that no connection stands behind. Those that were there the last time too are
    /// wrong; one that is new may be of a connection that is just coming or going.
    async fn compare(
        &self,
        strategy: Inconsistency,
        suspects: &mut HashSet<String>,
    ) -> Result<(), Unavailable> {
        let mut found = HashSet::new();
        let mut cursor = 0;
        for _ in 0..PAGES_MAX {
            let (clients, next) = self.registry.entries(&self.node, cursor).await?;
            let unknown = clients
                .into_iter()
                .filter(|client| self.local.find(client).is_none());
            found.extend(unknown);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let wrong: Vec<String> = found.intersection(suspects).cloned().collect();
        *suspects = found;
        let mut trouble = None;
        if !wrong.is_empty() {
            tracing::error!(
                node = self.node,
                count = wrong.len(),
                first = wrong[0],
                "the registry has clients that are not connected here"
            );
            self.state.lock().figures.inconsistencies += wrong.len() as u64;
            match strategy {
                Inconsistency::AutoCorrect => self.registry.forget(&self.node, &wrong).await?,
                Inconsistency::FailFast => {
                    trouble = Some(format!(
                        "the registry has {} clients under this node that are not connected here, the first `{}`",
                        wrong.len(),
                        wrong[0]
                    ));
                }
            }
        }
        self.state.lock().trouble = trouble;
        Ok(())
    }

    /// Looks for streams that read as clients and belong to none, and for clients without a stream. A stream that had no
    /// client the last time either is not one that is just being connected: it is closed.
    fn look_for_leaks(&self, suspects: &mut HashSet<ConnectionId>) {
        let entries = self.local.entries().into_iter();
        let dead: Vec<_> = entries
            .filter(|(_, connection)| !self.hub.has(*connection))
            .collect();
        for (_, connection) in &dead {
            self.local.end(*connection);
        }
        let streams = self.hub.readers_of(EVERY_CLIENT, usize::MAX).into_iter();
        let ids = streams.map(|(connection, ..)| connection);
        let ownerless: HashSet<_> = ids.filter(|id| !self.local.owns(*id)).collect();
        let leaked: Vec<_> = ownerless.intersection(suspects).copied().collect();
        for connection in &leaked {
            self.hub.close(*connection);
        }
        *suspects = ownerless;
        if !dead.is_empty() || !leaked.is_empty() {
            tracing::error!(
                clients_without_stream = dead.len(),
                streams_without_client = leaked.len(),
                "leaks were found and cleared away"
            );
            self.state.lock().figures.leaks += (dead.len() + leaked.len()) as u64;
        }
    }
}
