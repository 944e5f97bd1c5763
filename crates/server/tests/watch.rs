//! `tidewire watch` against a hub that breaks connections, restarts, refuses and ends topics.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod scripted;

use std::time::{Duration, Instant};

use scripted::{Hub, Tidewire, wait_for};

#[test]
fn a_broken_connection_is_resumed_where_it_was_until_the_topic_ends() {
    let hub = Hub::start();
    let url = hub.url();
    let watch = Tidewire::run(&[
        "watch", "orders", "room:**", "--json", "--since", "5m", "--url", &url,
    ]);

    let first = hub.request();
    assert_eq!(
        first.line(),
        "GET /events?topic=orders&topic=room%3A**&fields=topic&checkpoint=on&since=5m"
    );
    assert_eq!(first.header("accept"), Some("text/event-stream"));
    assert_eq!(first.header("last-event-id"), None);
    let first = first.stream(
        ":\nretry: 100\n\nid: 1-0\n\nid: 1-1\ntopic: orders\nevent: made\ndata: a\ndata: b\n\n",
    );
    assert_eq!(
        watch.out(),
        r#"{"id":"1-1","topics":["orders"],"event":"made","data":"a\nb"}"#
    );
    drop(first);
    // This answer has no length, so its end is all the same a clean one.
    assert_eq!(
        watch.notice(),
        "the server ended the stream, reconnecting in 0.1s"
    );

    let second = hub.request();
    assert_eq!(
        second.line(),
        "GET /events?topic=orders&topic=room%3A**&fields=topic&checkpoint=on"
    );
    assert_eq!(second.header("last-event-id"), Some("1-1"));
    let second = second.stream("id: 1-2\ndata: c\n\n");
    let notice = watch.notice();
    assert!(
        notice.starts_with("connected, resumed after 0."),
        "{notice}"
    );
    assert_eq!(
        watch.out(),
        r#"{"id":"1-2","topics":[],"event":"message","data":"c"}"#
    );
    drop(second);

    let third = hub.request();
    assert_eq!(third.header("last-event-id"), Some("1-2"));
    third.answer("204 No Content", "", "");
    let (code, out, _) = watch.end();
    assert_eq!((code, out.as_str()), (0, ""));
}

#[test]
fn a_place_to_resume_from_is_there_before_the_first_event() {
    let hub = Hub::start();
    let watch = Tidewire::run(&[
        "watch",
        "--since",
        "0-7",
        "--url",
        &format!("{}/hub/", hub.url()),
    ]);
    let first = hub.request();
    assert_eq!(first.line(), "GET /hub/events?fields=topic&checkpoint=on");
    assert_eq!(first.header("last-event-id"), Some("0-7"));
    drop(first.stream("retry: 100\nid: 0-9\n\n"));
    let second = hub.request();
    assert_eq!(second.header("last-event-id"), Some("0-9"));
    second.answer("204 No Content", "", "");
    assert_eq!(watch.end().0, 0);
}

#[test]
fn the_wait_that_the_hub_asks_for_is_kept() {
    let hub = Hub::start();
    let _watch = Tidewire::run(&["watch", "a", "--url", &hub.url()]);
    let stream = hub.request().stream("retry: 700\ndata: a\n\n");
    drop(stream);
    let lost = Instant::now();
    hub.request();
    assert!(
        lost.elapsed() >= Duration::from_millis(600),
        "{:?}",
        lost.elapsed()
    );
}

#[test]
fn a_refusal_is_told_and_final() {
    let hub = Hub::start();
    let watch = Tidewire::run(&["watch", "a", "--url", &hub.url()]);
    hub.request().problem(
        "403 Forbidden",
        "not_allowed",
        "anonymous clients may not read a",
    );
    let (code, _, notices) = watch.end();
    let expected = format!(
        "error: {}/events?topic=a&fields=topic&checkpoint=on: 403 No (not_allowed): anonymous clients may not read a",
        hub.url()
    );
    assert_eq!((code, notices), (1, expected));
}

#[test]
fn a_hub_in_trouble_is_tried_again() {
    let hub = Hub::start();
    let watch = Tidewire::run(&["watch", "a", "--count", "1", "--json", "--url", &hub.url()]);
    hub.request()
        .problem("503 Service Unavailable", "not_ready", "draining");
    let notice = watch.notice();
    assert!(
        notice.starts_with(&format!("no connection to {}", hub.url()))
            && notice.contains(" (503 No (not_ready): draining), reconnecting in"),
        "{notice}"
    );
    let stream = hub.request().stream("data: a\n\n");
    assert_eq!(watch.end().0, 0);
    drop(stream);
}

