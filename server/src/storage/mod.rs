//! The storage plane: snapshots of the cache on a disk, so that a restart is warm.
//!
//! One thread, that sleeps on a channel between jobs. Its first job reads the snapshot that is
//! there; then it writes one each interval, and a last one when the server stops. It reads and
//! writes pages on a `glommio` executor, which is made once; where the host has no direct I/O, by
//! plain reads and writes. It owns the pages and hands them to the shards (see `mesh::storage`),
//! and so sets the pace of everything: no shard waits for it, and what fails here is counted and
//! logged and costs a cold start at most.
//!
//! `manifest` is the format, `store` the folder, `direct` its files by direct I/O, `job` what
//! `save` and `load` have in common.

mod direct;
mod job;
mod load;
mod manifest;
mod save;
mod store;

pub use job::Task;
pub use load::{Arena, Loaded, NotLoaded};
pub use manifest::{Clocks, Distrust, Manifest, PageAt, Shift, VERSION};
pub use save::{NotSaved, Saved};
pub use store::{Folder, Plain, SnapshotStore, note_purge};

use crate::mesh::{Audit, Control, OwnerHash, StoragePort};
use crate::metrics::SnapshotBoard;
use crate::sys::clock::{self, Epoch};
use direct::Direct;
use glommio::LocalExecutor;
use std::fmt;
use std::pin::pin;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What the plane is made of.
pub struct Storage {
    /// Its ends of the queues to all shards.
    pub ports: Vec<StoragePort>,
    /// The arenas of all shards.
    pub arenas: Vec<Arena>,
    /// The clock of the process.
    pub epoch: Epoch,
    /// The key of the hash that places keys.
    pub hash_key: [u64; 2],
    /// How keys are spread over the shards.
    pub owner_hash: OwnerHash,
    /// Bytes of a page.
    pub page_size: usize,
    /// `snapshot.interval`.
    pub interval: Duration,
    /// `snapshot.rate`, bytes a second.
    pub rate: u64,
    /// What the main thread and the shards say.
    pub control: Control,
    /// Where its counts are published.
    pub board: SnapshotBoard,
    /// Asked of each entry that is read, where there is one.
    pub audit: Option<Audit>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A store, and what runs its futures.
enum Disk {
    Direct(LocalExecutor, Box<Direct>),
    Plain(Plain),
}

impl Disk {
    fn new(folder: Folder) -> Self {
        match direct::probe(&folder) {
            Ok(executor) => Self::Direct(executor, Box::new(Direct::new(folder))),
            Err(error) => {
                tracing::info!("snapshots are written without direct I/O: {error}");
                Self::Plain(Plain::new(folder))
            }
        }
    }
}

impl Storage {
    /// Runs the plane until the server stops: it is told so, or nobody can tell it any more.
    pub fn run(mut self, folder: Folder, stop: &Receiver<()>) {
        let mut disk = Disk::new(folder);
        let is_whole = self.load(&mut disk);
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(self.interval) {
            self.save(&mut disk, false);
        }
        // What was read in part must not replace the whole of it.
        if self.control.is_saving() && is_whole {
            self.save(&mut disk, true);
        }
        self.control.set_saving(false);
        self.ports.iter().for_each(StoragePort::wake);
    }

    fn task<'a, S>(
        &'a mut self,
        store: &'a mut S,
        clocks: &'a dyn Fn() -> Clocks,
        is_last: bool,
    ) -> Task<'a, S> {
        Task {
            store,
            ports: &mut self.ports,
            clocks,
            page_size: self.page_size,
            hash_key: self.hash_key,
            owner_hash: self.owner_hash,
            rate: Some(self.rate).filter(|_| !is_last),
            control: &self.control,
            audit: self.audit.as_ref(),
            is_last,
        }
    }

    /// Reads the snapshot that is there. Returns whether all of it was, or there is none worth
    /// keeping: only then may another take its place.
    fn load(&mut self, disk: &mut Disk) -> bool {
        let begun = self.epoch.uptime();
        let clocks = clocks(self.epoch);
        let arenas = self.arenas.clone();
        let loaded = match disk {
            Disk::Direct(executor, store) => {
                executor.run(self.task(&mut **store, &clocks, false).load(&arenas))
            }
            Disk::Plain(store) => at_once(self.task(store, &clocks, false).load(&arenas)),
        };
        let ms = (self.epoch.uptime() - begun).as_millis();
        self.tell_loaded(&loaded, u64::try_from(ms).unwrap_or(u64::MAX).max(1));
        !matches!(loaded, Err(NotLoaded::Stopped))
    }

    fn tell_loaded(&self, loaded: &Result<Loaded, NotLoaded>, ms: u64) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(Loaded { entries, withdrawn, outdated, dropped, age_is_unknown }) => {
                (board.load_ms, board.dropped) = (ms, *dropped);
                (board.withdrawn, board.outdated) = (*withdrawn, *outdated);
                tracing::info!("read {entries} entries of the snapshot in {ms} ms");
                if *dropped > 0 {
                    tracing::warn!("{dropped} entries of the snapshot lay in damaged pages");
                }
                if *age_is_unknown {
                    tracing::warn!(
                        "the wall clock was set back since the snapshot was written: its entries \
                         are taken to be as old as they were"
                    );
                }
            }
            Err(NotLoaded::None) => tracing::info!("there is no snapshot: the cache starts cold"),
            Err(NotLoaded::Stopped) => {}
            Err(why @ NotLoaded::Purged) => {
                board.refused += 1;
                tracing::warn!("the snapshot is not read, the cache starts cold: {why}");
            }
            Err(failure) => {
                board.refused += 1;
                tracing::error!("the snapshot is not read, the cache starts cold: {failure}");
            }
        }
    }

    /// Writes a snapshot.
    fn save(&mut self, disk: &mut Disk, is_last: bool) {
        let begun = self.epoch.uptime();
        let clocks = clocks(self.epoch);
        let saved = match disk {
            Disk::Direct(executor, store) => {
                executor.run(self.task(&mut **store, &clocks, is_last).save())
            }
            Disk::Plain(store) => at_once(self.task(store, &clocks, is_last).save()),
        };
        let ms = (self.epoch.uptime() - begun).as_millis();
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        match saved {
            Ok(Saved { bytes, entries }) => {
                board.written += 1;
                board.written_at_s = clock::wall().0;
                (board.size, board.entries) = (bytes, entries);
                board.duration_ms = u64::try_from(ms).unwrap_or(u64::MAX);
                tracing::info!("wrote a snapshot of {entries} entries, {bytes} bytes, in {ms} ms");
            }
            Err(NotSaved::Stopped) => {}
            Err(NotSaved::Spoiled) => {
                board.spoiled += 1;
                tracing::warn!("no snapshot: too many keys were removed while it was written");
            }
            Err(NotSaved::Disk(error)) => {
                board.failed += 1;
                tracing::error!("no snapshot: {error}; the one before still counts");
            }
        }
    }
}

/// What the clocks say.
fn clocks(epoch: Epoch) -> impl Fn() -> Clocks {
    move || {
        let (boot_ms, boot_id) = clock::boot();
        Clocks { process_ms: epoch.now().ms(), wall_ms: clock::wall_ms(), boot_ms, boot_id }
    }
}

/// Runs a future that never waits: one of a task on a store like [`Plain`].
///
/// # Panics
/// If it waits.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a plain store does all at once"),
    }
}
