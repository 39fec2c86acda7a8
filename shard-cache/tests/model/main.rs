//! The cache against an obviously right model ([`interpreter`]), for all policies. Tiny arenas, so
//! that everything wraps, is evicted, moved, condemned, purged and expired all the time.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

mod interpreter;

use interpreter::{OPERATION_SIZE, VALUE_SIZE_MAX, WINDOWS, run};
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use shard_cache::policy::{Fifo, Lru, S3Fifo};
use shard_cache::{Force, FreshFor, Freshness, Purge};

type World<'m> = interpreter::World<'m, S3Fifo>;

impl World<'_> {
    fn store(&mut self, key: u8, size: u32, fresh_for: FreshFor, negative: bool) {
        self.store_of(0, key, size, fresh_for, negative);
    }
}

/// Times around the wrap of 32-bit milliseconds, and far from it.
fn start_ms() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just((1_u64 << 32) - 2_000), Just(5 * (1_u64 << 32) - 1)]
}

/// Nothing guaranteed, something, all that may be.
fn guaranteed_percent() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), 1..100_u8, Just(100)]
}

/// Bytes of 10,000 operations at most.
fn operations() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..10_000 * OPERATION_SIZE)
}

// Some four million operations in all; `PROPTEST_CASES=25600` plays a hundred times as many.
proptest! {
    #[test]
    fn every_read_is_the_newest_version_or_a_miss(
        bytes in operations(),
        start_ms in start_ms(),
        budget in (4_usize << 20)..(8 << 20),
        percent in guaranteed_percent(),
    ) {
        run::<Fifo>(&bytes, budget, start_ms, percent);
        run::<Lru>(&bytes, budget, start_ms, percent);
        run::<S3Fifo>(&bytes, budget, start_ms, percent);
    }
}

/// So that the test above tests what it says.
#[test]
fn operations_reach_everything() {
    let mut rng = proptest::test_runner::TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut bytes = vec![0; 200_000 * OPERATION_SIZE];
    rng.fill_bytes(&mut bytes);
    let statistics = run::<S3Fifo>(&bytes, 5 << 20, 1, 100);
    let counts = [
        statistics.stored,
        statistics.evicted,
        statistics.spared_bytes,
        statistics.expired,
        statistics.purged,
        statistics.replaced,
        statistics.removed,
        statistics.refused,
        statistics.moved_bytes,
        statistics.spilled_bytes,
    ];
    assert!(counts.iter().all(|count| *count > 100), "{statistics:?}");
}

#[test]
fn without_pins_there_is_always_room_after_a_few_steps() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 0);
    for round in 0..5_000_u32 {
        let size = if round % 7 == 0 { VALUE_SIZE_MAX } else { round % 9_000 };
        let before = world.stored;
        for _ in 0..100 {
            world.store((round % 251) as u8, size, FreshFor::Ever, false);
            if world.stored > before {
                break;
            }
            world.step();
        }
        assert!(world.stored > before, "round {round}");
    }
    assert!(world.cache.statistics().evicted > 1_000);
}

#[test]
fn a_condemned_segment_is_not_reused_before_its_last_pin_is_gone() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 0);
    world.store(1, 100, FreshFor::Ever, false);
    let hit = world.lookup(1).unwrap();
    let bytes = world.cache.entry(hit.entry).value().to_vec();
    let pins = [world.cache.pin(hit.entry), world.cache.pin(hit.entry)];
    for round in 0..200_u32 {
        let key = 2 + (round % 100) as u8;
        world.store(key, 60_000, FreshFor::Ever, false);
        assert!(world.lookup(key).is_some(), "others are wanted as well");
        world.step();
        assert_eq!(world.cache.entry(hit.entry).value(), bytes);
    }
    assert_eq!(world.lookup(1), None, "it was evicted long ago");
    pins.into_iter().for_each(|pin| world.cache.unpin(pin));
    for round in 0..200_u32 {
        world.store(2 + (round % 100) as u8, 60_000, FreshFor::Ever, false);
        world.step();
    }
    assert_eq!(world.cache.statistics().pins, 0);
}

#[test]
fn dead_segments_come_back_without_pressure() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 0);
    for key in 0..200 {
        world.store(key, 20_000, FreshFor::Ms(50), false);
    }
    let stored = world.cache.statistics().entries;
    world.now_ms += 10_000;
    for _ in 0..100 {
        world.now_ms += 1;
        world.step();
    }
    let statistics = world.cache.statistics();
    assert!(statistics.expired > 150, "{statistics:?}");
    assert!(statistics.entries + statistics.expired == stored, "{statistics:?}");
}