#[test]
fn a_hub_that_is_not_there_yet_is_waited_for() {
    let address = Hub::start().address();
    let watch = Tidewire::run(&["watch", "a", "--count", "1", "--json", "--url", &address]);
    let notice = watch.notice();
    assert!(
        notice.starts_with("no connection to http://")
            && notice.contains("/events (Connection refused"),
        "{notice}"
    );
    let hub = Hub::start_at(&address);
    let stream = hub.request().stream("data: a\n\n");
    assert_eq!(
        watch.out(),
        r#"{"id":"","topics":[],"event":"message","data":"a"}"#
    );
    assert_eq!(watch.end().0, 0);
    drop(stream);
}

#[test]
fn a_connection_without_a_sign_of_life_is_given_up() {
    let hub = Hub::start();
    let watch = Tidewire::run(&["watch", "a", "--idle-timeout", "300ms", "--url", &hub.url()]);
    // Still open, but silent after a heartbeat.
    let silent = hub.request().stream("retry: 100\n\n:\n");
    let notice = watch.notice();
    assert_eq!(
        notice,
        "connection lost (nothing came for 0.3s), reconnecting in 0.1s"
    );
    hub.request().answer("204 No Content", "", "");
    assert_eq!(watch.end().0, 0);
    drop(silent);
}

#[test]
fn a_gap_is_a_warning_and_counts_as_no_event() {
    let hub = Hub::start();
    let watch = Tidewire::run(&["watch", "a", "--count", "2", "--url", &hub.url()]);
    let gap = "event: gap\ndata: {\"from\":\"1-1\",\"reason\":\"expired\"}\n\n";
    let stream = hub.request().stream(&format!(
        "topic: a\ndata: one\n\n{gap}topic: a\ndata: two\n\ndata: three\n\n"
    ));
    let (code, out, notices) = watch.end();
    assert_eq!(code, 0);
    assert_eq!(
        notices,
        "warning: gap: events after 1-1 were missed: they are no longer in the hub's history"
    );
    let out: Vec<&str> = out
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(out, ["a message one", "a message two"]);
    drop(stream);
}

#[test]
fn a_closed_standard_output_ends_it_quietly() {
    let hub = Hub::start();
    let mut watch = Tidewire::run_unread(&["watch", "a", "--url", &hub.url()]);
    let mut stream = hub.request().stream("");
    wait_for("the end", || {
        stream.send("data: a\n\n");
        watch.has_ended().then_some(())
    });
    let (code, _, notices) = watch.end();
    assert_eq!((code, notices.as_str()), (0, ""));
}

#[test]
fn several_streams_of_any_server_are_watched_at_once() {
    let (one, other) = (Hub::start(), Hub::start());
    let (url, other_url) = (format!("{}/a?x=1", one.url()), format!("{}/b", other.url()));
    let watch = Tidewire::run(&["watch", &url, &other_url, "--json"]);
    let from_one = one.request();
    assert_eq!(from_one.line(), "GET /a?x=1");
    let from_one = from_one.stream("data: 1\n\n");
    assert!(watch.out().contains(r#""data":"1""#));
    other
        .request()
        .answer("200 OK", "content-type: text/html\r\n", "<p>");
    assert_eq!(
        watch.notice(),
        format!("error: {other_url} is no event stream: its answer is text/html")
    );
    drop(from_one);
    one.request().answer("204 No Content", "", "");
    // One ended, one was refused.
    assert_eq!(watch.end().0, 1);
}

#[test]
fn the_hubs_token_goes_to_the_hub_only() {
    let (hub, other) = (Hub::start(), Hub::start());
    let args = [
        "watch",
        "a",
        &other.url(),
        "--token",
        "t",
        "--url",
        &hub.url(),
    ];
    let watch = Tidewire::run(&args);
    let (to_hub, to_other) = (hub.request(), other.request());
    assert_eq!(to_hub.header("authorization"), Some("Bearer t"));
    assert_eq!(to_other.header("authorization"), None);
    to_hub.answer("204 No Content", "", "");
    to_other.answer("204 No Content", "", "");
    assert_eq!(watch.end().0, 0);
}
