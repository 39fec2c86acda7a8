//! Plays a list of operations on a cache and on an obviously right model of it: an ordered map of
//! the newest version of each key, and a clock.
//!
//! [`run`] takes plain bytes, so that whoever has bytes (a property test, a fuzzer) can drive it.
//! After each operation: what was read is the newest version, neither purged nor dead; pinned bytes
//! are what they were; no step did more than its bound; the statistics add up within the budget,
//! and what each group of entries takes is what its entries take.

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, EntryRef, Force, FreshFor, Freshness, Hit, Kind, Layout, NewValue, Pin, Policy, Purge,
    Renewal, SEGMENT_SIZE, STEP_ENTRIES_MAX, STEP_MOVED_BYTES_MAX, StaleWindows, Standing,
    Statistics, StoreRefused,
};
use std::collections::BTreeMap;

pub(crate) const WINDOWS: [StaleWindows; 2] = [
    StaleWindows { while_revalidate_ms: 300, if_error_ms: 900 },
    StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 },
];

/// How long values are kept at least, unserved, where operations are played.
const KEPT_MS: u32 = 1_200;

/// Large enough for values that take three segments.
pub(crate) const VALUE_SIZE_MAX: u32 = 600_000;

/// Groups of entries that occur.
const GROUPS_COUNT: u8 = 4;

/// Pins that are held at a time: the others are given back at once.
const PINS_MAX: usize = 6;

/// Bytes that make an operation.
pub(crate) const OPERATION_SIZE: usize = 6;

/// Something that is done to a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Store { key: u8, group: u8, size: u32, fresh_for: FreshFor, negative: bool },
    Lookup { key: u8 },
    Remove { key: u8 },
    Renew { key: u8, fresh_for: FreshFor, windows: u8, is_it: bool },
    PinFound { key: u8 },
    Unpin { which: u8 },
    Spill { which: u8 },
    Step,
    Wait { ms: u64 },
    PurgeAll { force: Force },
    PurgePrefix { key: u8, size: u8, force: Force },
    PurgeGroup { key: u8, force: Force },
    EndFreshness { key: u8 },
    StoreAside { key: u8, size: u32 },
}

impl Operation {
    /// Any bytes are an operation; smaller ones are simpler.
    pub(crate) fn of([what, key, a, b, c, d]: [u8; OPERATION_SIZE]) -> Self {
        let fresh_for = match d {
            0..=99 => FreshFor::Ever,
            // As long as 40 s, so that all classes of lifetime occur, but mostly short.
            _ => FreshFor::Ms(u32::from(d - 100).pow(2) * u32::from(c % 8) / 4),
        };
        let size = match c {
            0..=159 => u32::from(a) * 2,
            160..=239 => u32::from(b) * 160 + u32::from(a),
            _ => VALUE_SIZE_MAX - u32::from(b) * 1_500 - u32::from(a),
        };
        let force = if b.is_multiple_of(2) { Force::Hard } else { Force::Soft };
        match what {
            0..=79 => Self::Lookup { key },
            80..=139 => {
                let group = b % GROUPS_COUNT;
                Self::Store { key, group, size, fresh_for, negative: a % 8 == 7 }
            }
            140..=199 => Self::Step,
            200..=211 => Self::Wait { ms: u64::from(a) * 3 },
            212..=214 => Self::Spill { which: a },
            215..=224 => Self::Renew { key, fresh_for, windows: u8::from(a > 199), is_it: b > 39 },
            225..=231 => Self::Remove { key },
            232..=238 => Self::PinFound { key },
            239..=246 => Self::Unpin { which: a },
            247..=249 => Self::PurgePrefix { key, size: a % 12, force },
            250..=252 => Self::PurgeGroup { key, force },
            253 => Self::EndFreshness { key },
            254 => Self::StoreAside { key, size },
            // Rare: what is gone is not tested.
            255 => Self::PurgeAll { force },
        }
    }
}

