//! Where room comes from and what it costs: reclaiming order, bounds, and large values.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::unwrap_used, reason = "a test")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, EntryRef, FreshFor, Kind, Layout, NewValue, SEGMENT_SIZE, StaleWindows, StoreRefused,
};

const WINDOWS: [StaleWindows; 1] = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
const HASHER: KeyHasher = KeyHasher::new([7, 9]);
const MIB: usize = 1 << 20;

/// A cache with 32-bit numbers for keys.
struct World {
    cache: Cache,
    now_ms: u64,
}

impl World {
    /// A cache whose first `ready` segments may be used.
    fn with_ready(budget: usize, ready: u32) -> Self {
        let layout = Layout::new(budget, 1 << 20).unwrap();
        let memory = vec![0_u8; layout.memory_bytes() + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        let memory = &mut memory[skip..][..layout.memory_bytes()];
        let mut cache = Cache::new(layout, memory, HASHER, &WINDOWS);
        cache.set_segments_ready(ready.min(layout.segments_count()));
        Self { cache, now_ms: 1 }
    }

    fn new(budget: usize) -> Self {
        Self::with_ready(budget, u32::MAX)
    }

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    fn store(
        &mut self,
        number: u32,
        size: usize,
        fresh_for: FreshFor,
    ) -> Result<EntryRef, StoreRefused> {
        let key = number.to_le_bytes();
        let value = NewValue {
            etag: Etag::from_bits(u64::from(number)),
            kind: Kind { content_type: 0, windows: 0 },
            fresh_for,
            negative: false,
            bytes: &vec![1; size],
        };
        self.cache.store(HASHER.hash(&key), &key, &value, self.now())
    }

    fn holds(&mut self, number: u32) -> bool {
        let key = number.to_le_bytes();
        let now = self.now();
        self.cache.lookup(HASHER.hash(&key), &key, now).is_some()
    }

    fn step(&mut self) {
        self.cache.step(self.now());
    }

    fn evicted(&self) -> u64 {
        self.cache.statistics().evicted
    }
}

#[test]
fn room_for_a_large_value_costs_a_few_times_its_size() {
    let mut world = World::new(64 * MIB);
    for number in 0..2_000 {
        world.store(number, 100_000, FreshFor::Ever).unwrap();
        world.step();
    }
    let before = world.evicted();
    let steps = (0..50).find(|_| {
        let is_stored = world.store(1_000_000, MIB, FreshFor::Ever).is_ok();
        world.step();
        is_stored
    });
    assert!(steps.is_some(), "steps make room");
    // Two entries fit a segment, and the value takes five segments.
    let cost = world.evicted() - before;
    assert!(cost <= 4 * 5 * 2, "{cost} entries gave way to one");
    assert!(world.holds(1_000_000));
}

#[test]
fn a_large_value_that_finds_no_room_because_of_pins_does_not_empty_the_cache() {
    let mut world = World::new(64 * MIB);
    let mut pins = Vec::new();
    for number in 0..2_000 {
        let entry = world.store(number, 100_000, FreshFor::Ever).unwrap();
        // Two entries fit a segment: one segment in three is pinned, in the last lap.
        if number >= 1_500 && number % 6 == 0 {
            pins.push(world.cache.pin(entry));
        }
        world.step();
    }
    let before = world.evicted();
    assert_eq!(world.store(1_000_000, MIB, FreshFor::Ever), Err(StoreRefused::NoRoom));
    for _ in 0..50 {
        world.step();
    }
    let cost = world.evicted() - before;
    assert!(cost <= 4 * 5 * 2, "{cost} entries gave way to none");
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
}

#[test]
fn the_oldest_give_way_first_even_where_expiry_has_left_holes() {
    let mut world = World::new(16 * MIB);
    let per_lap = u32::try_from(13 * MIB / 20_000).unwrap();
    // Every other segment of the first half dies at once; the writer then fills the holes.
    for number in 0..per_lap {
        // Thirteen entries fill a segment.
        let is_short = number < per_lap / 2 && (number / 13).is_multiple_of(2);
        let fresh_for = if is_short { FreshFor::Ms(1) } else { FreshFor::Ever };
        world.store(number, 20_000, fresh_for).unwrap();
    }
    world.now_ms += 1_000;
    for _ in 0..100 {
        world.now_ms += 1;
        world.step();
    }
    assert!(world.cache.statistics().expired > 100, "there are holes");
    for number in per_lap..5 * per_lap {
        world.store(number, 20_000, FreshFor::Ever).unwrap();
        world.step();
        for back in (1..per_lap / 4).step_by(13) {
            assert!(number - back < per_lap || world.holds(number - back), "{number} - {back}");
        }
    }
}

#[test]
fn room_is_found_wherever_it_is() {
    let mut world = World::new(48 * MIB);
    let segments = u32::try_from(world.cache.arena().len() / SEGMENT_SIZE).unwrap();
    // One entry a segment, the first hundred for ever, the others soon dead.
    for number in 0..segments {
        let fresh_for = if number < 100 { FreshFor::Ever } else { FreshFor::Ms(1) };
        if world.store(number, 200_000, fresh_for).is_err() {
            break;
        }
    }
    world.now_ms += 1_000;
    for _ in 0..100 {
        world.now_ms += 1;
        world.step();
    }
    assert!(segments > 150 && world.cache.statistics().expired > 30);
    let before = world.evicted();
    for number in 1_000..1_030 {
        world.store(number, 200_000, FreshFor::Ever).unwrap();
    }
    assert_eq!(world.evicted(), before);
}

#[test]
fn an_arena_that_is_never_populated_to_its_end_is_used_as_far_as_it_goes() {
    let mut world = World::with_ready(16 * MIB, 10);
    for number in 0..1_000 {
        world.store(number, 20_000, FreshFor::Ever).unwrap();
        world.step();
        assert!(world.holds(number));
    }
    let statistics = world.cache.statistics();
    assert_eq!(statistics.capacity_bytes, 10 * SEGMENT_SIZE as u64);
    assert!(statistics.bytes > statistics.capacity_bytes / 2);
}

#[test]
fn no_step_unlinks_more_than_its_bound() {
    let mut world = World::new(8 * MIB);
    let mut most = 0;
    for number in 0..100_000 {
        let before = world.cache.statistics();
        world.step();
        let after = world.cache.statistics();
        most = most.max(after.evicted + after.expired - before.evicted - before.expired);
        world.store(number, 120, FreshFor::Ever).unwrap();
    }
    assert!((100..=128).contains(&most), "{most}");
}

#[test]
fn dead_entries_in_the_way_are_counted_as_expired() {
    let mut world = World::new(8 * MIB);
    // A third of each segment lives for ever, so that no segment dies as a whole.
    for number in 0..3_000 {
        let fresh_for = if number % 3 == 0 { FreshFor::Ever } else { FreshFor::Ms(1) };
        world.now_ms += 10;
        world.store(number, 20_000, fresh_for).unwrap();
        world.step();
    }
    let statistics = world.cache.statistics();
    assert_eq!(statistics.stored, statistics.entries + statistics.evicted + statistics.expired);
    assert!(statistics.expired > 19 * statistics.evicted / 10, "{statistics:?}");
    assert!(statistics.expired < 21 * statistics.evicted / 10, "{statistics:?}");
}

#[test]
fn an_entry_that_is_fresh_for_ever_still_has_an_age() {
    let mut world = World::new(8 * MIB);
    world.now_ms = 10_000;
    let entry = world.store(1, 10, FreshFor::Ever).unwrap();
    world.now_ms += 3_500;
    assert_eq!(world.cache.entry(entry).age_s(world.now()), 3);
    assert_eq!(world.cache.entry(entry).fresh_left_s(world.now()), None);
    // Across the wrap of 32-bit milliseconds, after 49.7 days.
    world.now_ms += (1 << 32) + 2_000;
    assert_eq!(world.cache.entry(entry).age_s(world.now()), 4_294_972);
}

#[test]
#[should_panic(expected = "hash")]
fn a_foreign_hash_is_not_taken() {
    let mut world = World::new(8 * MIB);
    let value = NewValue {
        etag: Etag::from_bits(1),
        kind: Kind { content_type: 0, windows: 0 },
        fresh_for: FreshFor::Ever,
        negative: false,
        bytes: &[],
    };
    let now = world.now();
    let stored = world.cache.store(HASHER.hash(b"one"), b"two", &value, now);
    assert!(stored.is_err());
}
