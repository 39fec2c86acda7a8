//! The cache of one shard: the face of this crate.

use crate::entry::{
    self, Entry, EntryRef, FreshFor, GROUPS_COUNT_MAX, Header, KeyAndGroup, Kind, LIFETIME_MS_MAX,
    entry_size,
};
use crate::freshness::{Freshness, StaleWindows, freshness};
use crate::ghost::Ghost;
use crate::hash::{Etag, KeyHash, KeyHasher};
use crate::index::{Found, Index, Place};
use crate::inspect::Standing;
use crate::layout::{KEY_SIZE_MAX, Layout, SEGMENT_SIZE, run_count};
use crate::pins::Pin;
use crate::policy::{Policy, Pool, S3Fifo};
use crate::prefetch::prefetch;
use crate::purge::{Force, Purge, PurgeRefused, Rules};
use crate::quota::Quotas;
use crate::reclaim::Victim;
use crate::segments::{Segment, Segments, Writer};
use crate::snapshot::{Removed, Walk};
use crate::time::Instant;
use std::marker::PhantomData;

/// A value to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'a> {
    /// Hash of content type and value.
    pub etag: Etag,
    /// What it is.
    pub kind: Kind,
    /// The group of entries that it belongs to, below [`GROUPS_COUNT_MAX`]; what others store does
    /// not evict it while the group takes no more than it is guaranteed (see [`Cache::guarantee`]).
    /// Group 0 has no guarantee.
    ///
    /// [`GROUPS_COUNT_MAX`]: crate::GROUPS_COUNT_MAX
    pub group: u8,
    /// How long it is fresh.
    pub fresh_for: FreshFor,
    /// It says that the key does not exist; `bytes` is empty then.
    pub negative: bool,
    /// The value.
    pub bytes: &'a [u8],
}

/// What an origin says of a value that is still the one that it was.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// The tag of that value.
    pub etag: Etag,
    /// Index of its stale windows from now on.
    pub windows: u8,
    /// How long it is fresh from now on.
    pub fresh_for: FreshFor,
}

/// An entry that was found, and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Where it lies.
    pub entry: EntryRef,
    /// What may be done with it.
    pub freshness: Freshness,
}

/// Why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreRefused {
    /// Key or value exceed their bound.
    TooLarge,
    /// No segment is free at the moment, or for a large value no neighbours are: steps make some,
    /// unless pins hold too many.
    NoRoom,
}

/// What a cache holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Entries that can be found.
    pub entries: u64,
    /// Bytes of them, headers and padding included.
    pub bytes: u64,
    /// Bytes of the arena that may be used so far.
    pub capacity_bytes: u64,
    /// Pins held.
    pub pins: u64,
    /// Entries stored.
    pub stored: u64,
    /// Entries dropped to make room while they might still have been served.
    pub evicted: u64,
    /// Of these, what had to go though its group took no more than it is guaranteed.
    pub evicted_guaranteed: u64,
    /// Entries dropped because they were dead.
    pub expired: u64,
    /// Entries dropped because a purge hides them; they are counted when they are met.
    pub purged: u64,
    /// Entries dropped because their key was stored again.
    pub replaced: u64,
    /// Entries dropped because that was asked for.
    pub removed: u64,
    /// Values that were refused.
    pub refused: u64,
    /// Purges that still hide something.
    pub purge_rules: u64,
    /// Bytes of segments without entries that pins hold, copies of entries among them.
    pub condemned_bytes: u64,
    /// Bytes of pinned entries that were copied out of such segments.
    pub spilled_bytes: u64,
    /// Entries that steps have looked at.
    pub stepped_entries: u64,
    /// Bytes that steps have moved.
    pub moved_bytes: u64,
    /// Of these, what guarantees have spared.
    pub spared_bytes: u64,
}

/// Pairs of stale windows that are told apart.
pub const WINDOWS_COUNT_MAX: usize = 255;

