//! The embedded store: one redb file, keys to records. Blocks; so it lives on threads of its own.
//!
//! Owns the file, its one table, and what is said to an operator when it cannot be opened. Knows
//! nothing of planes and shards.
//!
//! After an error of the disk, redb refuses everything until the file is opened again: so whoever
//! meets one says so ([`Store::recover`]), or a full disk would end the reads as well.

use super::Write;
use super::holder::holder;
use super::record::Record;
use crate::config::Config;
use crate::error::{FetchFailure, StartError};
use crate::mesh::{
    Change, ContentType, Found, Held, Lifetime, Precondition, Stale, Stored, Written,
};
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, TableError, WriteTransaction,
};
use shard_cache::hash::Etag;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// The one table: key to record, see [`super::record`].
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// The first bytes of every redb file.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// Where the store is and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The file; it and its folder are created when missing.
    pub path: PathBuf,
    /// What redb may keep in memory, bytes.
    pub cache_bytes: usize,
}

impl StoreOptions {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let cache_bytes = usize::try_from(config.origin.cache).expect("it fits the address space");
        Self { path: config.origin.path.clone(), cache_bytes }
    }
}

/// The store failed while it was in use.
#[derive(Debug)]
pub struct StoreFailure(String);

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreFailure {}

/// Makes a [`StoreFailure`] of any error of redb.
fn failure(error: impl Into<redb::Error>) -> StoreFailure {
    StoreFailure(error.into().to_string())
}

/// Opens the file.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An open store. Only one process at a time has it open.
pub struct Store {
    opened: RwLock<Opened>,
    open: Opener,
    path: PathBuf,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The file as it was opened last.
struct Opened {
    /// `None` where that has failed.
    database: Option<Database>,
    /// How often it was opened.
    number: u64,
}

impl Opened {
    fn database(&self) -> Result<&Database, StoreFailure> {
        self.database.as_ref().ok_or_else(|| StoreFailure("the file is closed".to_owned()))
    }
}

impl Store {
    /// Opens the store, or makes an empty one.
    ///
    /// # Errors
    /// The file or its folder cannot be read or made, the file is no store or damaged, or another
    /// process holds it; the error says which, and what to do.
    pub fn open(options: &StoreOptions) -> Result<Self, StartError> {
        let path = &options.path;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|error| unreadable(folder, &error))?;
        }
        check_magic(path)?;
        let (file, cache_bytes) = (path.clone(), options.cache_bytes);
        let open = move || Database::builder().set_cache_size(cache_bytes).create(&file);
        Self::open_by(path, Box::new(open))
    }

    fn open_by(path: &Path, open: Opener) -> Result<Self, StartError> {
        let database = open().map_err(|error| refusal(path, error))?;
        let opened = RwLock::new(Opened { database: Some(database), number: 1 });
        let store = Self { opened, open, path: path.to_owned() };
        // Reading needs the table to exist, and a first read proves that the file can be read.
        store.make_table().map_err(|error| damaged(path, &error.to_string()))?;
        Ok(store)
    }

    /// Makes the table if it is missing.
    fn make_table(&self) -> Result<(), StoreFailure> {
        let read = self.opened().database()?.begin_read().map_err(failure)?;
        match read.open_table(RECORDS) {
            Ok(_) => return Ok(()),
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(failure(error)),
        }
        drop(read);
        self.batch()?.commit()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many keys it holds.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self) -> Result<u64, StoreFailure> {
        self.read()?.0.len().map_err(failure)
    }

    /// How often the file was opened, for [`Self::recover`].
    pub(super) fn opened_count(&self) -> u64 {
        self.opened().number
    }

    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has failed that was begun when the file had been opened so often: opens it again,
    /// unless somebody has. What is read or written meanwhile fails.
    pub(super) fn recover(&self, opened_count: u64) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.number != opened_count {
            return;
        }
        // It lets go of the file first.
        opened.database = None;
        match (self.open)() {
            Ok(database) => {
                *opened = Opened { database: Some(database), number: opened_count + 1 };
                tracing::warn!(path = %self.path.display(), "the store was opened again");
            }
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "the store cannot be opened again");
            }
        }
    }

    /// The records as of now; later commits do not show.
    pub(super) fn read(&self) -> Result<Records, StoreFailure> {
        let read = self.opened().database()?.begin_read().map_err(failure)?;
        Ok(Records(read.open_table(RECORDS).map_err(failure)?))
    }

    /// Begins a batch of writes; waits while another one is open.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn batch(&self) -> Result<Batch, StoreFailure> {
        let mut write = self.opened().database()?.begin_write().map_err(failure)?;
        // After a kill the file then opens in a millisecond instead of being read whole.
        write.set_quick_repair(true);
        // Opening makes the table, so that even an empty batch leaves a store that can be read.
        drop(write.open_table(RECORDS).map_err(failure)?);
        Ok(Batch { write, record: Vec::new() })
    }
}

