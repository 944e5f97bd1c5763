//! The disk broker beside the disk itself: batches made safe, one after the other.
//!
//! Three programs take turns of a few batches each, so that whatever else the disk does falls on all of them:
//! *raw* writes the bytes of a batch to a preallocated file and calls `fdatasync`; *log* is the broker with one publisher
//! who waits for each answer; *log, N publishers* the same with several who wait together.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::fs::{FallocateFlags, fallocate};
use tidewire::broker::{DiskBroker, DiskOptions};
use tidewire::{Hub, Publication};

/// Compares the disk broker with a raw preallocated file and one fdatasync per batch.
#[derive(Debug, Parser)]
struct Args {
    /// Where to write. It must be on the disk that is meant: a tmpfs says nothing
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Rounds; the medians of each are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Batches of each program per round
    #[arg(long, default_value_t = 400)]
    batches: usize,
    /// Events per batch
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Bytes per event
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Publishers who wait together
    #[arg(long, default_value_t = 16)]
    publishers: usize,
}

/// Batches that one program writes before it is another's turn.
const TURN: usize = 10;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

struct Raw {
    file: File,
    batch: Vec<u8>,
    at: u64,
}

impl Raw {
    fn new(args: &Args, folder: &std::path::Path) -> Result<Self> {
        let batch = vec![b'x'; args.events * args.bytes];
        let file = File::create(folder.join("raw"))?;
        let len = (batch.len() * (args.batches + TURN) * args.rounds) as u64;
        fallocate(&file, FallocateFlags::empty(), 0, len)?;
        file.sync_all()?;
        Ok(Self { file, batch, at: 0 })
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(&self.batch, self.at)?;
        self.at += self.batch.len() as u64;
        Ok(self.file.sync_data()?)
    }
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir_in(&args.folder)?;
    let mut raw = Raw::new(&args, folder.path())?;
    let options = DiskOptions::default();
    let hub = Hub::builder()
        .broker(DiskBroker::new(folder.path().join("log"), options))
        .start()
        .await?;
    let data = "x".repeat(args.bytes);
    let batch = (0..args.events)
        .map(|_| Publication::new(["orders"], data.as_str()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    println!(
        "{} batches of {} events of {} bytes per round, in turns of {TURN}",
        args.batches, args.events, args.bytes
    );
    for round in 1..=args.rounds {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for _ in 0..args.batches.div_ceil(TURN) {
            for _ in 0..TURN {
                let begun = Instant::now();
                raw.write()?;
                times[0].push(begun.elapsed());
            }
            for _ in 0..TURN {
                let begun = Instant::now();
                hub.publish_all(&batch, None).await?;
                times[1].push(begun.elapsed());
            }
            let begun = Instant::now();
            together(&hub, &batch, args.publishers).await?;
            // The time that a batch took of the disk, as it were.
            times[2].push(begun.elapsed() / (args.publishers * 2) as u32);
        }
        report(round, &args, times);
    }
    hub.stop().await;
    Ok(())
}

/// Two batches by each of so many publishers.
async fn together(hub: &Hub, batch: &[Publication], publishers: usize) -> Result<()> {
    let publishers: Vec<_> = (0..publishers)
        .map(|_| {
            let (hub, batch) = (hub.clone(), batch.to_vec());
            tokio::spawn(async move {
                hub.publish_all(&batch, None).await?;
                hub.publish_all(&batch, None).await
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    Ok(())
}

fn report(round: usize, args: &Args, times: [Vec<Duration>; 3]) {
    let [mut raw, mut log, mut many] = times;
    let mean =
        |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
    let means = [mean(&raw), mean(&log), mean(&many)];
    let medians = [
        median_us(&mut raw),
        median_us(&mut log),
        median_us(&mut many),
    ];
    let names = [
        "raw".to_owned(),
        "log".to_owned(),
        format!("log, {} publishers", args.publishers),
    ];
    println!("round {round}             median µs/batch   events/s   of raw   (mean: of raw)");
    for n in 0..3 {
        println!(
            "  {:20} {:12.0} {:12.0} {:7.0} % {:12.0} %",
            names[n],
            medians[n],
            args.events as f64 * 1e6 / medians[n],
            100.0 * medians[0] / medians[n],
            100.0 * means[0] / means[n],
        );
    }
}
