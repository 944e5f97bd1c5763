//! What keeps the registry and the node in step: heartbeats, giving back, clearing away, comparing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::node::lock_of;
use super::registry::{Entry, NodeInfo, Renewed, Unavailable};
use super::{EVERY_CLIENT, Inner};
use crate::connections::ConnectionId;

/// Pages that one comparison reads. Stops one that never ends where entries come and go.
const PAGES_MAX: usize = 10_000;
/// Longest pause after a heartbeat that the registry did not take.
const BEAT_AGAIN: Duration = Duration::from_secs(1);

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
    /// Entries that the registry lacked when they were renewed: it was away, or has lost them.
    pub restored: u64,
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
    /// Whether there was a heartbeat that the registry took.
    has_beaten: bool,
    /// What the comparison found.
    unknown: Option<String>,
    /// What the last heartbeat found.
    false_places: Option<String>,
    /// Who else has the node's name.
    twin: Option<String>,
}

impl State {
    /// Why the node's state is not to be trusted.
    pub(super) fn trouble(&self) -> Option<String> {
        let Self {
            unknown,
            false_places,
            twin,
            ..
        } = self;
        twin.as_ref()
            .or(unknown.as_ref())
            .or(false_places.as_ref())
            .cloned()
    }
}

/// What belongs to nobody, or is just coming or going.
#[derive(Default)]
pub(super) struct Loose {
    /// Connections of clients that have no stream.
    clients: HashSet<ConnectionId>,
    /// Streams that are no client's.
    streams: HashSet<ConnectionId>,
}

/// What is due when.
struct Due {
    every: Option<Duration>,
    /// `None` for never.
    at: Option<Instant>,
}

impl Due {
    fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            at: every.map(|every| Instant::now() + every),
        }
    }

    fn is_now(&mut self, now: Instant) -> bool {
        let is_now = self.at.is_some_and(|at| at <= now);
        if is_now {
            self.at = self.every.map(|every| now + every);
        }
        is_now
    }
}

