//! The cache of one shard: the face of this crate.

use crate::entry::{self, Entry, EntryRef, FreshFor, Header, Kind, LIFETIME_MS_MAX, entry_size};
use crate::freshness::{Freshness, StaleWindows, freshness};
use crate::hash::{Etag, KeyHash, KeyHasher};
use crate::index::Index;
use crate::layout::{KEY_SIZE_MAX, Layout, SEGMENT_SIZE, run_count};
use crate::prefetch::prefetch;
use crate::segments::{Segments, State};
use crate::time::Instant;

/// Entries that one step looks at: about 10 us of work.
const STEP_ENTRIES_MAX: u32 = 128;

/// Segments that are emptied for one large value, in multiples of what it takes. The end of the
/// arena, the open segment and pins may each make the search for neighbours begin anew; beyond this
/// the value is not worth what gives way to it.
const WANTED_FACTOR_MAX: u32 = 4;

/// A value to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'a> {
    /// Hash of content type and value.
    pub etag: Etag,
    /// What it is.
    pub kind: Kind,
    /// How long it is fresh.
    pub fresh_for: FreshFor,
    /// It says that the key does not exist; `bytes` is empty then.
    pub negative: bool,
    /// The value.
    pub bytes: &'a [u8],
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

/// Holds an entry's bytes in place. Neither `Copy` nor `Clone`: each pin is let go once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is not given back holds its segment for ever"]
pub struct Pin(EntryRef);

impl Pin {
    /// The entry it holds.
    #[must_use]
    pub const fn entry(&self) -> EntryRef {
        self.0
    }
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
    /// Entries dropped because they were dead.
    pub expired: u64,
    /// Values that were refused.
    pub refused: u64,
}

/// A segment that is being emptied.
#[derive(Clone, Copy, Debug)]
struct Victim {
    segment: u32,
    /// Bytes of it that were looked at.
    done: u32,
}

/// A run of free segments that a large value did not find.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    /// Segments of the run; 0 if none is wanted.
    run: u32,
    /// Segments that may still be emptied for it.
    left: u32,
}

/// One shard's cache.
#[derive(Debug)]
pub struct Cache {
    arena: &'static mut [u8],
    index: Index,
    segments: Segments,
    hasher: KeyHasher,
    windows: Box<[StaleWindows]>,
    value_size_max: u32,
    victim: Option<Victim>,
    wanted: Wanted,
    /// The millisecond in which dead segments were last looked for.
    swept_ms: u64,
    statistics: Statistics,
}

