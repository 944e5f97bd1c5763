//! What is kept between two runs: the account at the authority, and the certificate with its key. Both are secrets.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

const ACCOUNT: &str = "account.json";
/// The chain and the key in one file, so that they are replaced as one.
const CERTIFICATE: &str = "certificate.pem";
/// Nobody else on the machine may read.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The folder.
pub(super) struct Cache(PathBuf);

impl Cache {
    /// Makes the folder if it is not there, and sees that it can be written.
    pub(super) fn open(folder: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)?;
        let cache = Self(PathBuf::from(folder));
        cache.write("probe", b"")?;
        fs::remove_file(cache.0.join("probe"))?;
        Ok(cache)
    }

    pub(super) fn account(&self) -> Option<String> {
        fs::read_to_string(self.0.join(ACCOUNT)).ok()
    }

    pub(super) fn keep_account(&self, json: &str) -> io::Result<()> {
        self.write(ACCOUNT, json.as_bytes())
    }

    pub(super) fn forget_account(&self) {
        let _ = fs::remove_file(self.0.join(ACCOUNT));
    }

    pub(super) fn certificate(&self) -> Option<String> {
        fs::read_to_string(self.0.join(CERTIFICATE)).ok()
    }

    pub(super) fn keep_certificate(&self, pem: &str) -> io::Result<()> {
        self.write(CERTIFICATE, pem.as_bytes())
    }

    /// Puts a file in place, whole or not at all.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.0.join(format!("{name}.new"));
        // One that a crash has left may have another mode.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, self.0.join(name))
    }
}
