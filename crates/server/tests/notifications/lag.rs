//! A node that has not read yet what the database has.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::door::{connected, data};
use crate::notify;
use crate::support::Hub;
use crate::support::netns::Namespace;

/// Before, what another node had just published came from the database, and once more from the log.
#[test]
fn who_resumes_at_a_node_that_lags_gets_nothing_twice() {
    let namespace = Namespace::with_lines(2);
    let (_redis, urls) = namespace.redis();
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("n.db").display());
    let database = ("TIDEWIRE_NOTIFICATIONS__DATABASE", database.as_str());
    // The logs of the nodes don't have this one.
    let first = notify(&Hub::spawn(&[], &[database]), "ann", "first")["id"].clone();
    let [lagging, other] = urls.map(|url| {
        let redis = [
            ("TIDEWIRE_BROKER__KIND", "redis"),
            ("TIDEWIRE_BROKER__URL", &url),
        ];
        Hub::spawn(&[], &[&redis[..], &[database]].concat())
    });
    namespace.cut(0);
    notify(&other, "ann", "second");
    let mut tab = thread::scope(|scope| {
        scope.spawn(|| {
            // Long enough for a node that does not wait.
            thread::sleep(Duration::from_millis(300));
            namespace.heal(0);
        });
        connected(&lagging, "ann", first.as_str())
    });
    assert_eq!(data(&mut tab)["title"], "second");
    notify(&other, "ann", "third");
    assert_eq!(data(&mut tab)["title"], json!("third"), "each once");
}
