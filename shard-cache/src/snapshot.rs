//! All entries out, for a snapshot, and back in after a restart: in bounded steps, beside all else.
//!
//! A *walk* visits each segment and hands out the entries that the index points to. It pins the
//! segment that it is in, so that its bytes stay while others are stored, moved and dropped. An
//! entry that moves ahead of the walk may be met twice, and one that moves behind it is met on the
//! second of two rounds.
//!
//! What was purged or removed must not come back. An entry may be handed out before it is purged,
//! so a walk ends with what was *withdrawn*: the purge rules in force and the keys removed
//! meanwhile. Likewise a key may be removed before its entry is put back; until the last one is,
//! removed keys are remembered and no rule retires.

use crate::cache::{Cache, low};
use crate::entry::{self, EntryRef, Header, KeyAndGroup, Kind, LIFETIME_MS_MAX, entry_size};
use crate::freshness::{StaleWindows, freshness};
use crate::hash::{Etag, KeyHash, KeyHasher};
use crate::index::Found;
use crate::layout::{KEY_SIZE_MAX, SEGMENT_SIZE, run_count};
use crate::pins::Pin;
use crate::policy::{FREQUENCY_MAX, Policy, Pool};
use crate::purge::{Rule, Rules};
use crate::reclaim::{STEP_ENTRIES_MAX, STEP_MOVED_BYTES_MAX};
use crate::segments::{State, Writer};
use crate::time::Instant;

/// Removed keys that are remembered while a snapshot is written or read.
pub const REMOVED_MAX: usize = 4_096;

/// Bytes that they take.
pub(crate) const REMOVED_SIZE: usize = REMOVED_MAX * size_of::<u64>();

/// Rounds of a walk.
const ROUNDS: u32 = 2;

/// Segments that one step looks at in search of one to visit.
const LOOKS_MAX: u32 = 64;

/// An entry as a snapshot holds it. Times are milliseconds on the clock of the process that wrote
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved<'a> {
    /// Hash of content type and value.
    pub etag: Etag,
    /// Index of its content type, in the owner's table.
    pub content_type: u8,
    /// Its stale windows, where they are its own.
    pub windows: Option<StaleWindows>,
    /// How often it was hit lately, 0 to 3.
    pub frequency: u8,
    /// It has proved itself, and lies in the main pool.
    pub proven: bool,
    /// When it was stored.
    pub born_ms: u64,
    /// Until when it is fresh; `None` if that never ends.
    pub fresh_until_ms: Option<u64>,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// What must not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn<'a> {
    /// The key with this hash.
    Removed(KeyHash),
    /// All entries born by this time.
    Everything {
        /// Milliseconds.
        until_ms: u64,
    },
    /// Those whose keys begin with these bytes.
    Prefix {
        /// The bytes.
        prefix: &'a [u8],
        /// Milliseconds.
        until_ms: u64,
    },
    /// Those of the group whose name has this hash.
    Group {
        /// The hash.
        name: KeyHash,
        /// Milliseconds.
        until_ms: u64,
    },
}

/// How far a step of a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// There is more to hand out.
    On,
    /// An entry was not taken: it is handed out again by the next step.
    Held,
    /// Everything was handed out.
    End,
}

/// Why an entry was not put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRestored {
    /// What the cache has of its key is not older.
    Known,
    /// Its time is over.
    Dead,
    /// It was purged, or its key removed.
    Withdrawn,
    /// Key or value exceed their bound.
    TooLarge,
    /// Something would have to leave for it.
    NoRoom,
}

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Marks the segments that it has visited.
    number: u32,
    /// Segments left to look at.
    looks: u32,
    /// The next one.
    next: u32,
    /// The one that it is in, and how many bytes of it were looked at.
    inside: Option<(Pin, u32)>,
}

/// Keys that were removed while a snapshot is written or read: their hashes, in order.
#[derive(Debug)]
pub(crate) struct Removed {
    is_watching: bool,
    hashes: Vec<u64>,
    /// There were more than are remembered.
    overflowed: bool,
}

