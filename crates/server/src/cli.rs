//! The command line: what can be called with which arguments, and what `--help` says about it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::parse_duration;

/// `tidewire …`
#[derive(Debug, Parser)]
#[command(
    name = "tidewire",
    version,
    about = "A server-sent events hub: publish once, and every client gets it, also after a disconnect",
    after_help = HELP,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Without one, the hub is served.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const HELP: &str = "\
Without a command, `tidewire` serves.

Examples:
  tidewire                                     serve on http://127.0.0.1:8080
  tidewire watch orders                        follow a topic
  tidewire publish orders '{\"id\":7}'           publish an event

Exit codes: 0 done, 1 failed, 2 bad arguments or configuration";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the hub (what `tidewire` alone does)
    #[command(after_help = SERVE_HELP)]
    Serve(Settings),
    /// Follow topics, or any event stream, and print each event
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Publish an event, or each line of standard input as one
    #[command(after_help = PUBLISH_HELP)]
    Publish(PublishArgs),
    /// List the nodes of a hub with their connections, lag and version
    #[command(after_help = NODES_HELP)]
    Nodes(NodesArgs),
    /// Make a token for development, say what one may do, or make an API key
    #[command(after_help = TOKEN_HELP)]
    Token(TokenArgs),
    /// Print the effective configuration as TOML, secrets masked
    #[command(after_help = CONFIG_HELP)]
    Config(Settings),
    /// Look at a disk broker's folder that a hub refuses, and make it usable again
    #[command(after_help = REPAIR_HELP)]
    Repair(RepairArgs),
}

const SERVE_HELP: &str = "\
Every setting has a default and one name; `tidewire config` prints them all. It can be set in a file, in the \
environment (history.ttl is TIDEWIRE_HISTORY__TTL, lists are comma-separated) and, for a few, by a flag. \
A flag wins over the environment, the environment over the file.

Examples:
  tidewire serve --listen 127.0.0.1:9000
  tidewire serve --config tidewire.toml
  TIDEWIRE_HISTORY__TTL=1h tidewire serve";

const CONFIG_HELP: &str = "\
Examples:
  tidewire config > tidewire.toml              a file to start from
  tidewire config --config tidewire.toml       check a file: exit code 2 and the line of a mistake";

/// Where settings come from besides the environment.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Settings {
    // Not clap's `env`, which would be an argument, and those conflict with commands.
    #[arg(
        long,
        value_name = "FILE",
        help = "Read settings from this TOML or YAML file [env: TIDEWIRE_CONFIG]"
    )]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to serve on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Open streams at a time [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as warn,tidewire=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
}

impl Settings {
    /// The settings given as flags: flag, setting, value.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        [
            ("--listen", "listen", self.listen.as_deref()),
            (
                "--max-connections",
                "limits.max_connections",
                self.max_connections.as_deref(),
            ),
            ("--log-level", "log.level", self.log_level.as_deref()),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag, key, value?)))
    }
}

/// Which hub, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct HubArgs {
    /// The hub's address
    #[arg(
        long,
        env = "TIDEWIRE_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub(crate) url: String,
    /// Bearer token to send to the hub
    #[arg(
        long,
        env = "TIDEWIRE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<String>,
    /// Certificates in PEM that an https hub is trusted by, beside the system's
    #[arg(long, env = "TIDEWIRE_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// `tidewire watch …`
#[derive(Debug, Clone, Args)]
pub(crate) struct WatchArgs {
    /// Topics or patterns of the hub, or full URLs of event streams; none for every public topic
    #[arg(value_name = "URL-OR-TOPIC")]
    pub(crate) targets: Vec<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// Begin with history: "earliest", a duration such as 5m, or after an event's id
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Print one JSON object per line: {"id","topics","event","data"}
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Reconnect when not a byte has come for this long
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = silence)]
    pub(crate) idle_timeout: Duration,
}

const WATCH_HELP: &str = "\
A lost connection is resumed where it was, also over a restart of the hub. Exits with 0 when all topics have ended, \
with 1 when the hub refuses. What is not an event (notices, warnings about gaps) goes to standard error.

