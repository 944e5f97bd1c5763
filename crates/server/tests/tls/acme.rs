//! Certificates from an authority: Debian's `pebble`, which checks domains for real and looks up their names at a DNS server
//! of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Hub, free_port, until};

const DOMAIN: &str = "hub.example";
/// A certificate's life unless a test wants another, in seconds.
const LONG_S: u64 = 90 * 24 * 3_600;

/// An authority that issues certificates of this life, and the folders and ports of a hub that asks it.
struct Authority {
    folder: TempDir,
    port: u16,
    management: u16,
    dns: u16,
    /// The hub's port 80.
    plain: u16,
    life_s: u64,
    running: Vec<Child>,
}

impl Authority {
    fn new(life_s: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(folder.path().join("own.pem"), own.cert.pem()).unwrap();
        fs::write(
            folder.path().join("own-key.pem"),
            own.signing_key.serialize_pem(),
        )
        .unwrap();
        let [port, management, dns, plain] = [(); 4].map(|()| free_port());
        Self {
            folder,
            port,
            management,
            dns,
            plain,
            life_s,
            running: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn start(&mut self) {
        let settings = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": self.text("own.pem"),
            "privateKey": self.text("own-key.pem"),
            "httpPort": self.plain,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "certificateValidityPeriod": self.life_s,
        }});
        fs::write(self.path("pebble.json"), settings.to_string()).unwrap();
        let dns = format!("127.0.0.1:{}", self.dns);
        let mut names = Command::new("pebble-challtestsrv");
        names.args([
            "-dns01",
            &dns,
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
        ]);
        names.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-management",
        ]);
        names.arg(format!("127.0.0.1:{}", free_port()));
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", &self.text("pebble.json"), "-dnsserver", &dns]);
        pebble.env("PEBBLE_VA_NOSLEEP", "1");
        for mut command in [names, pebble] {
            let log = fs::File::options()
                .create(true)
                .append(true)
                .open(self.path("log"))
                .unwrap();
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            let child = command.spawn();
            self.running
                .push(child.unwrap_or_else(|error| panic!("{error}; run `make setup`")));
        }
        // Its root is made anew at each start.
        until("the authority is there", || {
            let root = format!("https://127.0.0.1:{}/roots/0", self.management);
            let output = Command::new("curl")
                .args(["-sf", "--cacert", &self.text("own.pem"), &root])
                .output();
            let pem = output.unwrap().stdout;
            fs::write(self.path("root.pem"), &pem).unwrap();
            !pem.is_empty()
        });
    }

    fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn hub(&self) -> Hub {
        let directory = format!("https://127.0.0.1:{}/dir", self.port);
        let redirect = format!("127.0.0.1:{}", self.plain);
        Hub::spawn(
            &[],
            &[
                ("TIDEWIRE_TLS__REDIRECT", &redirect),
                ("TIDEWIRE_TLS__ACME__DOMAINS", DOMAIN),
                ("TIDEWIRE_TLS__ACME__CONTACT", "mailto:ops@hub.example"),
                ("TIDEWIRE_TLS__ACME__DIRECTORY", &directory),
                ("TIDEWIRE_TLS__ACME__CACHE", &self.text("cache")),
                ("TIDEWIRE_TLS__ACME__CA", &self.text("own.pem")),
                ("TIDEWIRE_AUTH__ANONYMOUS__SUBSCRIBE", "**"),
                ("TIDEWIRE_AUTH__ANONYMOUS__PUBLISH", "**"),
            ],
        )
    }

    /// curl as somebody who trusts the authority.
    fn curl(&self, hub: &Hub, path: &str) -> Command {
        let mut command = Command::new("curl");
        let resolve = format!("{DOMAIN}:{}:127.0.0.1", hub.port());
        command.args([
            "-sSN",
            "--max-time",
            "60",
            "--cacert",
            &self.text("root.pem"),
            "--resolve",
            &resolve,
        ]);
        command.arg(format!("https://{DOMAIN}:{}{path}", hub.port()));
        command
    }

    fn is_trusted(&self, hub: &Hub) -> bool {
        self.curl(hub, "/healthz")
            .output()
            .unwrap()
            .status
            .success()
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.path("cache/certificate.pem")).unwrap_or_default()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!(
                "--- pebble wrote:\n{}---",
                fs::read_to_string(self.path("log")).unwrap_or_default()
            );
        }
    }
}

