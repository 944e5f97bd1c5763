//! What an embedder sees of a cluster that is one hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::to_bytes;
use tidewire_core::event::Event;
use tidewire_core::pattern::Pattern;
use tokio::sync::Notify;

use super::upkeep::Loose;
use super::{
    Answer, Cluster, ClusterOptions, ClusterSetupError, Entry, MemoryRegistry, NodeInfo, Place,
    Registry, Renewed,
};
use crate::connections::ConnectionId;
use crate::hub::Hub;

#[tokio::test]
async fn a_body_has_all_that_was_sent_before_its_farewell() {
    const EVENTS: usize = 40;
    let hub = Hub::builder().build();
    let cluster = Cluster::alone(&hub, &ClusterOptions::new("here")).unwrap();
    let request = http::Request::get("/").body(()).unwrap();
    let response = cluster.connect("c", &request).await.unwrap();
    let data = "x".repeat(20_000);
    for _ in 0..EVENTS {
        let event = Event::text(data.clone());
        assert_eq!(cluster.send("c", event).await.unwrap(), "here");
    }
    cluster.close("c").await.unwrap();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!(text.matches(&format!("data: {data}\n")).count(), EVENTS);
    assert!(text.contains("event: closed\n"));
}

#[tokio::test]
async fn a_hub_is_freed_with_its_last_handle() {
    for patterns in [Vec::new(), vec![Pattern::new("room:*").unwrap()]] {
        let hub = Hub::builder().build();
        let shared = Arc::downgrade(&hub.shared);
        let options = ClusterOptions {
            presence_events: patterns,
            ..ClusterOptions::new("here")
        };
        let cluster = Cluster::alone(&hub, &options).unwrap();
        drop((hub, cluster));
        let freed = async {
            while shared.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), freed)
            .await
            .expect("nobody holds it any more");
    }
}

#[tokio::test]
async fn what_can_be_no_node_is_an_error() {
    let hub = Hub::builder().build();
    for name in ["", "my node", &"x".repeat(129)] {
        let refused = Cluster::alone(&hub, &ClusterOptions::new(name)).err();
        assert_eq!(refused, Some(ClusterSetupError::BadNode(name.to_owned())));
    }
    let _first = Cluster::alone(&hub, &ClusterOptions::new("here")).unwrap();
    let second = Cluster::alone(&hub, &ClusterOptions::new("here")).err();
    assert_eq!(second, Some(ClusterSetupError::IsNode));
}

/// A registry in memory at which the test holds calls up.
struct Held {
    registry: MemoryRegistry,
    /// A call has come that waits, and may go on.
    has_come: Notify,
    may_go: Notify,
    /// Which of the calls wait.
    beats: AtomicBool,
    /// Heartbeats so far.
    beaten: AtomicUsize,
    forgets: AtomicBool,
    registers: AtomicBool,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            registry: MemoryRegistry::new(Duration::from_mins(10)),
            has_come: Notify::new(),
            may_go: Notify::new(),
            beats: AtomicBool::new(false),
            beaten: AtomicUsize::new(0),
            forgets: AtomicBool::new(false),
            registers: AtomicBool::new(false),
        })
    }

    async fn wait_if(&self, held: &AtomicBool) {
        if held.load(Ordering::Acquire) {
            self.has_come.notify_one();
            self.may_go.notified().await;
        }
    }
}

impl Registry for Held {
    fn register<'a>(&'a self, client: &'a str, place: &'a Place) -> Answer<'a, Option<Place>> {
        Box::pin(async move {
            self.wait_if(&self.registers).await;
            self.registry.register(client, place).await
        })
    }
    fn unregister<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, ()> {
        self.registry.unregister(node, entries)
    }
    fn renew<'a>(&'a self, node: &'a str, entries: &'a [Entry]) -> Answer<'a, Renewed> {
        self.registry.renew(node, entries)
    }
    fn find<'a>(&'a self, client: &'a str) -> Answer<'a, Option<Place>> {
        self.registry.find(client)
    }
    fn count(&self) -> Answer<'_, usize> {
        self.registry.count()
    }
    fn beat<'a>(&'a self, info: &'a NodeInfo) -> Answer<'a, Option<NodeInfo>> {
        Box::pin(async move {
            self.beaten.fetch_add(1, Ordering::AcqRel);
            self.wait_if(&self.beats).await;
            self.registry.beat(info).await
        })
    }
    fn leave<'a>(&'a self, node: &'a str) -> Answer<'a, ()> {
        self.registry.leave(node)
    }
    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        self.registry.nodes()
    }
    fn sweep(&self) -> Answer<'_, usize> {
        self.registry.sweep()
    }
    fn entries<'a>(&'a self, node: &'a str, cursor: u64) -> Answer<'a, (Vec<String>, u64)> {
        self.registry.entries(node, cursor)
    }
    fn forget<'a>(&'a self, node: &'a str, clients: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.wait_if(&self.forgets).await;
            self.registry.forget(node, clients).await
        })
    }
}

