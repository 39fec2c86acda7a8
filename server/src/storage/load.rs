//! Reads a snapshot: pages are checked, and their entries handed to the shards that own them today.
//!
//! The server serves meanwhile. What cannot be trusted is dropped and counted: the whole snapshot
//! if its manifest cannot, else a page or an entry. A load that kills the process is tried again
//! twice and then left alone, so that a snapshot never keeps a server from starting.

use super::job::Task;
use super::manifest::{Distrust, Manifest, PageAt, Shift};
use super::store::SnapshotStore;
use crate::mesh::{Look, Owners, PAGE_ALIGN, Page, PageJob, Record};
use shard_cache::hash::KeyHasher;
use shard_cache::{SEGMENT_SIZE, Saved, Withdrawals};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// The file that says which snapshot counts.
pub(super) const MANIFEST: &str = "manifest";

/// Says that a load is under way, and how many have begun before it and not ended.
pub(super) const LOADING: &str = "loading";

/// Says that something was purged which the snapshot may not know of.
pub(super) const PURGED: &str = "purged";

/// Loads of one snapshot that are tried.
const LOADS_MAX: usize = 3;

/// The largest manifest that is read: that of a snapshot of some TiB.
pub(super) const MANIFEST_SIZE_MAX: u64 = 1 << 30;

/// The largest page that is read: one value of the largest that can be set, and its key.
const PAGE_SIZE_MAX: u32 = 17 << 20;

/// Why nothing was read.
#[derive(Debug)]
pub enum NotLoaded {
    /// There is no snapshot.
    None,
    /// The manifest is not believed.
    Distrusted(Distrust),
    /// Too many loads of it did not end.
    Feared,
    /// Something was purged after it was begun.
    Purged,
    /// The disk's fault.
    Disk(io::Error),
    /// The server stops.
    Stopped,
}

impl From<io::Error> for NotLoaded {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there is none"),
            Self::Distrusted(why) => write!(f, "{why}"),
            Self::Feared => f.write_str(
                "reading it was begun three times and never ended; remove the file `loading` to \
                 have it tried again",
            ),
            Self::Purged => f.write_str("something was purged after it was written"),
            Self::Disk(error) => write!(f, "{error}"),
            Self::Stopped => f.write_str("the server stops"),
        }
    }
}

/// What was read. Entries that the shards have refused are counted by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Entries handed to the shards.
    pub entries: u64,
    /// Entries that had been withdrawn when the snapshot was complete.
    pub withdrawn: u64,
    /// Entries that the origin holds no more, or otherwise.
    pub outdated: u64,
    /// Entries of pages that could not be read or believed.
    pub dropped: u64,
    /// Nobody knows how old it is.
    pub age_is_unknown: bool,
}

/// The arena of a shard, which is populated while a snapshot is read.
#[derive(Clone, Debug)]
pub struct Arena {
    /// Segments that may be used.
    pub ready: Arc<AtomicU32>,
    /// Segments in all.
    pub count: u32,
}

/// What an entry has to pass.
struct Checks<'a> {
    withdrawals: &'a Withdrawals,
    look: Option<Look>,
}

impl Checks<'_> {
    /// Whether an entry may come back; counts those that may not.
    fn pass(&self, saved: &Saved<'_>, loaded: &mut Loaded) -> bool {
        if self.withdrawals.hide(saved.key, saved.born_ms) {
            loaded.withdrawn += 1;
            return false;
        }
        let is_held = self.look.as_ref().is_none_or(|look| look(saved.key, saved.etag));
        loaded.outdated += u64::from(!is_held);
        is_held
    }
}

/// One shard that is being handed entries.
struct Receiver {
    /// The page that is being filled.
    page: Page,
    /// The page that the shard has, unless it has given it back.
    spare: Option<Page>,
    has_begun: bool,
    bytes: u64,
}