/// Whether the figures say that there is no certificate to be had.
fn has_failed(authority: &Authority, hub: &Hub) -> bool {
    let output = authority
        .curl(hub, "/metrics")
        .arg("--insecure")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("tidewire_tls_reload_failed 1\n")
}

#[test]
fn a_certificate_is_issued_and_kept_for_the_next_start() {
    let mut authority = Authority::new(LONG_S);
    authority.start();
    let mut hub = authority.hub();
    until("the certificate is served", || authority.is_trusted(&hub));
    until("the certificate is kept", || {
        authority.path("cache/certificate.pem").exists()
    });
    let mode = |name: &str| {
        fs::metadata(authority.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("cache"), 0o700);
    for name in ["cache/account.json", "cache/certificate.pem"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let kept = authority.certificate();
    authority.stop();
    hub.restart();
    assert!(authority.is_trusted(&hub), "without the authority");
    assert_eq!(authority.certificate(), kept);
    assert!(
        !hub.output().contains("can't get a certificate"),
        "{}",
        hub.output()
    );
}

#[test]
fn a_certificate_is_renewed_in_time_and_streams_live_on() {
    let mut authority = Authority::new(12);
    authority.start();
    let hub = authority.hub();
    until("the certificate is served", || authority.is_trusted(&hub));
    let mut subscriber = authority
        .curl(&hub, "/events?topic=a")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let first = authority.certificate();
    until("another is there", || authority.certificate() != first);
    until("it is served", || authority.is_trusted(&hub));
    let mut publish = authority.curl(&hub, "/events?topic=a");
    publish.args(["-d", "still here", "-H", "Content-Type: text/plain"]);
    assert!(publish.output().unwrap().status.success());
    assert!(lines.any(|line| line.unwrap() == "data: still here"));
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();
}

#[test]
fn an_authority_that_is_away_is_asked_again_and_the_hub_serves_meanwhile() {
    let mut authority = Authority::new(LONG_S);
    let hub = authority.hub();
    until("the failure is in the figures", || {
        has_failed(&authority, &hub)
    });
    let output = hub.output();
    assert!(
        output.contains("can't get a certificate (tls.acme)") && output.contains("refused"),
        "{output}"
    );
    // The authority is there now, and finds something else at port 80.
    let plain = authority.plain;
    authority.plain = free_port();
    authority.start();
    let try_again = || {
        let pid = Pid::from_raw(hub.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    };
    try_again();
    until("the reason is told", || {
        hub.output().contains("did not find this hub at port 80")
    });
    assert!(hub.output().contains(DOMAIN), "{}", hub.output());
    // It comes back as another, which knows no account of ours.
    authority.stop();
    authority.plain = plain;
    authority.start();
    until("the certificate is served", || {
        try_again();
        authority.is_trusted(&hub)
    });
    assert!(!has_failed(&authority, &hub));
}

#[test]
fn settings_that_can_not_work_are_refused_with_what_to_do() {
    let good = [
        ("TIDEWIRE_TLS__REDIRECT", "127.0.0.1:80"),
        ("TIDEWIRE_TLS__ACME__DOMAINS", DOMAIN),
        ("TIDEWIRE_TLS__ACME__CACHE", "acme"),
    ];
    for (name, value, says) in [
        ("TIDEWIRE_TLS__REDIRECT", "", "tls.redirect: bad value"),
        ("TIDEWIRE_TLS__ACME__CACHE", "", "tls.acme.cache: bad value"),
        (
            "TIDEWIRE_TLS__ACME__DOMAINS",
            "*.example.org",
            "no wildcard",
        ),
        (
            "TIDEWIRE_TLS__ACME__DOMAINS",
            "127.0.0.1",
            "no wildcard, no address",
        ),
        (
            "TIDEWIRE_TLS__ACME__DIRECTORY",
            "http://authority",
            "https://",
        ),
        ("TIDEWIRE_TLS__ACME__CONTACT", "ops@example.org", "mailto:"),
        ("TIDEWIRE_TLS__CERT", "cert.pem", "either files"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.arg("config").envs(good).env(name, value);
        if value.is_empty() {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {error}");
        assert!(error.contains(says), "{name}={value}: {error}");
    }
}
