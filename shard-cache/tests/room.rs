//! Where room comes from and what it costs: reclaiming order, bounds, and large values.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::policy::{Fifo, Lru, S3Fifo};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, EntryRef, Force, FreshFor, Kind, Layout, NewValue, Pin, Policy, Purge, PurgeRefused,
    SEGMENT_SIZE, STEP_ENTRIES_MAX, StaleWindows, StoreRefused,
};

const WINDOWS: [StaleWindows; 1] = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
const HASHER: KeyHasher = KeyHasher::new([7, 9]);
const MIB: usize = 1 << 20;

/// A cache with 32-bit numbers for keys.
struct Of<P: Policy> {
    cache: Cache<'static, P>,
    now_ms: u64,
}

type World = Of<S3Fifo>;

impl<P: Policy> Of<P> {
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
            group: 0,
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

    fn purge(&mut self, what: Purge<'_>) -> Result<(), PurgeRefused> {
        self.cache.purge(what, Force::Hard, self.now())
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
    let mut world = Of::<Fifo>::new(16 * MIB);
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
fn no_step_looks_at_more_than_its_bound_and_under_pressure_it_looks_at_as_many() {
    let mut world = World::new(8 * MIB);
    let mut most = 0;
    for number in 0..100_000 {
        let before = world.cache.statistics().stepped_entries;
        world.step();
        most = most.max(world.cache.statistics().stepped_entries - before);
        world.store(number, 120, FreshFor::Ever).unwrap();
    }
    assert_eq!(most, u64::from(STEP_ENTRIES_MAX));
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
fn keys_that_look_the_same_to_the_index_are_told_apart() {
    const SIZE: usize = 8 * MIB;
    let buckets = Layout::new(SIZE, 1 << 20).unwrap().index_bytes() as u64 / 64;
    // What the index sees of a hash: the bucket that its low 32 bits choose, and 26 bits of tag.
    let seen = |number: u32| {
        let bits = HASHER.hash(&number.to_le_bytes()).bits();
        (((bits & 0xffff_ffff) * buckets) >> 32, (bits >> 30) & 0x3ff_ffff)
    };
    let mut numbers: Vec<_> = (0..2_000_000).map(|number| (seen(number), number)).collect();
    numbers.sort_unstable();
    let twins = numbers.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let twins: Vec<_> = twins.map(|pair| (pair[0].1, pair[1].1)).collect();
    assert!(twins.len() > 4, "{twins:?}");
    let mut world = World::new(SIZE);
    for (one, other) in twins {
        world.store(one, 10, FreshFor::Ever).unwrap();
        assert!(world.holds(one) && !world.holds(other));
        world.store(other, 20, FreshFor::Ever).unwrap();
        assert!(world.holds(one) && world.holds(other));
        let key = one.to_le_bytes();
        assert!(world.cache.remove(HASHER.hash(&key), &key));
        assert!(!world.holds(one) && world.holds(other));
    }
}

#[test]
fn where_the_index_is_full_the_least_read_give_way_and_are_counted() {
    let mut world = World::new(8 * MIB);
    for number in 0..1_000 {
        world.store(number, 0, FreshFor::Ever).unwrap();
        (0..3).for_each(|_| assert!(world.holds(number)));
    }
    // They fill a third of the arena.
    for number in 1_000..80_000 {
        world.store(number, 0, FreshFor::Ever).unwrap();
    }
    assert!((0..1_000).all(|number| world.holds(number)));
    let held = (0..80_000).filter(|number| world.holds(*number)).count() as u64;
    let statistics = world.cache.statistics();
    assert!(held < 70_000, "it is full");
    assert_eq!((statistics.entries, statistics.bytes), (held, 32 * held));
    assert_eq!(statistics.evicted, 80_000 - held);
}

#[test]
#[should_panic(expected = "hash")]
fn a_foreign_hash_is_not_taken() {
    let mut world = World::new(8 * MIB);
    let value = NewValue {
        etag: Etag::from_bits(1),
        kind: Kind { content_type: 0, windows: 0 },
        group: 0,
        fresh_for: FreshFor::Ever,
        negative: false,
        bytes: &[],
    };
    let now = world.now();
    let stored = world.cache.store(HASHER.hash(b"one"), b"two", &value, now);
    assert!(stored.is_err());
}

/// Reads some keys again and again while others are stored once; how many of the former stay.
fn kept_beside_a_scan<P: Policy>() -> usize {
    let mut world = Of::<P>::new(16 * MIB);
    for number in 0..200_000 {
        world.step();
        world.store(1_000 + number, 500, FreshFor::Ever).unwrap();
        let often = number % 1_000;
        if !world.holds(often) {
            world.store(often, 500, FreshFor::Ever).unwrap();
        }
    }
    (0..1_000).filter(|number| world.holds(*number)).count()
}

#[test]
fn what_is_read_again_outlives_what_is_not_unless_the_policy_is_blind() {
    assert_eq!(kept_beside_a_scan::<S3Fifo>(), 1_000);
    assert_eq!(kept_beside_a_scan::<Lru>(), 1_000);
    // A lap of the arena is some 27,000 stores; a key is looked for each 1,000.
    let fifo = kept_beside_a_scan::<Fifo>();
    assert!(fifo > 900, "each is stored again when it is missed");
}

#[test]
fn a_key_that_comes_back_soon_after_it_left_is_kept() {
    let mut world = World::new(16 * MIB);
    // 27,000 fit: each lap of 40,000 finds that a key has left the small pool.
    for lap in 0..4 {
        for number in 0..40_000 {
            world.step();
            if !world.holds(number) {
                world.store(number, 500, FreshFor::Ever).unwrap();
            }
        }
        let held = (0..40_000).filter(|number| world.holds(*number)).count();
        assert!(lap == 0 || held > 20_000, "{held}");
    }
}

#[test]
fn a_cache_in_which_everything_is_hot_still_makes_room() {
    let mut world = World::new(16 * MIB);
    let mut steps = 0;
    for number in 0..40_000 {
        // Steps are taken only where a value finds no room.
        while world.store(number, 500, FreshFor::Ever).is_err() {
            world.step();
            steps += 1;
        }
        for _ in 0..3 {
            assert!(world.holds(number));
        }
    }
    let statistics = world.cache.statistics();
    assert!(statistics.evicted > 10_000, "{statistics:?}");
    // Without a bound on what is spared, the first to give way would cost a lap of the arena,
    // and for each byte stored some four would move.
    assert!(statistics.moved_bytes < 3 * statistics.evicted * 528, "{statistics:?}");
    assert!(steps < 600, "{steps}");
}

#[test]
fn what_dies_together_lies_together() {
    let mut world = World::new(64 * MIB);
    // Alternately short-lived and for ever: only segments of one class die whole.
    for number in 0..40_000 {
        let fresh_for = if number % 2 == 0 { FreshFor::Ever } else { FreshFor::Ms(1_500) };
        world.store(number, 500, fresh_for).unwrap();
    }
    world.now_ms += 1_500;
    for _ in 0..500 {
        world.now_ms += 1;
        world.step();
    }
    let statistics = world.cache.statistics();
    assert!(statistics.expired > 19_000, "all but those of the open segment: {statistics:?}");
    assert_eq!((statistics.evicted, statistics.moved_bytes), (0, 0));
}

/// Stores entries of `size` bytes until those of `count` segments are pinned, `each` of them
/// `times`, and have left the index.
fn condemn(world: &mut World, count: usize, size: usize, times: usize) -> Vec<Pin> {
    let in_segment = (SEGMENT_SIZE / size) as u32;
    let mut pins = Vec::new();
    for number in 0..60_000_000 / size as u32 {
        let entry = world.store(number, size, FreshFor::Ever).unwrap();
        if number % in_segment == 0 && pins.len() < count * times {
            pins.extend((0..times).map(|_| world.cache.pin(entry)));
        }
        world.step();
    }
    assert_eq!(world.cache.condemned_bytes(), (count * SEGMENT_SIZE) as u64);
    assert!(pins.iter().all(|pin| world.cache.is_condemned(pin)));
    pins
}

fn spill(world: &mut World, pins: Vec<Pin>) -> Vec<Pin> {
    let now = world.now();
    pins.into_iter().map(|pin| world.cache.spill(pin, now)).collect()
}

#[test]
fn while_pins_hold_some_segments_the_others_are_used() {
    let mut world = World::new(16 * MIB);
    let pins = condemn(&mut world, 20, 500, 1);
    assert_eq!(world.cache.statistics().refused, 0);
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
    assert_eq!(world.cache.condemned_bytes(), 0);
}

#[test]
fn what_slow_readers_wait_for_is_copied_together_and_the_rest_comes_back() {
    let mut world = World::new(16 * MIB);
    let pins = condemn(&mut world, 20, 500, 1);
    let numbers = |world: &World, pins: &[Pin]| -> Vec<u64> {
        pins.iter().map(|pin| world.cache.entry(pin.entry()).etag().bits()).collect()
    };
    let before = numbers(&world, &pins);
    let pins = spill(&mut world, pins);
    assert_eq!(world.cache.condemned_bytes(), SEGMENT_SIZE as u64);
    assert_eq!(world.cache.statistics().spilled_bytes, 20 * 528);
    assert_eq!(numbers(&world, &pins), before);
    assert!(pins.iter().all(|pin| world.cache.entry(pin.entry()).value() == [1; 500]));
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
    assert_eq!(world.cache.condemned_bytes(), 0);
}

#[test]
fn what_many_wait_for_stays_where_it_is_until_few_do() {
    let mut world = World::new(16 * MIB);
    let pins = condemn(&mut world, 1, 60_000, 3);
    let mut pins = spill(&mut world, pins);
    assert_eq!(world.cache.statistics().spilled_bytes, 0, "three of 60,000 fill most of a segment");
    world.cache.unpin(pins.pop().unwrap());
    let pins = spill(&mut world, pins);
    assert_eq!(world.cache.statistics().spilled_bytes, 2 * 60_032);
    assert_eq!(world.cache.condemned_bytes(), SEGMENT_SIZE as u64);
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
}

#[test]
fn a_spill_that_few_still_wait_for_is_copied_out_in_its_turn() {
    let mut world = World::new(16 * MIB);
    let pins = condemn(&mut world, 20, 30_000, 1);
    let mut pins = spill(&mut world, pins);
    assert_eq!(world.cache.condemned_bytes(), 3 * SEGMENT_SIZE as u64, "eight fit a segment");
    let spilled = world.cache.statistics().spilled_bytes;
    // One in each of the two that are full.
    let (second, first) = (pins.remove(8), pins.remove(0));
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
    let pins = spill(&mut world, vec![first, second]);
    assert_eq!(world.cache.condemned_bytes(), SEGMENT_SIZE as u64);
    assert_eq!(world.cache.statistics().spilled_bytes, spilled + 2 * 30_032);
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
}

#[test]
fn what_is_not_condemned_or_has_a_run_for_itself_is_not_copied_out() {
    let mut world = World::new(16 * MIB);
    let entries = [500, MIB].map(|size| world.store(size as u32, size, FreshFor::Ever).unwrap());
    let pins: Vec<Pin> = entries.map(|entry| world.cache.pin(entry)).into();
    assert!(pins.iter().all(|pin| world.cache.spill_size(pin).is_none()));
    for number in 0..1_000 {
        world.store(number, 100_000, FreshFor::Ever).unwrap();
        world.step();
    }
    assert!(pins.iter().all(|pin| world.cache.is_condemned(pin)));
    assert_eq!(
        pins.iter().map(|pin| world.cache.spill_size(pin)).collect::<Vec<_>>(),
        [Some(528), None]
    );
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
}

#[test]
fn a_key_that_comes_back_soon_after_it_left_stays_longer() {
    let mut world = World::new(16 * MIB);
    let pour = |world: &mut World, numbers: std::ops::Range<u32>| {
        for number in numbers {
            world.store(number, 500, FreshFor::Ever).unwrap();
            world.step();
        }
    };
    pour(&mut world, 0..60_000);
    let left = (0..60_000).rev().find(|number| !world.holds(*number)).unwrap();
    let (back, new) = (left, 1_000_000);
    world.store(back, 500, FreshFor::Ever).unwrap();
    world.store(new, 500, FreshFor::Ever).unwrap();
    pour(&mut world, 60_000..80_000);
    assert!(!world.holds(new), "what was never seen before leaves with those around it");
    assert!(world.holds(back));
}

#[test]
fn values_leave_a_segment_to_those_that_are_moved() {
    let mut world = World::with_ready(64 * MIB, 20);
    let stored = (0..100).take_while(|n| world.store(*n, 100_000, FreshFor::Ever).is_ok());
    assert_eq!(stored.count(), 2 * 19);
}

#[test]
fn no_window_is_laid_over_a_part_of_a_run_that_is_pinned() {
    let mut world = World::with_ready(64 * MIB, 20);
    let mut pins = Vec::new();
    // Two in each segment, and a run of five in 13 to 17.
    for number in 0..26 {
        let entry = world.store(number, 100_000, FreshFor::Ever).unwrap();
        if ![0, 2, 4].contains(&(number / 2)) {
            pins.push(world.cache.pin(entry));
        }
    }
    let large = world.store(1_000, MIB, FreshFor::Ever).unwrap();
    pins.push(world.cache.pin(large));
    for number in 26..28 {
        world.store(number, 100_000, FreshFor::Ever).unwrap();
    }
    // Four segments are free, no two of them neighbours.
    for number in [0_u32, 1, 4, 5, 8, 9] {
        let key = number.to_le_bytes();
        assert!(world.cache.remove(HASHER.hash(&key), &key));
    }
    for _ in 0..100 {
        world.now_ms += 1;
        assert!(world.store(1_001, MIB, FreshFor::Ever).is_err());
        world.step();
    }
    assert!(world.holds(1_000), "it gave way to a window that its own pin keeps from being empty");
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
}

#[test]
fn purge_rules_retire_also_where_nothing_is_evicted() {
    for force in [Force::Hard, Force::Soft] {
        let mut world = World::new(16 * MIB);
        for number in 0..10_000 {
            world.store(number, 500, FreshFor::Ever).unwrap();
        }
        for round in 0..200_u32 {
            // Prefixes that no key has.
            let prefix = [0xff, 0xff, 0xff, round as u8, 0];
            while world.cache.purge(Purge::Prefix(&prefix), force, world.now()).is_err() {
                world.now_ms += 1;
                world.step();
            }
            world.now_ms += 1;
            world.step();
            world.store(20_000 + round, 500, FreshFor::Ever).unwrap();
        }
        assert_eq!(world.evicted(), 0);
        assert!((0..10_000).all(|number| world.holds(number)));
        assert!(world.cache.statistics().moved_bytes > 4_000_000);
    }
}

#[test]
fn what_a_purge_of_everything_leaves_comes_back_without_a_walk_of_lookups() {
    let mut world = World::new(16 * MIB);
    for number in 0..10_000 {
        world.store(number, 500, FreshFor::Ever).unwrap();
    }
    world.purge(Purge::Everything).unwrap();
    let entry = world.store(1, 500, FreshFor::Ever).unwrap();
    for _ in 0..200 {
        world.now_ms += 1;
        world.step();
    }
    let statistics = world.cache.statistics();
    assert!(statistics.purged > 9_000, "{statistics:?}");
    assert!(world.holds(1) && !world.holds(2));
    assert_eq!(world.cache.entry(entry).value().len(), 500);
}
