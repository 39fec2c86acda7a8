//! A shard's part in snapshots: a bounded piece a turn, while it holds a page.
//!
//! For one that is written, entries are copied into the page until it is full; the last page says
//! what was withdrawn meanwhile. For one that is read, entries of the page are put back. Nobody is
//! made to wait for either.

use super::{Shard, WINDOWS_NEVER, WINDOWS_VALUE};
use crate::mesh::{Page, PageDone, PageJob, PageOutcome, Record};
use crate::ring::Ring;
use shard_cache::{Kind, NotRestored, STEP_ENTRIES_MAX, STEP_MOVED_BYTES_MAX, Walked};

/// A page and what is done with it.
#[derive(Debug)]
pub(super) enum Work {
    /// Entries are copied into it.
    Save(Page),
    /// Its entries are put back.
    Restore {
        /// The page.
        page: Page,
        /// It is the last one.
        is_last: bool,
    },
}

impl<R: Ring> Shard<R> {
    /// A bounded piece of work on the snapshot that is written or read, if there is one.
    pub(super) fn work_on_snapshot(&mut self) {
        let work = match self.snapshot.take() {
            Some(work) => Some(work),
            None => self.storage.next_job().and_then(|job| self.begin(job)),
        };
        match work {
            Some(Work::Save(page)) => self.save(page),
            Some(Work::Restore { page, is_last }) => self.restore(page, is_last),
            None => {}
        }
    }

    fn begin(&mut self, job: PageJob) -> Option<Work> {
        match job {
            PageJob::Save { page, is_first } => {
                if is_first {
                    self.cache.begin_walk();
                }
                Some(Work::Save(page))
            }
            PageJob::Restore { page, is_first, is_last } => {
                if is_first {
                    self.cache.begin_restore();
                }
                Some(Work::Restore { page, is_last })
            }
            PageJob::GiveUp => {
                self.cache.end_walk();
                None
            }
        }
    }

    fn save(&mut self, mut page: Page) {
        let Self { cache, content_types, .. } = self;
        let walked = cache.walk(self.now, |saved| {
            page.push(&Record::Entry(*saved, content_types.name(saved.content_type)))
        });
        let outcome = match walked {
            Walked::On => {
                self.snapshot = Some(Work::Save(page));
                return;
            }
            Walked::End if page.is_empty() => self.end_save(&mut page),
            Walked::End | Walked::Held => {
                assert!(!page.is_empty(), "a page has room for the largest entry");
                PageOutcome::Entries
            }
        };
        self.storage.finish(PageDone { page, outcome });
    }

    /// The walk has ended, and the page is empty: what was withdrawn meanwhile fits it.
    fn end_save(&mut self, page: &mut Page) -> PageOutcome {
        let is_all = self.cache.end_walk_with(|withdrawn| {
            assert!(page.push(&Record::Withdrawn(withdrawn)), "limits made the page large enough");
        });
        if is_all { PageOutcome::Withdrawn } else { PageOutcome::Spoiled }
    }

    fn restore(&mut self, mut page: Page, is_last: bool) {
        let mut bytes = 0;
        for _ in 0..STEP_ENTRIES_MAX {
            if bytes >= STEP_MOVED_BYTES_MAX {
                break;
            }
            let Some(record) = page.next_record() else {
                if is_last {
                    self.cache.end_restore();
                }
                self.storage.finish(PageDone { page, outcome: PageOutcome::Restored });
                return;
            };
            // The storage plane hands over nothing else.
            let Ok(Record::Entry(saved, content_type)) = record else { continue };
            bytes += saved.value.len();
            let content_type = self.content_types.intern(content_type, &self.heads);
            let windows = match saved.windows {
                None => WINDOWS_VALUE,
                Some(own) => self.cache.windows_index(own).unwrap_or(WINDOWS_NEVER),
            };
            let kind = Kind { content_type, windows };
            let hash = self.hasher.hash(saved.key);
            let counters = &mut self.counters;
            *match self.cache.restore(hash, &saved, kind, self.now) {
                Ok(()) => &mut counters.restored,
                Err(NotRestored::Known) => &mut counters.restore_known,
                Err(NotRestored::Dead) => &mut counters.restore_dead,
                Err(NotRestored::Withdrawn) => &mut counters.restore_withdrawn,
                Err(NotRestored::TooLarge) => &mut counters.restore_too_large,
                Err(NotRestored::NoRoom) => &mut counters.restore_no_room,
            } += 1;
        }
        self.snapshot = Some(Work::Restore { page, is_last });
    }
}
