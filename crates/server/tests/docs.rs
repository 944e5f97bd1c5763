//! The documentation holds what the program has: every setting with its default, commands that answer as they are shown
//! to, and no link that leads nowhere.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use support::{Hub, WAIT_MAX};

const SCHEMA: &str = include_str!("../src/config/schema.rs");

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all settings, as the program knows them.
fn keys() -> Vec<&'static str> {
    let list = SCHEMA
        .split_once("const KEYS: &[&str] = &[")
        .expect("the list of settings")
        .1;
    let list = list.split_once("];").expect("its end").0;
    list.split(',')
        .map(|key| key.trim().trim_matches('"'))
        .filter(|key| !key.is_empty())
        .collect()
}

/// What `tidewire config` prints with nothing set, by the full name of each setting.
fn defaults() -> BTreeMap<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("config")
        .env_clear()
        .output()
        .unwrap();
    let table: toml::Table = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    let mut defaults = BTreeMap::new();
    flatten("", table, &mut defaults);
    defaults
}

fn flatten(before: &str, table: toml::Table, settings: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => flatten(&format!("{before}{name}."), inner, settings),
            value => {
                settings.insert(format!("{before}{name}"), value.to_string());
            }
        }
    }
}

/// The rows of all tables of settings: name, default, unit, meaning.
fn documented() -> BTreeMap<String, [String; 3]> {
    let text = fs::read_to_string(project().join("docs/configuration.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        let [name, default, unit, meaning] = &cells[..] else {
            panic!("not four cells: {line}")
        };
        let name = name.trim_matches('`').to_owned();
        let row = [default.clone(), unit.clone(), meaning.clone()];
        let twice = rows.insert(name.clone(), row);
        assert_eq!(twice, None, "{name} is there twice");
    }
    rows
}

#[test]
fn every_setting_is_documented_with_its_default_and_nothing_else_is() {
    let documented = documented();
    let mut keys = keys();
    keys.sort_unstable();
    assert_eq!(documented.keys().collect::<Vec<_>>(), keys);

    let defaults = defaults();
    for (name, [default, unit, meaning]) in &documented {
        let expected = defaults
            .get(name)
            .map_or_else(|| "unset".to_owned(), |default| format!("`{default}`"));
        assert_eq!(default, &expected, "the default of {name}");
        assert!(!unit.is_empty() && !meaning.is_empty(), "{name}");
    }
}

#[test]
fn the_subscribers_guide_shows_what_happens() {
    follow("docs/guide-subscribe.md", &Hub::spawn(&[], &[]));
}

#[test]
fn the_publishers_guide_shows_what_happens() {
    follow("docs/guide-publish.md", &Hub::spawn(&[], &[]));
}

#[test]
fn the_guide_to_the_event_streaming_service_shows_what_happens() {
    let settings = [
        ("TIDEWIRE_SERVICES__EVENTS", "true"),
        ("TIDEWIRE_SERVICES__GENERATOR_INTERVAL", "1h"),
    ];
    let hub = Hub::spawn(&[], &settings);
    hub.wait_for_stats("the generators have started", |stats| {
        stats["published"] == 4
    });
    follow("docs/coming-from-event-streaming.md", &hub);
}

#[test]
fn the_guide_for_those_who_come_from_the_go_sample_shows_what_happens() {
    let settings = [("TIDEWIRE_SERVICES__METRICS", "true")];
    let hub = Hub::spawn(&[], &settings);
    follow("docs/coming-from-go-sse-sample.md", &hub);
}

#[test]
fn the_guide_for_those_with_a_topics_package_shows_what_happens() {
    follow("docs/coming-from-topics-package.md", &Hub::spawn(&[], &[]));
}

/// Where the guides' hub is, and what its ids begin with.
const GUIDES_HUBS: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:8089"];
const GUIDES_EPOCH: &str = "~e9z9tzyr-";
/// How much longer a stream that has shown what it should is watched for more.
const REST: Duration = Duration::from_millis(300);

