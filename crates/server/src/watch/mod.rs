//! `tidewire watch`: follows topics of a hub, or any event streams, and prints each event.
//!
//! Each stream is a task that reads and resumes (`stream`); all send what they read to one thread that prints
//! (`print`). The channel between them is short, so that a slow reader of the output slows the streams down, and no
//! memory fills up.

mod print;
mod stream;

use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use tidewire::parse_duration;
use tidewire_core::decode::Decoded;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::print::Printer;
use self::stream::{End, Stream};
use crate::cli::WatchArgs;
use crate::client::{client, notice, on_hub, parse_url};
use crate::exit::Exit;

/// Batches of events that were read and not yet printed.
const UNPRINTED_BATCHES_MAX: usize = 16;

/// Follows the streams until all have ended or were refused, or enough events were printed.
pub(crate) async fn run(args: WatchArgs) -> Exit {
    let streams = match streams(&args) {
        Ok(streams) => streams,
        Err(problem) => {
            notice(format_args!("error: {problem}"));
            return Exit::Usage;
        }
    };
    let (events, unprinted) = mpsc::channel(UNPRINTED_BATCHES_MAX);
    let printer = Printer::new(args.json, args.count);
    // Standard output blocks for as long as its reader likes, so it has a thread of its own.
    let mut printing = tokio::task::spawn_blocking(move || printer.run(unprinted));
    let mut reading = follow(streams, &events);
    // Kept until the last stream was asked how it ended: the printer's end is the end of all.
    let mut events = Some(events);
    let mut exit = Exit::Ok;
    loop {
        tokio::select! {
            ended = reading.join_next(), if !reading.is_empty() => {
                if !matches!(ended, Some(Ok(End::Ended | End::Unread))) {
                    exit = Exit::Failure;
                }
                if reading.is_empty() {
                    drop(events.take());
                }
            }
            end = &mut printing => {
                return match end {
                    Ok(Ok(())) => exit,
                    Ok(Err(error)) => {
                        notice(format_args!("error: standard output: {error}"));
                        Exit::Failure
                    }
                    Err(_) => Exit::Failure,
                };
            }
        }
    }
}

fn follow(streams: Vec<Stream>, events: &mpsc::Sender<Vec<Decoded>>) -> JoinSet<End> {
    let mut reading = JoinSet::new();
    for stream in streams {
        reading.spawn(stream.run(events.clone()));
    }
    reading
}

/// One stream for all topics, and one for each URL.
fn streams(args: &WatchArgs) -> Result<Vec<Stream>, String> {
    let hub = parse_url(&args.hub.url)?;
    let is_url = |target: &&String| target.starts_with("http://") || target.starts_with("https://");
    let (urls, topics): (Vec<&String>, Vec<&String>) = args.targets.iter().partition(is_url);
    let mut addresses = Vec::new();
    if !topics.is_empty() || urls.is_empty() {
        addresses.push(hub_address(&hub, &topics));
    }
    for url in urls {
        addresses.push(parse_url(url)?);
    }
    let to_hub = client(Some(&args.hub), Policy::default())?;
    let to_others = client(None, Policy::default())?;
    let (since, id) = match args.since.as_deref() {
        Some(since) if since == "earliest" || parse_duration(since).is_some() => {
            (Some(since), None)
        }
        id => (None, id),
    };
    let stream = |mut address: Url| {
        // The hub's token is nobody else's business.
        let client = if address.origin() == hub.origin() {
            &to_hub
        } else {
            &to_others
        };
        // The hub's own word for a place in history. An id is asked for by the header that any server knows.
        let start = address.clone();
        if let Some(since) = since {
            address.query_pairs_mut().append_pair("since", since);
        }
        Stream::new(
            client.clone(),
            address,
            start,
            id.unwrap_or_default(),
            args.idle_timeout,
        )
    };
    Ok(addresses.into_iter().map(stream).collect())
}

/// The hub's stream of these topics, with what a client can ask for that knows it is Tidewire: the topic of each event,
/// and a place to resume from before the first one.
fn hub_address(hub: &Url, topics: &[&String]) -> Url {
    let mut address = on_hub(hub, "events");
    let mut query = address.query_pairs_mut();
    for topic in topics {
        query.append_pair("topic", topic);
    }
    query
        .append_pair("fields", "topic")
        .append_pair("checkpoint", "on");
    drop(query);
    address
}

/// Seconds with one digit, as notices have them.
fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}
