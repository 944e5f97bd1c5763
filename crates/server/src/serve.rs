//! `tidewire serve`: from the configuration to a hub that listens, and from a signal to its end.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewire::broker::{DiskBroker, DiskOptions, Fsync, MemoryBroker, RedisBroker, RedisOptions};
use tidewire::cluster::{ClusterOptions, Inconsistency, RetryOptions, UpkeepOptions};
use tidewire::core::coalesce::CoalesceRule;
use tidewire::core::log::{Retention, RetentionRule};
use tidewire::core::subscription::SlowClient;
use tidewire::redis::Redis;
use tidewire::{AtCapacity, Cluster, Hub, HubBuilder, Pattern, ServeOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::client::notice;
use crate::config::{self, Config, LogFormat};
use crate::exit::Exit;
use crate::guard::Access;
use crate::routes::{self, start_clock};
use crate::services::notifications::Notifications;
use crate::tls::Source;

/// Descriptors that the hub needs beside those of its connections.
const SPARE_DESCRIPTORS: u64 = 64;

/// Serves until a signal comes.
pub(crate) fn run(config: &Config) -> Exit {
    start_logging(config);
    start_clock();
    let parts = || {
        let access = Access::new(config)?;
        Ok::<_, String>((access, builder(config)?, Source::load(&config.tls)?))
    };
    let (access, builder, certificate) = match parts() {
        Ok(parts) => parts,
        Err(error) => {
            notice(format_args!("error: {error}"));
            return Exit::Usage;
        }
    };
    raise_descriptor_limit(config.limits.max_connections as u64);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            notice(format_args!("error: can't start: {error}"));
            return Exit::Failure;
        }
    };
    let hub = match runtime.block_on(builder.start()) {
        Ok(hub) => hub,
        Err(error) => {
            notice(format_args!("error: {error}"));
            return Exit::Failure;
        }
    };
    match runtime.block_on(serve(config, &hub, access, certificate)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            notice(format_args!("error: {error}"));
            Exit::Failure
        }
    }
}

/// Whether a hub would start with these settings, as far as that can be told without starting it.
///
/// # Errors
/// With the setting that can't be used.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    Access::new(config)?;
    builder(config)?;
    Source::load(&config.tls).map(drop)
}

async fn serve(
    config: &Config,
    hub: &Hub,
    access: Access,
    certificate: Option<Source>,
) -> std::io::Result<()> {
    let listener = bind(config.listen)?;
    access.start();
    let cluster = cluster(hub, config)?;
    let notifications = config
        .services
        .notifications
        .then(|| Notifications::start(hub, config))
        .transpose()
        .map_err(std::io::Error::other)?;
    let router = routes::router(hub, &cluster, notifications.as_ref(), config, access);
    let options = ServeOptions {
        head_bytes_max: config.limits.head_bytes_max,
        head_timeout: config.limits.head_timeout,
        send_buffer_bytes: config.limits.send_buffer_bytes,
        peer_timeout: config
            .limits
            .stall_timeout
            .saturating_mul(2)
            .max(Duration::from_secs(10)),
        drain_grace: config.shutdown.drain_grace,
        drain_time: config.shutdown.drain_time,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (draining, leaving) = (hub.clone(), cluster.clone());
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        draining.start_draining();
        leaving.start_draining();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            notice(format_args!("second signal: ending at once"));
            std::process::exit(1);
        });
    };
    let address = listener.local_addr()?;
    let mut serve = tidewire::serve(listener, router)
        .with_options(options.clone())
        .with_graceful_shutdown(stop);
    let mut scheme = "http";
    if let Some(certificate) = certificate {
        scheme = "https";
        serve = serve.with_tls(certificate.tls());
        if let Some(redirect) = config.tls.redirect {
            let router = certificate.redirect(address.port());
            let redirect = tidewire::serve(bind(redirect)?, router).with_options(options);
            tokio::spawn(redirect.into_future());
        }
        tokio::spawn(certificate.keep_fresh(signal(SignalKind::hangup())?));
    }
    announce(scheme, address);
    serve.await?;
    cluster.leave().await;
    hub.stop().await;
    tracing::info!("ended");
    Ok(())
}

/// The nodes that share a Redis for their events share it for their connections too; any other hub is alone.
fn cluster(hub: &Hub, config: &Config) -> std::io::Result<Cluster> {
    let settings = &config.cluster;
    let every = |interval: Duration| (!interval.is_zero()).then_some(interval);
    let random = || format!("node-{:08x}", fastrand::u32(..));
    let options = ClusterOptions {
        upkeep: UpkeepOptions {
            ttl: settings.ttl,
            check_every: every(settings.check_interval),
            inconsistency: match settings.inconsistency {
                config::InconsistencyStrategy::AutoCorrect => Inconsistency::AutoCorrect,
                config::InconsistencyStrategy::FailFast => Inconsistency::FailFast,
            },
            sweep_every: every(settings.sweep_interval),
            leaks_every: every(settings.leak_interval),
        },
        answer_timeout: settings.answer_timeout,
        presence_events: settings
            .presence_events
            .iter()
            .map(|text| {
                let refuse =
                    |error| format!("cluster.presence_events: `{text}` is no pattern: {error}");
                Pattern::new(text).map_err(refuse)
            })
            .collect::<Result<_, String>>()
            .map_err(std::io::Error::other)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ClusterOptions::new(config.node.id.clone().unwrap_or_else(random))
    };
    let broker = &config.broker;
    let (config::BrokerKind::Redis, Some(url)) = (broker.kind, &broker.url) else {
        return Cluster::alone(hub, &options).map_err(std::io::Error::other);
    };
    let redis = Redis::new(url.reveal(), broker.prefix()).map_err(std::io::Error::other)?;
    let retry = RetryOptions {
        retries: u32::try_from(settings.retries).unwrap_or(u32::MAX),
        within: settings.retry_within,
    };
    Cluster::over_redis(hub, Arc::new(redis), retry, &options).map_err(std::io::Error::other)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let explain = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; choose another with --listen",
            _ => "",
        };
        std::io::Error::other(format!("can't serve on {address}: {error}{hint}"))
    };
    tidewire::bind(address).map_err(explain)
}