/// Why a key could not be read.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The bytes under the key are no record.
    Damaged,
    /// The value is larger than what the caller takes.
    TooLarge,
    /// The file cannot be read.
    Store(StoreFailure),
}

impl ReadFailure {
    /// What a shard is told.
    pub(super) const fn outcome(&self) -> FetchFailure {
        match self {
            Self::Damaged | Self::Store(_) => FetchFailure::Unavailable,
            Self::TooLarge => FetchFailure::TooLarge,
        }
    }
}

/// How long a value with this ttl is fresh: the store is its own truth.
fn lifetime(ttl: Option<Duration>) -> Lifetime {
    ttl.map_or(Lifetime::Unlimited, Lifetime::For)
}

/// The type of a value that may be JSON: says so if it is.
pub(super) fn checked(content_type: ContentType, value: &[u8]) -> ContentType {
    let is_json = |text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    match content_type.names_json() && std::str::from_utf8(value).is_ok_and(is_json) {
        true => content_type.checked_json(),
        false => content_type,
    }
}

/// One read transaction.
#[derive(Debug)]
pub(super) struct Records(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Records {
    /// Whether the value of `key` has this tag. It has not if it cannot be read.
    pub(super) fn holds(&self, key: &[u8], etag: Etag) -> bool {
        let stored = self.0.get(key).ok().flatten();
        stored.is_some_and(|stored| {
            Record::read(stored.value()).is_some_and(|record| record.etag() == etag)
        })
    }

    /// The value of a key, if there is one; values above `value_size_max` bytes are not copied, and
    /// others when `hold` has found room for so many bytes.
    pub(super) fn get(
        &self,
        key: &[u8],
        value_size_max: usize,
        hold: impl FnOnce(usize) -> Held,
    ) -> Result<Option<Found>, ReadFailure> {
        let stored = self.0.get(key).map_err(|error| ReadFailure::Store(failure(error)))?;
        let Some(stored) = stored else { return Ok(None) };
        let record = Record::read(stored.value()).ok_or(ReadFailure::Damaged)?;
        if record.value.len() > value_size_max {
            return Err(ReadFailure::TooLarge);
        }
        Ok(Some(Found {
            held: hold(record.value.len()),
            value: record.value.into(),
            content_type: record.content_type,
            etag: record.etag(),
            lifetime: lifetime(record.ttl),
            stale: record.stale,
        }))
    }
}

/// Writes that become visible together, or, dropped without a commit, not at all.
pub struct Batch {
    write: WriteTransaction,
    /// The bytes of the record being written, kept for its memory.
    record: Vec<u8>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Batch {
    /// Stores what `writes` puts, in one go: opening the table costs more than a write.
    ///
    /// # Errors
    /// What `writes` returns, or that the file cannot be written.
    pub fn put_all<E: From<StoreFailure>>(
        &mut self,
        writes: impl FnOnce(&mut Puts<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let table = self.write.open_table(RECORDS).map_err(failure)?;
        writes(&mut Puts { table, record: &mut self.record })
    }

    /// Makes all writes visible and durable.
    ///
    /// # Errors
    /// The file cannot be written; then nothing became visible.
    pub fn commit(self) -> Result<(), StoreFailure> {
        self.write.commit().map_err(failure)
    }
}

/// The open table of a batch.
#[derive(Debug)]
pub struct Puts<'a> {
    table: redb::Table<'a, &'static [u8], &'static [u8]>,
    record: &'a mut Vec<u8>,
}

impl Puts<'_> {
    /// Stores one value; the answer is whether it replaced one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(
        &mut self,
        key: &[u8],
        content_type: ContentType,
        ttl: Option<Duration>,
        value: &[u8],
    ) -> Result<bool, StoreFailure> {
        self.put_record(key, &Record { content_type, ttl, stale: Stale::default(), value })
    }

    fn put_record(&mut self, key: &[u8], record: &Record<'_>) -> Result<bool, StoreFailure> {
        self.record.clear();
        record.write(self.record);
        let replaced = self.table.insert(key, self.record.as_slice()).map_err(failure)?;
        Ok(replaced.is_some())
    }

    /// Does a write if its precondition holds of what the batch has made of the key.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&mut self, write: &Write) -> Result<Written, StoreFailure> {
        let key = write.key.as_bytes();
        if write.precondition != Precondition::default()
            && !write.precondition.holds(self.etag(key)?)
        {
            return Ok(Written::PreconditionFailed);
        }
        let Change::Put { content_type, lifetime: wanted, stale } = write.change else {
            let removed = self.table.remove(key).map_err(failure)?;
            return Ok(if removed.is_some() { Written::Deleted } else { Written::Absent });
        };
        let ttl = match wanted {
            Lifetime::For(ttl) => Some(ttl),
            Lifetime::Default | Lifetime::Unlimited => None,
        };
        let content_type = checked(content_type, &write.value);
        let record = Record { content_type, ttl, stale, value: &write.value };
        let is_new = !self.put_record(key, &record)?;
        let (etag, lifetime) = (record.etag(), lifetime(ttl));
        Ok(Written::Stored(Stored { content_type, etag, is_new, lifetime, stale }))
    }

    /// The tag of what is there; bytes that are no record have none.
    fn etag(&self, key: &[u8]) -> Result<Option<Etag>, StoreFailure> {
        let stored = self.table.get(key).map_err(failure)?;
        Ok(stored.and_then(|stored| Some(Record::read(stored.value())?.etag())))
    }

    /// Stores bytes as they are, to see what a damaged record does.
    #[cfg(test)]
    pub(super) fn put_raw(&mut self, key: &[u8], bytes: &[u8]) {
        self.table.insert(key, bytes).expect("stored");
    }
}

