//! The configuration as a user meets it: the binary, its files, its environment and what it says about mistakes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tidewire …` in a folder, with nothing but these variables set.
fn tidewire(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(folder);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a refused start says, without the `error: ` before it.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
        .strip_prefix("error: ")
        .expect("it is an error")
        .trim_end()
        .to_owned()
}

fn refused_file(name: &str, content: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), content).unwrap();
    refusal(&tidewire(folder.path(), &["config", "--config", name], &[]))
}

fn refused_variable(name: &str, value: &str) -> String {
    refusal(&tidewire(Path::new("."), &["config"], &[(name, value)]))
}

#[test]
fn a_bad_file_is_refused_with_its_line_and_what_is_allowed() {
    for (content, expected) in [
        (
            "[history]\nttl = 10\n",
            "history.ttl: bad value\n  given    10 (a.toml:2)\n  allowed  a duration with its unit, such as 500ms, \
             30s, 10m, 1h30m or 7d; a bare number has none: write 10s for seconds",
        ),
        (
            "# a comment\n[limits]\n\nat_capacity = \"evict\"\n",
            "limits.at_capacity: bad value\n  given    \"evict\" (a.toml:4)\n  allowed  evict-oldest, reject\n  \
             hint     did you mean evict-oldest?",
        ),
        (
            "[auth]\nleeway = \"1h\"\n",
            "auth.leeway: bad value\n  given    1h (a.toml:2)\n  allowed  10m or less",
        ),
        (
            "[shutdown]\ndrain_gracee = \"1s\"\n",
            "shutdown.drain_gracee: unknown setting\n  given    in a.toml:2\n  allowed  drain_grace, drain_time\n  \
             hint     did you mean shutdown.drain_grace?",
        ),
        (
            "ttl = \"1s\"\n",
            "ttl: unknown setting\n  given    in a.toml:1\n  allowed  listen, tls, limits, history, stream, shutdown, \
             broker, node, cluster, notifications, auth, cors, proxies, services, log\n  hint     did you mean history.ttl or cluster.ttl?",
        ),
        (
            "[[history.rules]]\npattern = \"a\"\nttl = \"1m\"\n[[history.rules]]\npattern = \"b\"\nttl = \"1h\"\n",
            "history.rules[1].ttl: bad value\n  given    1h (a.toml:6)\n  allowed  10m or less: a rule can't keep \
             events longer than history.ttl",
        ),
        (
            "[[history.rules]]\nttl = \"1m\"\n",
            "history.rules[0]: `pattern` is missing\n  given    a table (a.toml:1)\n  allowed  a table with pattern",
        ),
        (
            "[stream]\ncoalesce = [\n  { pattern = \"a\", window = \"10s\" },\n  { pattern = \"b\", window = \"11s\" },\n]\n",
            "stream.coalesce[1].window: bad value\n  given    11s (a.toml:4)\n  allowed  10s or less; 0s for topics that \
             shall not wait",
        ),
        (
            "listen = \":8080\"\n",
            "listen: bad value\n  given    \":8080\" (a.toml:1)\n  allowed  an IP address and a port: write \
             127.0.0.1:8080 for this machine only, 0.0.0.0:8080 for everyone",
        ),
        (
            "[limits]\nevent_bytes_max = \"2MiB\"\nbody_bytes_max = \"1MB\"\n",
            "limits.event_bytes_max: bad value\n  given    2MiB (a.toml:2)\n  allowed  no more than \
             limits.body_bytes_max, which is 1000000B (a.toml:3)",
        ),
        (
            "[cors]\norigins = [\n  \"https://a.example\",\n  \"https://b.example/\",\n]\n",
            "cors.origins[1]: bad value\n  given    \"https://b.example/\" (a.toml:4)\n  allowed  scheme://host or \
             scheme://host:port, as a browser sends it; an empty list for any origin\n  \
             hint     did you mean https://b.example?",
        ),
        (
            "[broker]\nkind = \"nats\"\n",
            "broker.kind: bad value\n  given    nats (a.toml:2)\n  allowed  memory, disk, redis; nats is not in this build yet",
        ),
        (
            "[broker]\nkind = \"redis\"\n",
            "broker.url: bad value\n  given    nothing (the default)\n  allowed  where the Redis is, such as \"redis://127.0.0.1:6379\"",
        ),
        (
            "[broker]\nkind = \"disk\"\n",
            "broker.path: bad value\n  given    nothing (the default)\n  allowed  a folder for the disk broker's files, such as \
             \"/var/lib/tidewire\"",
        ),
        (
            "[broker]\nkind = \"disk\"\npath = \"p\"\nbytes_max = \"4KiB\"\n",
            "broker.bytes_max: bad value\n  given    4KiB (a.toml:4)\n  allowed  1MiB or more",
        ),
        (
            "[broker]\nurl = \"redis://:hunter2@db\"\nkind = 5\n",
            "broker.kind: bad value\n  given    5 (a.toml:3)\n  allowed  memory, disk, redis, nats",
        ),
        (
            "[history]\nttl = \"1h\"\nttl = \"2h\"\n",
            "a.toml:3: duplicate key",
        ),
        (
            "[history]\nttl = 10m\n",
            "a.toml:2: string values must be quoted, expected literal string",
        ),
    ] {
        assert_eq!(refused_file("a.toml", content), expected, "{content}");
    }
}