Examples:
  tidewire watch                               every public topic
  tidewire watch orders 'room:**' --since 10m
  tidewire watch orders --json | jq .data
  tidewire watch http://example.com/stream     any server-sent events";

/// `tidewire publish …`
#[derive(Debug, Clone, Args)]
pub(crate) struct PublishArgs {
    /// The topic
    pub(crate) topic: String,
    /// The event's data, sent as it is; without it or with -, each line of standard input is one event's
    #[arg(allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// The event's name
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// The event's own id, in place of the hub's
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// How long clients shall wait before they reconnect
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) retry: Option<Duration>,
    /// Try for this long while the hub can't be reached; keep it below the hub's idempotency window
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = duration)]
    pub(crate) give_up_after: Duration,
}

const PUBLISH_HELP: &str = "\
Lines go out within 50 ms, many at a time when they come fast. Each request is repeated safely until the hub has \
answered, so a restart of the hub loses nothing.

Examples:
  tidewire publish orders '{\"id\":7}' --event order_created
  echo hello | tidewire publish greetings
  tail -f app.log | tidewire publish logs
  tidewire publish notes - < notes.txt";

/// `tidewire nodes …`
#[derive(Debug, Clone, Args)]
pub(crate) struct NodesArgs {
    #[command(flatten)]
    pub(crate) hub: HubArgs,
}

const NODES_HELP: &str = "\
Any node knows all of them; the one that is asked has a star. It takes the right `admin`.

Examples:
  tidewire nodes
  tidewire nodes --url http://10.0.0.7:8080 --token \"$TOKEN\"";

/// `tidewire repair …`
#[derive(Debug, Clone, Args)]
pub(crate) struct RepairArgs {
    /// The folder: `broker.path` of the hub
    pub(crate) folder: PathBuf,
    /// Repair it; without this it is only said what is wrong
    #[arg(long)]
    pub(crate) yes: bool,
}

const REPAIR_HELP: &str = "\
A hub that finds damage in the middle of its log does not start, as events would be lost in silence. This says \
where the damage is and which events are lost; with --yes it makes a log of what is left. Damaged files are copied \
first. Clients that come back are told of a gap. Exits with 0 where nothing is wrong or all is repaired, else with 1.

Examples:
  tidewire repair /var/lib/tidewire            say what is wrong
  tidewire repair /var/lib/tidewire --yes      go on with what is left";

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "write a duration with its unit, such as 500ms, 30s or 10m".to_owned())
}

/// No connection is as busy as to outlive a silence of no time.
fn silence(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("write more than nothing".to_owned()),
        silence => Ok(silence),
    }
}

/// `tidewire token …`
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// The user that the token is for
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// A pattern of topics that may be subscribed to; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) subscribe: Vec<String>,
    /// A pattern of topics that may be published to; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    pub(crate) publish: Vec<String>,
    /// The right to administrate
    #[arg(long)]
    pub(crate) admin: bool,
    /// A role of the configuration; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Vec<String>,
    /// How long the token is valid
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    pub(crate) valid: Duration,
    /// Say what this token or key may do with this configuration, or which check it fails; - reads standard input
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["user", "subscribe", "publish", "admin", "role", "new_key"])]
    pub(crate) explain: Option<String>,
    /// With --explain: topics to say yes or no about
    #[arg(long, value_name = "TOPIC", requires = "explain")]
    pub(crate) topic: Vec<String>,
    /// Make an API key with this name, and the lines for the configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user", "role", "explain"])]
    pub(crate) new_key: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const TOKEN_HELP: &str = "\
A token is signed with the secret of the first issuer in the configuration that has one. Exits with 1 if the token \
that is explained would be refused.

Examples:
  tidewire token --user 42 --subscribe 'orders:*' --config tidewire.toml
  tidewire token --explain \"$TOKEN\" --topic orders:7 --config tidewire.toml
  tidewire token --new-key ci --publish '**'";