/// Goes on until the cluster's last handle is gone, or it has left.
pub(super) async fn run(inner: Weak<Inner>, wake: Arc<Notify>, options: UpkeepOptions) {
    let beat_again = (options.ttl / 10).min(BEAT_AGAIN);
    let mut beat = Due::new(Some(options.ttl / 3));
    beat.at = Some(Instant::now());
    let (mut check, mut sweep) = (Due::new(options.check_every), Due::new(options.sweep_every));
    let mut leaks = Due::new(options.leaks_every);
    let (mut suspects, mut loose) = (HashSet::new(), Loose::default());
    // Whether the registry may have entries that nobody gives back: of a former life under this name, say.
    let mut has_unknown = true;
    loop {
        let next = [&beat, &check, &sweep, &leaks]
            .into_iter()
            .filter_map(|due| due.at)
            .min();
        let next = next.unwrap_or_else(|| Instant::now() + options.ttl);
        tokio::select! {
            () = wake.notified() => {}
            () = sleep_until(next) => {}
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let _turn = inner.upkeep.lock().await;
        if inner.gone.load(Ordering::Acquire) {
            return;
        }
        let now = Instant::now();
        // What ends in one go is given back in one go.
        has_unknown |= !inner.give_back().await;
        if inner.beat_soon.swap(false, Ordering::AcqRel) {
            beat.at = Some(now);
        }
        if beat.is_now(now) {
            if !inner.beat().await {
                beat.at = Some(Instant::now() + beat_again);
            } else if has_unknown {
                has_unknown = !inner.note(inner.forget_unknown().await);
            }
        }
        if check.is_now(now) {
            inner.note(inner.compare(&mut suspects).await);
        }
        if sweep.is_now(now) {
            inner.note(inner.sweep().await);
        }
        if leaks.is_now(now) {
            inner.look_for_leaks(&mut loose);
        }
    }
}

impl Inner {
    /// Counts what the registry did not take. Answers whether it did.
    fn note(&self, result: Result<(), Unavailable>) -> bool {
        let Err(error) = result else {
            return true;
        };
        self.state.lock().figures.missed_beats += 1;
        tracing::debug!(%error, node = self.node, "upkeep is put off");
        false
    }

    /// Gives back what has ended. False if that is left to [`forget_unknown`](Self::forget_unknown).
    async fn give_back(&self) -> bool {
        let leaving = self.local.take_leaving();
        if leaving.is_empty() {
            return true;
        }
        if !self.local.in_step() {
            return false;
        }
        let result = self.registry.unregister(&self.node, &leaving).await;
        if let Err(error) = &result {
            tracing::debug!(%error, count = leaving.len(), "entries are not given back yet");
        }
        result.is_ok()
    }

    /// Says that the node is alive, and lets its entries live on. False if the registry did not take it.
    pub(super) async fn beat(&self) -> bool {
        let info = NodeInfo {
            node: self.node.clone(),
            version: self.version.clone(),
            started_ms: self.started_ms,
            connections: self.hub.stats().connections,
            lag_ms: self.hub.broker_figures().lag_ms,
            draining: self.draining.load(Ordering::Relaxed),
        };
        let result = async {
            let former = self.registry.beat(&info).await?;
            self.look_for_twin(former);
            let false_places = self.renew(&self.local.fall_in_step()).await?;
            self.state.lock().false_places = false_places;
            Ok(())
        };
        let is_taken = self.note(result.await);
        if !is_taken {
            self.local.fall_out_of_step();
        }
        is_taken
    }

    /// Looks whether somebody else beats under the node's name. What the first heartbeat finds may be of a former life.
    fn look_for_twin(&self, former: Option<NodeInfo>) {
        let mut state = self.state.lock();
        let is_first = !std::mem::replace(&mut state.has_beaten, true);
        let twin = former.filter(|former| !is_first && former.started_ms != self.started_ms);
        let was_known = state.twin.is_some();
        state.twin = twin.map(|twin| {
            format!(
                "another node has the name `{}` too (version {}, started {} ms after 1970); give each a `node.id` of its own",
                twin.node, twin.version, twin.started_ms
            )
        });
        if let Some(twin) = state.twin.as_ref().filter(|_| !was_known) {
            tracing::error!("{twin}");
        }
    }

    /// Lets entries live on. Closes connections whose clients are elsewhere by now; says what is wrong, where the registry
    /// has a place that does not exist and that is not to be corrected.
    async fn renew(&self, entries: &[Entry]) -> Result<Option<String>, Unavailable> {
        let Renewed { lost, restored } = self.registry.renew(&self.node, entries).await?;
        if restored > 0 {
            tracing::info!(
                restored,
                "the registry lacked clients that are connected here"
            );
            self.state.lock().figures.restored += restored as u64;
        }
        if lost.is_empty() {
            return Ok(None);
        }
        let renewed: HashMap<&str, ConnectionId> = entries
            .iter()
            .map(|(client, connection)| (client.as_str(), *connection))
            .collect();
        let mut elsewhere: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (client, place) in lost {
            // One that came back meanwhile registers itself.
            let connection = renewed.get(client.as_str());
            if connection.is_some_and(|connection| self.local.is_current(&client, *connection)) {
                let there = elsewhere.entry(place.node).or_default();
                there.push((client, place.connection));
            }
        }
        let mut wrong = Vec::new();
        for (node, there) in elsewhere {
            let missing: HashSet<String> = if node == self.node {
                there.iter().map(|(client, _)| client.clone()).collect()
            } else {
                // One that is silent is believed to hold what the registry says.
                let missing = self.not_held(&node, &there).await;
                missing.unwrap_or_default().into_iter().collect()
            };
            for (client, connection) in there {
                let mine = renewed[client.as_str()];
                if missing.contains(&client) {
                    wrong.push((client, mine, node.clone(), connection));
                } else if self.local.is_current(&client, mine) {
                    tracing::info!(client, node, "a client is connected elsewhere by now");
                    self.replace(mine);
                }
            }
        }
        self.put_right(wrong).await
    }

    /// Takes places out of the registry that do not exist, and puts this node's own there.
    async fn put_right(
        &self,
        wrong: Vec<(String, ConnectionId, String, ConnectionId)>,
    ) -> Result<Option<String>, Unavailable> {
        let Some((first, _, node, _)) = wrong.first() else {
            return Ok(None);
        };
        let trouble = format!(
            "the registry has {} clients elsewhere that are connected here, the first `{first}` at `{node}`",
            wrong.len()
        );
        tracing::error!("{trouble}");
        self.state.lock().figures.inconsistencies += wrong.len() as u64;
        if self.strategy == Inconsistency::FailFast {
            return Ok(Some(trouble));
        }
        let mut mine = Vec::new();
        for (client, connection, node, other) in wrong {
            let entry = [(client.clone(), other)];
            self.registry.unregister(&node, &entry).await?;
            if self.local.is_current(&client, connection) {
                mine.push((client, connection));
            }
        }
        // Whoever lost once more is found by the next heartbeat.
        self.registry.renew(&self.node, &mine).await?;
        Ok(None)
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

    /// Entries of this node in the registry that no connection stands behind now.
    async fn unknown(&self) -> Result<HashSet<String>, Unavailable> {
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
        Ok(found)
    }

    /// Removes entries of this node that nobody is known to give back.
    async fn forget_unknown(&self) -> Result<(), Unavailable> {
        let unknown: Vec<String> = self.unknown().await?.into_iter().collect();
        if !unknown.is_empty() {
            tracing::info!(
                node = self.node,
                count = unknown.len(),
                "entries of clients that are not connected any more were cleared away"
            );
        }
        self.forget(&unknown).await
    }

    /// Removes entries of this node. A client that has come meanwhile keeps its own.
    async fn forget(&self, clients: &[String]) -> Result<(), Unavailable> {
        self.registry.forget(&self.node, clients).await?;
        // What is being registered now may be so before or after that. Whoever begins later is registered afterwards.
        let come = clients
            .iter()
            .filter(|client| self.local.find(client).is_some());
        let locks: HashSet<usize> = come.map(|client| lock_of(client)).collect();
        for lock in locks {
            drop(self.locks[lock].lock().await);
        }
        let settled = |client: &String| Some((client.clone(), self.local.settled(client)?));
        let come: Vec<Entry> = clients.iter().filter_map(settled).collect();
        if !come.is_empty() {
            self.renew(&come).await?;
        }
        Ok(())
    }

    /// Looks for entries of this node that no connection stands behind. Those that were there the last time too are
    /// wrong; one that is new may be of a connection that is just coming or going.
    async fn compare(&self, suspects: &mut HashSet<String>) -> Result<(), Unavailable> {
        let found = self.unknown().await?;
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
            match self.strategy {
                Inconsistency::AutoCorrect => self.forget(&wrong).await?,
                Inconsistency::FailFast => {
                    trouble = Some(format!(
                        "the registry has {} clients under this node that are not connected here, the first `{}`",
                        wrong.len(),
                        wrong[0]
                    ));
                }
            }
        }
        self.state.lock().unknown = trouble;
        Ok(())
    }

    /// Looks for streams that read as clients and belong to none, and for clients without a stream. Those that were found
    /// the last time too are not just coming or going: they are closed, or ended.
    pub(super) fn look_for_leaks(&self, suspects: &mut Loose) {
        let clients = self.local.entries().into_iter();
        let clients = clients.map(|(_, connection)| connection);
        let (_, streams) = self.hub.readers_of(EVERY_CLIENT, usize::MAX);
        let streams = streams.into_iter().map(|(connection, ..)| connection);
        let found = Loose {
            clients: clients.filter(|id| !self.hub.has(*id)).collect(),
            streams: streams.filter(|id| !self.local.owns(*id)).collect(),
        };
        let mut dead = 0;
        for connection in found.clients.intersection(&suspects.clients) {
            dead += usize::from(self.local.end(*connection));
        }
        let mut leaked = 0;
        for connection in found.streams.intersection(&suspects.streams) {
            leaked += usize::from(self.hub.close(*connection));
        }
        *suspects = found;
        if dead + leaked > 0 {
            tracing::error!(
                clients_without_stream = dead,
                streams_without_client = leaked,
                "leaks were found and cleared away"
            );
            self.state.lock().figures.leaks += (dead + leaked) as u64;
        }
    }
}