#[test]
fn a_bad_yaml_file_is_refused_in_the_same_way() {
    for (content, expected) in [
        (
            "limits:\n  slow_client: drop\n",
            "limits.slow_client: bad value\n  given    \"drop\" (a.yaml:2)\n  allowed  close, skip",
        ),
        (
            "histori:\n  ttl: 1h\n",
            "histori: unknown setting\n  given    in a.yaml:1\n  allowed  listen, tls, limits, history, stream, shutdown, \
             broker, node, cluster, notifications, auth, cors, proxies, services, log\n  hint     did you mean history?",
        ),
        (
            "node:\n  id: 7\n",
            "node.id: bad value\n  given    7 (a.yaml:2)\n  allowed  text, in quotes where it looks like something else",
        ),
        (
            "history:\n  ttl: 1h\n  ttl: 2h\n",
            "a.yaml:3: duplicated key in mapping",
        ),
        (
            "history:\n\tttl: 1h\n",
            "a.yaml:2: tabs disallowed within this context (block indentation)",
        ),
        (
            "just text\n",
            "a.yaml:1: a configuration is a table of settings, `name: value`",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "a.yaml:3: a configuration is one YAML document",
        ),
    ] {
        assert_eq!(refused_file("a.yaml", content), expected, "{content}");
    }
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    for (name, value, expected) in [
        (
            "TIDEWIRE_HISTORY_TTL",
            "5m",
            "history_ttl: unknown setting\n  given    in environment variable TIDEWIRE_HISTORY_TTL\n  allowed  \
             TIDEWIRE_TABLE__SETTING, for the settings that `tidewire config` prints\n  \
             hint     did you mean TIDEWIRE_HISTORY__TTL?",
        ),
        (
            "TIDEWIRE_LIMITS__MAX_CONNECTIONS",
            "many",
            "limits.max_connections: bad value\n  given    \"many\" (environment variable \
             TIDEWIRE_LIMITS__MAX_CONNECTIONS)\n  allowed  a whole number, such as 10000",
        ),
        (
            "TIDEWIRE_HISTORY__RULES",
            "[{pattern = 'a', ttl = '1h'}]",
            "history.rules[0].ttl: bad value\n  given    1h (environment variable TIDEWIRE_HISTORY__RULES)\n  allowed  \
             10m or less: a rule can't keep events longer than history.ttl",
        ),
        (
            "TIDEWIRE_BROKER",
            "redis",
            "broker: bad value\n  given    \"redis\" (environment variable TIDEWIRE_BROKER)\n  allowed  a table as TOML, \
             such as {a = 1, b = \"2\"}, or a variable for each of its settings",
        ),
    ] {
        assert_eq!(refused_variable(name, value), expected);
    }
}

#[test]
fn a_bad_flag_is_refused_by_its_name() {
    let refused = refusal(&tidewire(
        Path::new("."),
        &["config", "--max-connections", "0"],
        &[],
    ));
    let expected = "limits.max_connections: bad value\n  given    0 (flag --max-connections)\n  allowed  1 or more";
    assert_eq!(refused, expected);
}

