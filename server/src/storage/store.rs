//! Where snapshots lie: a folder, behind a trait, so that faults of disks can be played.
//!
//! Pages are written and read by [`SnapshotStore`]'s implementations; the few small files beside
//! them go through the same trait, so that a test can fail at each step of a commit.

#![expect(clippy::disallowed_methods, reason = "this thread has nobody to wait for it")]

use super::load::PURGED;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of snapshots. One file of pages is open at a time.
pub trait SnapshotStore {
    /// Makes a file of pages.
    fn create(&mut self, name: &str) -> impl Future<Output = io::Result<()>>;

    /// Writes at the end of the file that was made. The size is a multiple of the page's alignment.
    fn append(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;

    /// Makes the file that was made durable, and closes it.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>>;

    /// Opens a file of pages. Returns its size.
    fn open(&mut self, name: &str) -> impl Future<Output = io::Result<u64>>;

    /// Reads from the file that was opened. The offset is a multiple of the page's alignment.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> impl Future<Output = io::Result<()>>;

    /// Closes the file that is open, if there is one.
    fn close(&mut self) -> impl Future<Output = ()>;

    /// Lets time go by.
    fn pause(&mut self, duration: Duration) -> impl Future<Output = ()>;

    /// The small files.
    fn folder(&self) -> &Folder;

    /// Writes a small file, durably.
    ///
    /// # Errors
    /// The disk's.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder().put(name, bytes)
    }

    /// Gives a file another name, in the place of what bore it, durably.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.folder().rename(from, to)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.folder().remove(name)
    }
}

/// Notes in the folder at `path` that something is purged which its snapshot may hold: that is read
/// no more. Not the storage plane does it, but who begins the purge, after
/// [`crate::mesh::Control::purge_begins`].
///
/// # Errors
/// The disk's.
pub fn note_purge(path: &Path) -> io::Result<()> {
    let note = path.join(PURGED);
    if note.exists() {
        return Ok(());
    }
    options().write(true).create(true).truncate(true).open(note)?.sync_all()?;
    File::open(path)?.sync_all()
}

/// The small files of a folder, the same for all kinds of stores.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held while this process uses the folder.
    _lock: File,
}

impl Folder {
    /// Opens the folder, which is made if it is missing, for this process alone.
    ///
    /// # Errors
    /// It cannot be made or written, or another process uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = options().write(true).create(true).truncate(false).open(path.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::Error(error) => error,
            fs::TryLockError::WouldBlock => {
                io::Error::new(ErrorKind::ResourceBusy, "another process uses it")
            }
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a small file, durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = options().write(true).create(true).truncate(true).open(self.path(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        File::open(&self.path)?.sync_all()
    }

    /// A small file's bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// The disk's, or it is larger than `size_max`.
    pub(super) fn get(&self, name: &str, size_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match options().read(true).open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.metadata()?.len();
        if size > size_max {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "it is too large to be ours"));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("bounded above")];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of all files.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// How files are opened: not through links, and for nobody else to read.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

/// A store by plain writes and reads, for hosts and disks without direct I/O. Its futures never
/// wait.
#[derive(Debug)]
pub struct Plain {
    folder: Folder,
    file: Option<File>,
    offset: u64,
}

impl Plain {
    /// A store in this folder.
    #[must_use]
    pub const fn new(folder: Folder) -> Self {
        Self { folder, file: None, offset: 0 }
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("a file is open")
    }
}

impl SnapshotStore for Plain {
    async fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.folder.path(name);
        self.file = Some(options().write(true).create_new(true).open(path)?);
        self.offset = 0;
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file().write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.file.take().expect("a file is open").sync_all()
    }

    async fn open(&mut self, name: &str) -> io::Result<u64> {
        let file = options().read(true).open(self.folder.path(name))?;
        let size = file.metadata()?.len();
        self.file = Some(file);
        Ok(size)
    }

    async fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file().read_exact_at(into, offset)
    }

    async fn close(&mut self) {
        self.file = None;
    }

    async fn pause(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn folder(&self) -> &Folder {
        &self.folder
    }
}
