//! Writes a snapshot: pages of all shards into one file, then the manifest that makes it one.
//!
//! ```text
//! create ID.pages -> append .. append -> sync -> manifest.new -> sync -> rename to manifest
//!   -> sync the folder -> remove what no manifest names
//! ```
//!
//! The file `purged` says that something was purged which the snapshot may not know of; it is
//! written before a purge, and goes when a snapshot is complete that was begun after the last one.
//!
//! Until the rename the snapshot before it is the one that counts, whatever happens; a writer that
//! is killed leaves files that the next one removes.

use super::job::Task;
use super::load::{LOADING, MANIFEST, MANIFEST_SIZE_MAX, PURGED};
use super::manifest::{Manifest, PageAt};
use super::store::SnapshotStore;
use crate::mesh::{Page, PageDone, PageJob, PageOutcome, Record};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use xxhash_rust::xxh3::xxh3_64;

/// The manifest before it is complete.
const MANIFEST_NEW: &str = "manifest.new";

/// Why no snapshot was written.
#[derive(Debug)]
pub enum NotSaved {
    /// The disk's fault.
    Disk(io::Error),
    /// More was withdrawn meanwhile than a shard remembers.
    Spoiled,
    /// The server stops.
    Stopped,
}

impl From<io::Error> for NotSaved {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// A snapshot that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Bytes of its pages.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
}

/// Where the writing of one snapshot has come to.
struct Writing {
    manifest: Manifest,
    /// Bytes in the file.
    bytes: u64,
    begun_ms: u64,
    /// Shards that have a page of ours.
    busy: Vec<bool>,
    /// Shards that have said what was withdrawn.
    ended: Vec<bool>,
}

impl<S: SnapshotStore> Task<'_, S> {
    /// Writes a snapshot of all shards.
    ///
    /// # Errors
    /// Why there is none; what was before still counts.
    pub async fn save(&mut self) -> Result<Saved, NotSaved> {
        let manifest = Manifest {
            id: RandomState::new().hash_one(self.now_ms()),
            hash_key: self.hash_key,
            withdrawn: vec![Vec::new(); self.ports.len()],
            ..Manifest::default()
        };
        let saved = self.save_as(manifest).await;
        self.store.close().await;
        // What cannot be removed now is removed when the next one is written.
        drop(self.sweep());
        saved
    }

    async fn save_as(&mut self, manifest: Manifest) -> Result<Saved, NotSaved> {
        let name = manifest.pages_name();
        let purges = self.control.purges_begun();
        self.store.create(&name).await?;
        let shards = self.ports.len();
        let mut writing = Writing {
            manifest,
            bytes: 0,
            begun_ms: self.now_ms(),
            busy: vec![true; shards],
            ended: vec![false; shards],
        };
        for port in &mut *self.ports {
            port.order(PageJob::Save { page: Page::new(self.page_size), is_first: true });
        }
        if let Err(failure) = self.write_pages(&mut writing).await {
            self.give_up(&mut writing).await;
            return Err(failure);
        }
        self.store.finish().await?;
        let mut manifest = writing.manifest;
        manifest.written = (self.clocks)();
        self.store.put(MANIFEST_NEW, &manifest.to_bytes())?;
        self.store.rename(MANIFEST_NEW, MANIFEST)?;
        // What was feared is no longer there.
        drop(self.store.remove(LOADING));
        self.forget_purges(purges)?;
        Ok(Saved { bytes: writing.bytes, entries: manifest.entries() })
    }

    /// The snapshot was begun after so many purges: if there were no more, it knows of all.
    fn forget_purges(&mut self, begun: u64) -> io::Result<()> {
        if self.control.purges_begun() == begun {
            self.store.remove(PURGED)?;
        }
        // One that began just now may have found the file still there.
        if self.control.purges_begun() != begun {
            self.store.put(PURGED, b"")?;
        }
        Ok(())
    }

    async fn write_pages(&mut self, writing: &mut Writing) -> Result<(), NotSaved> {
        while !writing.ended.iter().all(|ended| *ended) {
            if self.is_stopped() {
                return Err(NotSaved::Stopped);
            }
            let Some((shard, done)) = self.next_done().await else { continue };
            writing.busy[shard] = false;
            let PageDone { mut page, outcome } = done;
            match outcome {
                PageOutcome::Entries => {
                    self.write_page(writing, shard, &mut page).await?;
                    page.clear();
                    self.ports[shard].order(PageJob::Save { page, is_first: false });
                    writing.busy[shard] = true;
                }
                PageOutcome::Withdrawn => {
                    writing.manifest.withdrawn[shard] = page.bytes().to_vec();
                    writing.ended[shard] = true;
                }
                PageOutcome::Spoiled => {
                    writing.ended[shard] = true;
                    return Err(NotSaved::Spoiled);
                }
                PageOutcome::Restored => unreachable!("nothing is being read"),
            }
        }
        Ok(())
    }

    async fn write_page(
        &mut self,
        writing: &mut Writing,
        shard: usize,
        page: &mut Page,
    ) -> io::Result<()> {
        let mut entries = 0;
        while let Some(record) = page.next_record() {
            assert!(matches!(record, Ok(Record::Entry(..))), "a shard writes entries");
            entries += 1;
        }
        let at = PageAt {
            offset: writing.bytes,
            size: u32::try_from(page.bytes().len()).expect("a page is at most some 16 MiB"),
            entries,
            sum: xxh3_64(page.bytes()),
            shard: u16::try_from(shard).expect("there are at most 1,024 shards"),
        };
        let padded = page.padded();
        self.store.append(padded).await?;
        writing.bytes += padded.len() as u64;
        writing.manifest.pages.push(at);
        self.keep_pace(writing.bytes, writing.begun_ms).await;
        Ok(())
    }

    /// Takes all pages back, and lets the shards forget that a snapshot was being written.
    async fn give_up(&mut self, writing: &mut Writing) {
        while writing.busy.iter().any(|busy| *busy) && self.is_answered() {
            if let Some((shard, _)) = self.next_done().await {
                writing.busy[shard] = false;
            }
        }
        if self.is_answered() {
            self.ports.iter_mut().for_each(|port| port.order(PageJob::GiveUp));
        }
    }

    /// Removes all files of pages but the one that the manifest names, whichever came to be it.
    fn sweep(&mut self) -> io::Result<()> {
        let manifest = self.store.folder().get(MANIFEST, MANIFEST_SIZE_MAX)?;
        let manifest = manifest.and_then(|bytes| Manifest::from_bytes(&bytes).ok());
        let counts = manifest.map(|manifest| manifest.pages_name());
        for name in self.store.folder().names()? {
            if name.ends_with(".pages") && Some(&name) != counts.as_ref() {
                self.store.remove(&name)?;
            }
        }
        Ok(())
    }
}
