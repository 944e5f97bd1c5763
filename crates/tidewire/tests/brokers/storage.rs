//! A disk that fails when it is told to, on top of the real one.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tidewire::broker::{Storage, StorageFile};

/// What is wrong with the disk, and what was asked of it.
#[derive(Default)]
struct State {
    /// Bytes that may still be written.
    room: Option<u64>,
    /// Bytes that are written before the power fails; then nothing works any more.
    power: Option<u64>,
    /// Whether a sync waits until it is let go.
    held: bool,
    sync_fails: bool,
    syncs: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A disk with faults. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Faulty(Arc<Shared>);

impl Faulty {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
    }

    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.change(|state| state.room = bytes);
    }

    pub(crate) fn set_power(&self, bytes: u64) {
        self.change(|state| state.power = Some(bytes));
    }

    pub(crate) fn hold_syncs(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    pub(crate) fn fail_syncs(&self) {
        self.change(|state| state.sync_fails = true);
    }

    /// How often it was asked to sync.
    pub(crate) fn syncs(&self) -> usize {
        self.0.state.lock().unwrap().syncs
    }

    fn powered(&self) -> Result<()> {
        match self.0.state.lock().unwrap().power {
            Some(0) => Err(Error::other("no power")),
            _ => Ok(()),
        }
    }
}

impl Storage for Faulty {
    fn open(&self, path: &Path) -> Result<Box<dyn StorageFile>> {
        self.powered()?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Box::new(FaultyFile(file, self.clone())))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.powered()?;
        std::fs::remove_file(path)
    }

    fn sync_folder(&self, _folder: &Path) -> Result<()> {
        self.powered()
    }
}

struct FaultyFile(File, Faulty);

impl StorageFile for FaultyFile {
    /// As a file system that can't reserve: then it is a write that finds no room, in its middle.
    fn reserve(&mut self, _end: u64) -> Result<()> {
        self.1.powered()
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        self.1.powered()?;
        let state = &mut *self.1.0.state.lock().unwrap();
        let len = bytes.len() as u64;
        let written = len
            .min(state.room.unwrap_or(len))
            .min(state.power.unwrap_or(len));
        self.0.write_all_at(&bytes[..written as usize], at)?;
        for left in [&mut state.room, &mut state.power].into_iter().flatten() {
            *left -= written;
        }
        match () {
            () if written == len => Ok(()),
            () if state.power == Some(0) => Err(Error::other("no power")),
            () => Err(Error::from(ErrorKind::StorageFull)),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.1.powered()?;
        let mut state = self.1.0.state.lock().unwrap();
        state.syncs += 1;
        state = self
            .1
            .0
            .changed
            .wait_while(state, |state| state.held)
            .unwrap();
        if state.sync_fails {
            return Err(Error::other("input/output error"));
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        self.1.powered()?;
        self.0.set_len(len)
    }
}
