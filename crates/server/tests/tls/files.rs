//! Certificates that are replaced while the hub runs, and those that can't be used.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Files, url};
use crate::support::{Hub, until};

fn reload(hub: &Hub) {
    let pid = Pid::from_raw(hub.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
}

#[test]
fn a_new_certificate_is_served_and_streams_live_on() {
    let files = Files::new();
    let hub = files.hub(&[]);
    let mut subscriber = Command::new("curl")
        .args([
            "-sSN",
            "--max-time",
            "60",
            "--cacert",
            &files.text("cert.pem"),
            &url(&hub, "/events?topic=a"),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    // The greeting: from now on it is sent what is published.
    lines.next().unwrap().unwrap();
    let mut wait_for = |wanted: &str| {
        assert!(lines.any(|line| line.unwrap() == wanted), "no {wanted}");
    };
    let publish = |data: &str| {
        let path = format!("/events?topic=a&event={data}");
        files.get(&hub, &path, &["-d", data, "-H", "Content-Type: text/plain"]);
    };
    publish("first");
    wait_for("data: first");

    fs::copy(files.path("cert.pem"), files.path("old.pem")).unwrap();
    files.renew();
    // The hub looks at the files by itself.
    until("the new certificate is served", || {
        files
            .curl(&hub, "cert.pem", "/healthz", &[])
            .status
            .success()
    });
    let old = files.curl(&hub, "old.pem", "/healthz", &[]);
    assert_eq!(old.status.code(), Some(60), "{old:?}");
    publish("second");
    wait_for("data: second");

    // A pair that does not fit together is not taken.
    fs::copy(files.path("cert.pem"), files.path("good.pem")).unwrap();
    fs::copy(files.path("key.pem"), files.path("good-key.pem")).unwrap();
    fs::copy(files.path("old.pem"), files.path("cert.pem")).unwrap();
    reload(&hub);
    let failed = |n: u8| {
        let metrics = files.curl(&hub, "good.pem", "/metrics", &[]);
        let line = format!("tidewire_tls_reload_failed {n}\n");
        String::from_utf8(metrics.stdout).unwrap().contains(&line)
    };
    until("the figures say so", || failed(1));
    let output = hub.output();
    let reason = format!("tls.key: {}: it does not belong", files.text("key.pem"));
    assert!(output.contains(&reason), "{output}");

    fs::copy(files.path("good.pem"), files.path("cert.pem")).unwrap();
    reload(&hub);
    until("the figures are good again", || failed(0));
    publish("third");
    wait_for("data: third");
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
}

#[test]
fn what_cannot_be_served_stops_the_start_with_the_file_and_the_reason() {
    let files = Files::new();
    let other = Files::new();
    fs::write(files.path("bad.pem"), "no certificate\n").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(files.path("broken.pem"), broken).unwrap();
    let good = (files.text("cert.pem"), files.text("key.pem"));
    for (cert, key, setting, reason) in [
        (
            files.text("none.pem"),
            good.1.clone(),
            "tls.cert",
            "No such file",
        ),
        (
            good.0.clone(),
            files.text("none.pem"),
            "tls.key",
            "No such file",
        ),
        (
            files.text("bad.pem"),
            good.1.clone(),
            "tls.cert",
            "no certificate in PEM",
        ),
        (
            files.text("broken.pem"),
            good.1.clone(),
            "tls.cert",
            "BadEncoding",
        ),
        (
            good.0.clone(),
            good.0.clone(),
            "tls.key",
            "no private key in PEM",
        ),
        (
            good.0.clone(),
            other.text("key.pem"),
            "tls.key",
            "does not belong to the certificate",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .env("TIDEWIRE_LISTEN", "127.0.0.1:0")
            .env("TIDEWIRE_TLS__CERT", &cert)
            .env("TIDEWIRE_TLS__KEY", &key)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let file = if setting == "tls.cert" { &cert } else { &key };
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains(&format!("error: {setting}: {file}: ")),
            "{error}"
        );
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn one_without_the_other_is_refused_and_a_readable_key_is_warned_of() {
    for (set, missing) in [
        ("CERT", "tls.key"),
        ("KEY", "tls.cert"),
        ("REDIRECT", "tls.cert"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .arg("config")
            .env(format!("TIDEWIRE_TLS__{set}"), "127.0.0.1:80")
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.contains(&format!("{missing}: must be set")),
            "{error}"
        );
    }
    let files = Files::new();
    for (mode, warned) in [(0o644, true), (0o640, false)] {
        fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
        let hub = files.hub(&[]);
        let output = hub.output();
        assert_eq!(
            output.contains("can read the private key"),
            warned,
            "{output}"
        );
    }
}

#[test]
fn the_commands_speak_tls_and_trust_whom_they_are_told_to() {
    let files = Files::new();
    let hub = files.hub(&[]);
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
            .args(args)
            .args(["--url", &url(&hub, "")])
            .env_clear()
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let ca = files.text("cert.pem");
    let (code, text) = run(&["publish", "a", "x", "--ca", &ca]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&[
        "watch", "a", "--since", "earliest", "--count", "1", "--ca", &ca,
    ]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a message x"), "{text}");
    let (code, text) = run(&["nodes", "--ca", &ca]);
    assert_eq!(code, Some(0), "{text}");
    // Without it the certificate is nobody's. Waiting makes it nobody else's.
    for args in [&["nodes"][..], &["watch", "a"], &["publish", "a", "x"]] {
        let (code, text) = run(args);
        assert_eq!(code, Some(1), "{args:?}: {text}");
        assert!(
            text.contains("certificate is not trusted"),
            "{args:?}: {text}"
        );
        assert!(text.contains("--ca FILE"), "{args:?}: {text}");
    }
    let (code, text) = run(&["nodes", "--ca", &files.text("key.pem")]);
    assert_eq!(code, Some(2), "{text}");
}
