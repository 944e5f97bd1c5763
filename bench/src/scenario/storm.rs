//! All clients connect at once: with a position 100 events back, or without one for what connecting alone costs.

use std::io::Write;
use std::iter::repeat_n;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use super::{Meter, Outcome, Size, latencies, memory, outcome};
use crate::load::{Group, Load};
use crate::server::{Kind, Server, Tuning};

/// The stream that learns the position may be answered a little before it is taken in.
const SETTLE: Duration = Duration::from_millis(200);

/// `size.events` is how far behind the clients are.
pub(super) fn storm(kind: Kind, size: Size, resume: bool) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    server.create_topics([0])?;
    let mut load = Load::new(&server, 1)?;
    let position = if kind.resumes() {
        let mut stream = TcpStream::connect(server.address())?;
        stream.write_all(&server.subscribe_request(&[0], None))?;
        load.rest(SETTLE)?;
        load.publish_all(repeat_n(0, 1))?;
        load.finish()?;
        load.ledger().settle(0);
        Some(server.position_after(&mut stream, 0)?)
    } else {
        None
    };
    load.publish_all(repeat_n(0, size.events))?;
    load.finish()?;
    let position = position.filter(|_| resume);
    let group = Group {
        // Who asks for nothing that was gets nothing: no topic, so that any delivery is a fault.
        topics: if resume { vec![0] } else { Vec::new() },
        request: Rc::from(server.subscribe_request(&[0], position.as_deref())),
        seen: 1,
        stops: false,
    };
    let meter = Meter::start(&server)?;
    load.open(repeat_n(group, size.connections), usize::MAX)?;
    let opened_s = meter.wall_s();
    load.finish()?;
    let caught_up_s = meter.wall_s();
    let cpu_us = meter.cpu_us()?;
    let mut values = memory(&server)?;
    values.extend(latencies(&mut load));
    values.extend([
        ("opened_s", opened_s),
        ("caught_up_s", caught_up_s),
        ("cpu_us_per_client", cpu_us / size.connections as f64),
    ]);
    Ok(outcome(load, values))
}
