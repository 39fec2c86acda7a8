//! The cache against an obviously right model: an ordered map of every version ever stored, and a
//! clock. Tiny arenas, so that everything wraps, is evicted, condemned and expired all the time.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]
#![expect(clippy::print_stdout, reason = "a measured number is shown")]

use proptest::prelude::*;
use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, FreshFor, Freshness, Hit, Kind, Layout, NewValue, Pin, StaleWindows, Statistics,
    StoreRefused,
};
use std::collections::BTreeMap;

const WINDOWS: [StaleWindows; 2] = [
    StaleWindows { while_revalidate_ms: 300, if_error_ms: 900 },
    StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 },
];
const VALUE_SIZE_MAX: u32 = 600_000;

#[derive(Clone, Debug)]
enum Operation {
    Store { key: u8, size: u32, fresh_for: FreshFor, negative: bool },
    Lookup { key: u8 },
    Remove { key: u8 },
    Update { key: u8, fresh_for: FreshFor },
    PinFound { key: u8 },
    Unpin { which: usize },
    Step,
    Wait { ms: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let fresh_for = || prop_oneof![Just(FreshFor::Ever), (0..2000_u32).prop_map(FreshFor::Ms)];
    let size = prop_oneof![4 => 0..300_u32, 3 => 0..40_000_u32, 3 => 0..=VALUE_SIZE_MAX];
    prop_oneof![
        6 => (any::<u8>(), size, fresh_for(), any::<bool>()).prop_map(
            |(key, size, fresh_for, negative)| Operation::Store { key, size, fresh_for, negative }
        ),
        6 => any::<u8>().prop_map(|key| Operation::Lookup { key }),
        1 => any::<u8>().prop_map(|key| Operation::Remove { key }),
        1 => (any::<u8>(), fresh_for())
            .prop_map(|(key, fresh_for)| Operation::Update { key, fresh_for }),
        2 => any::<u8>().prop_map(|key| Operation::PinFound { key }),
        2 => any::<usize>().prop_map(|which| Operation::Unpin { which }),
        6 => Just(Operation::Step),
        3 => (0..700_u64).prop_map(|ms| Operation::Wait { ms }),
    ]
}

/// Leaked memory, aligned to a cache line.
fn zeroed(size: usize) -> &'static mut [u8] {
    let memory = vec![0_u8; size + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    &mut memory[skip..][..size]
}

/// What the model knows of the newest version of a key.
#[derive(Clone, Debug)]
struct Version {
    bytes: Vec<u8>,
    negative: bool,
    born_ms: u64,
    fresh_until_ms: Option<u64>,
}

impl Version {
    fn freshness(&self, now_ms: u64) -> Option<Freshness> {
        let windows = WINDOWS[usize::from(self.negative)];
        let Some(end_ms) = self.fresh_until_ms else { return Some(Freshness::Fresh) };
        if now_ms < end_ms {
            Some(Freshness::Fresh)
        } else if now_ms < end_ms + u64::from(windows.while_revalidate_ms) {
            Some(Freshness::Stale)
        } else if now_ms < end_ms + u64::from(windows.if_error_ms) {
            Some(Freshness::Retained)
        } else {
            None
        }
    }
}

struct World {
    cache: Cache,
    hasher: KeyHasher,
    model: BTreeMap<u8, Version>,
    pins: Vec<(Pin, Vec<u8>)>,
    now_ms: u64,
    stored: u64,
    removed: u64,
    replaced: u64,
}

impl World {
    fn new(budget: usize, start_ms: u64) -> Self {
        let layout = Layout::new(budget, VALUE_SIZE_MAX).unwrap();
        let memory = zeroed(layout.memory_bytes());
        let hasher = KeyHasher::new([7, 9]);
        let mut cache = Cache::new(layout, memory, hasher, &WINDOWS);
        cache.set_segments_ready(layout.segments_count());
        let (model, pins) = (BTreeMap::new(), Vec::new());
        Self { cache, hasher, model, pins, now_ms: start_ms, stored: 0, removed: 0, replaced: 0 }
    }

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    fn lookup(&mut self, key: u8) -> Option<Hit> {
        let name = name(key);
        self.cache.lookup(self.hasher.hash(&name), &name, self.now())
    }

