//! A log with a counting broker and a clock, and readers that answer in short texts.

use tidewire_core::decode::{Decoded, Decoder};
use tidewire_core::event::Event;
use tidewire_core::filter::FilterSpec;
use tidewire_core::id::{Epoch, NativeId, Offset};
use tidewire_core::log::{Log, Retention};
use tidewire_core::pattern::Pattern;
use tidewire_core::subscribe::{Start, Subscribed};
use tidewire_core::subscription::{Batch, Poll, SlowClient, Subscription};
use tidewire_core::topic::Topic;

/// When each hub's clock begins.
pub(crate) const EPOCH_MS: u64 = 1_000_000;

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a topic")
}

pub(crate) fn topics(names: &[&str]) -> FilterSpec {
    FilterSpec {
        topics: names.iter().map(|name| topic(name)).collect(),
        ..FilterSpec::default()
    }
}

pub(crate) fn patterns(texts: &[&str]) -> FilterSpec {
    let pattern = |text: &&str| Pattern::new(text).expect("a pattern");
    FilterSpec {
        patterns: texts.iter().map(pattern).collect(),
        ..FilterSpec::default()
    }
}

pub(crate) struct Hub {
    pub(crate) log: Log,
    pub(crate) now_ms: u64,
    retention: Retention,
    offset: u64,
    lives: u64,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

impl Hub {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            log: Log::new(Epoch::from_random(1), retention.clone()),
            now_ms: EPOCH_MS,
            retention,
            offset: 0,
            lives: 1,
        }
    }

    /// The history is lost.
    pub(crate) fn restart(&mut self) {
        self.lives += 1;
        self.offset = 0;
        self.log = Log::new(Epoch::from_random(self.lives), self.retention.clone());
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.log.expire(self.now_ms);
    }

    /// The id of the event that was stored as number so many.
    pub(crate) fn id(&self, number: u64) -> String {
        self.log.id_at(Offset::counted(number)).to_string()
    }

    pub(crate) fn publish(&mut self, names: &[&str], data: &str) {
        self.publish_event(names, &Event::text(data));
    }

    pub(crate) fn publish_event(&mut self, names: &[&str], event: &Event) {
        let topics: Vec<_> = names.iter().map(|name| topic(name)).collect();
        let offset = self.next_offset();
        self.log.append(&topics, event, offset, self.now_ms);
    }

    pub(crate) fn end(&mut self, name: &str) -> NativeId {
        let offset = self.next_offset();
        self.log.append_end(&topic(name), offset, self.now_ms)
    }

    fn next_offset(&mut self) -> Offset {
        self.offset += 1;
        Offset::counted(self.offset)
    }

    pub(crate) fn after(&mut self, spec: &FilterSpec, id: &str) -> Vec<String> {
        self.read(spec, &Start::After(id.to_owned()))
    }

    /// What a client is sent until it is idle or closed.
    pub(crate) fn read(&mut self, spec: &FilterSpec, start: &Start) -> Vec<String> {
        let filter = self.log.acquire_filter(spec);
        let subscribed = self
            .log
            .subscribe(filter, start, SlowClient::Close, self.now_ms);
        let told = match subscribed {
            Subscribed::Over => vec!["over".to_owned()],
            Subscribed::Stream {
                mut subscription, ..
            } => self.drain(&mut subscription),
        };
        self.log.release_filter(filter);
        told
    }

    pub(crate) fn drain(&self, subscription: &mut Subscription) -> Vec<String> {
        let (mut batch, mut decoder) = (Batch::default(), Decoder::new(1_000_000));
        let mut told = Vec::new();
        loop {
            match subscription.poll(&self.log, None, 1_000, &mut batch) {
                Poll::Data => decoder.push(batch.bytes()),
                Poll::Idle => return told,
                Poll::Close(reason) => {
                    told.push(format!("closed {}", reason.as_str()));
                    return told;
                }
            }
            subscription.sent(&batch, batch.bytes().len());
            while let Some(event) = decoder.next_event().expect("a valid stream") {
                told.push(text_of(&event));
            }
        }
    }
}

fn text_of(event: &Decoded) -> String {
    let data = &event.data;
    match event.event.as_str() {
        "gap" => {
            let gap: serde_json::Value = serde_json::from_str(data).expect("a gap has JSON");
            let from = gap["from"].as_str().unwrap_or("null");
            format!("gap {from} {}", gap["reason"].as_str().unwrap_or_default())
        }
        "message" if event.topics.is_empty() => data.clone(),
        "message" => {
            let mut topics = event.topics.clone();
            topics.sort();
            format!("[{}] {data}", topics.join(" "))
        }
        name => format!("{name} {data}"),
    }
}