impl Cache {
    /// A cache over `memory`, which is zeroed, aligned to a cache line, and has the size that
    /// `layout` says: the index, then the arena. Keys are hashed by `hasher`. Entries name their
    /// stale windows by index into `windows`.
    ///
    /// No byte of the arena is touched before [`Cache::set_segments_ready`] says so.
    ///
    /// # Panics
    /// If `memory` has another size or alignment, or there are no windows.
    #[must_use]
    pub fn new(
        layout: Layout,
        memory: &'static mut [u8],
        hasher: KeyHasher,
        windows: &[StaleWindows],
    ) -> Self {
        assert_eq!(
            memory.len(),
            layout.memory_bytes(),
            "the memory is as large as its layout says"
        );
        assert!(!windows.is_empty(), "entries name their windows");
        let (index, arena) = memory.split_at_mut(layout.index_bytes());
        Self {
            arena,
            index: Index::new(index),
            segments: Segments::new(layout.segments_count()),
            hasher,
            windows: windows.into(),
            value_size_max: layout.value_size_max(),
            victim: None,
            wanted: Wanted::default(),
            swept_ms: 0,
            statistics: Statistics::default(),
        }
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

    /// The entry of `key`, unless there is none or it is dead.
    #[inline]
    pub fn lookup(&mut self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Hit> {
        let (place, at) = self.index.find(hash, |at| entry::key(self.arena, at) == key)?;
        let header = Header::read(self.arena, at);
        match self.freshness(at, &header, now) {
            Some(freshness) => Some(Hit { entry: at, freshness }),
            None => {
                self.index.clear(place);
                self.count_out(&header);
                self.statistics.expired += 1;
                None
            }
        }
    }

    /// The entry at `at`.
    #[inline]
    #[must_use]
    pub fn entry(&self, at: EntryRef) -> Entry<'_> {
        let header = Header::read(self.arena, at);
        let (born_ms, fresh_until_ms) = self.times(at, &header);
        let body = &self.arena[at.offset() + entry::HEADER_SIZE..];
        let (key, rest) = body.split_at(usize::from(header.key_size));
        let value = &rest[..header.value_size as usize];
        Entry { header, born_ms, fresh_until_ms, key, value }
    }

    /// Where the value of the entry at `at` lies: offset in the arena, and bytes.
    #[must_use]
    pub fn value_span(&self, at: EntryRef) -> (u64, u32) {
        let header = Header::read(self.arena, at);
        let offset = at.offset() + entry::HEADER_SIZE + usize::from(header.key_size);
        (offset as u64, header.value_size)
    }

    /// Holds the bytes of an entry in place until the pin is given back.
    pub fn pin(&mut self, at: EntryRef) -> Pin {
        let segment = self.segments.get_mut(Segments::at(at.offset()));
        assert!(
            !matches!(segment.state, State::Free | State::Rest),
            "only bytes that are there are pinned"
        );
        segment.pins += 1;
        self.statistics.pins += 1;
        Pin(at)
    }

    /// Gives a pin back.
    pub fn unpin(&mut self, pin: Pin) {
        let Pin(at) = pin;
        let index = Segments::at(at.offset());
        let segment = self.segments.get_mut(index);
        segment.pins = segment.pins.checked_sub(1).expect("each pin is given back once");
        self.statistics.pins -= 1;
        if segment.pins == 0 && segment.state == State::Condemned {
            self.segments.release(index);
        }
    }

    /// Stores a value under `key`, whose hash is `hash`, in place of what was there.
    ///
    /// # Errors
    /// [`StoreRefused::NoRoom`] while no segment is free; try again after the next step.
    ///
    /// # Panics
    /// If `hash` is not what the cache's hasher makes of `key`: the entry would leave the index by
    /// another way than it came in.
    pub fn store(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &NewValue<'_>,
        now: Instant,
    ) -> Result<EntryRef, StoreRefused> {
        if key.len() > KEY_SIZE_MAX || value.bytes.len() > self.value_size_max as usize {
            self.statistics.refused += 1;
            return Err(StoreRefused::TooLarge);
        }
        assert_eq!(self.hasher.hash(key), hash, "keys are hashed by the cache's hasher");
        let size = entry_size(key.len(), value.bytes.len());
        let allocated = if size <= SEGMENT_SIZE {
            self.segments.allocate(size, now.ms())
        } else {
            self.allocate_run(size, now)
        };
        let Some(offset) = allocated else {
            self.statistics.refused += 1;
            return Err(StoreRefused::NoRoom);
        };
        let at = EntryRef::at(offset);
        self.write(at, key, value, now);
        self.link(hash, key, at);
        self.statistics.entries += 1;
        self.statistics.bytes += size as u64;
        self.statistics.stored += 1;
        Ok(at)
    }

    /// The origin says that the entry at `at` is still what it was: it is fresh anew.
    ///
    /// Returns whether that could be noted; an entry of some weeks cannot take it, and is to be
    /// stored again.
    pub fn update(&mut self, at: EntryRef, fresh_for: FreshFor, now: Instant) -> bool {
        let mut header = Header::read(self.arena, at);
        let segment = self.segments.get(Segments::at(at.offset()));
        if now.ms() - segment.opened_ms > u64::from(u32::MAX) {
            return false;
        }
        self.set_times(&mut header, at, fresh_for, now);
        header.write(self.arena, at);
        true
    }

    /// Drops the entry of `key`. Returns whether there was one.
    pub fn remove(&mut self, hash: KeyHash, key: &[u8]) -> bool {
        let found = self.index.find(hash, |at| entry::key(self.arena, at) == key);
        let Some((place, at)) = found else { return false };
        self.index.clear(place);
        self.count_out(&Header::read(self.arena, at));
        true
    }

    /// A bounded piece of upkeep: makes room ahead of the writer and frees segments of dead
    /// entries. Looks at 128 entries at most.
    pub fn step(&mut self, now: Instant) {
        let mut budget = STEP_ENTRIES_MAX;
        while budget > 0 {
            if self.victim.is_none() {
                self.victim = self.choose(now);
            }
            let Some(victim) = self.victim else { break };
            budget = self.empty(victim, budget, now);
        }
    }

    /// What the cache holds and has done.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// All bytes that values lie in.
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        self.arena
    }

    fn freshness(&self, at: EntryRef, header: &Header, now: Instant) -> Option<Freshness> {
        if header.ever {
            return Some(Freshness::Fresh);
        }
        let windows = self.windows[usize::from(header.kind.windows)];
        freshness(self.times(at, header).1, windows, now.ms())
    }

    /// When the entry at `at` was stored, and until when it is fresh: milliseconds in 64 bits.
    fn times(&self, at: EntryRef, header: &Header) -> (u64, Option<u64>) {
        let opened_ms = self.segments.get(Segments::at(at.offset())).opened_ms;
        let born_ms = opened_ms + u64::from(header.born_ms.wrapping_sub(low(opened_ms)));
        let lifetime_ms = header.fresh_until_ms.wrapping_sub(header.born_ms);
        (born_ms, (!header.ever).then(|| born_ms + u64::from(lifetime_ms)))
    }

    fn set_times(&mut self, header: &mut Header, at: EntryRef, fresh_for: FreshFor, now: Instant) {
        header.born_ms = low(now.ms());
        header.ever = fresh_for == FreshFor::Ever;
        let segment = self.segments.get_mut(Segments::at(at.offset()));
        match fresh_for {
            FreshFor::Ever => {
                header.fresh_until_ms = header.born_ms;
                segment.dead_ms = u64::MAX;
            }
            FreshFor::Ms(ms) => {
                let ms = ms.min(LIFETIME_MS_MAX);
                let windows = self.windows[usize::from(header.kind.windows)];
                let retained = windows.while_revalidate_ms.max(windows.if_error_ms);
                header.fresh_until_ms = header.born_ms.wrapping_add(ms);
                let dead_ms = now.ms() + u64::from(ms) + u64::from(retained);
                segment.dead_ms = segment.dead_ms.max(dead_ms);
            }
        }
    }

