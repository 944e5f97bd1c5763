//! The generator sees what a server does wrong: a scripted server loses, doubles and reorders events, and ends streams.

#![allow(clippy::unwrap_used)] // also in what stands beside the tests

use std::io::{Read, Write};
use std::iter::repeat_n;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;

use tidewire_bench::ledger::Faults;
use tidewire_bench::load::{Group, Load};
use tidewire_bench::server::{Endpoint, Kind};

const READERS: usize = 2;
const EVENTS: usize = 4;

/// What the second reader gets once all events were published: their indexes, or the end of the stream.
type Script = &'static [Step];

#[derive(Clone, Copy)]
enum Step {
    Event(usize),
    End,
}

/// What was published, and the streams.
#[derive(Default)]
struct State {
    events: Vec<String>,
    streams: Vec<TcpStream>,
}

fn serve(script: Script) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        unreachable!("an IPv4 address was bound");
    };
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let state = state.clone();
            thread::spawn(move || talk(stream.unwrap(), &state, script));
        }
    });
    address
}

fn talk(mut stream: TcpStream, state: &Mutex<State>, script: Script) {
    let mut buffer = [0; 4_096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        let request = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        let mut state = state.lock().unwrap();
        if request.starts_with("GET ") {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            state.streams.push(stream.try_clone().unwrap());
            continue;
        }
        let (_, data) = request.split_once("\r\n\r\n").unwrap();
        state.events.push(data.to_owned());
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
        if state.events.len() == EVENTS {
            let right: Vec<Step> = (0..EVENTS).map(Step::Event).collect();
            play(&state, 0, &right);
            play(&state, 1, script);
        }
    }
}

fn play(state: &State, reader: usize, steps: &[Step]) {
    let mut stream = &state.streams[reader];
    for step in steps {
        let chunk = match step {
            Step::Event(index) => {
                let event = format!("data: {}\n\n", state.events[*index]);
                format!("{:x}\r\n{event}\r\n", event.len())
            }
            Step::End => "0\r\n\r\n".to_owned(),
        };
        stream.write_all(chunk.as_bytes()).unwrap();
    }
}

/// What the generator says of a server that plays a script.
fn faults_of(script: Script) -> (Faults, usize) {
    let endpoint = Endpoint::new(Kind::Floor, serve(script), std::process::id());
    let mut load = Load::new(&endpoint, 1).unwrap();
    let group = Group {
        topics: vec![0],
        request: Rc::from(endpoint.subscribe_request(&[0], None)),
        seen: 0,
        stops: false,
    };
    // Streams are in the order in which they came, so one at a time.
    load.open(repeat_n(group, READERS), 1).unwrap();
    load.patience = std::time::Duration::from_millis(300);
    load.publish_all(repeat_n(0, EVENTS)).unwrap();
    load.finish().unwrap();
    // A double counts as a delivery, so there may be more to come; as in a real run.
    load.rest(load.patience).unwrap();
    (load.ledger().faults(), load.gone())
}

use Step::{End, Event};

#[test]
fn a_server_that_does_all_right_has_no_faults() {
    let right = faults_of(&[Event(0), Event(1), Event(2), Event(3)]);
    assert_eq!(right, (Faults::default(), 0));
}

#[test]
fn a_lost_event_is_seen() {
    let lost = Faults {
        lost: 1,
        ..Faults::default()
    };
    assert_eq!(faults_of(&[Event(0), Event(2), Event(3)]), (lost, 0));
    assert_eq!(faults_of(&[Event(0), Event(1), Event(2)]), (lost, 0));
}

#[test]
fn a_doubled_event_is_seen() {
    let doubled = Faults {
        doubled: 1,
        ..Faults::default()
    };
    let steps = &[Event(0), Event(1), Event(2), Event(3), Event(3)];
    assert_eq!(faults_of(steps), (doubled, 0));
    let steps = &[Event(0), Event(1), Event(1), Event(2), Event(3)];
    assert_eq!(faults_of(steps), (doubled, 0));
}

#[test]
fn a_reordered_event_is_seen() {
    let reordered = Faults {
        reordered: 1,
        ..Faults::default()
    };
    let steps = &[Event(0), Event(2), Event(1), Event(3)];
    assert_eq!(faults_of(steps), (reordered, 0));
}

#[test]
fn a_stream_that_ends_is_seen() {
    let lost = Faults {
        lost: 2,
        ..Faults::default()
    };
    assert_eq!(faults_of(&[Event(0), Event(1), End]), (lost, 1));
}
