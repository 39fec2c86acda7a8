//! A look at the entry of a key that changes nothing, for whoever asks why it is served or not.

use crate::cache::Cache;
use crate::entry::{self, EntryRef, Header, Kind};
use crate::freshness::{Freshness, StaleWindows};
use crate::hash::KeyHash;
use crate::policy::Policy;
use crate::time::Instant;

/// What may be done with an entry that is in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be served.
    Live(Freshness),
    /// It is not served any more, and can be renewed.
    Kept,
    /// Its time is over.
    Dead,
    /// A purge hides it.
    Purged,
}

impl<P: Policy> Cache<'_, P> {
    /// The entry of `key`, also one that is not served any more: nothing has met it yet.
    #[must_use]
    pub fn inspect(&self, hash: KeyHash, key: &[u8], now: Instant) -> Option<(EntryRef, Standing)> {
        let at = self.index.find(hash, |at| entry::key(self.arena, at) == key)?.entry;
        Some((at, self.standing(at, now)))
    }

    pub(crate) fn standing(&self, at: EntryRef, now: Instant) -> Standing {
        let header = Header::read(self.arena, at);
        let freshness = self.freshness(at, &header, now);
        if freshness.is_none() && self.is_dead(at, &header, now) {
            Standing::Dead
        } else if self.rules.are_any() && self.is_hidden(at) {
            Standing::Purged
        } else {
            freshness.map_or(Standing::Kept, Standing::Live)
        }
    }

    /// Why a lookup dropped the entry of the key with this hash, if it is the last that was dropped
    /// so. Forgets it.
    pub fn take_unserved(&mut self, hash: KeyHash) -> Option<Standing> {
        let (_, standing) = self.unserved.take_if(|(dropped, _)| *dropped == hash)?;
        Some(standing)
    }

    /// How long entries of this kind are served beyond their freshness.
    #[must_use]
    pub fn windows(&self, kind: Kind) -> StaleWindows {
        self.windows[usize::from(kind.windows)]
    }
}