#[test]
fn what_was_moved_is_kept_as_long_as_it_may_be_served() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1);
    // Asked for once, they are spared once, and nobody asks for them after that.
    for key in 0..20 {
        world.store(key, 60_000, FreshFor::Ms(5_000), false);
        world.lookup(key).unwrap();
    }
    for key in 20..=250 {
        world.store(key, 200_000, FreshFor::Ever, false);
        world.step();
        if world.cache.statistics().moved_bytes > 10 * 60_000 {
            break;
        }
    }
    (0..100).for_each(|_| world.step());
    let kept: Vec<u8> = (0..20).filter(|key| world.lookup(*key).is_some()).collect();
    assert!(kept.len() >= 10, "{kept:?}");
    world.now_ms = 5_000 + u64::from(WINDOWS[0].if_error_ms);
    for _ in 0..100 {
        world.step();
    }
    let still = kept.iter().filter(|key| world.lookup(**key).is_some());
    assert_eq!(still.count(), kept.len());
}

#[test]
fn what_was_moved_since_a_soft_purge_stays_stale_when_its_rule_has_retired() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1);
    for key in 0..20 {
        world.store(key, 60_000, FreshFor::Ever, false);
        world.lookup(key).unwrap();
    }
    world.cache.purge(Purge::Everything, Force::Soft, world.now()).unwrap();
    assert_eq!(world.cache.statistics().purge_rules, 1);
    for key in 20..=250 {
        world.store(key, 200_000, FreshFor::Ever, false);
        world.step();
    }
    assert_eq!(world.cache.statistics().purge_rules, 0);
    let found: Vec<_> = (0..20).filter_map(|key| world.lookup(key)).collect();
    assert!(!found.is_empty());
    assert!(found.iter().all(|hit| hit.freshness == Freshness::Stale), "{found:?}");
}

#[test]
fn a_segment_stays_until_the_last_of_its_entries_is_dead() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1);
    for key in 0..200 {
        // The one that lives longest is neither the first nor the last of its segment.
        let ms = if key % 10 == 5 { 5_000 } else { 50 };
        world.store(key, 20_000, FreshFor::Ms(ms), false);
    }
    let windows_ms = u64::from(WINDOWS[0].if_error_ms);
    for (now_ms, any_gone) in [(5_000 + windows_ms, false), (5_001 + windows_ms, true)] {
        // Segments are looked for once a millisecond: this one is the hundredth.
        for before in (0..100).rev() {
            world.now_ms = now_ms - before;
            world.step();
        }
        let statistics = world.cache.statistics();
        assert_eq!(statistics.evicted, 0);
        assert_eq!(statistics.expired > 0, any_gone, "{statistics:?}");
    }
}

#[test]
fn an_entry_that_follows_weeks_after_another_has_its_own_age() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 0);
    world.store(1, 100, FreshFor::Ever, false);
    world.now_ms = (1 << 32) + 10_000;
    world.store(2, 100, FreshFor::Ms(1_000), false);
    assert!(world.check_found(1).is_some());
    assert!(world.check_found(2).is_some());
}

#[test]
fn an_entry_stays_dead_after_the_wrap_of_its_milliseconds() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 0);
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
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 5_000);
    world.store(1, 100, FreshFor::Ever, false);
    world.now_ms += u64::from(u32::MAX);
    assert!(world.try_renew(1, FreshFor::Ever, 0, true).is_some());
    world.now_ms += 1;
    assert_eq!(world.try_renew(1, FreshFor::Ms(1), 0, true), None);
    assert_eq!(world.lookup(1).map(|hit| hit.freshness), Some(Freshness::Fresh));
}

#[test]
fn what_is_renewed_lives_by_its_new_times_and_windows_wherever_it_was() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1_000);
    world.store(1, 100, FreshFor::Ms(100), false);
    let freshness = |world: &mut World<'_>, now_ms| {
        world.now_ms = now_ms;
        world.check_found(1).map(|hit| hit.freshness)
    };
    // Fresh until 1,100, stale until 1,400, retained until 2,000; then dead, and not yet met.
    for at_ms in [1_050, 1_150, 1_500, 2_100] {
        world.now_ms = at_ms;
        assert!(world.renew(1, FreshFor::Ms(100), 0, true), "at {at_ms}");
        assert_eq!(freshness(&mut world, at_ms + 99), Some(Freshness::Fresh), "at {at_ms}");
        assert_eq!(freshness(&mut world, at_ms + 100), Some(Freshness::Stale), "at {at_ms}");
    }
    assert!(!world.renew(1, FreshFor::Ever, 0, false), "it is another version");
    assert!(world.renew(1, FreshFor::Ms(100), 1, true));
    assert_eq!(freshness(&mut world, 2_299), Some(Freshness::Fresh));
    assert_eq!(freshness(&mut world, 2_300), None, "it has no stale windows any more");
    assert!(!world.renew(1, FreshFor::Ever, 0, true), "it was met, and is gone");
}

