//! The Redis broker beside Redis itself: batches of events from several publishers, and how long one event takes to
//! another node.
//!
//! In turns: *raw* pipelines an `XADD` for each event of a batch, from as many tasks over one connection; *broker* is as many
//! publishers of one hub. Then one event at a time: *raw* from before its `XADD` until a blocked `XREAD` of another connection
//! has it; *in the log* from before the publish until it is answered, which is once the node's log has read it back from the
//! stream, as that of any other node; *at a reader* from before the publish on one hub until a stream of another hub has it.
//! *Memory* is the same as the last without Redis: what the hub itself takes from a publish to a stream.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse;
use clap::Parser;
use http_body_util::BodyExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Value};
use tidewire::broker::{RedisBroker, RedisOptions};
use tidewire::core::filter::FilterSpec;
use tidewire::core::subscribe::Start;
use tidewire::hub::Opened;
use tidewire::redis::Redis;
use tidewire::stream::StreamOptions;
use tidewire::{Hub, Publication, Topic};

/// Compares the Redis broker with raw pipelined XADD, and with XADD to XREAD.
#[derive(Debug, Parser)]
struct Args {
    /// A free port for a redis-server that keeps nothing
    #[arg(long, default_value_t = 26_391)]
    port: u16,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Batches by each publisher and round
    #[arg(long, default_value_t = 100)]
    batches: usize,
    /// Events per batch
    #[arg(long, default_value_t = 100)]
    events: usize,
    /// Bytes per event
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Publishers at a time
    #[arg(long, default_value_t = 16)]
    publishers: usize,
    /// Single events per round, for the latency
    #[arg(long, default_value_t = 500)]
    singles: usize,
}

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    loop {
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Ok(connection) => return Ok(connection),
            Err(error) if error.is_connection_refusal() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn hub(url: &str) -> Result<Hub> {
    let redis = Arc::new(Redis::new(url, "tidewire:")?);
    let broker = RedisBroker::new(redis, RedisOptions::default());
    Ok(Hub::builder().broker(broker).start().await?)
}

/// All batches of all publishers; the time that passed.
async fn raw(args: &Args, connection: &MultiplexedConnection, data: &str) -> Result<Duration> {
    let mut batch = redis::pipe();
    for _ in 0..args.events {
        batch
            .cmd("XADD")
            .arg("raw")
            .arg("*")
            .arg("topic")
            .arg("orders")
            .arg("data")
            .arg(data);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = (0..args.publishers)
        .map(|_| {
            let (batch, mut connection, batches) =
                (batch.clone(), connection.clone(), args.batches);
            tokio::spawn(async move {
                for _ in 0..batches {
                    batch.query_async::<Value>(&mut connection).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(begun.elapsed())
}

async fn broker(args: &Args, hub: &Hub, data: &str) -> Result<Duration> {
    let one = Publication::new(["orders"], data)?;
    let batch = vec![one; args.events];
    let begun = Instant::now();
    let tasks: Vec<_> = (0..args.publishers)
        .map(|_| {
            let (batch, hub, batches) = (batch.clone(), hub.clone(), args.batches);
            tokio::spawn(async move {
                for _ in 0..batches {
                    hub.publish_all(&batch, None).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(begun.elapsed())
}

/// From before an `XADD` until another connection has read the entry.
async fn raw_single(client: Client, singles: usize, data: String) -> Result<Vec<Duration>> {
    let (mut writer, mut reader) = (connect(&client).await?, connect(&client).await?);
    let (sender, mut begun) = tokio::sync::mpsc::channel::<Instant>(1);
    redis::cmd("DEL")
        .arg("single")
        .query_async::<()>(&mut writer)
        .await?;
    let reading = tokio::spawn(async move {
        let (mut last, mut times) = ("0".to_owned(), Vec::new());
        while times.len() < singles {
            let mut read = redis::cmd("XREAD");
            read.arg("BLOCK")
                .arg(5_000)
                .arg("STREAMS")
                .arg("single")
                .arg(&last);
            let reply: redis::streams::StreamReadReply = read.query_async(&mut reader).await?;
            let now = Instant::now();
            for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
                last = entry.id;
                let begun: Option<Instant> = begun.recv().await;
                times.push(now - begun.ok_or("nobody writes")?);
            }
        }
        Ok::<_, Error>(times)
    });
    for _ in 0..singles {
        let at = Instant::now();
        let mut add = redis::cmd("XADD");
        add.arg("single")
            .arg("*")
            .arg("topic")
            .arg("orders")
            .arg("data")
            .arg(&data);
        add.query_async::<Value>(&mut writer).await?;
        sender.send(at).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    reading.await?
}

/// From before a publish until it is answered, and until a reader of the other hub has the event.
async fn broker_single(
    from: Hub,
    to: Hub,
    singles: usize,
    data: String,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let filter = FilterSpec {
        topics: vec![Topic::new("single")?],
        ..FilterSpec::default()
    };
    let Opened::Stream(stream) = to.open(&filter, &Start::Live, StreamOptions::default()) else {
        return Err("no stream".into());
    };
    let mut body = stream.into_response().into_body();
    // The stream's beginning.
    body.frame().await.ok_or("the stream has ended")??;
    let (mut answered, mut read) = (Vec::new(), Vec::new());
    for _ in 0..singles {
        let begun = Instant::now();
        let publish = async {
            from.publish("single", data.as_str()).await?;
            answered.push(begun.elapsed());
            Ok::<_, Error>(())
        };
        let reading = async {
            let frame = body.frame().await;
            read.push(begun.elapsed());
            frame.ok_or("the stream has ended")??;
            Ok::<_, Error>(())
        };
        tokio::try_join!(publish, reading)?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok((answered, read))
}

/// The time on the processor so far of a process, in seconds.
fn cpu_s(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split(' ').skip(12).take(2);
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let server = Command::new("redis-server")
        .args([
            "--port",
            &args.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let server = Server(server);
    let url = format!("redis://127.0.0.1:{}", args.port);
    let client = Client::open(url.as_str())?;
    let mut connection = connect(&client).await?;
    let (here, there) = (hub(&url).await?, hub(&url).await?);
    let memory = Hub::builder().build();
    let data = "x".repeat(args.bytes);
    let total = (args.publishers * args.batches * args.events) as f64;
    println!(
        "{} publishers, {} batches each of {} events of {} bytes, two nodes follow; then {} single events",
        args.publishers, args.batches, args.events, args.bytes, args.singles
    );
    println!(
        "        events/s                     cores busy: Redis, hubs   median µs of one event"
    );
    println!(
        "round   raw       broker    of raw   raw        broker        raw   in the log  of raw   at a reader  of raw   memory"
    );
    let redis = server.0.id();
    for round in 1..=args.rounds {
        let cpu = || Ok::<_, Error>([cpu_s(redis)?, cpu_s(std::process::id())?]);
        let begun = cpu()?;
        let raw_s = raw(&args, &connection, &data).await?.as_secs_f64();
        let between = cpu()?;
        redis::cmd("DEL")
            .arg("raw")
            .query_async::<()>(&mut connection)
            .await?;
        let begun_broker = cpu()?;
        let broker_s = broker(&args, &here, &data).await?.as_secs_f64();
        let ended = cpu()?;
        let busy = |from: [f64; 2], to: [f64; 2], s: f64| {
            format!("{:.2} {:.2}", (to[0] - from[0]) / s, (to[1] - from[1]) / s)
        };
        // As tasks of their own, as the runtime's first thread is woken later than its others.
        let singles = args.singles;
        let raw_us = tokio::spawn(raw_single(client.clone(), singles, data.clone()));
        let raw_us = median_us(raw_us.await??);
        let single = |from: &Hub, to: &Hub| {
            tokio::spawn(broker_single(
                from.clone(),
                to.clone(),
                singles,
                data.clone(),
            ))
        };
        let (answered, read) = single(&here, &there).await??;
        let (answered_us, read_us) = (median_us(answered), median_us(read));
        let (_, memory) = single(&memory, &memory).await??;
        println!(
            "{round:5} {:9.0} {:9.0} {:6.0} %    {}  {}   {raw_us:9.0} {answered_us:10.0} {:7.2} × {read_us:10.0} {:7.2} × {:7.0}",
            total / raw_s,
            total / broker_s,
            100.0 * raw_s / broker_s,
            busy(begun, between, raw_s),
            busy(begun_broker, ended, broker_s),
            answered_us / raw_us,
            read_us / raw_us,
            median_us(memory),
        );
    }
    Ok(())
}
