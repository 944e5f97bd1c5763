//! `examples/react`, as built, and `examples/browser`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Client, Hub, Kind};
use crate::{broadcast, hub};

/// Puts screenshots into this folder, for people to look at.
const SCREENSHOTS: &str = "TIDEWIRE_TEST_SCREENSHOTS";

fn open(hub: &Hub, folder: &str, query: &str) -> Client {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(folder);
    assert!(
        folder.join("index.html").exists(),
        "{} is missing: run `make setup`",
        folder.display()
    );
    let more = ["--folder", folder.to_str().unwrap(), "--query", query];
    Client::spawn_with(Kind::ExamplePage, &hub.url(""), &more)
}

/// Waits until the page looks so.
fn wait_for(page: &mut Client, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    page.wait_for(what, |line| line["kind"] == "view" && is_so(line))
}

fn wait_for_state(page: &mut Client, state: &str) {
    wait_for(page, state, |view| view["state"] == state);
}

/// No error, and nothing wider than the window, on a phone's and a desktop's.
fn assert_looks_right(page: &mut Client, name: &str) {
    let folder = std::env::var_os(SCREENSHOTS).map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    for (width, height, dark) in [(1_000, 720, false), (375, 800, true)] {
        let file = folder.join(format!("{name}-{width}.png"));
        page.tell(&json!({"screenshot": file, "width": width, "height": height, "dark": dark}));
        let shot = page.wait_for("a screenshot", |line| line["kind"] == "screenshot");
        assert_eq!(shot["overflows"], false, "{name} at {width} pixels");
    }
    assert_eq!(page.lines("error").next(), None);
}

#[test]
fn react_shows_the_last_ten_events_and_the_state() {
    let mut hub = hub();
    let mut page = open(&hub, "react/dist", "stream=shop");
    wait_for_state(&mut page, "connected");
    for n in 1..=12 {
        let data = json!({"order_id": format!("ORD-{n}"), "total": 12.5});
        broadcast(&hub, "shop", "order_created", &format!("Order {n}"), &data);
    }
    let newest_first: Vec<_> = (3..=12).rev().map(|n| format!("Order {n}")).collect();
    let view = wait_for(&mut page, "the last ten", |view| {
        view["rows"] == json!(newest_first)
    });
    assert_eq!(view["details"][0], "ORD-12");
    assert_looks_right(&mut page, "react");

    hub.stop();
    wait_for_state(&mut page, "disconnected");
    hub.restart();
    wait_for_state(&mut page, "connected");
    broadcast(&hub, "", "global", "Back again", &json!({}));
    wait_for(&mut page, "an event of the new hub", |view| {
        view["rows"][0] == "Back again"
    });

    // The component of the one stream goes, and its connection with it.
    page.tell(&json!({"click": "nav button:nth-child(2)"}));
    wait_for(&mut page, "the other stream", |view| {
        view["heading"] == "system" && view["state"] == "connected"
    });
    hub.wait_for_stats("one connection", |stats| stats["connections"] == 1);
    wait_for(&mut page, "a sample event", |view| {
        view["rows"].as_array().is_some_and(|rows| !rows.is_empty())
    });
    assert_eq!(page.lines("error").next(), None);
}

