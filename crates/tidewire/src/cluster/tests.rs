//! What an embedder sees of a cluster that is one hub.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use tidewire_core::event::Event;
use tidewire_core::pattern::Pattern;

use super::{Cluster, ClusterOptions, ClusterSetupError};
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