    /// Neighbouring segments for one entry of `size` bytes; steps see to it if there are none.
    fn allocate_run(&mut self, size: usize, now: Instant) -> Option<usize> {
        let run = u32::try_from(run_count(size)).expect("an entry is at most 256 MiB");
        let allocated = self.segments.allocate_run(run, size, now.ms());
        if allocated.is_none() && self.wanted.run < run {
            self.wanted = Wanted { run, left: run * WANTED_FACTOR_MAX };
        }
        allocated
    }

    fn write(&mut self, at: EntryRef, key: &[u8], value: &NewValue<'_>, now: Instant) {
        let mut header = Header {
            etag: value.etag,
            born_ms: 0,
            fresh_until_ms: 0,
            value_size: u32::try_from(value.bytes.len()).expect("checked by store"),
            negative: value.negative,
            ever: false,
            key_size: u16::try_from(key.len()).expect("checked by store"),
            kind: value.kind,
        };
        self.set_times(&mut header, at, value.fresh_for, now);
        header.write(self.arena, at);
        let body = &mut self.arena[at.offset() + entry::HEADER_SIZE..];
        body[..key.len()].copy_from_slice(key);
        body[key.len()..][..value.bytes.len()].copy_from_slice(value.bytes);
    }

    /// Points the index at a new entry, in place of the key's last one or of the oldest around.
    fn link(&mut self, hash: KeyHash, key: &[u8], at: EntryRef) {
        let known = self.index.find(hash, |other| entry::key(self.arena, other) == key);
        let (place, out) = match known {
            Some((place, before)) => (place, Some(before)),
            None => {
                let size = self.arena.len();
                let age = |other: EntryRef| {
                    let (at, other) = (at.offset(), other.offset());
                    (if at >= other { at - other } else { at + size - other }) as u64
                };
                let (place, crowded) = self.index.place(hash, age);
                self.statistics.evicted += u64::from(crowded.is_some());
                (place, crowded)
            }
        };
        if let Some(out) = out {
            let header = Header::read(self.arena, out);
            self.count_out(&header);
        }
        self.index.set(place, hash, at);
    }

    fn count_out(&mut self, header: &Header) {
        self.statistics.entries -= 1;
        self.statistics.bytes -= header.entry_size() as u64;
    }

    /// The next segment to be emptied: a dead one, or else the oldest if room is wanted.
    fn choose(&mut self, now: Instant) -> Option<Victim> {
        let is_wanted = self.segments.is_short() || self.is_run_wanted();
        // Dead segments do no harm until room is wanted: once a millisecond is often enough.
        if !is_wanted && self.swept_ms == now.ms() {
            return None;
        }
        self.swept_ms = now.ms();
        let mut segment = self.segments.dead(now.ms());
        if segment.is_none() && is_wanted {
            self.wanted.left = self.wanted.left.saturating_sub(1);
            segment = self.segments.oldest();
        }
        segment.map(|segment| Victim { segment, done: 0 })
    }

    /// Whether a large value still waits for a run and is worth another segment.
    fn is_run_wanted(&mut self) -> bool {
        let Wanted { run, left } = self.wanted;
        if run > 0 && (left == 0 || self.segments.find_run(run).is_some()) {
            self.wanted = Wanted::default();
        }
        self.wanted.run > 0
    }

    /// Unlinks entries of a victim, at most `budget`; returns what is left of that.
    fn empty(&mut self, victim: Victim, budget: u32, now: Instant) -> u32 {
        let Victim { segment, mut done } = victim;
        let used = self.segments.get(segment).used;
        let mut left = budget;
        while left > 0 && done < used {
            let at = EntryRef::at(segment as usize * SEGMENT_SIZE + done as usize);
            let header = Header::read(self.arena, at);
            let hash = self.hasher.hash(entry::key(self.arena, at));
            if let Some((place, _)) = self.index.find(hash, |other| other == at) {
                self.index.clear(place);
                self.count_out(&header);
                match self.freshness(at, &header, now) {
                    Some(_) => self.statistics.evicted += 1,
                    None => self.statistics.expired += 1,
                }
            }
            done += u32::try_from(header.entry_size()).expect("an entry is at most 256 MiB");
            left -= 1;
        }
        if done < used {
            self.victim = Some(Victim { segment, done });
            return 0;
        }
        self.victim = None;
        if self.segments.get(segment).pins > 0 {
            self.segments.get_mut(segment).state = State::Condemned;
        } else {
            self.segments.release(segment);
        }
        // Looking at a segment costs something even if all its entries are gone.
        left.saturating_sub(1)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn low(ms: u64) -> u32 {
    ms as u32
}
