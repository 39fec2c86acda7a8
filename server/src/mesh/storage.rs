//! Between one shard and the storage plane: pages of a snapshot, one at a time.
//!
//! The plane owns the pages and sets the pace: a shard works on a snapshot only while it holds one,
//! and gives each back with what became of it. So one job of a shard is under way at most, and no
//! queue can be full.

use super::{Page, Sleep};
use crate::sys::eventfd::EventFd;
use crate::sys::spsc::{Consumer, Producer, queue};
use shard_cache::hash::Etag;
use std::fmt;
use std::sync::Arc;

/// Looks at what an origin holds now; asked by the storage plane of what it has read.
pub type Audit = Box<dyn Fn() -> Look + Send>;

/// Whether the origin holds, for this key, the value with this tag.
pub type Look = Box<dyn Fn(&[u8], Etag) -> bool>;

/// From the storage plane to a shard.
#[derive(Debug)]
pub enum PageJob {
    /// Fill this empty page with entries.
    Save {
        /// The page.
        page: Page,
        /// It is the first of a snapshot.
        is_first: bool,
    },
    /// Put the entries of this page back.
    Restore {
        /// The page.
        page: Page,
        /// It is the first of a snapshot.
        is_first: bool,
        /// It is the last of a snapshot.
        is_last: bool,
    },
    /// The snapshot that is being written has failed. It is answered by nothing.
    GiveUp,
}

/// From a shard to the storage plane.
#[derive(Debug)]
pub struct PageDone {
    /// The page of the job.
    pub page: Page,
    /// What it holds now.
    pub outcome: PageOutcome,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// It holds entries, and there may be more.
    Entries,
    /// All entries were handed out; it holds what was withdrawn meanwhile.
    Withdrawn,
    /// More was withdrawn meanwhile than the shard remembers: the snapshot is worthless.
    Spoiled,
    /// Its entries are back.
    Restored,
}

/// The shard's end.
#[derive(Debug)]
pub struct StorageLink {
    jobs: Consumer<PageJob>,
    done: Producer<PageDone>,
}

impl StorageLink {
    /// Whether there is a job.
    pub fn has_mail(&mut self) -> bool {
        !self.jobs.is_empty()
    }

    /// The next job.
    pub fn next_job(&mut self) -> Option<PageJob> {
        self.jobs.pop()
    }

    /// Gives the page of the job back.
    pub fn finish(&mut self, done: PageDone) {
        self.done.push(done);
    }
}

/// The plane's end.
pub struct StoragePort {
    jobs: Producer<PageJob>,
    done: Consumer<PageDone>,
    sleep: Sleep,
    wake: Arc<EventFd>,
}

impl fmt::Debug for StoragePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoragePort").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl StoragePort {
    /// Hands a job over, and wakes the shard if it sleeps.
    pub fn order(&mut self, job: PageJob) {
        self.jobs.push(job);
        if self.sleep.must_wake() {
            self.wake();
        }
    }

    /// Wakes the shard, so that it looks at what else it is told.
    pub fn wake(&self) {
        self.wake.signal();
    }

    /// What became of a job.
    pub fn next_done(&mut self) -> Option<PageDone> {
        self.done.pop()
    }
}

/// Jobs of a shard at a time: a page, and the word that it is no longer needed.
const JOBS_MAX: usize = 2;

/// The two ends for the shard that sleeps by `sleep` and is woken by `wake`.
#[must_use]
pub fn storage_link(sleep: &Sleep, wake: &Arc<EventFd>) -> (StorageLink, StoragePort) {
    let (jobs_to, jobs) = queue(JOBS_MAX);
    let (done, done_from) = queue(JOBS_MAX);
    let port = StoragePort {
        jobs: jobs_to,
        done: done_from,
        sleep: sleep.clone(),
        wake: Arc::clone(wake),
    };
    (StorageLink { jobs, done }, port)
}
