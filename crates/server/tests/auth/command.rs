//! `tidewire token`: what it makes is let in, and what it says is what the hub does.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::issuer::SECRET;
use crate::publish_as;
use crate::support::Hub;

fn configured() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dev.toml");
    let text = format!(
        "[[auth.issuers]]\nsecret = '{SECRET}'\nissuer = 'dev'\naudience = ['tidewire']\n\
         [[auth.roles]]\nname = 'support'\nsubscribe = ['ticket:**']\n"
    );
    fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

fn token(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("token")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_made_is_let_in_and_explained() {
    let (_folder, file) = configured();
    let made = token(
        &[
            "--config",
            &file,
            "--user",
            "42",
            "--role",
            "support",
            "--publish",
            "orders:{user}",
        ],
        "",
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made = text(&made.stdout).trim().to_owned();
    let hub = Hub::spawn(&["--config", &file], &[]);
    assert_eq!(publish_as(&hub, "orders:42", &made).status, 200);
    assert_eq!(publish_as(&hub, "orders:43", &made).status, 403);
    for (args, input) in [
        (["--explain", made.as_str()], ""),
        (["--explain", "-"], made.as_str()),
    ] {
        let said = token(
            &[
                &args[..],
                &[
                    "--config", &file, "--topic", "ticket:a", "--topic", "user:43",
                ],
            ]
            .concat(),
            input,
        );
        assert!(said.status.success());
        let said = text(&said.stdout);
        for line in [
            "accepted       42, for 60 min more",
            "may subscribe  user:42, notification:42, ticket:**",
            "may publish    orders:42",
            "admin          no",
            "ticket:a: subscribe yes, publish no, private events yes",
            "user:43: subscribe no, publish no, private events no",
        ] {
            assert!(said.lines().any(|l| l == line), "{line}\n{said}");
        }
    }
}

#[test]
fn a_role_that_the_configuration_does_not_know_is_warned_of() {
    let (_folder, file) = configured();
    let made = token(
        &["--config", &file, "--role", "suport", "--role", "support"],
        "",
    );
    assert!(made.status.success());
    assert_eq!(
        text(&made.stderr),
        "warning: the configuration has no role \"suport\" (it has: support), so it gives no rights\n"
    );
    let made = token(&["--config", &file, "--role", "support"], "");
    assert_eq!(text(&made.stderr), "");
}

#[test]
fn a_refusal_is_explained_and_is_a_failure() {
    let (_folder, file) = configured();
    let made = token(&["--config", &file, "--valid", "0s"], "");
    let made = text(&made.stdout);
    let strict = ["TIDEWIRE_AUTH__LEEWAY", "0s"];
    let said = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args([
            "token",
            "--config",
            &file,
            "--explain",
            &format!("{}x", made.trim()),
        ])
        .env(strict[0], strict[1])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(
        text(&said.stdout).contains("refused        signature: "),
        "{}",
        text(&said.stdout)
    );
}

#[test]
fn without_a_secret_it_says_how_to_set_one() {
    let said = token(&["--user", "42"], "");
    assert_eq!(said.status.code(), Some(2));
    let said = text(&said.stderr);
    let at = said
        .find("[[auth.issuers]]")
        .expect("lines for the configuration");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dev.toml");
    fs::write(&file, &said[at..]).unwrap();
    let made = token(&["--user", "42", "--config", file.to_str().unwrap()], "");
    assert!(
        made.status.success(),
        "the lines are good as they are: {}",
        text(&made.stderr)
    );
}
