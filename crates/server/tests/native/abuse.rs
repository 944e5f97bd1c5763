//! Clients that are broken, slow or hostile: each is told what is wrong, and no other notices.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Hub, WAIT_MAX, http};
use crate::{events_held, problem};

#[test]
fn what_is_no_http_gets_an_answer_that_says_so() {
    let hub = Hub::spawn(&[], &[]);
    let huge = format!(
        "GET /events HTTP/1.1\r\nHost: localhost\r\nX-Huge: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let many = format!(
        "GET /events HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-Many: x\r\n".repeat(200)
    );
    let topics = format!(
        "GET /events?topics={} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        names(10_000)
    );
    let cases: [(&[u8], u16, &str); 16] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n", 400, "bad_head"),
        (b"hello\r\n\r\n", 400, "bad_head"),
        (b"\0\0\0\0\r\n\r\n", 400, "bad_head"),
        (b"GET /events\r\n\r\n", 400, "bad_head"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400, "bad_head"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n", 400, "bad_head"),
        (b"GET /ev ents HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_head"),
        (b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400, "bad_head"),
        (b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "bad_head"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_head"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_head"),
        (b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, "bad_head"),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_head"),
        (huge.as_bytes(), 431, "head_too_large"),
        (many.as_bytes(), 431, "head_too_large"),
        (topics.as_bytes(), 431, "head_too_large"),
    ];
    for (bytes, status, code) in cases {
        problem(&hub.exchange(bytes), status, code);
    }
    for host in ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: [::1]:80\r\n"] {
        let request = format!("GET /healthz {host}Connection: close\r\n\r\n");
        assert_eq!(hub.exchange(request.as_bytes()).status, 200, "{host}");
    }
    let mut stream = hub.stream("/events?topic=a");
    hub.publish("a", &json!("alive"));
    assert_eq!(stream.event().data, "alive");
}

/// So many topics, as a list.
fn names(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|n| format!("topic-{n}")).collect();
    names.join(",")
}

#[test]
fn too_many_topics_are_refused_with_a_reason_however_large_heads_may_be() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__HEAD_BYTES_MAX", "1MiB")]);
    for (count, status, code) in [
        (4_000, 422, "too_many_topics"),
        (10_000, 414, "uri_too_long"),
    ] {
        let answer = hub.get(&format!("/events?topics={}", names(count)));
        let document = problem(&answer, status, code);
        assert!(
            document["detail"].as_str().unwrap().contains("pattern"),
            "{document}"
        );
    }
}

