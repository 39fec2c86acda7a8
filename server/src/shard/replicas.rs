//! Copies of values that other shards own: the hottest of them are served from here.
//!
//! A key that is read for the second time within a while asks its owner for a copy. What is copied
//! lies in a small cache of its own, where what is not read again gives way. It is served while it
//! is fresh and its owner's lease lasts (`mesh::leases`); what is not fresh is asked of its owner
//! again, who alone fetches. So copies never lead to a fetch, and a stale one is never served.
//!
//! ```text
//! value of a copy   [ born at the owner, ms, 8 | served beyond its freshness, 4 | value ]
//! ```
//!
//! Invariant: a copy's owner knows that this shard has it.

use super::{Slice, WINDOWS_NEGATIVE};
use crate::http::{Beyond, Term};
use crate::limits::{COPY_FACTS_SIZE, Limits, SEEN_SIZE};
use crate::mesh::Grant;
use shard_cache::hash::{Etag, KeyHash, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, Entry, EntryRef, Force, FreshFor, Freshness, Hit, Kind, NewValue, Purge, StaleWindows,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes before the value of a copy.
const FACTS_SIZE: usize = size_of::<u64>() + size_of::<u32>();

const _: () = assert!(FACTS_SIZE == COPY_FACTS_SIZE as usize, "the layout allows for it");
const _: () = assert!(size_of::<u32>() == SEEN_SIZE, "the bill says so");

/// The copies of one shard.
#[derive(Debug)]
pub(super) struct Replicas {
    /// None where there is no room for any.
    cache: Option<Cache<'static>>,
    segments_ready: Arc<AtomicU32>,
    /// The keys that were read lately, by their hash: newer ones take the places of older ones.
    seen: Box<[u32]>,
    value_size_max: usize,
    /// A value with what stands before it.
    scratch: Box<[u8]>,
}

/// A copy, as it is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replica<'a> {
    /// Its tag.
    pub(super) etag: Etag,
    /// Index of its content type in this shard's table.
    pub(super) content_type: u8,
    /// When it was stored by its owner, milliseconds.
    born_ms: u64,
    /// Until when it is fresh, milliseconds; `None` if that never ends.
    fresh_until_ms: Option<u64>,
    /// What its owner says of the time after that: here it is not served then.
    pub(super) beyond: Beyond,
    /// The value.
    pub(super) value: &'a [u8],
}

impl Replica<'_> {
    /// When it was born, and until when it is fresh, milliseconds.
    pub(super) const fn times(&self) -> (u64, Option<u64>) {
        (self.born_ms, self.fresh_until_ms)
    }

    /// How long it lives, as a reply says it.
    pub(super) fn term(&self, now: Instant) -> Term {
        let seconds = |ms: u64| u32::try_from(ms / 1000).unwrap_or(u32::MAX);
        match self.fresh_until_ms {
            None => Term::Ever,
            Some(end) => {
                let age_s = seconds(now.ms().saturating_sub(self.born_ms));
                Term::Ends { lifetime_s: age_s + seconds(end.saturating_sub(now.ms())), age_s }
            }
        }
    }
}

