//! Random scripts: what happens to a log and its clients, in which order, and how the log is set up.

use proptest::prelude::*;
use tidewire_core::filter::FilterSpec;
use tidewire_core::log::{Retention, RetentionRule};
use tidewire_core::pattern::Pattern;
use tidewire_core::subscription::SlowClient;
use tidewire_core::topic::Topic;

pub(crate) const CLIENTS: usize = 4;
const TOPICS: [&str; 7] = ["a:1", "a:2", "b", "b/c", "user:1", "x.y", "é"];
const PATTERNS: [&str; 7] = ["**", "*", "a:*", "b**", "user:*", "*:2", "x.y"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Topics,
    TopicsTransient,
    Everyone,
    Connection,
}

#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) to: To,
    pub(crate) topics: Vec<Topic>,
    pub(crate) client: usize,
    pub(crate) body_chars: usize,
    pub(crate) name: Option<&'static str>,
    pub(crate) own_id: bool,
    pub(crate) private: bool,
    /// The publisher's clock is behind by so much.
    pub(crate) late_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Live,
    Earliest,
    Since { ago_ms: u64 },
    After { record: usize },
    Unknown,
    Future,
}

/// How much of a batch goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    All,
    Nothing,
    Part(u16),
    /// One byte a poll, so many times.
    ByteByByte(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame {
    Heartbeat,
    Retry,
    Padding(usize),
    Checkpoint,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Publish(Publish),
    End(Topic),
    Connect {
        client: usize,
        spec: FilterSpec,
        from: From,
        policy: SlowClient,
    },
    Disconnect(usize),
    Resume(usize),
    Poll {
        client: usize,
        bytes_max: usize,
        take: Take,
        /// What is published while the write is under way.
        meanwhile: Option<Publish>,
    },
    Drain(usize),
    Control(usize, Frame),
    Pass {
        ms: u64,
        expire: bool,
    },
    /// Takes the touched filters.
    Wake,
    HoldFilter(FilterSpec),
    ReleaseFilter,
    Restart,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) retention: Retention,
    pub(crate) ops: Vec<Op>,
}

fn topic() -> impl Strategy<Value = Topic> {
    prop::sample::select(&TOPICS[..]).prop_map(|name| Topic::new(name).expect("a topic"))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop::sample::select(&PATTERNS[..]).prop_map(|text| Pattern::new(text).expect("a pattern"))
}

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        10 => Just(To::Topics),
        3 => Just(To::TopicsTransient),
        1 => Just(To::Everyone),
        1 => Just(To::Connection),
    ]
}

fn publish() -> impl Strategy<Value = Publish> {
    let topics = prop_oneof![
        4 => prop::collection::vec(topic(), 1),
        1 => prop::collection::vec(topic(), 2..4),
    ];
    let body_chars = prop_oneof![8 => 0usize..40, 3 => 40usize..600, 1 => 600usize..6_000];
    let name = prop::sample::select(vec![None, None, Some("tick"), Some("order created")]);
    let late_ms = prop_oneof![4 => Just(0u64), 1 => 0u64..300];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (to(), topics, 0..CLIENTS, body_chars, name, flags, late_ms).prop_map(
        |(to, topics, client, body_chars, name, (own_id, private), late_ms)| Publish {
            to,
            topics,
            client,
            body_chars,
            name,
            own_id,
            private,
            late_ms,
        },
    )
}

fn spec() -> impl Strategy<Value = FilterSpec> {
    let mixed = (
        prop::collection::vec(topic(), 0..4),
        prop::collection::vec(pattern(), 0..3),
    );
    let topics_only = prop::collection::vec(topic(), 1..3).prop_map(|topics| (topics, Vec::new()));
    let private = prop::option::weighted(0.4, prop::collection::vec(pattern(), 0..3));
    let names = prop_oneof![mixed, topics_only];
    (names, private, any::<bool>()).prop_map(|((topics, patterns), private, lines)| FilterSpec {
        topics,
        patterns,
        private,
        topic_lines: lines,
        ..FilterSpec::default()
    })
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        4 => Just(From::Live),
        2 => Just(From::Earliest),
        2 => (0u64..3_000).prop_map(|ago_ms| From::Since { ago_ms }),
        3 => (0usize..200).prop_map(|record| From::After { record }),
        1 => Just(From::Unknown),
        1 => Just(From::Future),
    ]
}

fn take() -> impl Strategy<Value = Take> {
    prop_oneof![
        4 => Just(Take::All),
        1 => Just(Take::Nothing),
        4 => any::<u16>().prop_map(Take::Part),
        1 => (1usize..200).prop_map(Take::ByteByByte),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        Just(Frame::Heartbeat),
        Just(Frame::Retry),
        (2usize..300).prop_map(Frame::Padding),
        Just(Frame::Checkpoint),
    ]
}

fn poll() -> impl Strategy<Value = Op> {
    let bytes_max = prop_oneof![1usize..80, 80usize..2_000, Just(65_536)];
    let meanwhile = prop::option::weighted(0.2, publish());
    (0..CLIENTS, bytes_max, take(), meanwhile).prop_map(|(client, bytes_max, take, meanwhile)| {
        Op::Poll {
            client,
            bytes_max,
            take,
            meanwhile,
        }
    })
}

fn connect() -> impl Strategy<Value = Op> {
    let policy = prop::sample::select(vec![SlowClient::Close, SlowClient::Skip]);
    (0..CLIENTS, spec(), from(), policy).prop_map(|(client, spec, from, policy)| Op::Connect {
        client,
        spec,
        from,
        policy,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        24 => publish().prop_map(Op::Publish),
        2 => topic().prop_map(Op::End),
        6 => connect(),
        4 => (0..CLIENTS).prop_map(Op::Disconnect),
        6 => (0..CLIENTS).prop_map(Op::Resume),
        16 => poll(),
        4 => (0..CLIENTS).prop_map(Op::Drain),
        4 => (0..CLIENTS, frame()).prop_map(|(client, frame)| Op::Control(client, frame)),
        4 => (0u64..400, any::<bool>()).prop_map(|(ms, expire)| Op::Pass { ms, expire }),
        1 => (0u64..70_000).prop_map(|ms| Op::Pass { ms, expire: true }),
        6 => Just(Op::Wake),
        1 => spec().prop_map(Op::HoldFilter),
        1 => Just(Op::ReleaseFilter),
        1 => Just(Op::Restart),
    ]
}

fn rule() -> impl Strategy<Value = RetentionRule> {
    let ttl_ms = prop::option::of(0u64..1_500);
    let events_max = prop::option::of(1usize..6);
    (pattern(), ttl_ms, events_max).prop_map(|(pattern, ttl_ms, events_max)| RetentionRule {
        pattern,
        ttl_ms,
        events_max,
    })
}

fn retention() -> impl Strategy<Value = Retention> {
    let memory_bytes = prop_oneof![800usize..4_000, 4_000usize..40_000, Just(1_000_000)];
    let ttl_ms = prop_oneof![500u64..3_000, Just(600_000)];
    let rules = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(rule(), 1..3)];
    (memory_bytes, ttl_ms, rules).prop_map(|(memory_bytes, ttl_ms, rules)| Retention {
        ttl_ms,
        memory_bytes,
        rules,
    })
}

/// A script of up to so many steps.
pub(crate) fn script(ops_max: usize) -> impl Strategy<Value = Script> {
    (retention(), prop::collection::vec(op(), 1..ops_max))
        .prop_map(|(retention, ops)| Script { retention, ops })
}