    fn store(&mut self, key: u8, size: u32, fresh_for: FreshFor, negative: bool) {
        let name = name(key);
        let size = if negative { 0 } else { size as usize };
        let bytes: Vec<u8> = (0..size).map(|at| (at as u64 ^ self.stored) as u8).collect();
        let value = NewValue {
            etag: Etag::from_bits(self.stored),
            kind: Kind { content_type: 5, windows: u8::from(negative) },
            fresh_for,
            negative,
            bytes: &bytes,
        };
        // A dead version of the key is dropped by this look, so what is left is what is replaced.
        let is_there = self.lookup(key).is_some();
        match self.cache.store(self.hasher.hash(&name), &name, &value, self.now()) {
            Ok(_) => {
                self.stored += 1;
                self.replaced += u64::from(is_there);
                let fresh_until_ms = match fresh_for {
                    FreshFor::Ever => None,
                    FreshFor::Ms(ms) => Some(self.now_ms + u64::from(ms)),
                };
                let born_ms = self.now_ms;
                self.model.insert(key, Version { bytes, negative, born_ms, fresh_until_ms });
            }
            Err(refused) => assert_eq!(refused, StoreRefused::NoRoom),
        }
    }

    /// What was found is the newest version and may be served; what is dead is not found.
    fn check_found(&mut self, key: u8) -> Option<Hit> {
        let found = self.lookup(key);
        let hit = found?;
        let version = self.model.get(&key).expect("only what was stored and not removed is found");
        assert_eq!(Some(hit.freshness), version.freshness(self.now_ms));
        let entry = self.cache.entry(hit.entry);
        assert_eq!(entry.value(), version.bytes);
        assert_eq!(entry.key(), name(key));
        assert_eq!(entry.is_negative(), version.negative);
        let age_s = (self.now_ms - version.born_ms) / 1000;
        assert_eq!(u64::from(entry.age_s(self.now())), age_s);
        let (offset, len) = self.cache.value_span(hit.entry);
        let offset = usize::try_from(offset).unwrap();
        assert_eq!(&self.cache.arena()[offset..offset + len as usize], version.bytes);
        found
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Store { key, size, fresh_for, negative } => {
                self.store(key, size, fresh_for, negative);
            }
            Operation::Lookup { key } => {
                self.check_found(key);
            }
            Operation::Remove { key } => {
                let name = name(key);
                let removed = self.cache.remove(self.hasher.hash(&name), &name);
                assert!(!removed || self.model.contains_key(&key));
                self.removed += u64::from(removed);
                self.model.remove(&key);
                assert_eq!(self.lookup(key), None);
            }
            Operation::Update { key, fresh_for } => {
                if let Some(hit) = self.check_found(key) {
                    assert!(self.cache.update(hit.entry, fresh_for, self.now()));
                    let version = self.model.get_mut(&key).unwrap();
                    version.born_ms = self.now_ms;
                    version.fresh_until_ms = match fresh_for {
                        FreshFor::Ever => None,
                        FreshFor::Ms(ms) => Some(self.now_ms + u64::from(ms)),
                    };
                }
            }
            Operation::PinFound { key } => {
                if let Some(hit) = self.check_found(key) {
                    let bytes = self.cache.entry(hit.entry).value().to_vec();
                    self.pins.push((self.cache.pin(hit.entry), bytes));
                }
            }
            Operation::Unpin { which } => {
                if !self.pins.is_empty() {
                    let (pin, bytes) = self.pins.swap_remove(which % self.pins.len());
                    assert_eq!(self.cache.entry(pin.entry()).value(), bytes);
                    self.cache.unpin(pin);
                }
            }
            Operation::Step => {
                let unlinked = |statistics: Statistics| statistics.evicted + statistics.expired;
                let before = unlinked(self.cache.statistics());
                self.cache.step(self.now());
                assert!(unlinked(self.cache.statistics()) - before <= 128);
            }
            Operation::Wait { ms } => self.now_ms += ms,
        }
        for (pin, bytes) in &self.pins {
            assert_eq!(self.cache.entry(pin.entry()).value(), bytes, "pinned bytes stay");
        }
        let statistics = self.cache.statistics();
        assert_eq!(statistics.pins, self.pins.len() as u64);
        assert_eq!(statistics.stored, self.stored);
        assert!(statistics.bytes <= statistics.capacity_bytes);
        let gone = statistics.evicted + statistics.expired + self.removed + self.replaced;
        assert_eq!(statistics.entries + gone, statistics.stored, "{statistics:?}");
    }

