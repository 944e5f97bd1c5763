//! Floods of HTTP/2 frames: each costs its sender more than the hub, which goes on serving and grows by no memory to
//! speak of.

use std::io::{Read, Write};
use std::time::Duration;

use serde_json::Value;

use super::Files;
use super::abuse::{Connection, connect, read_to_end};
use crate::support::{Hub, process};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames (RFC 9113 section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// What a hub under a flood may grow by.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of `GET https://localhost/events?topic=a` in HPACK, without its dynamic table.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x87]; // :method GET, :scheme https
    for (name, value) in [(4, "/events?topic=a"), (1, "localhost")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

pub(crate) fn subscribe(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM_AND_HEADERS, stream, &head())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn preface() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The beginning of a connection that takes as much as there can be, on each stream and in all.
pub(crate) fn preface_with_windows() -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
    const WINDOW_BYTES_AT_START: u32 = 65_535;
    let setting = [
        &INITIAL_WINDOW_SIZE.to_be_bytes()[..],
        &WINDOW_BYTES_MAX.to_be_bytes(),
    ]
    .concat();
    let more = WINDOW_BYTES_MAX - WINDOW_BYTES_AT_START;
    let window = frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    [PREFACE, &frame(SETTINGS, 0, 0, &setting), &window].concat()
}

/// A hub, and what it used before anyone attacked it.
fn hub(files: &Files) -> (Hub, u64) {
    let hub = files.hub(&[]);
    files.get(&hub, "/readyz", &["-f"]);
    let before = process::memory_bytes(hub.pid());
    (hub, before)
}

/// The hub serves others, no stream is left, and little memory was taken.
fn assert_unharmed(files: &Files, hub: &Hub, before: u64) {
    let stats = stats_when_idle(files, hub);
    let closes = stats["closes"].as_object().unwrap();
    let others: Vec<_> = closes
        .iter()
        .filter(|(reason, n)| *reason != "client_gone" && **n != 0)
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let grown = process::memory_bytes(hub.pid()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
}

fn stats_when_idle(files: &Files, hub: &Hub) -> Value {
    let mut stats = Value::Null;
    crate::support::until("no stream is left", || {
        stats = serde_json::from_str(&files.get(hub, "/api/v1/stats", &["-f"])).unwrap();
        stats["connections"] == 0
    });
    stats
}

/// CVE-2023-44487.
#[test]
fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let files = Files::new();
    let (hub, before) = hub(&files);
    let mut stream = connect(&files, &hub, b"h2");
    let mut bytes = preface();
    for n in 0..10_000 {
        bytes.extend(subscribe(2 * n + 1));
        bytes.extend(reset(2 * n + 1));
    }
    // The hub hangs up before all are sent, or else the end would be waited for in vain.
    let _ = stream.write_all(&bytes);
    read_to_end(&mut stream);
    assert_unharmed(&files, &hub, before);
}

#[test]
fn streams_that_are_reset_once_they_are_answered_are_each_counted() {
    const ROUNDS: u32 = 10;
    const STREAMS: u32 = 100;
    let files = Files::new();
    let (hub, before) = hub(&files);
    let mut stream = connect(&files, &hub, b"h2");
    stream.write_all(&preface()).unwrap();
    for round in 0..ROUNDS {
        let ids = || (0..STREAMS).map(|n| 2 * (round * STREAMS + n) + 1);
        stream
            .write_all(&ids().flat_map(subscribe).collect::<Vec<_>>())
            .unwrap();
        let mut answered = 0;
        while answered < STREAMS {
            let (kind, _) = read_frame(&mut stream);
            assert_ne!(kind, GOAWAY, "after {answered} answers of round {round}");
            answered += u32::from(kind == HEADERS);
        }
        stream
            .write_all(&ids().flat_map(reset).collect::<Vec<_>>())
            .unwrap();
    }
    let stats = stats_when_idle(&files, &hub);
    assert_eq!(stats["closes"]["client_gone"], ROUNDS * STREAMS, "{stats}");
    assert_unharmed(&files, &hub, before);
}

/// The kind and the payload of the next frame.
pub(crate) fn read_frame(stream: &mut Connection) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).unwrap();
    (head[3], payload)
}

#[test]
fn a_head_that_never_ends_ends_its_connection() {
    let files = Files::new();
    let (hub, before) = hub(&files);
    // Of fields with a new name each, and of nothing.
    let field = [&[0, 1, b'x', 127, 0][..], &[b'y'; 127]].concat();
    for block in [field.repeat(8), Vec::new()] {
        let mut stream = connect(&files, &hub, b"h2");
        let mut bytes = preface();
        bytes.extend(frame(HEADERS, END_STREAM, 1, &head()));
        bytes.extend(frame(CONTINUATION, 0, 1, &block).repeat(50_000));
        let _ = stream.write_all(&bytes);
        read_to_end(&mut stream);
    }
    assert_unharmed(&files, &hub, before);
}

#[test]
fn frames_that_ask_for_an_answer_which_nobody_reads_fill_no_memory() {
    let files = Files::new();
    let (hub, before) = hub(&files);
    for question in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[0; 8])] {
        let mut stream = connect(&files, &hub, b"h2");
        let mut bytes = preface();
        bytes.extend(question.repeat(1_000_000));
        stream
            .sock
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        // The hub stops to read at some point.
        let _ = stream.write_all(&bytes);
        assert_unharmed(&files, &hub, before);
    }
}

#[test]
fn answers_that_nobody_asked_for_and_windows_that_open_by_a_byte_are_nothing() {
    let files = Files::new();
    let (hub, before) = hub(&files);
    let mut stream = connect(&files, &hub, b"h2");
    let mut bytes = preface();
    bytes.extend(frame(PING, ACK, 0, &[0; 8]).repeat(100_000));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(100_000));
    bytes.extend(subscribe(1));
    stream.write_all(&bytes).unwrap();
    while read_frame(&mut stream).0 != HEADERS {}
    drop(stream);
    assert_unharmed(&files, &hub, before);
}