#[test]
fn bodies_that_are_no_bodies_store_nothing() {
    let hub = Hub::spawn(&[], &[]);
    let head = "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let bad = format!("{head}Transfer-Encoding: chunked\r\n\r\nnot hex\r\nx\r\n0\r\n\r\n");
    let answer = hub.exchange(bad.as_bytes());
    problem(&answer, 400, "bad_body");
    for cut in [
        "Content-Length: 10\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let mut socket = http::connect(hub.port()).unwrap();
        socket.write_all(format!("{head}{cut}").as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        // Who hangs up in the middle need not be answered; what counts is below.
        let _ = http::read_answer(socket);
    }
    assert_eq!(events_held(&hub), 0);
}

#[test]
fn slow_heads_and_bodies_are_ended_and_others_served() {
    let limits = [
        ("TIDEWIRE_LIMITS__HEAD_TIMEOUT", "1s"),
        ("TIDEWIRE_LIMITS__BODY_TIMEOUT", "1s"),
    ];
    let hub = Hub::spawn(&[], &limits);
    let mut stream = hub.stream("/events?topic=a");
    let port = hub.port();
    let body = "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\nslow";
    let lines = "POST /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\
                 Content-Length: 100\r\n\r\n{\"topic\":\"b\",\"data\":1}\n{\"topic\":";
    let cases = [
        ("", "head_timeout"),
        ("P", "head_timeout"),
        ("PRI * HT", "head_timeout"),
        ("GET /events HTTP/1.1\r\nHost: local", "head_timeout"),
        (body, "body_timeout"),
        (lines, "body_timeout"),
    ];
    thread::scope(|scope| {
        let slow: Vec<_> = cases
            .iter()
            .map(|(text, code)| {
                scope.spawn(move || {
                    let mut socket = http::connect(port).unwrap();
                    socket.write_all(text.as_bytes()).unwrap();
                    let started = Instant::now();
                    let answer =
                        http::read_answer(socket).unwrap_or_else(|error| panic!("{text}: {error}"));
                    (answer, code, started.elapsed())
                })
            })
            .collect();
        // A byte now and then is a slow head too.
        let dripping = scope.spawn(move || {
            let mut socket = http::connect(port).unwrap();
            let deadline = Instant::now() + WAIT_MAX;
            while socket.write_all(b"X").is_ok() {
                assert!(Instant::now() < deadline, "a head may drip for ever");
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _flood: Vec<_> = (0..200).map(|_| http::connect(port).unwrap()).collect();
        for n in 0..20 {
            let started = Instant::now();
            hub.publish("a", &json!(n));
            assert_eq!(stream.event().data, n.to_string());
            assert!(
                started.elapsed() < Duration::from_secs(1),
                "others wait for slow clients"
            );
        }
        for slow in slow {
            let (answer, code, elapsed) = slow.join().unwrap();
            problem(&answer, 408, code);
            assert!(
                elapsed >= Duration::from_millis(900),
                "{code} after {elapsed:?}"
            );
        }
        dripping.join().unwrap();
    });
    assert_eq!(
        crate::history(&hub, "b"),
        ["1"],
        "a whole line before the silence is kept"
    );
    assert_eq!(crate::history(&hub, "a").len(), 20);
}

#[test]
fn a_slow_sender_of_too_much_still_gets_its_answer() {
    let hub = Hub::spawn(&[], &[]);
    let mut socket = http::connect(hub.port()).unwrap();
    let length = (100 * 1024 * 1024).to_string();
    let head = http::head(
        hub.port(),
        "POST",
        "/events?topic=a",
        &[("Content-Length", &length)],
    );
    socket.write_all(&[&head, &b"\r\n"[..]].concat()).unwrap();
    // For longer than a hurried server would listen.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        socket.write_all(&[b'x'; 16 * 1024]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    socket.shutdown(Shutdown::Write).unwrap();
    problem(&http::read_answer(socket).unwrap(), 413, "body_too_large");
}

#[test]
fn a_client_that_reads_nothing_delays_nobody() {
    let hub = Hub::spawn(&[], &[("TIDEWIRE_LIMITS__STALL_TIMEOUT", "1s")]);
    let _stalled = hub.stream("/events?topic=a");
    let mut reading = hub.stream("/events?topic=a");
    let data = "x".repeat(500_000);
    for _ in 0..40 {
        let answer = hub.send("POST", "/events?topic=a", &[], data.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(reading.event().data.len(), data.len());
    }
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let stats = hub.get("/api/v1/stats").json();
        if stats["closes"]["stalled"] == 1 {
            assert_eq!(stats["connections"], 1);
            break;
        }
        assert!(Instant::now() < deadline, "{stats}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn large_bodies_that_never_end_keep_out_other_large_ones_only() {
    let limits = [
        ("TIDEWIRE_LIMITS__BODY_BYTES_MAX", "2MiB"),
        ("TIDEWIRE_LIMITS__BODIES_BYTES_MAX", "4MiB"),
    ];
    let hub = Hub::spawn(&[], &limits);
    // Too large for an event. There is room for two of these.
    let large = vec![b'x'; 3 * 1024 * 1024 / 2];
    let begin = |kind| {
        let headers = [("Content-Length", "2000000"), ("Content-Type", kind)];
        let head = http::head(hub.port(), "POST", "/events?topic=a", &headers);
        let mut socket = http::connect(hub.port()).unwrap();
        socket
            .write_all(&[&head, &b"\r\n"[..], &large].concat())
            .unwrap();
        socket
    };
    let wait_for = |status, code| {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let answer = hub.send("POST", "/events?topic=a", &[], &large);
            if answer.status == status {
                problem(&answer, status, code);
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(413, "event_too_large");
    let kinds = ["text/plain", "application/x-ndjson"];
    let mut held = kinds.map(begin);
    let deadline = Instant::now() + WAIT_MAX;
    let refused = loop {
        let answer = hub.send("POST", "/events?topic=a", &[], &large);
        if answer.status == 503 {
            break answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        // While they come in, it may be one of these that there is no room for.
        for (socket, kind) in held.iter_mut().zip(kinds) {
            socket.set_nonblocking(true).unwrap();
            if socket.peek(&mut [0]).is_ok() {
                *socket = begin(kind);
            }
        }
        thread::sleep(Duration::from_millis(20));
    };
    problem(&refused, 503, "bodies_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    hub.publish("a", &json!("small"));
    drop(held);
    wait_for(413, "event_too_large");
    assert_eq!(events_held(&hub), 1);
}
