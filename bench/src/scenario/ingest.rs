//! How fast events can be published over HTTP where nobody reads: batches of 1,000 lines.

use super::{Meter, Outcome, Size, memory, outcome};
use crate::load::Load;
use crate::server::{Kind, Server, Tuning};
use crate::stamp;

/// Lines of a batch.
const BATCH: usize = 1_000;
/// Connections that publish; two, so that one is on its way while another is worked on.
const CONNECTIONS: usize = 2;

pub(super) fn ingest(kind: Kind, size: Size) -> Outcome {
    let server = Server::start(kind, Tuning::default())?;
    let mut load = Load::new(&server, CONNECTIONS)?;
    let data = stamp::data(0, stamp::EVENT_BYTES);
    let lines = size.events.min(BATCH);
    let request = server.batch_request((0..lines).map(|_| (0, &*data)));
    let batches = size.events.div_ceil(BATCH);
    send(&mut load, &request, batches.min(10))?;
    let meter = Meter::start(&server)?;
    send(&mut load, &request, batches)?;
    let (cpu_us, wall_s) = (meter.cpu_us()?, meter.wall_s());
    let events = (batches * lines) as f64;
    let mut values = memory(&server)?;
    values.extend([
        ("events_per_second", events / wall_s),
        ("cpu_us_per_event", cpu_us / events),
    ]);
    Ok(outcome(load, values))
}

fn send(load: &mut Load, request: &[u8], batches: usize) -> std::io::Result<()> {
    for _ in 0..batches {
        while !load.request(request.to_vec())? {
            load.wait()?;
        }
    }
    load.finish()
}
