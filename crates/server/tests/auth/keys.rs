//! API keys, from `tidewire token --new-key` to a publish.

use std::process::Command;

use crate::support::Hub;
use crate::{code, publish, publish_as, refused};

/// A key and its lines for the configuration, as the command makes them.
fn make_key(args: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["token", "--new-key", "ci"])
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let lines = text(output.stderr);
    let at = lines
        .find("[[auth.keys]]")
        .expect("lines for the configuration");
    (
        text(output.stdout).trim().to_owned(),
        lines[at..].to_owned(),
    )
}

#[test]
fn a_key_does_what_the_configuration_says() {
    let (key, lines) = make_key(&["--publish", "orders:*"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidewire.toml");
    std::fs::write(&file, &lines).unwrap();
    assert!(
        !lines.contains(&key),
        "the configuration has the hash alone"
    );
    let hub = Hub::spawn(&["--config", file.to_str().unwrap()], &[]);
    assert_eq!(publish_as(&hub, "orders:7", &key).status, 200);
    let denied = publish_as(&hub, "news", &key);
    assert_eq!((denied.status, code(&denied)), (403, "not_allowed".into()));
    let unknown = publish(&hub, "orders:7", &[]);
    assert_eq!(
        (unknown.status, code(&unknown)),
        (401, "missing_credential".into())
    );
    let (check, _) = refused(&publish_as(&hub, "orders:7", &key[..key.len() - 1]));
    assert_eq!(check, "key");
    let (check, _) = refused(&publish_as(&hub, "orders:7", "tw_"));
    assert_eq!(check, "key");
}

#[test]
fn an_authorization_header_of_another_kind_is_told_so() {
    let (_, lines) = make_key(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidewire.toml");
    std::fs::write(&file, &lines).unwrap();
    let hub = Hub::spawn(&["--config", file.to_str().unwrap()], &[]);
    for header in ["Basic dTpw", "Bearer", "Bearer ", "token x", ""] {
        let (check, detail) = refused(&publish(&hub, "a", &[("Authorization", header)]));
        assert_eq!(check, "format", "{header:?}: {detail}");
    }
    let twice = [
        ("Authorization", "Bearer tw_1"),
        ("Authorization", "Bearer tw_2"),
    ];
    assert_eq!(refused(&publish(&hub, "a", &twice)).0, "format");
}