#[test]
fn five_tabs_show_the_same_notifications() {
    const TABS: usize = 5;
    let hub = hub();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/notifications");
    let more = [
        "--folder",
        folder.to_str().unwrap(),
        "--query",
        "user=bob",
        "--tabs",
        "5",
    ];
    let mut page = Client::spawn_with(Kind::ExamplePage, &hub.url(""), &more);
    let latest: RefCell<BTreeMap<u64, Value>> = RefCell::default();
    let all_show = |page: &mut Client, what: &str, is_so: &dyn Fn(&Value) -> bool| {
        page.wait_for(what, |line| {
            let mut latest = latest.borrow_mut();
            if let Some(tab) = line["tab"].as_u64() {
                latest.insert(tab, line.clone());
            }
            latest.len() == TABS && latest.values().all(is_so)
        });
    };
    all_show(&mut page, "all are connected", &|view| {
        view["state"] == "connected"
    });
    let played = std::process::Command::new(folder.join("play.sh"))
        .arg(hub.url(""))
        .output()
        .unwrap();
    assert!(played.status.success(), "{played:?}");
    let stories = [
        "Call the printer",
        "Mend the search box",
        "Write the release notes",
    ];
    let rows = json!(stories.map(|story| format!("Ann assigned you “{story}”")));
    let has_three = |list: &Value| list.as_array().is_some_and(|list| list.len() == 3);
    all_show(&mut page, "three unread, each with a toast", &|view| {
        view["badge"] == "3" && view["rows"] == rows && has_three(&view["toasts"])
    });
    assert_looks_right(&mut page, "notifications");
    page.tell(&json!({"click": "#list li:nth-child(2) button"}));
    all_show(&mut page, "one was read", &|view| view["badge"] == "2");
    page.tell(&json!({"click": "#read-all"}));
    all_show(&mut page, "all were read", &|view| view["badge"].is_null());
    assert_eq!(page.lines("error").next(), None);
}

#[test]
fn a_page_shows_metrics_and_toasts() {
    let hub = hub();
    let mut page = open(&hub, "browser", "");
    wait_for_state(&mut page, "connected");
    for load in [0.5, 1.0, 0.75] {
        let data = json!({"queue_percent": load * 100.0, "jobs_waiting": 7});
        broadcast(&hub, "system", "metric_update", "Figures", &data);
    }
    wait_for(&mut page, "metrics", |view| {
        view["metrics"]["queue_percent"] == "75 %" && view["metrics"]["jobs_waiting"] == "7"
    });
    let markup = "<img src=x onerror=alert(1)> & <b>all</b>";
    broadcast(&hub, "notifications", "notification", markup, &json!({}));
    wait_for(&mut page, "a toast, as it was written", |view| {
        has(&view["toasts"], markup)
    });
    broadcast(&hub, "", "maintenance", "To everyone", &json!({}));
    wait_for(&mut page, "what goes to all streams", |view| {
        has(&view["toasts"], "To everyone")
    });
    page.tell(&json!({"fill": "#notify input", "text": "From the page"}));
    page.tell(&json!({"click": "#notify button"}));
    wait_for(&mut page, "its own notification", |view| {
        has(&view["toasts"], "From the page")
    });
    assert_looks_right(&mut page, "browser");
}

fn has(texts: &Value, text: &str) -> bool {
    texts
        .as_array()
        .is_some_and(|texts| texts.contains(&json!(text)))
}

#[test]
fn pages_share_a_document_and_say_when_the_hub_is_away() {
    let mut hub = hub();
    let mut one = open(&hub, "browser", "");
    let mut two = open(&hub, "browser", "");
    wait_for_state(&mut one, "connected");
    wait_for_state(&mut two, "connected");
    one.tell(&json!({"fill": "#document", "text": "Dear all,"}));
    wait_for(&mut two, "the text", |view| view["document"] == "Dear all,");
    two.tell(&json!({"fill": "#document", "text": "Dear all,\nhello."}));
    wait_for(&mut one, "the change", |view| {
        view["document"] == "Dear all,\nhello."
    });
    let mut late = open(&hub, "browser", "");
    wait_for(&mut late, "the document as it is", |view| {
        view["document"] == "Dear all,\nhello."
    });

    hub.stop();
    wait_for_state(&mut one, "disconnected");
    one.tell(&json!({"fill": "#notify input", "text": "Hello?"}));
    one.tell(&json!({"click": "#notify button"}));
    wait_for(&mut one, "why it was not sent", |view| {
        view["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("Not sent: "))
    });
    hub.restart();
    wait_for_state(&mut one, "connected");
    one.tell(&json!({"click": "#notify button"}));
    wait_for(&mut one, "no error any more", |view| {
        view["error"].is_null() && has(&view["toasts"], "Hello?")
    });
    assert_eq!(one.lines("error").next(), None);
}