    /// What the statistics call entries and bytes is what can be found.
    fn check_all_found(&mut self) {
        let (mut entries, mut bytes) = (0, 0);
        for key in 0..=u8::MAX {
            if let Some(hit) = self.check_found(key) {
                let entry = self.cache.entry(hit.entry);
                entries += 1;
                bytes += (24 + entry.key().len() + entry.value().len()).next_multiple_of(8) as u64;
            }
        }
        let statistics = self.cache.statistics();
        assert_eq!((statistics.entries, statistics.bytes), (entries, bytes));
    }
}

fn name(key: u8) -> Vec<u8> {
    format!("key-{key}-{}", "x".repeat(usize::from(key % 40))).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_read_is_the_newest_version_or_a_miss(
        operations in prop::collection::vec(operation(), 1..400),
        // Around the wrap of 32-bit milliseconds, and far from it.
        start_ms in prop_oneof![Just(0), Just((1_u64 << 32) - 2_000), Just(5 * (1_u64 << 32) - 1)],
    ) {
        let mut world = World::new(4 << 20, start_ms);
        for operation in operations {
            world.apply(operation);
        }
        world.check_all_found();
    }
}

#[test]
fn without_pins_there_is_always_room_after_a_few_steps() {
    let mut world = World::new(4 << 20, 0);
    for round in 0..5_000_u32 {
        let size = if round % 7 == 0 { VALUE_SIZE_MAX } else { round % 9_000 };
        let before = world.stored;
        for _ in 0..100 {
            world.store((round % 251) as u8, size, FreshFor::Ever, false);
            if world.stored > before {
                break;
            }
            world.cache.step(world.now());
        }
        assert!(world.stored > before, "round {round}");
    }
    assert!(world.cache.statistics().evicted > 1_000);
}

#[test]
fn a_condemned_segment_is_not_reused_before_its_last_pin_is_gone() {
    let mut world = World::new(4 << 20, 0);
    world.store(1, 100, FreshFor::Ever, false);
    let hit = world.lookup(1).unwrap();
    let bytes = world.cache.entry(hit.entry).value().to_vec();
    let pins = [world.cache.pin(hit.entry), world.cache.pin(hit.entry)];
    for round in 0..200_u32 {
        world.store(2 + (round % 100) as u8, 60_000, FreshFor::Ever, false);
        world.cache.step(world.now());
        assert_eq!(world.cache.entry(hit.entry).value(), bytes);
    }
    assert_eq!(world.lookup(1), None, "it was evicted long ago");
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
    for round in 0..200_u32 {
        world.store(2 + (round % 100) as u8, 60_000, FreshFor::Ever, false);
        world.cache.step(world.now());
    }
    assert_eq!(world.cache.statistics().pins, 0);
}

#[test]
fn dead_segments_come_back_without_pressure() {
    let mut world = World::new(8 << 20, 0);
    for key in 0..200 {
        world.store(key, 20_000, FreshFor::Ms(50), false);
    }
    let stored = world.cache.statistics().entries;
    world.now_ms += 10_000;
    for _ in 0..100 {
        world.now_ms += 1;
        world.cache.step(world.now());
    }
    let statistics = world.cache.statistics();
    assert!(statistics.expired > 150, "{statistics:?}");
    assert!(statistics.entries + statistics.expired == stored, "{statistics:?}");
}

#[test]
fn a_segment_stays_until_the_last_of_its_entries_is_dead() {
    let mut world = World::new(8 << 20, 0);
    for key in 0..200 {
        // The one that lives longest is neither the first nor the last of its segment.
        let ms = if key % 10 == 5 { 5_000 } else { 50 };
        world.store(key, 20_000, FreshFor::Ms(ms), false);
    }
    let windows_ms = u64::from(WINDOWS[0].if_error_ms);
    for (now_ms, any_gone) in [(5_000 + windows_ms - 1, false), (5_000 + windows_ms, true)] {
        // Segments are looked for once a millisecond: this one is the hundredth.
        for before in (0..100).rev() {
            world.now_ms = now_ms - before;
            world.cache.step(world.now());
        }
        let statistics = world.cache.statistics();
        assert_eq!(statistics.evicted, 0);
        assert_eq!(statistics.expired > 0, any_gone, "{statistics:?}");
    }
}

