//! The hub over TLS, as curl, Chromium and clients of no good will see it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod acme;
mod browser;
mod cost;
mod files;
mod floods;
mod redirect;
mod versions;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::Hub;
use tempfile::TempDir;

/// A certificate's files, in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.renew();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Puts another certificate with its key in place.
    fn renew(&self) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(self.path("cert.pem"), signed.cert.pem()).unwrap();
        let key = self.path("key.pem");
        fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A hub that serves with them, and with these settings.
    fn hub(&self, env: &[(&str, &str)]) -> Hub {
        let (cert, key) = (self.text("cert.pem"), self.text("key.pem"));
        let mut all = vec![
            ("TIDEWIRE_TLS__CERT", cert.as_str()),
            ("TIDEWIRE_TLS__KEY", &key),
        ];
        all.extend_from_slice(env);
        Hub::spawn(&[], &all)
    }

    /// Asks with curl, which trusts the certificate of this file alone.
    fn curl(&self, hub: &Hub, trusted: &str, path: &str, more: &[&str]) -> Output {
        Command::new("curl")
            .args(["-sS", "--max-time", "20", "--cacert", &self.text(trusted)])
            .args(more)
            .arg(url(hub, path))
            .output()
            .unwrap()
    }

    /// As [`curl`](Self::curl), for what must work; returns what came.
    fn get(&self, hub: &Hub, path: &str, more: &[&str]) -> String {
        let output = self.curl(hub, "cert.pem", path, more);
        assert!(output.status.success(), "{path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn url(hub: &Hub, path: &str) -> String {
    hub.url(path).replace("http://", "https://")
}
