//! The page at `/` in a real browser: what it shows, what it publishes, and that it comes back by itself.

mod support;

use serde_json::{Value, json};
use support::{Client, Hub, Kind};

/// Elements that the page makes rows of. Anything else came from an event.
const OWN_ELEMENTS: [&str; 4] = ["div", "pre", "span", "time"];

fn open(hub: &Hub, path: &str) -> Client {
    let mut page = Client::spawn(Kind::Page, &hub.url(path));
    page.wait_for_open();
    page
}

/// Publishes with the form, and returns the result and the event as they are shown. Either may come first.
fn publish(page: &mut Client, form: &Value) -> (Value, Value) {
    page.tell(form);
    let shown = |line: &Value| line["kind"] == "result" || line["kind"] == "event";
    let first = page.wait_for("a result or an event", shown);
    let second = page.wait_for("the other of the two", shown);
    if first["kind"] == "result" {
        (first, second)
    } else {
        (second, first)
    }
}

fn wait_for_state(page: &mut Client, state: &str) -> Value {
    page.wait_for(state, |line| {
        line["kind"] == "state" && line["state"] == state
    })
}

#[test]
fn an_event_appears_is_published_and_the_page_comes_back_after_a_restart() {
    let mut hub = Hub::spawn(&[], &[("TIDEWIRE_STREAM__RETRY", "200ms")]);
    let mut page = open(&hub, "/");

    // Numbers beyond what JavaScript can count are shown as they were published.
    let id = hub.publish("orders", &json!({"n": 12_345_678_901_234_567_890_u64}));
    let event = page.wait_for_event("tick");
    assert_eq!(event["topics"], json!(["orders"]));
    assert_eq!(event["id"], json!(id));
    assert_eq!(event["data"], json!("{ \"n\": 12345678901234567890 }"));

    let form = json!({"topic": "room:a/b", "event": "said", "data": "hello, all"});
    let (result, event) = publish(&mut page, &form);
    assert_eq!(result["good"], json!(true), "{result}");
    assert_eq!(
        (&event["topics"], &event["data"]),
        (&json!(["room:a/b"]), &json!("hello, all"))
    );
    assert!(
        result["text"]
            .as_str()
            .is_some_and(|text| text.contains(event["id"].as_str().unwrap_or("no id"))),
        "{result} {event}"
    );

    hub.restart();
    wait_for_state(&mut page, "lost");
    wait_for_state(&mut page, "live");
    // The new hub holds nothing of the old one's, so it can't tell what was missed.
    let notice = page.wait_for("a notice", |line| line["kind"] == "notice");
    assert!(
        notice["text"]
            .as_str()
            .is_some_and(|text| text.contains("Events may be missing")),
        "{notice}"
    );
    hub.publish("orders", &json!("back"));
    assert_eq!(page.wait_for_event("tick")["data"], json!("back"));
    assert_eq!(
        page.events().count(),
        3,
        "each event is shown once: {:?}",
        page.events().collect::<Vec<_>>()
    );

    let layouts: Vec<_> = page.lines("layout").collect();
    assert_eq!(layouts.len(), 2, "a phone's width and a desktop's");
    for layout in layouts {
        assert_eq!(layout["overflows"], json!(false), "{layout}");
        assert_eq!(layout["figures"], json!(true), "{layout}");
    }
    assert_eq!(page.lines("error").next(), None);
}

#[test]
fn markup_is_shown_as_it_is_written() {
    let hub = Hub::spawn(&[], &[]);
    let mut page = open(&hub, "/");
    let markup = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.body.remove()\"> &amp; <b>bold</b>";
    for data in [
        markup.to_owned(),
        json!({ markup: [markup, 1] }).to_string(),
    ] {
        let form = json!({"topic": markup, "event": markup, "data": data});
        let (result, event) = publish(&mut page, &form);
        assert_eq!(result["good"], json!(true), "{result}");
        assert_eq!(
            (&event["topics"], &event["event"]),
            (&json!([markup]), &json!(markup))
        );
        let shown = event["data"].as_str().expect("data is text");
        match serde_json::from_str::<Value>(shown) {
            Ok(shown) => assert_eq!(shown, json!({ markup: [markup, 1] })),
            Err(_) => assert_eq!(shown, markup),
        }
        for element in event["elements"].as_array().expect("a list") {
            assert!(
                OWN_ELEMENTS.contains(&element.as_str().unwrap_or_default()),
                "{event}"
            );
        }
    }
    assert_eq!(page.lines("error").next(), None);
}

#[test]
fn a_page_without_rights_says_so() {
    let readers = [("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "news")];
    let hub = Hub::spawn(&[], &readers);

    let mut page = open(&hub, "/?topic=news");
    for layout in page.lines("layout") {
        assert_eq!(
            layout["figures"],
            json!(false),
            "not for everyone: {layout}"
        );
    }
    page.tell(&json!({"topic": "news", "data": "1"}));
    let result = page.wait_for("a result", |line| line["kind"] == "result");
    assert_eq!(result["good"], json!(false));
    assert_eq!(result["text"], json!("no right to publish to any topic"));

    let page = open(&hub, "/?topic=secrets");
    let state = page.lines("state").last();
    let text = state.map(|state| (&state["state"], &state["text"]));
    let refused = json!("no right to subscribe to `secrets`");
    assert_eq!(text, Some((&json!("over"), &refused)));
}

/// A key, and what the configuration has of it.
const KEY: &str = "tw_0123456789abcdef";
const KEY_LINES: &str = "
[[auth.keys]]
name = 'page'
hash = 'sha256:29b454dbd2213a5cf9a72b9134b0b8dc7cb29bf4c2d4d91c2dfa49f35aa7ae39'
subscribe = ['secrets']
publish = ['secrets']
";

#[test]
fn where_a_token_is_needed_the_page_asks_for_it_and_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidewire.toml");
    std::fs::write(&file, KEY_LINES).unwrap();
    let hub = Hub::spawn(&["--config", file.to_str().unwrap()], &[]);

    let mut page = open(&hub, "/?topic=secrets");
    let state = page.lines("state").last().map(|state| &state["state"]);
    assert_eq!(state, Some(&json!("over")), "without a token");
    page.tell(&json!({ "token": format!(" {KEY} ") }));
    wait_for_state(&mut page, "live");
    let (result, event) = publish(&mut page, &json!({"topic": "secrets", "data": "mine"}));
    assert_eq!(result["good"], json!(true), "{result}");
    assert_eq!(event["data"], json!("mine"));
    page.tell(&json!({ "token": format!("{KEY}0") }));
    wait_for_state(&mut page, "over");
    assert_eq!(page.lines("error").next(), None);
}