impl Removed {
    pub(crate) fn new() -> Self {
        let hashes = Vec::with_capacity(REMOVED_MAX);
        Self { is_watching: false, hashes, overflowed: false }
    }

    fn watch(&mut self, is_watching: bool) {
        self.is_watching = is_watching;
        self.hashes.clear();
        self.overflowed = false;
    }

    pub(crate) fn add(&mut self, hash: KeyHash) {
        if !self.is_watching {
            return;
        }
        let Err(at) = self.hashes.binary_search(&hash.bits()) else { return };
        if self.hashes.len() == REMOVED_MAX {
            self.overflowed = true;
        } else {
            self.hashes.insert(at, hash.bits());
        }
    }

    fn has(&self, hash: KeyHash) -> bool {
        self.overflowed || self.hashes.binary_search(&hash.bits()).is_ok()
    }
}

impl<P: Policy> Cache<'_, P> {
    /// Begins a walk over all entries. One that is under way ends.
    pub fn begin_walk(&mut self) {
        self.end_walk();
        self.watch(true);
        self.walks = self.walks.wrapping_add(1);
        self.walk = Some(Walk {
            number: self.walks,
            looks: ROUNDS * self.segments.ready(),
            next: 0,
            inside: None,
        });
    }

    /// A bounded piece of the walk: `take` is handed entries that may still be served, except
    /// negative ones, and says whether it has taken them. Looks at [`STEP_ENTRIES_MAX`] entries,
    /// and hands out [`STEP_MOVED_BYTES_MAX`] bytes at most, or one entry that is larger.
    ///
    /// # Panics
    /// If no walk was begun.
    pub fn walk(&mut self, now: Instant, mut take: impl FnMut(&Saved<'_>) -> bool) -> Walked {
        let mut walk = self.walk.take().expect("a walk was begun");
        let (mut entries, mut bytes) = (STEP_ENTRIES_MAX, STEP_MOVED_BYTES_MAX);
        let mut looks = LOOKS_MAX;
        let walked = loop {
            let Some((pin, done)) = &mut walk.inside else {
                if looks == 0 {
                    break Walked::On;
                }
                looks -= 1;
                if !self.visit_next(&mut walk) {
                    break Walked::End;
                }
                continue;
            };
            let first = pin.entry();
            if *done == self.segment(first).used {
                if let Some((pin, _)) = walk.inside.take() {
                    self.unpin(pin);
                }
                continue;
            }
            if entries == 0 {
                break Walked::On;
            }
            entries -= 1;
            let at = EntryRef::at(first.offset() + *done as usize);
            let size = Header::read(self.arena, at).entry_size();
            if let Some(saved) = self.saved(at, now) {
                if size > bytes && bytes < STEP_MOVED_BYTES_MAX {
                    break Walked::On;
                }
                if !take(&saved) {
                    break Walked::Held;
                }
                bytes = bytes.saturating_sub(size);
            }
            *done += u32::try_from(size).expect("an entry is at most 256 MiB");
        };
        self.walk = Some(walk);
        walked
    }

    /// Ends the walk, if one is under way: `take` is handed what was withdrawn since it began.
    /// Returns whether that is all; if not, what the walk has handed out cannot be trusted.
    pub fn end_walk_with(&mut self, mut take: impl FnMut(Withdrawn<'_>)) -> bool {
        for (rule, until_ms) in self.rules.all() {
            take(match rule {
                Rule::Everything => Withdrawn::Everything { until_ms },
                Rule::Prefix(prefix) => Withdrawn::Prefix { prefix, until_ms },
                Rule::Group(name) => Withdrawn::Group { name: KeyHash::from_bits(name), until_ms },
            });
        }
        for hash in &self.removed.hashes {
            take(Withdrawn::Removed(KeyHash::from_bits(*hash)));
        }
        let is_all = !self.removed.overflowed;
        self.end_walk();
        is_all
    }

    /// Gives a walk up, if one is under way.
    pub fn end_walk(&mut self) {
        if let Some(Walk { inside: Some((pin, _)), .. }) = self.walk.take() {
            self.unpin(pin);
        }
        self.watch(false);
    }

    /// Entries of an earlier process will be put back from now on.
    ///
    /// # Panics
    /// If a walk is under way.
    pub fn begin_restore(&mut self) {
        assert!(self.walk.is_none(), "a snapshot is written or read");
        self.watch(true);
    }

    /// A key has been written. What an earlier process had of it does not come back, also where the
    /// cache has lost the new value by then.
    pub fn supersede(&mut self, hash: KeyHash) {
        // A walk goes on: whoever puts back what it hands out asks whether that still holds.
        if self.walk.is_none() {
            self.removed.add(hash);
        }
    }

    /// No more entries of an earlier process will be put back.
    pub fn end_restore(&mut self) {
        self.watch(false);
    }

    /// Puts an entry of an earlier process back, its times on this one's clock. It is stale at
    /// best, belongs to no group of entries but 0, and nothing leaves for it.
    ///
    /// # Errors
    /// Why it was not put back.
    ///
    /// # Panics
    /// If that was not begun, or the hash is not that of the key.
    pub fn restore(
        &mut self,
        hash: KeyHash,
        saved: &Saved<'_>,
        kind: Kind,
        now: Instant,
    ) -> Result<(), NotRestored> {
        assert!(self.removed.is_watching, "a removed key is remembered until all are back");
        assert_eq!(self.hasher.hash(saved.key), hash, "keys are hashed by the cache's hasher");
        if saved.key.len() > KEY_SIZE_MAX || saved.value.len() > self.value_size_max() {
            return Err(NotRestored::TooLarge);
        }
        let known = self.index.find(hash, |at| entry::key(self.arena, at) == saved.key);
        if let Some(Found { entry: at, .. }) = known
            && self.times(at, &Header::read(self.arena, at)).0 >= saved.born_ms
        {
            return Err(NotRestored::Known);
        }
        let fresh_until_ms = saved.fresh_until_ms.unwrap_or(u64::MAX).min(now.ms());
        let is_young = now.ms() - saved.born_ms.min(now.ms()) < u64::from(LIFETIME_MS_MAX);
        let is_dead = freshness(Some(fresh_until_ms), self.windows(kind), now.ms()).is_none();
        if is_dead || !is_young || saved.born_ms > fresh_until_ms {
            return Err(NotRestored::Dead);
        }
        let is_purged = self.rules.hide(&self.hasher, saved.key, saved.born_ms);
        if is_purged || self.removed.has(hash) {
            return Err(NotRestored::Withdrawn);
        }
        let at = self.allocate_restored(saved, fresh_until_ms, kind, now);
        let at = at.ok_or(NotRestored::NoRoom)?;
        let header = Header {
            etag: saved.etag,
            born_ms: low(saved.born_ms),
            fresh_until_ms: low(fresh_until_ms),
            value_size: u32::try_from(saved.value.len()).expect("checked above"),
            negative: false,
            ever: false,
            key: KeyAndGroup::new(saved.key.len(), 0),
            kind,
        };
        header.write(self.arena, at);
        if let Some(known) = known {
            self.replace(known);
        }
        entry::write_body(self.arena, at, saved.key, saved.value);
        self.insert(hash, at, saved.frequency.min(FREQUENCY_MAX));
        Ok(())
    }

    fn allocate_restored(
        &mut self,
        saved: &Saved<'_>,
        fresh_until_ms: u64,
        kind: Kind,
        now: Instant,
    ) -> Option<EntryRef> {
        let size = entry_size(saved.key.len(), saved.value.len());
        let run = u32::try_from(run_count(size)).expect("an entry is at most 256 MiB");
        if !self.segments.can_spare(run) {
            return None;
        }
        let pool = if saved.proven { Pool::Main } else { Pool::Small };
        let dead_ms = fresh_until_ms + self.retained_ms(kind, false);
        let stamp = self.rules.stamp(now.ms());
        let offset = if size <= SEGMENT_SIZE {
            let left_ms = dead_ms - now.ms();
            self.segments.allocate(size, pool, left_ms, stamp, Writer::Store)
        } else {
            self.segments.allocate_run(run, size, pool, stamp)
        };
        let at = EntryRef::at(offset?);
        let segment = self.segment_mut(at);
        segment.base = segment.base.min(saved.born_ms);
        segment.dead_ms = segment.dead_ms.max(dead_ms);
        Some(at)
    }

    /// The entry at `at`, if it can be found and served.
    fn saved(&self, at: EntryRef, now: Instant) -> Option<Saved<'_>> {
        let header = Header::read(self.arena, at);
        let hash = self.hasher.hash(entry::key(self.arena, at));
        let Found { frequency, .. } = self.index.find(hash, |other| other == at)?;
        let is_served = self.freshness(at, &header, now).is_some() && !header.negative;
        if !is_served || (self.rules.are_any() && self.is_hidden(at)) {
            return None;
        }
        let (key, value) = (self.entry(at).key, self.entry(at).value);
        let (born_ms, fresh_until_ms) = self.times(at, &header);
        Some(Saved {
            etag: header.etag,
            content_type: header.kind.content_type,
            windows: self.own_windows(header.kind),
            frequency,
            proven: self.segment(at).pool == Pool::Main,
            born_ms,
            fresh_until_ms,
            key,
            value,
        })
    }

    /// Looks at the next segment, and enters it if it has entries that the walk has not met.
    /// Returns whether there was one to look at.
    fn visit_next(&mut self, walk: &mut Walk) -> bool {
        let Some(looks) = walk.looks.checked_sub(1) else { return false };
        walk.looks = looks;
        let index = walk.next;
        walk.next = if index + 1 < self.segments.ready() { index + 1 } else { 0 };
        let segment = self.segments.get(index);
        let has_entries = matches!(segment.state, State::Open | State::Sealed | State::Victim);
        if has_entries && segment.walk != walk.number {
            // What comes after this visit belongs to another segment.
            if segment.state == State::Open {
                self.segments.seal(index);
            }
            self.segments.get_mut(index).walk = walk.number;
            let pin = self.pin(EntryRef::at(index as usize * SEGMENT_SIZE));
            walk.inside = Some((pin, 0));
        }
        true
    }

    /// Remembers from now on what is withdrawn, or no longer.
    fn watch(&mut self, is_watching: bool) {
        self.removed.watch(is_watching);
        self.rules.hold(is_watching);
    }
}

