//! The disk as the broker writes to it: few calls, so that a test can let each of them fail.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Where the broker's files are. All that it writes of events goes through this.
pub trait Storage: Send + Sync + 'static {
    /// Opens a file to write to; makes it where it is not there.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Makes it safe which files are in a folder.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// A file that the broker writes to.
pub trait StorageFile: Send {
    /// Reserves room for the bytes up to `end`, so that writing there neither lacks room nor changes the file's length.
    ///
    /// # Errors
    /// Those of the system; [`ErrorKind::StorageFull`] where there is no room.
    fn reserve(&mut self, end: u64) -> io::Result<()>;

    /// Writes all of the bytes. After an error some of them may be written.
    ///
    /// # Errors
    /// Those of the system; [`ErrorKind::StorageFull`] where there is no room.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes all that was written safe.
    ///
    /// # Errors
    /// Those of the system. What was written since the last time is then of unknown fate, whatever a second call says.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// Those of the system.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

/// The file system.
pub(super) struct FileSystem;

impl Storage for FileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Box::new(file))
    }
}

impl StorageFile for File {
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        let len = self.metadata()?.len();
        if end <= len {
            return Ok(());
        }
        match fallocate(&*self, FallocateFlags::empty(), len, end - len) {
            // Not every file system can; there a write says that there is no room.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => {
                // What there was room for is given back.
                let _ = File::set_len(self, len);
                Err(error.into())
            }
        }
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

/// Whether an error says that there is no room, for now.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
