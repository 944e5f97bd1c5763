//! What a run leaves to the next one: the lock of the folder, and whether the run ended in good order.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Fsync;
use crate::broker::StartError;

const LOCK: &str = "lock";
const STATE: &str = "state";
/// Always as long, so that writing it takes no room on a full disk.
const STATE_BYTES: usize = 256;
/// Changes when the machine boots.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The lock of a folder (flock(2)), until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file alone would not do: a child that was forked meanwhile has it open too until its exec, and
    /// the next run here would find the folder in use.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Locks the folder for this process.
pub(super) fn lock(folder: &Path) -> Result<Lock, StartError> {
    let path = folder.join(LOCK);
    let failed = |error: &dyn std::fmt::Display| {
        StartError::new(format!("can't lock {}: {error}", path.display()))
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => {
            // For people only; a full disk is no reason not to start.
            let _ = file
                .set_len(0)
                .and_then(|()| write!(file, "{}", std::process::id()));
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Err(StartError::new(format!(
                "{} is in use by another process (process id {}): a folder serves one hub at a time; \
                 end that one, or set broker.path to another folder",
                folder.display(),
                if holder.is_empty() {
                    "unknown"
                } else {
                    &holder
                }
            )))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// What is known of the run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing: a new folder, or one that was copied without this file.
    Unknown,
    /// All that was answered is on the disk.
    Safe,
    /// The machine went down while answered events may have been in its memory only.
    MayHaveLost,
}

/// Reads what the run before has left.
pub(super) fn before(folder: &Path) -> Before {
    let Ok(text) = fs::read_to_string(folder.join(STATE)) else {
        return Before::Unknown;
    };
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    match (value("clean"), value("fsync"), value("boot")) {
        (Some("true"), ..) | (_, Some("always"), _) => Before::Safe,
        (Some("false"), Some("interval"), Some(boot)) if boot == boot_id() => Before::Safe,
        (Some("false"), Some("interval"), Some(_)) => Before::MayHaveLost,
        _ => Before::Unknown,
    }
}

/// Leaves word for the next run.
pub(super) fn write(folder: &Path, fsync: Fsync, clean: bool) -> io::Result<()> {
    let fsync = match fsync {
        Fsync::Always => "always",
        Fsync::Interval(_) => "interval",
    };
    let text = format!("clean={clean}\nfsync={fsync}\nboot={}\n", boot_id());
    let padded = format!("{text:\n<STATE_BYTES$}");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(STATE))?;
    file.write_all_at(padded.as_bytes(), 0)?;
    file.sync_data()
}

fn boot_id() -> String {
    let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    id.trim().to_owned()
}

/// Makes the next run take it that events may be missing.
pub(super) fn forget(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(STATE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(folder)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_though_a_forked_child_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).is_err());
        let of_the_child = held.0.try_clone().unwrap();
        drop(held);
        lock(folder.path()).unwrap();
        drop(of_the_child);
    }
}