/// Runs every command of a guide in order, against one hub, and compares what each prints.
fn follow(guide: &str, hub: &Hub) {
    let host = format!("127.0.0.1:{}", hub.port());
    let head = run(&format!("curl -sNi http://{host}/events"), |text| {
        text.contains("retry: ")
    });
    let epoch = head.split_once("last-event-id: ").expect("a position").1;
    let epoch = &epoch[..=epoch.find('-').expect("an epoch")];
    // What has a UUID in the guide, and which one it has here.
    let mut uuids = BTreeMap::<String, String>::new();
    let run_here = |command: &str, expected: Option<&str>, uuids: &BTreeMap<String, String>| {
        let here = |text: &str| text.replace(epoch, GUIDES_EPOCH);
        let mut command = command.replace(GUIDES_EPOCH, epoch);
        for guides_hub in GUIDES_HUBS {
            command = command.replace(guides_hub, &host);
        }
        for (guides, here) in uuids {
            command = command.replace(guides.as_str(), here);
        }
        let is_all = |text: &str| expected.is_some_and(|all| steady(&here(text)) == steady(all));
        here(&run(&command, is_all))
    };

    let text = fs::read_to_string(project().join(guide)).unwrap();
    let mut blocks = 0;
    for block in text.split("\n```").skip(1).step_by(2) {
        let (language, block) = block.split_once('\n').unwrap();
        match language {
            "sh" => drop(run_here(block, None, &uuids)),
            "console" => {
                for shown in format!("\n{block}").split("\n$ ").skip(1) {
                    let (command, expected) = command_and_output(shown);
                    let printed = run_here(&command, Some(&expected), &uuids);
                    assert_eq!(steady(&printed), steady(&expected), "{guide}: {command}");
                    for (guides, here) in uuids_in(&expected).zip(uuids_in(&printed)) {
                        let known = uuids.entry(guides.to_owned()).or_insert(here.to_owned());
                        assert_eq!(known, here, "{guide}: {guides} after {command}");
                    }
                }
                blocks += 1;
            }
            _ => {}
        }
    }
    assert!(blocks > 3, "{blocks} blocks with commands");
}

/// A command with the lines that it goes on in, and what follows.
fn command_and_output(shown: &str) -> (String, String) {
    let goes_on = |line: &&str| line.ends_with('\\') || line.ends_with('|');
    let command = shown.lines().take_while(goes_on).count() + 1;
    let lines: Vec<_> = shown.lines().collect();
    (lines[..command].join("\n"), lines[command..].join("\n"))
}

/// Runs a command until it ends, or, as streams don't, until it has printed what it should.
fn run(command: &str, is_all: impl Fn(&str) -> bool) -> String {
    let mut child = Command::new("bash")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, chunks) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut buffer) {
            let _ = sender.send(buffer[..len].to_vec()); // nobody listens to a stream that has shown enough
        }
    });
    let deadline = Instant::now() + WAIT_MAX;
    let mut printed = Vec::new();
    let text = loop {
        let text = String::from_utf8_lossy(&printed).into_owned();
        let left = deadline.saturating_duration_since(Instant::now());
        match chunks.recv_timeout(if is_all(&text) { REST } else { left }) {
            Ok(chunk) => printed.extend(chunk),
            Err(_) => break text,
        }
    };
    let _ = child.kill(); // what it started ends with the hub
    let _ = child.wait();
    text
}

/// Output without what differs from run to run: the jitter of `retry:`, times, UUIDs, ids of envelopes and their clients,
/// and blank lines at the end.
fn steady(output: &str) -> String {
    let differs = |part: &&str| is_uuid(part) || part.parse::<jiff::Timestamp>().is_ok();
    let line = |line: &str| {
        if line.starts_with("retry: ") {
            return "retry: …".to_owned();
        }
        let parts = line.split('"');
        let steady = parts.map(|part| if differs(&part) { "…" } else { part });
        let steady = steady.collect::<Vec<_>>().join("\"");
        ["\"timestamp\":", "\"id\":\"evt_", "\"client_id\":\""]
            .into_iter()
            .fold(steady, |line, name| masked(&line, name))
    };
    let lines: Vec<_> = output.lines().map(line).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The UUIDs among the strings of JSON.
fn uuids_in(output: &str) -> impl Iterator<Item = &str> {
    output.split('"').filter(|part| is_uuid(part))
}

fn is_uuid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

/// A line in which what follows a name, up to the next quote, comma or brace, is not told.
fn masked(line: &str, name: &str) -> String {
    let mut parts = line.split(name);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['"', ',', '}']).unwrap_or(part.len());
        masked += &[name, "…", &part[end..]].concat();
    }
    masked
}

#[test]
fn links_lead_somewhere() {
    let project = project();
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in [project.clone(), project.join("docs")] {
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        pages.extend(
            files.filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
    }
    assert!(pages.len() > 3, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
            let file = target.split('#').next().unwrap();
            let exists = file.is_empty() || page.parent().unwrap().join(file).exists();
            assert!(exists, "{}: {target}", page.display());
        }
    }
}