/// Plays `bytes` on an empty cache of `budget` bytes whose clock begins at `start_ms`, and which
/// guarantees `percent` of what it can.
pub(crate) fn run<P: Policy>(
    bytes: &[u8],
    budget: usize,
    start_ms: u64,
    percent: u8,
) -> Statistics {
    let mut memory = Vec::new();
    let mut world = World::<P>::new(&mut memory, budget, start_ms);
    world.keep_for(KEPT_MS);
    world.guarantee(percent);
    let (operations, _) = bytes.as_chunks();
    for operation in operations {
        world.apply(Operation::of(*operation));
    }
    world.check_all_found();
    world.cache.statistics()
}

/// What the model knows of the newest version of a key.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    etag: Etag,
    bytes: Vec<u8>,
    group: u8,
    negative: bool,
    windows: u8,
    /// When it was stored or renewed; a purge in the same millisecond may put it a little later.
    pub(crate) born_ms: [u64; 2],
    fresh_for: FreshFor,
    /// When its freshness was ended, at the earliest and at the latest.
    ended_ms: Option<[u64; 2]>,
}

impl Version {
    /// Its freshness ends; if it had ended before, whether that is forgotten is not told.
    fn end(&mut self, ended_ms: [u64; 2]) {
        let before = self.ended_ms.unwrap_or(ended_ms);
        self.ended_ms = Some([before[0].min(ended_ms[0]), before[1].max(ended_ms[1])]);
    }

    /// What a failure is told with.
    fn times(&self) -> impl std::fmt::Debug {
        (self.born_ms, self.fresh_for, self.ended_ms)
    }

    /// Whether this may be done with it: it lies between the earliest and the latest.
    fn may_be(&self, freshness: Freshness, now_ms: u64) -> bool {
        let rank = |freshness| match freshness {
            None => 0,
            Some(Freshness::Retained) => 1,
            Some(Freshness::Stale) => 2,
            Some(Freshness::Fresh) => 3,
        };
        let [least, most] = self.freshness(now_ms).map(rank);
        (least..=most).contains(&rank(Some(freshness)))
    }

    /// When its freshness ends, if it was born at its earliest or at its latest.
    fn ends_ms(&self) -> [u64; 2] {
        [0, 1].map(|bound| {
            let by_itself = match self.fresh_for {
                FreshFor::Ms(ms) => self.born_ms[bound] + u64::from(ms.min(1 << 31)),
                FreshFor::Ever => u64::MAX,
            };
            self.ended_ms.map_or(by_itself, |ended| by_itself.min(ended[bound]))
        })
    }

    /// Whether it may be kept for so long without being served.
    fn may_be_kept(&self, kept_ms: u32, now_ms: u64) -> bool {
        let windows = WINDOWS[usize::from(self.windows)];
        let served_ms = windows.while_revalidate_ms.max(windows.if_error_ms);
        let [least, most] = self.ends_ms();
        let times = least.saturating_add(served_ms.into())..most.saturating_add(kept_ms.into());
        !self.negative && times.contains(&now_ms)
    }

    /// What may be done with it, if it was born at its earliest or at its latest.
    fn freshness(&self, now_ms: u64) -> [Option<Freshness>; 2] {
        let windows = WINDOWS[usize::from(self.windows)];
        self.ends_ms().map(|end_ms| {
            if end_ms == u64::MAX {
                return Some(Freshness::Fresh);
            }
            if now_ms < end_ms {
                Some(Freshness::Fresh)
            } else if now_ms < end_ms + u64::from(windows.while_revalidate_ms) {
                Some(Freshness::Stale)
            } else if now_ms < end_ms + u64::from(windows.if_error_ms) {
                Some(Freshness::Retained)
            } else {
                None
            }
        })
    }
}

/// A cache and its model.
pub(crate) struct World<'m, P: Policy> {
    pub(crate) cache: Cache<'m, P>,
    layout: Layout,
    hasher: KeyHasher,
    model: BTreeMap<Vec<u8>, Version>,
    pins: Vec<(Pin, Vec<u8>)>,
    pub(crate) now_ms: u64,
    /// The latest millisecond that the cache's own clock may have reached.
    stamp_ms: u64,
    kept_ms: u32,
    pub(crate) stored: u64,
}