/// One shard's cache.
#[derive(Debug)]
pub struct Cache<'m, P: Policy = S3Fifo> {
    pub(crate) arena: &'m mut [u8],
    pub(crate) index: Index<'m>,
    pub(crate) ghost: Ghost<'m>,
    pub(crate) segments: Segments,
    pub(crate) quotas: Quotas,
    pub(crate) rules: Rules,
    pub(crate) hasher: KeyHasher,
    pub(crate) windows: Vec<StaleWindows>,
    /// How many of them it was made with.
    windows_given: u8,
    /// How long values are kept at least after their freshness, milliseconds.
    kept_ms: u32,
    value_size_max: u32,
    pub(crate) victim: Option<Victim>,
    /// The millisecond in which dead segments were last looked for.
    pub(crate) swept_ms: u64,
    pub(crate) statistics: Statistics,
    pub(crate) walk: Option<Walk>,
    /// Walks so far.
    pub(crate) walks: u32,
    pub(crate) removed: Removed,
    /// The entry that a lookup has dropped last, by its key, and why.
    pub(crate) unserved: Option<(KeyHash, Standing)>,
    policy: PhantomData<P>,
}

impl<'m, P: Policy> Cache<'m, P> {
    /// A cache over `memory`, which is zeroed, aligned to a cache line, and has the size that
    /// `layout` says: index and ghost, then the arena. Keys are hashed by `hasher`. Entries name
    /// their stale windows by index into `windows`, and into what [`Cache::windows_index`] adds.
    ///
    /// No byte of the arena is touched before [`Cache::set_segments_ready`] says so.
    ///
    /// # Panics
    /// If `memory` has another size or alignment, or there are no windows, or more than
    /// [`WINDOWS_COUNT_MAX`].
    #[must_use]
    pub fn new(
        layout: Layout,
        memory: &'m mut [u8],
        hasher: KeyHasher,
        windows: &[StaleWindows],
    ) -> Self {
        assert_eq!(
            memory.len(),
            layout.memory_bytes(),
            "the memory is as large as its layout says"
        );
        assert!((1..=WINDOWS_COUNT_MAX).contains(&windows.len()), "entries name their windows");
        let mut all_windows = Vec::with_capacity(WINDOWS_COUNT_MAX);
        all_windows.extend_from_slice(windows);
        let (front, arena) = memory.split_at_mut(layout.front_bytes());
        let (index, rest) = front.split_at_mut(layout.index_bytes());
        let (ghost, _) = rest.split_at_mut(layout.ghost_bytes());
        Self {
            arena,
            index: Index::new(index),
            ghost: Ghost::new(ghost),
            segments: Segments::new(layout.segments_count()),
            quotas: Quotas::new(layout.needed_count()),
            rules: Rules::new(),
            hasher,
            windows: all_windows,
            windows_given: u8::try_from(windows.len()).expect("asserted above"),
            kept_ms: 0,
            value_size_max: layout.value_size_max(),
            victim: None,
            swept_ms: 0,
            statistics: Statistics::default(),
            walk: None,
            walks: 0,
            removed: Removed::new(),
            unserved: None,
            policy: PhantomData,
        }
    }

    /// Groups of keys (see [`Purge::Group`]) end at this byte instead of `:`.
    ///
    /// # Panics
    /// If purges of groups are in force.
    pub fn set_group_separator(&mut self, separator: u8) {
        self.rules.set_separator(separator);
    }

    /// Values are kept for so many milliseconds at least after their freshness: also where they are
    /// not served any more they can be renewed. To be said before anything is stored.
    pub const fn keep_for(&mut self, ms: u32) {
        self.kept_ms = ms;
    }

    /// The first `count` segments may be used. It never falls. While it stays below the whole, the
    /// cache lives in what it has.
    pub fn set_segments_ready(&mut self, count: u32) {
        if count != self.segments.ready() {
            self.segments.set_ready(count);
            self.statistics.capacity_bytes = u64::from(self.segments.ready()) * SEGMENT_SIZE as u64;
        }
    }