/// Says where the hub is. The only line on standard output, for people and scripts alike.
fn announce(scheme: &str, address: SocketAddr) {
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "tidewire {} serves on {scheme}://{address}",
        env!("CARGO_PKG_VERSION")
    );
    let _ = out.flush();
}

fn builder(config: &Config) -> Result<HubBuilder, String> {
    let limits = &config.limits;
    let builder = Hub::builder()
        .history(retention(&config.history)?)
        .max_connections(limits.max_connections)
        .at_capacity(match limits.at_capacity {
            config::AtCapacity::EvictOldest => AtCapacity::EvictOldest,
            config::AtCapacity::Reject => AtCapacity::Reject,
        })
        .connections_per_client_max(
            limits.connections_per_address_max,
            limits.connections_per_user_max,
        )
        .slow_client(match limits.slow_client {
            config::SlowClient::Close => SlowClient::Close,
            config::SlowClient::Skip => SlowClient::Skip,
        })
        .coalesce(coalescing(&config.stream)?)
        .heartbeat(config.stream.heartbeat)
        .retry(config.stream.retry)
        .stall_timeout(limits.stall_timeout)
        .max_lifetime(limits.max_lifetime)
        .event_bytes_max(limits.event_bytes_max)
        .names_per_subscription_max(
            limits.topics_per_subscription_max,
            limits.patterns_per_subscription_max,
        );
    with_broker(builder, config)
}

fn with_broker(builder: HubBuilder, config: &Config) -> Result<HubBuilder, String> {
    let (limits, broker) = (&config.limits, &config.broker);
    Ok(match (broker.kind, &broker.path, &broker.url) {
        (config::BrokerKind::Redis, _, Some(url)) => {
            let redis = Redis::new(url.reveal(), broker.prefix())
                .map_err(|error| format!("broker.url: {error}"))?;
            builder.broker(RedisBroker::new(
                Arc::new(redis),
                RedisOptions {
                    retention: broker.retention,
                    bytes_max: broker.bytes_max as u64,
                    idempotency_window: limits.idempotency_window,
                    wait_replicas: broker.wait_replicas,
                    event_bytes_max: limits.event_bytes_max,
                    ..RedisOptions::default()
                },
            ))
        }
        (config::BrokerKind::Disk, Some(path), _) => builder.broker(DiskBroker::new(
            path,
            DiskOptions {
                fsync: match broker.fsync {
                    config::Fsync::Always => Fsync::Always,
                    config::Fsync::Interval => Fsync::Interval(broker.fsync_interval),
                },
                retention: broker.retention,
                bytes_max: broker.bytes_max as u64,
                idempotency_window: limits.idempotency_window,
                idempotency_keys_max: limits.idempotency_keys_max,
                ..DiskOptions::default()
            },
        )),
        // The others were refused with the configuration.
        _ => builder.broker(MemoryBroker::new(
            limits.idempotency_window,
            limits.idempotency_keys_max,
        )),
    })
}

fn retention(history: &config::History) -> Result<Retention, String> {
    let rule = |rule: &config::HistoryRule| {
        let pattern = Pattern::new(&rule.pattern)
            .map_err(|error| format!("history.rules: `{}` is no pattern: {error}", rule.pattern))?;
        Ok(RetentionRule {
            pattern,
            ttl_ms: rule.ttl.map(millis),
            events_max: rule.events_max,
        })
    };
    Ok(Retention {
        ttl_ms: millis(history.ttl),
        memory_bytes: history.memory,
        rules: history
            .rules
            .iter()
            .map(rule)
            .collect::<Result<_, String>>()?,
    })
}

fn coalescing(stream: &config::Stream) -> Result<Vec<CoalesceRule>, String> {
    let rule = |rule: &config::CoalesceRule| {
        let pattern = Pattern::new(&rule.pattern).map_err(|error| {
            format!("stream.coalesce: `{}` is no pattern: {error}", rule.pattern)
        })?;
        Ok(CoalesceRule {
            pattern,
            window_ms: u32::try_from(rule.window.as_millis()).unwrap_or(u32::MAX),
        })
    };
    stream.coalesce.iter().map(rule).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn start_logging(config: &Config) {
    // The configuration was checked, so the filter is valid.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
}

/// Every connection is a descriptor, and the customary limit of 1,024 is for programs of another kind.
fn raise_descriptor_limit(connections: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if current < connections + SPARE_DESCRIPTORS {
        tracing::warn!(
            current,
            "fewer file descriptors than limits.max_connections needs; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
}