impl<'m, P: Policy> World<'m, P> {
    /// A cache of `budget` bytes in `memory`, which is grown to that.
    pub(crate) fn new(memory: &'m mut Vec<u8>, budget: usize, start_ms: u64) -> Self {
        let layout = Layout::new(budget, VALUE_SIZE_MAX).expect("the budget is large enough");
        assert!(layout.total_bytes() <= budget);
        let hasher = KeyHasher::new([7, 9]);
        *memory = vec![0; layout.memory_bytes() + 64];
        let skip = memory.as_ptr().align_offset(64);
        let memory = &mut memory[skip..][..layout.memory_bytes()];
        let mut cache = Cache::new(layout, memory, hasher, &WINDOWS);
        cache.set_segments_ready(layout.segments_count());
        let (model, pins) = (BTreeMap::new(), Vec::new());
        // No stamp is 0.
        let (stamp_ms, kept_ms) = (1, 0);
        Self { cache, layout, hasher, model, pins, now_ms: start_ms, stamp_ms, kept_ms, stored: 0 }
    }

    /// Lets values be kept, from the beginning.
    pub(crate) fn keep_for(&mut self, ms: u32) {
        self.kept_ms = ms;
        self.cache.keep_for(ms);
    }

    /// Guarantees a share of what may be guaranteed, unevenly, and none to the last group.
    fn guarantee(&mut self, percent: u8) {
        let parts = [0, 1, 2].map(|part| part * self.layout.guaranteed_bytes_max() / 3);
        self.cache.guarantee(&parts.map(|bytes| bytes * u64::from(percent) / 100));
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    /// When something stored now is born, at the earliest and at the latest.
    fn born_ms(&mut self) -> [u64; 2] {
        self.stamp_ms = self.stamp_ms.max(self.now_ms);
        [self.now_ms.max(1), self.stamp_ms]
    }

    /// Looks a key up, before which a look that changes nothing tells what will be found.
    pub(crate) fn lookup(&mut self, key: u8) -> Option<Hit> {
        let (name, now) = (name(key), self.now());
        let hash = self.hasher.hash(&name);
        let seen = self.cache.inspect(hash, &name, now);
        let hit = self.cache.lookup(hash, &name, now);
        let told = hit.map(|hit| (hit.entry, Standing::Live(hit.freshness)));
        match seen {
            Some((_, unserved @ (Standing::Dead | Standing::Purged))) => {
                assert_eq!((told, self.cache.take_unserved(hash)), (None, Some(unserved)));
                assert_eq!(self.cache.inspect(hash, &name, now), None, "it was dropped");
            }
            Some((at, Standing::Kept)) => {
                assert_eq!((told, self.cache.inspect(hash, &name, now)), (None, seen));
                let version = self.model.get(&name).expect("it was stored and not purged");
                assert!(version.may_be_kept(self.kept_ms, self.now_ms), "{:?}", version.times());
                assert!(self.cache.entry(at).value() == version.bytes, "it is the newest version");
            }
            live => assert_eq!(live, told),
        }
        hit
    }

    pub(crate) fn store_of(
        &mut self,
        group: u8,
        key: u8,
        size: u32,
        fresh_for: FreshFor,
        negative: bool,
    ) {
        let name = name(key);
        let size = if negative { 0 } else { size as usize };
        // Each version is told by its bytes; filling is what is fast.
        let [fill, seed @ ..] = self.stored.to_le_bytes();
        let mut bytes = vec![fill; size];
        bytes.iter_mut().zip(seed).for_each(|(byte, seed)| *byte = seed);
        let (etag, windows) = (Etag::from_bits(self.stored), u8::from(negative));
        let kind = Kind { content_type: 5, windows };
        let value = NewValue { etag, kind, group, fresh_for, negative, bytes: &bytes };
        match self.cache.store(self.hasher.hash(&name), &name, &value, self.now()) {
            Ok(entry) => {
                assert_eq!(self.cache.entry(entry).value(), bytes);
                self.stored += 1;
                let born_ms = self.born_ms();
                let ended_ms = None;
                let version =
                    Version { etag, bytes, group, negative, windows, born_ms, fresh_for, ended_ms };
                self.model.insert(name, version);
            }
            Err(refused) => assert_eq!(refused, StoreRefused::NoRoom),
        }
    }

    /// What was found is the newest version and may be served; what is dead or purged is not found.
    pub(crate) fn check_found(&mut self, key: u8) -> Option<Hit> {
        let found = self.lookup(key);
        let hit = found?;
        let name = name(key);
        let version = self.model.get(&name).expect("only what was stored and not purged is found");
        assert!(
            version.may_be(hit.freshness, self.now_ms),
            "{hit:?} at {} of {:?}",
            self.now_ms,
            version.times()
        );
        let entry = self.cache.entry(hit.entry);
        assert!(entry.value() == version.bytes, "the newest version is read");
        assert_eq!((entry.key(), entry.etag()), (&*name, version.etag));
        assert_eq!((entry.is_negative(), entry.group()), (version.negative, version.group));
        let ages_s = version.born_ms.map(|born_ms| self.now_ms.saturating_sub(born_ms) / 1000);
        assert!(ages_s.contains(&u64::from(entry.age_s(self.now()))));
        let (offset, len) = self.cache.value_span(hit.entry);
        let offset = usize::try_from(offset).expect("within the arena");
        assert!(self.cache.arena()[offset..offset + len as usize] == version.bytes);
        found
    }

    pub(crate) fn step(&mut self) {
        let before = self.cache.statistics();
        self.cache.step(self.now());
        let after = self.cache.statistics();
        let looked_at = after.stepped_entries - before.stepped_entries;
        assert!(looked_at <= u64::from(STEP_ENTRIES_MAX), "{looked_at} entries in a step");
        let moved = after.moved_bytes - before.moved_bytes;
        assert!(moved <= STEP_MOVED_BYTES_MAX as u64, "{moved} bytes in a step");
        let gone =
            |statistics: Statistics| statistics.evicted + statistics.expired + statistics.purged;
        assert!(gone(after) - gone(before) <= looked_at, "only what was looked at goes");
    }

    /// Copies what a pin holds out, or not, as was said before.
    fn spill(&mut self, pin: Pin) -> Pin {
        let (size, held) = (self.cache.spill_size(&pin), pin.entry());
        let before = self.cache.entry(held);
        let told = (before.etag(), before.age_s(self.now()), before.fresh_left_s(self.now()));
        let spilled = self.cache.statistics().spilled_bytes;
        let pin = self.cache.spill(pin, self.now());
        let copied = self.cache.statistics().spilled_bytes - spilled;
        assert_eq!(copied, size.unwrap_or(0) as u64);
        assert!(copied <= SEGMENT_SIZE as u64 / 2, "{copied} bytes at a time");
        assert_eq!(pin.entry() == held, size.is_none());
        assert!(size.is_none() || self.cache.is_condemned(&pin));
        assert_eq!(self.cache.spill_size(&pin), None, "once is enough");
        let after = self.cache.entry(pin.entry());
        let tells = (after.etag(), after.age_s(self.now()), after.fresh_left_s(self.now()));
        assert_eq!(tells, told);
        pin
    }

    pub(crate) fn purge(
        &mut self,
        what: Purge<'_>,
        force: Force,
        is_named: impl Fn(&[u8]) -> bool,
    ) {
        if self.cache.purge(what, force, self.now()).is_err() {
            return;
        }
        self.model.keys().for_each(|name| {
            assert_eq!(self.cache.is_named(what, name), is_named(name), "{what:?}");
        });
        match force {
            Force::Hard => self.model.retain(|name, _| !is_named(name)),
            Force::Soft => {
                let ended_ms = self.born_ms();
                let named = self.model.iter_mut().filter(|(name, _)| is_named(name));
                named.for_each(|(_, version)| version.end(ended_ms));
            }
        }
        self.stamp_ms = self.stamp_ms.max(self.now_ms) + 1;
    }

    pub(crate) fn end_freshness(&mut self, key: u8) {
        let name = name(key);
        let ended_ms = self.born_ms();
        if self.cache.end_freshness(self.hasher.hash(&name), &name, self.now())
            && let Some(version) = self.model.get_mut(&name)
        {
            version.end(ended_ms);
        }
    }

    /// Renews what is there of a key, or asks for that of what has another tag.
    pub(crate) fn try_renew(
        &mut self,
        key: u8,
        fresh_for: FreshFor,
        windows: u8,
        is_it: bool,
    ) -> Option<EntryRef> {
        let (name, now) = (name(key), self.now());
        let hash = self.hasher.hash(&name);
        // That of what is purged as well.
        let there = self.cache.inspect(hash, &name, now).filter(|_| is_it);
        let etag = there.map_or(Etag::from_bits(u64::MAX), |(at, _)| self.cache.entry(at).etag());
        let renewal = Renewal { etag, windows, fresh_for };
        self.cache.renew(hash, &name, &renewal, now)
    }

    /// What has the tag is fresh anew where it lies, also what is dead and was not met yet; what is
    /// purged stays so. Returns whether it is.
    pub(crate) fn renew(&mut self, key: u8, fresh_for: FreshFor, windows: u8, is_it: bool) -> bool {
        let (name, now, born_ms) = (name(key), self.now(), self.born_ms());
        let hash = self.hasher.hash(&name);
        let seen = self.cache.inspect(hash, &name, now);
        let renewed = self.try_renew(key, fresh_for, windows, is_it);
        let version = self.model.get_mut(&name).filter(|version| is_it && !version.negative);
        let there = seen.filter(|(_, standing)| *standing != Standing::Purged).map(|(at, _)| at);
        assert_eq!(renewed, there.filter(|_| version.is_some()), "{seen:?}");
        if let (Some(_), Some(version)) = (renewed, version) {
            (version.born_ms, version.fresh_for, version.ended_ms) = (born_ms, fresh_for, None);
            version.windows = windows;
        } else {
            assert_eq!(self.cache.inspect(hash, &name, now), seen, "nothing was noted");
        }
        self.check_found(key);
        renewed.is_some()
    }

    /// What is kept aside is found by nobody, and nothing else changes.
    fn store_aside(&mut self, key: u8, size: u32) {
        if self.pins.len() == PINS_MAX {
            return;
        }
        let (name, bytes) = (name(key), vec![key; size as usize]);
        let value = NewValue {
            etag: Etag::from_bits(7),
            kind: Kind { content_type: 5, windows: 0 },
            group: 0,
            fresh_for: FreshFor::Ms(1),
            negative: false,
            bytes: &bytes,
        };
        let before = self.check_found(key);
        match self.cache.store_aside(&name, &value, self.now()) {
            Ok(pin) => {
                assert_eq!(self.lookup(key), before);
                self.pins.push((pin, bytes));
            }
            Err(refused) => assert_eq!(refused, StoreRefused::NoRoom),
        }
    }

    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Store { key, group, size, fresh_for, negative } => {
                self.store_of(group, key, size, fresh_for, negative);
            }
            Operation::Lookup { key } => {
                self.check_found(key);
            }
            Operation::Remove { key } => {
                let name = name(key);
                self.cache.remove(self.hasher.hash(&name), &name);
                self.model.remove(&name);
                assert_eq!(self.lookup(key), None);
            }
            Operation::Renew { key, fresh_for, windows, is_it } => {
                self.renew(key, fresh_for, windows, is_it);
            }
            Operation::PinFound { key } => {
                if self.pins.len() < PINS_MAX
                    && let Some(hit) = self.check_found(key)
                {
                    let bytes = self.cache.entry(hit.entry).value().to_vec();
                    self.pins.push((self.cache.pin(hit.entry), bytes));
                }
            }
            Operation::Unpin { which } => {
                if !self.pins.is_empty() {
                    let which = usize::from(which) % self.pins.len();
                    let (pin, bytes) = self.pins.swap_remove(which);
                    assert!(self.cache.entry(pin.entry()).value() == bytes);
                    self.cache.unpin(pin);
                }
            }
            Operation::Spill { which } => {
                if !self.pins.is_empty() {
                    let which = usize::from(which) % self.pins.len();
                    let (pin, bytes) = self.pins.swap_remove(which);
                    let pin = self.spill(pin);
                    self.pins.push((pin, bytes));
                }
            }
            Operation::Step => self.step(),
            Operation::Wait { ms } => self.now_ms += ms,
            Operation::PurgeAll { force } => self.purge(Purge::Everything, force, |_| true),
            Operation::PurgePrefix { key, size, force } => {
                let name = name(key);
                let prefix = &name[..usize::from(size).min(name.len())];
                self.purge(Purge::Prefix(prefix), force, |name| name.starts_with(prefix));
            }
            Operation::PurgeGroup { key, force } => {
                let name = name(key);
                let Some(wanted) = group(&name) else { return };
                self.purge(Purge::Group(wanted), force, |name| group(name) == Some(wanted));
            }
            Operation::EndFreshness { key } => {
                self.end_freshness(key);
                self.check_counts();
            }
            Operation::StoreAside { key, size } => self.store_aside(key, size),
        }
        self.check();
    }

    fn check(&self) {
        for (pin, bytes) in &self.pins {
            assert!(self.cache.entry(pin.entry()).value() == bytes, "pinned bytes stay");
        }
        let statistics = self.cache.statistics();
        assert_eq!(statistics.pins, self.pins.len() as u64);
        assert_eq!(statistics.stored, self.stored);
        assert!(statistics.bytes + statistics.condemned_bytes <= statistics.capacity_bytes);
        let is_held = self.pins.iter().any(|(pin, _)| self.cache.is_condemned(pin));
        assert_eq!(is_held, statistics.condemned_bytes > 0);
        let dropped = statistics.evicted + statistics.expired + statistics.purged;
        let gone = dropped + statistics.removed + statistics.replaced;
        assert_eq!(statistics.entries + gone, statistics.stored, "{statistics:?}");
    }

    /// What can be found is right, and then what is counted.
    pub(crate) fn check_all_found(&mut self) {
        self.check_counts();
        for key in 0..=u8::MAX {
            self.check_found(key);
        }
        self.check_counts();
    }

    /// What the statistics call entries and bytes is what is there, and so is what groups take.
    fn check_counts(&self) {
        let (mut entries, mut bytes) = (0, 0);
        let mut taken = [0; GROUPS_COUNT as usize];
        for key in 0..=u8::MAX {
            let name = name(key);
            let there = self.cache.inspect(self.hasher.hash(&name), &name, self.now());
            if let Some((at, _)) = there {
                let entry = self.cache.entry(at);
                let size = (24 + entry.key().len() + entry.value().len()).next_multiple_of(8);
                entries += 1;
                bytes += size as u64;
                taken[usize::from(entry.group())] += taken_size(size) as u64;
            }
        }
        let statistics = self.cache.statistics();
        assert_eq!((statistics.entries, statistics.bytes), (entries, bytes));
        let groups = [0, 1, 2, 3].map(|group| self.cache.group_bytes(group));
        assert_eq!(groups, taken);
    }
}

/// What an entry of `size` bytes takes of the arena: its part of a segment full of such, or a run.
fn taken_size(size: usize) -> usize {
    match SEGMENT_SIZE.checked_div(size) {
        Some(0) | None => size.next_multiple_of(SEGMENT_SIZE),
        Some(8..) => size,
        Some(count) => SEGMENT_SIZE / count,
    }
}

/// Keys of various sizes, most of them in one of five groups.
pub(crate) fn name(key: u8) -> Vec<u8> {
    let separator = if key % 7 == 6 { '.' } else { ':' };
    format!("g{}{separator}{key}-{}", key % 5, "x".repeat(usize::from(key % 40))).into_bytes()
}

fn group(name: &[u8]) -> Option<&[u8]> {
    let end = name.iter().position(|byte| *byte == b':')?;
    Some(&name[..end])
}