/// Refuses a file that is not empty and does not begin as a redb file does.
fn check_magic(path: &Path) -> Result<(), StartError> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let mut head = Vec::with_capacity(MAGIC.len());
    let limit = u64::try_from(MAGIC.len()).expect("a few bytes");
    file.take(limit).read_to_end(&mut head).map_err(|error| unreadable(path, &error))?;
    if head.is_empty() || head == MAGIC {
        return Ok(());
    }
    Err(StartError::failed(
        format!("{} is not a store: it does not begin as one.", path.display()),
        "Set [origin] path to another file; this one is left as it is.",
    ))
}

/// What to say when the file system refuses.
fn unreadable(path: &Path, error: &io::Error) -> StartError {
    StartError::failed(
        format!("The store {} cannot be opened: {error}.", path.display()),
        "Make it readable and writable for this user, or set [origin] path.",
    )
}

/// What to say when the file is a store, but not a whole one.
fn damaged(path: &Path, why: &str) -> StartError {
    StartError::failed(
        format!("The store {} is damaged: {why}.", path.display()),
        "Put back a copy, or move the file away and run `pelton import` again.",
    )
}

/// What to say when redb does not open the file.
fn refusal(path: &Path, error: DatabaseError) -> StartError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate may grow")]
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => held(path),
        DatabaseError::UpgradeRequired(version) => StartError::failed(
            format!("The store {} has the old format {version}.", path.display()),
            "Move the file away and run `pelton import` again.",
        ),
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            unreadable(path, &error)
        }
        other => damaged(path, &other.to_string()),
    }
}