#[tokio::test]
async fn a_heartbeat_under_way_does_not_bring_a_node_back_that_has_left() {
    let hub = Hub::builder().build();
    let held = Held::new();
    held.beats.store(true, Ordering::Release);
    let cluster = Cluster::with_registry(&hub, held.clone(), &ClusterOptions::new("here")).unwrap();
    held.has_come.notified().await;
    let leaving = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.leave().await }
    });
    // Long enough for a departure that waits for nobody.
    tokio::time::sleep(Duration::from_millis(50)).await;
    held.may_go.notify_one();
    leaving.await.unwrap();
    // Nothing is under way any more.
    drop(cluster.inner.upkeep.lock().await);
    assert!(cluster.nodes().await.unwrap().is_empty());
}

/// Also where what else is due comes between.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_every_third_of_the_time_to_live() {
    let hub = Hub::builder().build();
    let held = Held::new();
    let mut options = ClusterOptions::new("here");
    options.upkeep.ttl = Duration::from_secs(3);
    options.upkeep.check_every = Some(Duration::from_millis(700));
    let cluster = Cluster::with_registry(&hub, held.clone(), &options).unwrap();
    for beats in 1..=20 {
        tokio::time::sleep(Duration::from_millis(990)).await;
        assert_eq!(held.beaten.load(Ordering::Acquire), beats);
        tokio::time::sleep(Duration::from_millis(10)).await;
        // Somebody comes or goes.
        cluster.inner.local.left.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_comes_while_its_old_entry_is_forgotten_keeps_its_own() {
    let hub = Hub::builder().build();
    let held = Held::new();
    held.forgets.store(true, Ordering::Release);
    let place = |connection| Place {
        node: "here".to_owned(),
        connection,
    };
    // Of a life before.
    let old = place(ConnectionId::now_v7());
    held.registry.register("c", &old).await.unwrap();
    let mut options = ClusterOptions::new("here");
    // The next heartbeat is minutes away.
    options.upkeep.ttl = Duration::from_mins(10);
    let cluster = Cluster::with_registry(&hub, held.clone(), &options).unwrap();
    held.has_come.notified().await;
    let request = http::Request::get("/").body(()).unwrap();
    let _response = cluster.connect("c", &request).await.unwrap();
    let connection = cluster.inner.local.find("c").unwrap();
    held.may_go.notify_one();
    let registered = async {
        while held.registry.find("c").await.unwrap() != Some(place(connection)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // It is there before it is forgotten, and has to be afterwards.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::timeout(Duration::from_secs(20), registered)
        .await
        .expect("it is registered again");
}

/// Before, the heartbeat closed it, and its registration then took over from the newer one.
#[tokio::test]
async fn a_client_that_connects_elsewhere_while_it_is_being_registered_keeps_one_connection() {
    let hub = Hub::builder().build();
    let held = Held::new();
    let cluster = Cluster::with_registry(&hub, held.clone(), &ClusterOptions::new("here")).unwrap();
    held.registers.store(true, Ordering::Release);
    let connecting = tokio::spawn({
        let cluster = cluster.clone();
        let request = http::Request::get("/").body(()).unwrap();
        async move { cluster.connect("c", &request).await }
    });
    held.has_come.notified().await;
    let info = NodeInfo {
        node: "there".to_owned(),
        ..NodeInfo::default()
    };
    held.registry.beat(&info).await.unwrap();
    let newer = Place {
        node: info.node,
        connection: ConnectionId::now_v7(),
    };
    held.registry.register("c", &newer).await.unwrap();
    {
        let _turn = cluster.inner.upkeep.lock().await;
        assert!(cluster.inner.beat().await);
    }
    held.may_go.notify_one();
    let _response = connecting.await.unwrap().unwrap();
    assert_eq!(cluster.figures().replaced, 0);
    let place = held.registry.find("c").await.unwrap().unwrap();
    assert_eq!(place.node, "here");
    assert!(hub.has(place.connection));
}

/// Before, a client whose stream was just ending was reported as a leak.
#[tokio::test]
async fn a_client_that_is_just_coming_or_going_is_no_leak() {
    let hub = Hub::builder().build();
    let cluster = Cluster::alone(&hub, &ClusterOptions::new("here")).unwrap();
    let (inner, mut suspects) = (&cluster.inner, Loose::default());
    inner.local.put("going", ConnectionId::now_v7(), None);
    inner.look_for_leaks(&mut suspects);
    let figures = cluster.figures();
    assert_eq!((figures.leaks, figures.clients), (0, 1));
    // It has gone by now; another one stays.
    let going = inner.local.find("going").unwrap();
    inner.local.end(going);
    inner.local.put("left", ConnectionId::now_v7(), None);
    for leaks in [0, 1, 1] {
        inner.look_for_leaks(&mut suspects);
        assert_eq!(cluster.figures().leaks, leaks);
    }
    assert_eq!(cluster.connection_count(), 0);
}