#[test]
fn an_entry_that_follows_weeks_after_another_has_its_own_age() {
    let mut world = World::new(4 << 20, 0);
    world.store(1, 100, FreshFor::Ever, false);
    world.now_ms = (1 << 32) + 10_000;
    world.store(2, 100, FreshFor::Ms(1_000), false);
    assert!(world.check_found(1).is_some());
    assert!(world.check_found(2).is_some());
}

#[test]
fn an_entry_stays_dead_after_the_wrap_of_its_milliseconds() {
    let mut world = World::new(4 << 20, 0);
    world.store(1, 100, FreshFor::Ever, false);
    world.store(2, 100, FreshFor::Ms(1_000), false);
    for wraps in 1..4 {
        world.now_ms = wraps * (1 << 32) + 500;
        assert_eq!(world.lookup(2), None);
        assert!(world.lookup(1).is_some());
    }
}

#[test]
fn an_entry_that_is_older_than_its_milliseconds_can_tell_takes_no_new_freshness() {
    let mut world = World::new(4 << 20, 5_000);
    world.store(1, 100, FreshFor::Ever, false);
    world.now_ms += u64::from(u32::MAX);
    let hit = world.lookup(1).unwrap();
    assert!(world.cache.update(hit.entry, FreshFor::Ever, world.now()));
    world.now_ms += 1;
    assert!(!world.cache.update(hit.entry, FreshFor::Ms(1), world.now()));
    assert_eq!(world.lookup(1).map(|hit| hit.freshness), Some(Freshness::Fresh));
}

#[test]
fn the_longest_lifetime_is_cut_and_ends_when_it_says() {
    const CUT_MS: u64 = 1 << 31;
    let mut world = World::new(4 << 20, (1 << 32) - 1);
    world.store(1, 100, FreshFor::Ms(u32::MAX), true);
    world.now_ms += CUT_MS - 1;
    assert_eq!(world.lookup(1).map(|hit| hit.freshness), Some(Freshness::Fresh));
    world.now_ms += 1;
    assert_eq!(world.lookup(1), None, "a negative entry has no stale windows here");
}

#[test]
fn overhead_is_at_most_48_bytes_an_entry() {
    // At a million entries it is 38: of the difference, all but 0.8 is the few segments kept free.
    let count = 100_000_u32;
    let all_readable = |budget: usize| {
        let Ok(layout) = Layout::new(budget, 1 << 20) else { return false };
        let memory = zeroed(layout.memory_bytes());
        let hasher = KeyHasher::new([1, 2]);
        let mut cache = Cache::new(layout, memory, hasher, &WINDOWS);
        cache.set_segments_ready(layout.segments_count());
        let now = Instant::from_ns(1);
        let value = NewValue {
            etag: Etag::from_bits(1),
            kind: Kind { content_type: 0, windows: 0 },
            fresh_for: FreshFor::Ever,
            negative: false,
            bytes: &[7; 100],
        };
        let key = |number: u32| format!("{number:016}");
        (0..count).all(|number| {
            let key = key(number);
            cache.step(now);
            cache.store(hasher.hash(key.as_bytes()), key.as_bytes(), &value, now).is_ok()
        }) && (0..count).all(|number| {
            let key = key(number);
            cache.lookup(hasher.hash(key.as_bytes()), key.as_bytes(), now).is_some()
        })
    };
    let (mut low, mut high) = (1 << 20, 64 << 20);
    while high - low > 16 << 10 {
        let middle = usize::midpoint(low, high);
        if all_readable(middle) { high = middle } else { low = middle }
    }
    let overhead = (high - count as usize * 116) / count as usize;
    println!("overhead: {overhead} bytes an entry");
    assert!(overhead <= 48, "{overhead}");
}