/// What to say when another process has the store open.
fn held(path: &Path) -> StartError {
    let who = holder(path).map_or_else(
        || "another process, which this user cannot see".to_owned(),
        |holder| format!("process {} ({})", holder.pid, holder.command),
    );
    StartError::failed(
        format!("The store {} is held by {who}.", path.display()),
        "Stop that process first, or set [origin] path to another file.",
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use redb::StorageBackend;
    use redb::backends::FileBackend;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn options(folder: &Path) -> StoreOptions {
        StoreOptions { path: folder.join("deep/er/store.redb"), cache_bytes: 1 << 20 }
    }

    fn put(store: &Store, key: &[u8], value: &[u8]) {
        let mut batch = store.batch().expect("a batch");
        batch
            .put_all::<StoreFailure>(|puts| {
                puts.put(key, ContentType::JSON, None, value).map(|_| ())
            })
            .expect("stored");
        batch.commit().expect("committed");
    }

    fn nothing(_size: usize) -> Held {
        Held::default()
    }

    #[test]
    fn what_was_committed_is_found_after_opening_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        put(&Store::open(&options).expect("made, with its folders"), b"k", b"{}");
        let store = Store::open(&options).expect("opens");
        let records = store.read().expect("reads");
        let found = records.get(b"k", 100, nothing).expect("read").expect("found");
        assert_eq!((&*found.value, found.lifetime), (&b"{}"[..], Lifetime::Unlimited));
        assert!(records.get(b"other", 100, nothing).expect("read").is_none());
        assert!(matches!(records.get(b"k", 1, nothing), Err(ReadFailure::TooLarge)));
        assert_eq!(store.count().expect("counts"), 1);
    }

    /// A file that cannot be written while it is told so.
    #[derive(Debug)]
    struct Sick {
        file: FileBackend,
        is_sick: Arc<AtomicBool>,
    }

    impl Sick {
        fn check(&self) -> Result<(), io::Error> {
            let is_sick = self.is_sick.load(Ordering::Relaxed);
            if is_sick { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl StorageBackend for Sick {
        fn len(&self) -> Result<u64, io::Error> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.check()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            self.check()?;
            self.file.write(offset, data)
        }

        fn close(&self) -> Result<(), io::Error> {
            self.file.close()
        }
    }

    /// A store whose file cannot be written while `is_sick` says so.
    pub(in super::super) fn sick(folder: &Path, is_sick: &Arc<AtomicBool>) -> Store {
        let (path, is_sick) = (folder.join("store.redb"), Arc::clone(is_sick));
        let file = path.clone();
        let open = move || {
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&file)
                .map_err(StorageError::Io)?;
            let sick = Sick { file: FileBackend::new(file)?, is_sick: Arc::clone(&is_sick) };
            Database::builder().create_with_backend(sick)
        };
        Store::open_by(&path, Box::new(open)).expect("opens")
    }

    #[test]
    fn a_store_that_has_failed_reads_again_once_it_was_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let is_sick = Arc::new(AtomicBool::new(false));
        let store = sick(folder.path(), &is_sick);
        put(&store, b"k", b"1");
        is_sick.store(true, Ordering::Relaxed);
        let mut batch = store.batch().expect("nothing is written yet");
        batch
            .put_all::<StoreFailure>(|puts| {
                puts.put(b"k", ContentType::JSON, None, b"2").map(|_| ())
            })
            .expect("in memory");
        batch.commit().expect_err("the disk is full");
        assert!(store.batch().is_err(), "it was not opened again");
        is_sick.store(false, Ordering::Relaxed);
        store.recover(1);
        store.recover(1);
        assert_eq!(store.opened_count(), 2, "once is enough");
        let found = store.read().expect("reads").get(b"k", 100, nothing).expect("read");
        assert_eq!(&*found.expect("found").value, b"1");
        put(&store, b"k", b"3");
    }

    #[test]
    fn a_dropped_batch_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&options(folder.path())).expect("opens");
        let mut batch = store.batch().expect("a batch");
        batch
            .put_all::<StoreFailure>(|puts| {
                puts.put(b"k", ContentType::JSON, None, b"1").map(|_| ())
            })
            .expect("stored");
        drop(batch);
        assert_eq!(store.count().expect("counts"), 0);
    }

    #[test]
    fn a_foreign_file_is_left_alone_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "not a store at all").expect("written");
        let error = Store::open(&StoreOptions { path: path.clone(), cache_bytes: 1 << 20 })
            .expect_err("no store");
        assert!(error.what.contains("notes.txt is not a store"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"not a store at all");
    }

    #[test]
    fn a_half_written_store_is_an_error_and_no_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let store = Store::open(&options).expect("opens");
        put(&store, b"k", &vec![b'7'; 300_000]);
        drop(store);
        let whole = std::fs::read(&options.path).expect("read");
        for len in [9, 100, 4_096, 10_000, whole.len() / 2] {
            std::fs::write(&options.path, &whole[..len]).expect("written");
            let error = Store::open(&options).expect_err("half a store");
            assert!(error.what.contains("damaged"), "{len} bytes: {error}");
        }
    }

    #[test]
    fn a_folder_in_place_of_the_store_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_path_buf();
        let error = Store::open(&StoreOptions { path, cache_bytes: 1 << 20 }).expect_err("folder");
        assert!(error.what.contains("cannot be opened"), "{error}");
    }

    #[test]
    fn a_second_opening_says_that_the_store_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path());
        let _store = Store::open(&options).expect("opens");
        let error = Store::open(&options).expect_err("held");
        assert!(error.what.contains("is held by"), "{error}");
    }
}