    /// Loads the index buckets of a key that will be looked up soon.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.index.prefetch(hash);
    }

    /// Loads the entry of a key that will be looked up very soon and whose bucket is loaded.
    #[inline]
    pub fn prefetch_entry(&self, hash: KeyHash) {
        self.index.find(hash, |entry| {
            let lines = &self.arena[entry.offset()..];
            prefetch(&lines[0]);
            if let Some(second) = lines.get(64) {
                prefetch(second);
            }
            true
        });
    }

    /// The entry of `key`, unless there is none, or it is dead or purged.
    #[inline(always)]
    pub fn lookup(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Hit> {
        let Found { place, entry: at, frequency } =
            self.index.find(hash, |at| entry::key(self.arena, at) == key)?;
        let header = Header::read(self.arena, at);
        let freshness = self.freshness(at, &header, now);
        if let Some(freshness) = freshness
            && !(self.rules.are_any() && self.is_hidden(at))
        {
            // A hot key has the highest frequency at almost every hit, and nothing is written.
            let hit = P::hit(frequency);
            if hit != frequency {
                self.index.set_frequency(place, hit);
            }
            return Some(Hit { entry: at, freshness });
        }
        self.drop_unserved(place, at, now);
        None
    }

    /// An entry was looked up that is not served.
    #[cold]
    fn drop_unserved(&mut self, place: Place, at: EntryRef, now: Instant) {
        let standing = self.standing(at, now);
        match standing {
            Standing::Live(_) | Standing::Kept => return,
            Standing::Purged => self.statistics.purged += 1,
            Standing::Dead => self.statistics.expired += 1,
        }
        self.index.clear(place);
        self.count_out(at, &Header::read(self.arena, at));
        self.unserved = Some((self.hasher.hash(entry::key(self.arena, at)), standing));
    }

    /// The entry at `at`.
    #[inline]
    #[must_use]
    pub fn entry(&self, at: EntryRef) -> Entry<'_> {
        let header = Header::read(self.arena, at);
        let (born_ms, fresh_until_ms) = self.times(at, &header);
        let body = &self.arena[at.offset() + entry::HEADER_SIZE..];
        let (key, rest) = body.split_at(header.key_size());
        let value = &rest[..header.value_size as usize];
        Entry { header, born_ms, fresh_until_ms, key, value }
    }

    /// Where the value of the entry at `at` lies: offset in the arena, and bytes.
    #[must_use]
    pub fn value_span(&self, at: EntryRef) -> (u64, u32) {
        let header = Header::read(self.arena, at);
        let offset = at.offset() + entry::HEADER_SIZE + header.key_size();
        (offset as u64, header.value_size)
    }

    /// Stores a value under `key`, whose hash is `hash`, in place of what was there.
    ///
    /// # Errors
    /// [`StoreRefused::NoRoom`] while no segment is free; try again after the next step.
    ///
    /// # Panics
    /// If `hash` is not what the cache's hasher makes of `key`: the entry would leave the index by
    /// another way than it came in. If there is no such group of entries.
    pub fn store(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &NewValue<'_>,
        now: Instant,
    ) -> Result<EntryRef, StoreRefused> {
        assert_eq!(self.hasher.hash(key), hash, "keys are hashed by the cache's hasher");
        assert!(usize::from(value.group) < GROUPS_COUNT_MAX, "a group has six bits");
        let known = self.index.find(hash, |at| entry::key(self.arena, at) == key);
        let (pool, frequency) = match known {
            _ if value.negative => (Pool::Small, 0),
            Some(known) => (self.segment(known.entry).pool.of_policy(), known.frequency),
            None => (P::admit(self.ghost.remembers(hash)), 0),
        };
        let at = self.append(key, value, pool, now)?;
        if let Some(known) = known {
            self.replace(known);
        }
        self.insert(hash, at, frequency);
        self.statistics.stored += 1;
        Ok(at)
    }

    /// The origin says that the value of `key` is still the one with this tag: it is as good as
    /// stored now, and stays where it lies. `None` where that cannot be noted, and it is to be
    /// stored again: the key has another value or none, it was purged, or it is some weeks old.
    pub fn renew(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        renewal: &Renewal,
        now: Instant,
    ) -> Option<EntryRef> {
        let at = self.index.find(hash, |at| entry::key(self.arena, at) == key)?.entry;
        let mut header = Header::read(self.arena, at);
        let stamp = self.rules.stamp(now.ms());
        let is_young = stamp - self.segment(at).base <= u64::from(u32::MAX);
        let is_it = header.etag == renewal.etag && !header.negative;
        if !is_it || !is_young || self.is_hidden(at) {
            return None;
        }
        header.kind.windows = renewal.windows;
        self.set_times(&mut header, at, renewal.fresh_for, stamp);
        header.write(self.arena, at);
        Some(at)
    }

    /// Keeps a value that must not be found, for as long as it is pinned: somebody waits for it who
    /// had asked before it was purged.
    ///
    /// # Errors
    /// As [`Cache::store`].
    pub fn store_aside(
        &mut self,
        key: &[u8],
        value: &NewValue<'_>,
        now: Instant,
    ) -> Result<Pin, StoreRefused> {
        let at = self.append(key, value, Pool::Small, now)?;
        let size = entry_size(key.len(), value.bytes.len());
        self.segment_mut(at).live -= u32::try_from(size).expect("an entry is at most 256 MiB");
        Ok(self.pin(at))
    }

    /// Ends the freshness of the entry of `key`. Returns whether there was one.
    pub fn end_freshness(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> bool {
        let found = self.index.find(hash, |at| entry::key(self.arena, at) == key);
        let Some(Found { entry: at, .. }) = found else { return false };
        let mut header = Header::read(self.arena, at);
        let stamp = self.rules.stamp(now.ms());
        let (_, fresh_until) = self.times(at, &header);
        if fresh_until.is_none_or(|end| end > stamp) {
            if stamp - self.segment(at).base > u64::from(u32::MAX) {
                // It is so old that it cannot tell when that was.
                return self.remove(hash, key);
            }
            (header.ever, header.fresh_until_ms) = (false, low(stamp));
            header.write(self.arena, at);
        }
        true
    }

    /// Drops the entry of `key`. Returns whether there was one.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8]) -> bool {
        // A snapshot may have it though it is not here.
        self.removed.add(hash);
        let found = self.index.find(hash, |at| entry::key(self.arena, at) == key);
        let Some(Found { place, entry: at, .. }) = found else { return false };
        self.index.clear(place);
        self.count_out(at, &Header::read(self.arena, at));
        self.statistics.removed += 1;
        true
    }

    /// Drops the entry of the key with this hash, for a caller who does not know the key. Another
    /// key of the same hash goes with it. Returns whether there was one.
    pub fn remove_hash(&mut self, hash: KeyHash) -> bool {
        self.removed.add(hash);
        let mut is_any = false;
        while let Some(Found { place, entry: at, .. }) = self.find_hash(hash) {
            self.index.clear(place);
            self.count_out(at, &Header::read(self.arena, at));
            self.statistics.removed += 1;
            is_any = true;
        }
        is_any
    }

    /// Counts a hit of the key with this hash that somebody else has served from a copy.
    pub fn count_hit(&mut self, hash: KeyHash) {
        if let Some(Found { place, frequency, .. }) = self.find_hash(hash) {
            self.index.set_frequency(place, P::hit(frequency));
        }
    }

    fn find_hash(&self, hash: KeyHash) -> Option<Found> {
        self.index.find(hash, |at| self.hasher.hash(entry::key(self.arena, at)) == hash)
    }

    /// Hides all entries that were stored before and that `what` names, or ends their freshness.
    /// Takes the same time whatever that is; the memory of what is hidden comes back as upkeep
    /// meets it.
    ///
    /// # Errors
    /// [`PurgeRefused`] while as many purges of this kind are in force as there is room for.
    pub fn purge(
        &mut self,
        what: Purge<'_>,
        force: Force,
        now: Instant,
    ) -> Result<(), PurgeRefused> {
        self.rules.add(what, force, now.ms(), &self.hasher)
    }

    /// Whether `what` names this key.
    #[must_use]
    pub fn is_named(&self, what: Purge<'_>, key: &[u8]) -> bool {
        self.rules.is_named(what, key)
    }

    /// What the cache holds and has done.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            purge_rules: self.rules.count() as u64,
            condemned_bytes: self.condemned_bytes(),
            ..self.statistics
        }
    }

    /// All bytes that values lie in.
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        self.arena
    }

    /// The segment that an entry lies in.
    #[inline]
    pub(crate) fn segment(&self, at: EntryRef) -> &Segment {
        self.segments.get(Segments::at(at.offset()))
    }

    pub(crate) fn segment_mut(&mut self, at: EntryRef) -> &mut Segment {
        self.segments.get_mut(Segments::at(at.offset()))
    }

    pub(crate) const fn value_size_max(&self) -> usize {
        self.value_size_max as usize
    }

    /// The index of `windows` among those of single values, which are new or known; `None` if there
    /// is no room for more.
    pub fn windows_index(&mut self, windows: StaleWindows) -> Option<u8> {
        let given = usize::from(self.windows_given);
        let known = self.windows[given..].iter().position(|other| *other == windows);
        let index = known.map_or(self.windows.len(), |known| given + known);
        if index == WINDOWS_COUNT_MAX {
            return None;
        }
        if known.is_none() {
            self.windows.push(windows);
        }
        u8::try_from(index).ok()
    }

    /// The windows of an entry, unless the cache was made with them.
    pub(crate) fn own_windows(&self, kind: Kind) -> Option<StaleWindows> {
        (kind.windows >= self.windows_given).then(|| self.windows(kind))
    }

    #[inline]
    pub(crate) fn freshness(
        &self,
        at: EntryRef,
        header: &Header,
        now: Instant,
    ) -> Option<Freshness> {
        if header.ever && !self.rules.are_any_soft() {
            return Some(Freshness::Fresh);
        }
        let windows = self.windows(header.kind);
        freshness(self.times(at, header).1, windows, now.ms())
    }

    /// Whether a purge hides the entry.
    #[cold]
    pub(crate) fn is_hidden(&self, at: EntryRef) -> bool {
        let (stamp, _) = self.times(at, &Header::read(self.arena, at));
        self.rules.hide(&self.hasher, entry::key(self.arena, at), stamp)
    }

    /// When the entry at `at` was stored, and until when it is fresh: milliseconds in 64 bits.
    pub(crate) fn times(&self, at: EntryRef, header: &Header) -> (u64, Option<u64>) {
        let base = self.segment(at).base;
        let born_ms = base + u64::from(header.born_ms.wrapping_sub(low(base)));
        let lifetime_ms = header.fresh_until_ms.wrapping_sub(header.born_ms);
        let fresh_until_ms = (!header.ever).then(|| born_ms + u64::from(lifetime_ms));
        if self.rules.are_any_soft() {
            return (born_ms, self.end(at, born_ms, fresh_until_ms));
        }
        (born_ms, fresh_until_ms)
    }

    /// Whether a purge has ended the freshness of the entry.
    pub(crate) fn is_ended(&self, at: EntryRef, header: &Header) -> bool {
        let (born_ms, _) = self.times(at, header);
        self.rules.ended(&self.hasher, entry::key(self.arena, at), born_ms).is_some()
    }

    /// Until when an entry is fresh, where purges may have ended that.
    #[cold]
    fn end(&self, at: EntryRef, born_ms: u64, fresh_until_ms: Option<u64>) -> Option<u64> {
        let ended = self.rules.ended(&self.hasher, entry::key(self.arena, at), born_ms);
        match (fresh_until_ms, ended) {
            (Some(end), Some(ended)) => Some(end.min(ended)),
            (end, ended) => end.or(ended),
        }
    }

    /// Whether the time of the entry at `at` is over: it is neither served nor kept.
    pub(crate) fn is_dead(&self, at: EntryRef, header: &Header, now: Instant) -> bool {
        let is_over = |end: u64| now.ms() >= end + self.retained_ms(header.kind, header.negative);
        self.times(at, header).1.is_some_and(is_over)
    }

    /// How long after its freshness an entry is kept, milliseconds.
    pub(crate) fn retained_ms(&self, kind: Kind, negative: bool) -> u64 {
        let windows = self.windows(kind);
        let kept_ms = if negative { 0 } else { self.kept_ms };
        u64::from(windows.while_revalidate_ms.max(windows.if_error_ms).max(kept_ms))
    }

    fn set_times(&mut self, header: &mut Header, at: EntryRef, fresh_for: FreshFor, stamp: u64) {
        header.born_ms = low(stamp);
        header.ever = fresh_for == FreshFor::Ever;
        let lifetime_ms = match fresh_for {
            FreshFor::Ever => 0,
            FreshFor::Ms(ms) => ms.min(LIFETIME_MS_MAX),
        };
        header.fresh_until_ms = header.born_ms.wrapping_add(lifetime_ms);
        let left_ms = self.left_ms(fresh_for, header.kind, header.negative);
        let dead_ms = stamp.saturating_add(left_ms);
        let segment = self.segments.get_mut(Segments::at(at.offset()));
        segment.dead_ms = segment.dead_ms.max(dead_ms);
    }

    /// Milliseconds until an entry is dead that is stored now; `u64::MAX` if it never is.
    fn left_ms(&self, fresh_for: FreshFor, kind: Kind, negative: bool) -> u64 {
        match fresh_for {
            FreshFor::Ever => u64::MAX,
            FreshFor::Ms(ms) => {
                u64::from(ms.min(LIFETIME_MS_MAX)) + self.retained_ms(kind, negative)
            }
        }
    }

    /// Appends a value to a pool; nothing finds it yet. Steps see to it that there is room.
    pub(crate) fn append(
        &mut self,
        key: &[u8],
        value: &NewValue<'_>,
        pool: Pool,
        now: Instant,
    ) -> Result<EntryRef, StoreRefused> {
        if key.len() > KEY_SIZE_MAX || value.bytes.len() > self.value_size_max() {
            self.statistics.refused += 1;
            return Err(StoreRefused::TooLarge);
        }
        let size = entry_size(key.len(), value.bytes.len());
        let stamp = self.rules.stamp(now.ms());
        let offset = if size <= SEGMENT_SIZE {
            let left_ms = self.left_ms(value.fresh_for, value.kind, value.negative);
            self.segments.allocate(size, pool, left_ms, stamp, Writer::Store)
        } else {
            let run = u32::try_from(run_count(size)).expect("an entry is at most 256 MiB");
            let offset = self.segments.allocate_run(run, size, pool, stamp);
            if offset.is_none() {
                let source = self.source();
                let is_owed = |first: u32| {
                    let at = EntryRef::at(first as usize * SEGMENT_SIZE);
                    self.quotas.is_within(Header::read(self.arena, at).group())
                };
                self.segments.reserve(run, source, now.ms(), is_owed);
            }
            offset
        };
        let Some(offset) = offset else {
            self.statistics.refused += 1;
            return Err(StoreRefused::NoRoom);
        };
        let at = EntryRef::at(offset);
        let mut header = Header {
            etag: value.etag,
            born_ms: 0,
            fresh_until_ms: 0,
            value_size: u32::try_from(value.bytes.len()).expect("checked by store"),
            negative: value.negative,
            ever: false,
            key: KeyAndGroup::new(key.len(), value.group),
            kind: value.kind,
        };
        self.set_times(&mut header, at, value.fresh_for, stamp);
        header.write(self.arena, at);
        entry::write_body(self.arena, at, key, value.bytes);
        Ok(at)
    }

    /// An entry leaves for a newer one of its key.
    pub(crate) fn replace(&mut self, known: Found) {
        self.index.clear(known.place);
        self.count_out(known.entry, &Header::read(self.arena, known.entry));
        self.statistics.replaced += 1;
    }

    /// Lets the entry at `at` be found: its key is not in the index.
    pub(crate) fn insert(&mut self, hash: KeyHash, at: EntryRef, frequency: u8) {
        let place = self.place(hash);
        self.index.set(place, hash, at, frequency);
        let header = Header::read(self.arena, at);
        self.enter(at, &header);
        self.statistics.entries += 1;
        self.statistics.bytes += header.entry_size() as u64;
    }

    /// A slot for a new key; where there is none, the entry worth least of those around goes: one
    /// that is guaranteed only if all sixteen are.
    fn place(&mut self, hash: KeyHash) -> Place {
        let (segments, quotas, arena) = (&self.segments, &self.quotas, &*self.arena);
        let is_owed = |other: EntryRef| {
            // Without guarantees no entry is read.
            quotas.are_any() && quotas.is_within(Header::read(arena, other).group())
        };
        let (place, crowded) = self.index.place(hash, |other, frequency| {
            let opened = segments.get(Segments::at(other.offset())).opened;
            (is_owed(other), frequency, opened)
        });
        if let Some(out) = crowded {
            self.statistics.evicted_guaranteed += u64::from(is_owed(out));
            self.count_out(out, &Header::read(self.arena, out));
            self.statistics.evicted += 1;
        }
        place
    }

    /// An entry has left the index.
    pub(crate) fn count_out(&mut self, at: EntryRef, header: &Header) {
        self.statistics.entries -= 1;
        self.statistics.bytes -= header.entry_size() as u64;
        self.segment_mut(at).live -= size_32(header.entry_size());
        self.leave(at, header);
    }
}

/// The size of an entry in 32 bits.
pub(crate) fn size_32(size: usize) -> u32 {
    u32::try_from(size).expect("an entry is at most 256 MiB")
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(crate) const fn low(ms: u64) -> u32 {
    ms as u32
}