#[test]
fn a_hub_without_auth_does_not_start_where_others_can_reach_it() {
    let refused = refusal(&tidewire(
        Path::new("."),
        &["config", "--listen", "0.0.0.0:80"],
        &[],
    ));
    let start = "auth.anonymous: must be set for a hub that other machines can reach\n  given    \
                 listen = \"0.0.0.0:80\" (flag --listen)\n";
    assert!(refused.starts_with(start), "{refused}");

    // The example in the message is an answer when it is pasted.
    let example = refused
        .split("\n\n")
        .find(|part| part.starts_with("[auth.anonymous]"))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.toml"),
        format!("listen = \"0.0.0.0:80\"\n{example}\n"),
    )
    .unwrap();
    let accepted = tidewire(folder.path(), &["config"], &[("TIDEWIRE_CONFIG", "a.toml")]);
    assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
}

#[test]
fn what_config_prints_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let env = [
        ("TIDEWIRE_HISTORY__TTL", "1h30m"),
        (
            "TIDEWIRE_HISTORY__RULES",
            "[{pattern = 'a', events_max = 5}]",
        ),
        ("TIDEWIRE_BROKER__URL", "redis://app:hunter2@db/0"),
        (
            "TIDEWIRE_CORS__ORIGINS",
            "https://a.example,http://localhost:3000",
        ),
        ("TIDEWIRE_AUTH__ANONYMOUS", "{subscribe = ['**']}"),
        ("TIDEWIRE_URL", "http://somewhere"),
        ("TIDEWIRE_PORT_80_TCP", "tcp://10.0.0.1:80"),
    ];
    let printed = tidewire(folder.path(), &["config"], &env);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let printed = text(&printed.stdout);
    assert!(
        printed.contains("url = \"redis://app:***@db/0\""),
        "{printed}"
    );
    assert!(printed.contains("ttl = \"1h30m\""), "{printed}");
    std::fs::write(folder.path().join("a.toml"), &printed).unwrap();
    let again = tidewire(folder.path(), &["config", "--config", "a.toml"], &[]);
    assert_eq!(text(&again.stdout), printed);
}

#[test]
fn an_unreadable_file_is_named() {
    let refused = refusal(&tidewire(
        Path::new("."),
        &["config", "--config", "no-such.toml"],
        &[],
    ));
    assert_eq!(
        refused,
        "no-such.toml: cannot be read: No such file or directory (os error 2)"
    );
    let refused = refusal(&tidewire(
        Path::new("."),
        &["config", "--config", "a.json"],
        &[],
    ));
    assert_eq!(
        refused,
        "a.json: a configuration file is named *.toml, *.yaml or *.yml"
    );
}

#[test]
fn notifications_that_would_never_come_are_refused() {
    for (content, expected) in [
        (
            "[notifications]\ndatabase = \"mysql://db/n\"\n",
            "notifications.database: bad value\n  given    something else (a.toml:2)\n  allowed  a file, such as \
             \"sqlite:tidewire.db\", or \"postgres://user:password@host/database\"",
        ),
        (
            "[notifications]\nstream = \"events\"\n",
            "notifications.stream: bad value\n  given    set (a.toml:2)\n  allowed  only with a Redis: set \
             notifications.redis_url, or broker.kind = \"redis\"",
        ),
        (
            "[notifications]\nredis_url = \"redis://r\"\nstream = \"events\"\n",
            "notifications.stream: bad value\n  given    \"events\" without rules (a.toml:3)\n  allowed  one \
             [[notifications.rules]] at least: an event without a rule makes nothing",
        ),
        (
            "[[notifications.rules]]\non = \"a\"\nrecipient = \"{to}\"\ntitle = \"{by\"\n",
            "notifications.rules[0].title: bad value\n  given    \"{by\" (a.toml:4)\n  allowed  a text whose braces are \
             closed: `{by` has one that is not; `{{` stands for a brace",
        ),
    ] {
        assert_eq!(refused_file("a.toml", content), expected, "{content}");
    }
}

/// What the hub would not start with used to pass.
#[test]
fn config_refuses_what_the_hub_would_refuse() {
    for (setting, value, says) in [
        (
            "TIDEWIRE_AUTH__KEYS",
            "[{name = 'ci', hash = 'tw_abc'}]",
            "auth.keys",
        ),
        (
            "TIDEWIRE_AUTH__ISSUERS",
            "[{secret = 'short'}]",
            "auth.issuers",
        ),
        (
            "TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE",
            "a\u{7}b",
            "auth.anonymous",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .arg("config")
            .env_clear()
            .env(setting, value)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{setting}: {said}");
        assert!(said.contains(says), "{setting}: {said}");
    }
}