impl Replicas {
    /// No copies yet, in the memory of `slice` if there is any.
    pub(super) fn new(slice: Option<Slice>, hasher: KeyHasher, limits: &Limits) -> Self {
        let windows = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }; 2];
        let segments_ready = slice.as_ref().map(|slice| Arc::clone(&slice.segments_ready));
        let cache = slice.map(|slice| Cache::new(slice.layout, slice.memory, hasher, &windows));
        let value_size_max = limits.replica_value_size_max as usize;
        Self {
            cache,
            segments_ready: segments_ready.unwrap_or_default(),
            seen: vec![0; limits.replica_seen_count as usize].into(),
            value_size_max,
            scratch: vec![0; FACTS_SIZE + value_size_max].into(),
        }
    }

    /// Loads the index buckets of a key that will be looked up soon.
    #[inline]
    pub(super) fn prefetch(&self, hash: KeyHash) {
        if let Some(cache) = &self.cache {
            cache.prefetch(hash);
        }
    }

    /// Loads the entry of a key that will be looked up very soon.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: KeyHash) {
        if let Some(cache) = &self.cache {
            cache.prefetch_entry(hash);
        }
    }

    /// The fresh copy of `key`.
    #[inline]
    pub(super) fn lookup(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<EntryRef> {
        match self.cache.as_mut()?.lookup(hash, key, now)? {
            Hit { entry, freshness: Freshness::Fresh } => Some(entry),
            Hit { freshness: Freshness::Stale | Freshness::Retained, .. } => None,
        }
    }

    /// The copy at `entry`, which was found just now.
    #[inline]
    pub(super) fn get(&self, entry: EntryRef) -> Replica<'_> {
        let cache = self.cache.as_ref().expect("a copy was found");
        let entry: Entry<'_> = cache.entry(entry);
        let (born_ms, rest) = entry.value().split_first_chunk().expect("a copy has its birth");
        let (beyond, value) = rest.split_first_chunk().expect("and its time after that");
        Replica {
            etag: entry.etag(),
            content_type: entry.kind().content_type,
            born_ms: u64::from_le_bytes(*born_ms),
            fresh_until_ms: entry.fresh_until_ms(),
            beyond: Beyond(u32::from_le_bytes(*beyond)),
            value,
        }
    }

    /// Whether a copy of this key is wanted: it is read again after not too many others.
    pub(super) fn wants(&mut self, hash: KeyHash) -> bool {
        let Some(mask) = self.seen.len().checked_sub(1) else { return false };
        let bits = hash.bits();
        let place = usize::try_from(bits & mask as u64).expect("masked by the table's size");
        let mark = u32::try_from(bits >> 32).expect("32 bits are left") | 1;
        std::mem::replace(&mut self.seen[place], mark) == mark
    }

    /// Keeps a copy; where there is no room for it at the moment, or it is no longer fresh, nothing
    /// is kept.
    pub(super) fn store(
        &mut self,
        key: &[u8],
        (hash, etag, content_type, beyond): (KeyHash, Etag, u8, Beyond),
        grant: &Grant,
        value: &[u8],
        now: Instant,
    ) -> bool {
        let fresh_for = match grant.fresh_until_ms {
            None => FreshFor::Ever,
            Some(end) if end > now.ms() => {
                FreshFor::Ms(u32::try_from(end - now.ms()).unwrap_or(u32::MAX))
            }
            Some(_) => return false,
        };
        let (Some(cache), true) = (&mut self.cache, value.len() <= self.value_size_max) else {
            return false;
        };
        let bytes = &mut self.scratch[..FACTS_SIZE + value.len()];
        bytes[..8].copy_from_slice(&grant.born_ms.to_le_bytes());
        bytes[8..FACTS_SIZE].copy_from_slice(&beyond.0.to_le_bytes());
        bytes[FACTS_SIZE..].copy_from_slice(value);
        let kind = Kind { content_type, windows: WINDOWS_NEGATIVE };
        let value = NewValue { etag, kind, group: 0, fresh_for, negative: false, bytes };
        cache.store(hash, key, &value, now).is_ok()
    }

    /// Drops the copy under this hash.
    pub(super) fn remove(&mut self, hash: KeyHash) {
        if let Some(cache) = &mut self.cache {
            cache.remove_hash(hash);
        }
    }

    /// Drops all copies.
    pub(super) fn clear(&mut self, now: Instant) {
        if let Some(cache) = &mut self.cache {
            let purged = cache.purge(Purge::Everything, Force::Hard, now);
            purged.expect("a purge of everything needs no room");
        }
    }

    /// A bounded piece of upkeep.
    pub(super) fn step(&mut self, now: Instant) {
        if let Some(cache) = &mut self.cache {
            cache.set_segments_ready(self.segments_ready.load(Ordering::Acquire));
            cache.step(now);
        }
    }

    /// How many copies there are, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        let statistics = self.cache.as_ref().map(Cache::statistics).unwrap_or_default();
        (statistics.entries, statistics.bytes)
    }
}