#[test]
fn what_is_not_served_any_more_is_kept_to_be_renewed_and_an_absence_is_not() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1_000);
    world.keep_for(2_000);
    world.store(1, 100, FreshFor::Ms(100), false);
    world.store(2, 0, FreshFor::Ms(100), true);
    // Served until 2,000, and kept until 3,100; then renewed each time for a millisecond more.
    for (now_ms, is_there) in [(3_099, true), (5_099, true), (7_100, false)] {
        world.now_ms = now_ms;
        assert!(world.check_found(1).is_none() && world.check_found(2).is_none());
        (0..100).for_each(|_| world.step());
        assert_eq!(world.cache.statistics().entries, u64::from(is_there), "at {now_ms}");
        assert_eq!(world.renew(1, FreshFor::Ms(1), 1, true), is_there, "at {now_ms}");
    }
}

#[test]
fn a_purge_ends_what_was_renewed_before_it_and_not_what_is_renewed_after_it() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 8 << 20, 1_000);
    for key in [1, 2] {
        world.store(key, 100, FreshFor::Ever, false);
        assert!(world.renew(key, FreshFor::Ever, 0, true));
    }
    // All within a millisecond.
    let freshness = |world: &mut World<'_>, key| world.check_found(key).map(|hit| hit.freshness);
    world.purge(Purge::Everything, Force::Soft, |_| true);
    world.now_ms += 1;
    assert_eq!(freshness(&mut world, 1), Some(Freshness::Stale));
    assert!(world.renew(1, FreshFor::Ever, 0, true));
    assert_eq!(freshness(&mut world, 1), Some(Freshness::Fresh));
    world.end_freshness(1);
    assert!(world.renew(1, FreshFor::Ever, 0, true));
    world.now_ms += 1_000;
    assert_eq!(freshness(&mut world, 1), Some(Freshness::Fresh));
    assert_eq!(freshness(&mut world, 2), None, "it was not renewed");
    world.purge(Purge::Everything, Force::Hard, |_| true);
    assert!(!world.renew(1, FreshFor::Ever, 0, true), "it does not come back");
    assert_eq!(freshness(&mut world, 1), None);
}

#[test]
fn the_longest_lifetime_is_cut_and_ends_when_it_says() {
    const CUT_MS: u64 = 1 << 31;
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, (1 << 32) - 1);
    world.store(1, 100, FreshFor::Ms(u32::MAX), true);
    world.now_ms += CUT_MS - 1;
    assert_eq!(world.lookup(1).map(|hit| hit.freshness), Some(Freshness::Fresh));
    world.now_ms += 1;
    assert_eq!(world.lookup(1), None, "a negative entry has no stale windows here");
}

/// Fills a cache of 4 MiB twice, with values that are never read, then comes to rest.
fn scan(world: &mut World<'_>) {
    for key in 100..=250 {
        world.store(key, 60_000, FreshFor::Ever, false);
        world.step();
    }
    for _ in 0..100 {
        world.now_ms += 1;
        world.step();
    }
}

#[test]
fn an_entry_that_was_moved_keeps_its_age_and_its_stale_windows() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 1_000);
    for key in 0..15 {
        world.store(key, 10_000, FreshFor::Ms(60_000), false);
        assert!(world.check_found(key).is_some());
    }
    scan(&mut world);
    let moved = world.cache.statistics();
    assert!(moved.moved_bytes > 15 * 10_000, "{moved:?}");
    let ends = [
        (60_999, Some(Freshness::Fresh)),
        (61_299, Some(Freshness::Stale)),
        (61_899, Some(Freshness::Retained)),
        (62_000, None),
    ];
    for (now_ms, freshness) in ends {
        world.now_ms = now_ms - 100;
        for _ in 0..100 {
            world.now_ms += 1;
            world.step();
        }
        for key in 0..15 {
            assert_eq!(world.check_found(key).map(|hit| hit.freshness), freshness);
        }
    }
    let statistics = world.cache.statistics();
    assert_eq!(statistics.expired, 15);
    assert_eq!((statistics.evicted, statistics.moved_bytes), (moved.evicted, moved.moved_bytes));
}

#[test]
fn an_absence_is_not_spared_however_often_it_is_asked_for() {
    let mut memory = Vec::new();
    let mut world = World::new(&mut memory, 4 << 20, 0);
    world.store(1, 0, FreshFor::Ever, true);
    world.store(2, 0, FreshFor::Ever, false);
    for key in [1, 2, 1, 2] {
        assert!(world.check_found(key).is_some());
    }
    scan(&mut world);
    assert!(world.check_found(2).is_some());
    assert_eq!(world.check_found(1), None);
}