impl<S: SnapshotStore> Task<'_, S> {
    /// Reads the snapshot that counts.
    ///
    /// # Errors
    /// Why nothing was read.
    pub async fn load(&mut self, arenas: &[Arena]) -> Result<Loaded, NotLoaded> {
        let Some(bytes) = self.store.folder().get(MANIFEST, MANIFEST_SIZE_MAX)? else {
            return Err(NotLoaded::None);
        };
        let manifest = Manifest::from_bytes(&bytes).map_err(NotLoaded::Distrusted)?;
        drop(bytes);
        if self.store.folder().get(PURGED, 64)?.is_some() {
            return Err(NotLoaded::Purged);
        }
        let begun = self.store.folder().get(LOADING, 64)?.unwrap_or_default();
        if begun.len() >= LOADS_MAX {
            return Err(NotLoaded::Feared);
        }
        self.store.put(LOADING, &[&begun[..], b"."].concat())?;
        let loaded = self.load_pages(&manifest, arenas).await;
        self.store.close().await;
        // If it cannot be removed now, the next snapshot that is written does.
        drop(self.store.remove(LOADING));
        loaded
    }

    async fn load_pages(
        &mut self,
        manifest: &Manifest,
        arenas: &[Arena],
    ) -> Result<Loaded, NotLoaded> {
        let file_size = self.store.open(&manifest.pages_name()).await?;
        let shift = Shift::between(&manifest.written, &(self.clocks)());
        let mut loaded = Loaded { age_is_unknown: shift.is_unknown, ..Loaded::default() };
        let withdrawals = manifest.withdrawn.iter().map(|bytes| read_withdrawn(manifest, bytes));
        let withdrawals: Vec<_> = withdrawals.collect();
        let receiver = || Receiver {
            page: Page::new(self.page_size),
            spare: Some(Page::new(self.page_size)),
            has_begun: false,
            bytes: 0,
        };
        let mut receivers: Vec<_> = self.ports.iter().map(|_| receiver()).collect();
        let begun_ms = self.now_ms();
        let mut bytes = 0;
        let mut source = Page::new(0);
        // A shard remembers what is written from its first page on: before the origin is looked at.
        for shard in 0..receivers.len() {
            self.send(shard, &mut receivers, arenas, false).await?;
        }
        self.settle(&mut receivers).await?;
        for at in &manifest.pages {
            if self.is_stopped() {
                return Err(NotLoaded::Stopped);
            }
            let withdrawals = withdrawals.get(usize::from(at.shard)).and_then(Option::as_ref);
            let is_read = match withdrawals {
                Some(_) => self.read_page(at, file_size, &mut source).await,
                None => false,
            };
            let Some(withdrawals) = withdrawals.filter(|_| is_read) else {
                loaded.dropped += u64::from(at.entries);
                continue;
            };
            let checks = Checks { withdrawals, look: self.audit.map(|audit| audit()) };
            self.hand_out(&mut source, &checks, shift, &mut receivers, arenas, &mut loaded).await?;
            bytes += u64::from(at.size);
            self.keep_pace(bytes, begun_ms).await;
        }
        for shard in 0..receivers.len() {
            self.send(shard, &mut receivers, arenas, true).await?;
        }
        self.settle(&mut receivers).await?;
        Ok(loaded)
    }

    /// Waits until all shards have given their pages back.
    async fn settle(&mut self, receivers: &mut [Receiver]) -> Result<(), NotLoaded> {
        while receivers.iter().any(|receiver| receiver.spare.is_none()) {
            if self.is_stopped() {
                return Err(NotLoaded::Stopped);
            }
            if let Some((shard, done)) = self.next_done().await {
                receivers[shard].spare = Some(done.page);
            }
        }
        Ok(())
    }

    /// Reads a page, and whether it is what was written.
    async fn read_page(&mut self, at: &PageAt, file_size: u64, page: &mut Page) -> bool {
        let padded = (at.size as usize).next_multiple_of(PAGE_ALIGN);
        let end = at.offset.checked_add(padded as u64);
        let is_inside = end.is_some_and(|end| end <= file_size);
        if !is_inside || !at.offset.is_multiple_of(PAGE_ALIGN as u64) || at.size > PAGE_SIZE_MAX {
            return false;
        }
        if page.capacity() < padded {
            *page = Page::new(padded);
        }
        let room = page.refill(padded).expect("made as large above");
        if let Err(error) = self.store.read(at.offset, room).await {
            tracing::warn!("a page of the snapshot cannot be read: {error}");
            return false;
        }
        page.truncate(at.size as usize);
        xxh3_64(page.bytes()) == at.sum
    }

    /// Hands the entries of a page to the shards that own them.
    async fn hand_out(
        &mut self,
        source: &mut Page,
        checks: &Checks<'_>,
        shift: Shift,
        receivers: &mut [Receiver],
        arenas: &[Arena],
        loaded: &mut Loaded,
    ) -> Result<(), NotLoaded> {
        let hasher = KeyHasher::new(self.hash_key);
        let count = u16::try_from(receivers.len()).expect("there are at most 1,024 shards");
        let owners = Owners::new(self.owner_hash, count);
        while let Some(record) = source.next_record() {
            let Ok(Record::Entry(saved, content_type)) = record else {
                loaded.dropped += 1;
                continue;
            };
            if !checks.pass(&saved, loaded) {
                continue;
            }
            let shard = usize::from(owners.of(hasher.hash(saved.key), saved.key));
            let saved = Saved {
                born_ms: shift.apply(saved.born_ms),
                fresh_until_ms: saved.fresh_until_ms.map(|end_ms| shift.apply(end_ms)),
                ..saved
            };
            let record = Record::Entry(saved, content_type);
            if !receivers[shard].page.push(&record) {
                self.send(shard, receivers, arenas, false).await?;
                if !receivers[shard].page.push(&record) {
                    // Larger than any value that may be stored today.
                    loaded.dropped += 1;
                    continue;
                }
            }
            loaded.entries += 1;
        }
        Ok(())
    }

    /// Sends a shard its page, once it has given back the one before and has memory for this one.
    async fn send(
        &mut self,
        shard: usize,
        receivers: &mut [Receiver],
        arenas: &[Arena],
        is_last: bool,
    ) -> Result<(), NotLoaded> {
        let wanted = receivers[shard].bytes + receivers[shard].page.bytes().len() as u64;
        loop {
            let ready = arenas[shard].ready.load(Ordering::Acquire);
            let is_populated =
                ready >= arenas[shard].count || u64::from(ready) * SEGMENT_SIZE as u64 > 2 * wanted;
            if is_populated && receivers[shard].spare.is_some() {
                break;
            }
            if self.is_stopped() {
                return Err(NotLoaded::Stopped);
            }
            if let Some((from, done)) = self.next_done().await {
                receivers[from].spare = Some(done.page);
            }
        }
        let receiver = &mut receivers[shard];
        let mut empty = receiver.spare.take().expect("it was waited for");
        empty.clear();
        let page = std::mem::replace(&mut receiver.page, empty);
        receiver.bytes = wanted;
        let is_first = !std::mem::replace(&mut receiver.has_begun, true);
        self.ports[shard].order(PageJob::Restore { page, is_first, is_last });
        Ok(())
    }
}

/// What a shard had withdrawn when the snapshot was complete; none if that cannot be believed.
fn read_withdrawn(manifest: &Manifest, bytes: &[u8]) -> Option<Withdrawals> {
    let mut page = Page::new(bytes.len());
    page.refill(bytes.len())?.copy_from_slice(bytes);
    let mut withdrawals = Withdrawals::new(KeyHasher::new(manifest.hash_key));
    while let Some(record) = page.next_record() {
        let Ok(Record::Withdrawn(withdrawn)) = record else { return None };
        if !withdrawals.add(withdrawn) {
            return None;
        }
    }
    Some(withdrawals)
}