/// What was withdrawn by the end of a walk, for whoever puts its entries back.
#[derive(Debug)]
pub struct Withdrawals {
    hasher: KeyHasher,
    rules: Rules,
    removed: Vec<u64>,
}

impl Withdrawals {
    /// None so far, of a cache with this hasher.
    #[must_use]
    pub fn new(hasher: KeyHasher) -> Self {
        Self { hasher, rules: Rules::new(), removed: Vec::new() }
    }

    /// Adds one, in the order in which the walk handed them out. Returns `false` for one that no
    /// cache can have handed out.
    #[must_use]
    pub fn add(&mut self, withdrawn: Withdrawn<'_>) -> bool {
        let (rule, until_ms) = match withdrawn {
            Withdrawn::Removed(hash) => {
                let is_next = self.removed.last().is_none_or(|last| *last < hash.bits());
                self.removed.push(hash.bits());
                return is_next && self.removed.len() <= REMOVED_MAX;
            }
            Withdrawn::Everything { until_ms } => (Rule::Everything, until_ms),
            Withdrawn::Prefix { prefix, until_ms } => {
                if prefix.is_empty() || prefix.len() > KEY_SIZE_MAX {
                    return false;
                }
                (Rule::Prefix(prefix), until_ms)
            }
            Withdrawn::Group { name, until_ms } => (Rule::Group(name.bits()), until_ms),
        };
        self.rules.put(rule, until_ms).is_ok()
    }

    /// Whether the entry of this key, born at that time, was withdrawn.
    #[must_use]
    pub fn hide(&self, key: &[u8], born_ms: u64) -> bool {
        let is_removed = || self.removed.binary_search(&self.hasher.hash(key).bits()).is_ok();
        self.rules.hide(&self.hasher, key, born_ms) || is_removed()
    }
}
