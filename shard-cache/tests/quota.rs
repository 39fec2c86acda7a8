//! What groups of entries are guaranteed they keep, and what they do not use is lent.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::unwrap_used, reason = "a test")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::policy::{Fifo, Lru, S3Fifo};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, Force, FreshFor, Kind, Layout, NewValue, Policy, Purge, Renewal, SEGMENT_SIZE,
    STEP_ENTRIES_MAX, StaleWindows, StoreRefused,
};

const WINDOWS: [StaleWindows; 1] = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
const HASHER: KeyHasher = KeyHasher::new([7, 9]);
const MIB: usize = 1 << 20;
const VALUE_SIZE_MAX: usize = MIB;

/// The most steps that a value waits for.
const STEPS_MAX: u32 = 40;

const QUIET: u8 = 1;
const NOISE: u8 = 0;

/// Keys of noise begin here.
const NOISE_KEYS: u32 = 1 << 30;

/// A cache with 32-bit numbers for keys.
struct World<P: Policy> {
    cache: Cache<'static, P>,
    arena_size: u64,
    now_ms: u64,
    /// Bytes of values that were stored.
    poured: u64,
    /// The most steps that a value has waited for so far.
    waited: u32,
    random: u64,
}

impl<P: Policy> World<P> {
    /// A cache that guarantees groups percents of its arena.
    fn new(budget: usize, percents: &[u64]) -> Self {
        Self::with_ready(budget, percents, u32::MAX)
    }

    /// A cache whose first `ready` segments may be used.
    fn with_ready(budget: usize, percents: &[u64], ready: u32) -> Self {
        let layout = Layout::new(budget, u32::try_from(VALUE_SIZE_MAX).unwrap()).unwrap();
        let memory = vec![0_u8; layout.memory_bytes() + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        let memory = &mut memory[skip..][..layout.memory_bytes()];
        let mut cache = Cache::new(layout, memory, HASHER, &WINDOWS);
        let arena_size = layout.arena_bytes() as u64;
        let guarantees: Vec<_> =
            percents.iter().map(|percent| arena_size * percent / 100).collect();
        cache.guarantee(&guarantees);
        cache.set_segments_ready(ready);
        Self { cache, arena_size, now_ms: 1, poured: 0, waited: 0, random: 1 }
    }

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    /// Stores a value, for which steps make room.
    fn store(&mut self, number: u32, group: u8, size: usize) {
        static BYTES: [u8; VALUE_SIZE_MAX] = [1; VALUE_SIZE_MAX];
        let key = number.to_le_bytes();
        let value = NewValue {
            etag: Etag::from_bits(u64::from(number)),
            kind: Kind { content_type: 0, windows: 0 },
            group,
            fresh_for: FreshFor::Ever,
            negative: false,
            bytes: &BYTES[..size],
        };
        for waited in 0.. {
            assert!(waited <= 20 * STEPS_MAX, "{number} of {size} bytes finds no room");
            self.waited = self.waited.max(waited);
            self.cache.step(self.now());
            match self.cache.store(HASHER.hash(&key), &key, &value, self.now()) {
                Ok(_) => break,
                Err(refused) => assert_eq!(refused, StoreRefused::NoRoom),
            }
        }
        self.poured += size as u64;
    }

    fn holds(&mut self, number: u32) -> bool {
        let key = number.to_le_bytes();
        let now = self.now();
        self.cache.lookup(HASHER.hash(&key), &key, now).is_some()
    }

    fn read(&mut self, number: u32, group: u8, size: usize) {
        if !self.holds(number) {
            self.store(number, group, size);
        }
    }

    /// Stores values of a group from key `first` on until it takes all that is its guarantee, and
    /// returns the key after the last.
    fn fill(&mut self, group: u8, percent: u64, first: u32, size: usize) -> u32 {
        let most = self.arena_size * percent / 100;
        let runs = if size + 28 > SEGMENT_SIZE { (size + 28).div_ceil(SEGMENT_SIZE) } else { 0 };
        let each = (size + 40).max(runs * SEGMENT_SIZE) as u64;
        let mut next = first;
        while self.cache.group_bytes(group) + each * 5 / 4 <= most {
            self.store(next, group, size);
            next += 1;
        }
        next
    }

    /// A number below `end`, uniform.
    fn below(&mut self, end: u32) -> u32 {
        // Knuth's linear congruential generator.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((self.random >> 32) * u64::from(end)) >> 32).unwrap()
    }

    /// A number below 2 to the power of `bits` + 1, as Zipf has them with an exponent of 1: each
    /// power of two is as likely as another.
    fn zipf(&mut self, bits: u32) -> u32 {
        let power = self.below(bits + 1);
        (1 << power) + self.below(1 << power)
    }

    fn count(&mut self, numbers: std::ops::Range<u32>) -> usize {
        numbers.filter(|number| self.holds(*number)).count()
    }
}

/// What noise stores: sizes by key.
const NOISES: [&[usize]; 4] =
    [&[500], &[16 << 10], &[300_000, 900_000], &[500, 16 << 10, 150_000, 300_000, 1_000_000]];

/// Lets a quiet group take 20 percent of a cache, then noise store 20 times the cache.
fn quiet_beside_noise<P: Policy>(quiet_size: usize, noise: &[usize], is_zipf: bool) {
    let mut world = World::<P>::new(16 * MIB, &[0, 20]);
    let end = world.fill(QUIET, 20, 0, quiet_size);
    let until = world.poured + 20 * world.arena_size;
    for number in 0.. {
        let key = if is_zipf { world.zipf(20) } else { number };
        world.read(NOISE_KEYS + key, NOISE, noise[key as usize % noise.len()]);
        if world.poured > until {
            break;
        }
    }
    let kept = world.count(0..end);
    assert_eq!(kept, end as usize, "{quiet_size} {noise:?} {is_zipf}");
    assert_eq!(world.cache.statistics().evicted_guaranteed, 0);
    assert!(world.cache.statistics().evicted > 200);
}

fn quiet_beside_all_noise<P: Policy>() {
    for noise in NOISES {
        for is_zipf in [false, true] {
            for size in [500, 16 << 10, 150_000, 300_000, 900_000] {
                quiet_beside_noise::<P>(size, noise, is_zipf);
            }
        }
    }
}

#[test]
fn a_quiet_group_keeps_all_that_is_guaranteed_beside_noise() {
    quiet_beside_all_noise::<S3Fifo>();
}

#[test]
fn a_quiet_group_keeps_all_that_is_guaranteed_under_fifo() {
    quiet_beside_all_noise::<Fifo>();
}

#[test]
fn a_quiet_group_keeps_all_that_is_guaranteed_under_lru() {
    quiet_beside_all_noise::<Lru>();
}

#[test]
fn what_is_guaranteed_and_not_used_is_lent_and_given_back() {
    let mut world = World::<S3Fifo>::new(32 * MIB, &[0, 40]);
    for number in 0..200_000 {
        world.store(NOISE_KEYS + number, NOISE, 500);
    }
    let lent = world.cache.group_bytes(NOISE);
    assert!(lent > world.arena_size * 9 / 10, "{lent} of {}", world.arena_size);
    assert_eq!(world.cache.statistics().spared_bytes, 0);
    let end = world.fill(QUIET, 40, 0, 500);
    for number in 0..200_000 {
        world.store(NOISE_KEYS + number, NOISE, 500);
    }
    assert_eq!(world.count(0..end), end as usize);
    // What is owed lies close together: the others have almost all of the rest.
    let (owed, rest) = (world.cache.group_bytes(QUIET), world.cache.group_bytes(NOISE));
    assert!(owed + rest > world.arena_size * 9 / 10, "{owed} and {rest} of {}", world.arena_size);
}

/// A group that takes more than its guarantee, idle until others want what was lent to it.
fn shrunk<P: Policy>() -> (u64, u64) {
    let mut world = World::<P>::new(32 * MIB, &[0, 20]);
    for number in 0..100_000 {
        world.store(number, QUIET, 500);
    }
    assert!(world.cache.group_bytes(QUIET) > world.arena_size * 9 / 10);
    for number in 0..300_000 {
        world.store(NOISE_KEYS + number, NOISE, 500);
    }
    (world.cache.group_bytes(QUIET), world.arena_size / 5)
}

#[test]
fn a_group_above_its_guarantee_gives_back_what_was_lent_and_no_more() {
    for (taken, guaranteed) in [shrunk::<Fifo>(), shrunk::<Lru>(), shrunk::<S3Fifo>()] {
        // It stops at the first entry that is within.
        assert!(taken + 528 > guaranteed, "{taken} of {guaranteed}");
        assert!(taken <= guaranteed + SEGMENT_SIZE as u64, "{taken} of {guaranteed}");
    }
}

/// Fills all groups to their guarantees, as large as they may be, then lets all store on.
fn full_and_guaranteed<P: Policy>() {
    // 22 segments of 60, and 45 percent of them are two thirds of what pools may have.
    let percents = [0, 12, 12, 12];
    let mut world = World::<P>::new(16 * MIB, &percents);
    let mut next = [0_u32, 1 << 20, 2 << 20, 3 << 20];
    for (group, size) in [(1, 500), (2, 16 << 10), (3, 150_000)] {
        let at = usize::from(group);
        next[at] = world.fill(group, percents[at], next[at], size);
    }
    for round in 0..20_000 {
        let group = u8::try_from(world.below(4)).unwrap();
        let size = [500, 500, 500, 500, 16 << 10, 150_000][round % 6];
        let size = if round % 100 == 0 { 1_000_000 } else { size };
        let number = next[usize::from(group)];
        world.store(number, group, size);
        assert!(world.holds(number));
        next[usize::from(group)] += 1;
    }
    for group in 1..4 {
        // It may be one entry below, the largest there is.
        let guaranteed = world.arena_size * 12 / 100;
        let taken = world.cache.group_bytes(group);
        assert!(taken + 4 * SEGMENT_SIZE as u64 >= guaranteed, "{group}: {taken} of {guaranteed}");
    }
}

#[test]
fn a_cache_in_which_all_that_may_be_is_guaranteed_still_makes_room() {
    full_and_guaranteed::<S3Fifo>();
    full_and_guaranteed::<Fifo>();
    full_and_guaranteed::<Lru>();
}

/// A quiet group whose values are fetched anew, beside noise: each leaves a hole.
fn refreshed<P: Policy>(quiet_size: usize) {
    let mut world = World::<P>::new(16 * MIB, &[0, 30]);
    let end = world.fill(QUIET, 30, 0, quiet_size);
    let rounds = 30 * world.arena_size / quiet_size as u64;
    for number in 0..u32::try_from(rounds).unwrap() {
        world.store(NOISE_KEYS + number, NOISE, quiet_size);
        if number % 2 == 0 {
            let key = world.below(end);
            world.store(key, QUIET, quiet_size);
        }
    }
    assert_eq!(world.count(0..end), end as usize);
    let statistics = world.cache.statistics();
    assert_eq!(statistics.evicted_guaranteed, 0);
    // Two bytes for each that comes back, at most.
    let cost = statistics.moved_bytes / (world.poured / 100);
    assert!(cost < 200, "{cost} bytes moved for 100 that were stored");
}

#[test]
fn what_is_guaranteed_is_kept_also_where_it_is_fetched_anew() {
    for size in [500, 16 << 10, 150_000] {
        refreshed::<S3Fifo>(size);
    }
    refreshed::<Fifo>(500);
    refreshed::<Lru>(500);
}

#[test]
fn a_crowded_index_spares_what_is_guaranteed() {
    let mut world = World::<S3Fifo>::new(16 * MIB, &[0, 20]);
    let end = world.fill(QUIET, 20, 0, 100);
    for number in 0..1_000_000 {
        world.store(NOISE_KEYS + number, NOISE, 0);
    }
    assert_eq!(world.count(0..end), end as usize);
    let statistics = world.cache.statistics();
    assert!(statistics.evicted > 500_000 && statistics.evicted_guaranteed == 0, "{statistics:?}");
}

#[test]
fn absences_and_what_was_purged_or_is_dead_is_not_spared() {
    let mut world = World::<S3Fifo>::new(16 * MIB, &[0, 20]);
    let now = world.now();
    for number in 0..1_000_u32 {
        let key = number.to_le_bytes();
        let negative = NewValue {
            etag: Etag::from_bits(0),
            kind: Kind { content_type: 0, windows: 0 },
            group: QUIET,
            fresh_for: FreshFor::Ever,
            negative: true,
            bytes: &[],
        };
        let short = NewValue { negative: false, fresh_for: FreshFor::Ms(1_000), ..negative };
        let value = if number % 2 == 0 { &negative } else { &short };
        world.cache.store(HASHER.hash(&key), &key, value, now).unwrap();
    }
    (1_000..2_000).for_each(|number| world.store(number, QUIET, 500));
    world.now_ms += 2_000;
    assert_eq!(world.cache.group_bytes(QUIET), 1_000 * 32 + 1_000 * 528);
    (0..200_000).for_each(|number| world.store(NOISE_KEYS + number, NOISE, 500));
    assert_eq!(world.cache.group_bytes(QUIET), 1_000 * 528);
    assert_eq!(world.cache.statistics().spared_bytes, 1_000 * 528);
    (2_000..3_000).for_each(|number| world.store(number, QUIET, 500));
    assert!(world.cache.purge(Purge::Everything, Force::Hard, world.now()).is_ok());
    (0..400_000).for_each(|number| world.store(NOISE_KEYS + number, NOISE, 500));
    assert_eq!(world.cache.group_bytes(QUIET), 0);
    assert_eq!(world.cache.statistics().spared_bytes, 1_000 * 528);
}

#[test]
fn a_cache_that_is_never_populated_to_its_end_makes_room_whatever_is_guaranteed() {
    for ready in [6, 10, 20] {
        let mut world = World::<S3Fifo>::with_ready(16 * MIB, &[0, 30], ready);
        for number in 0..20_000 {
            world.store(number, QUIET, 5_000);
            assert!(world.holds(number));
        }
        assert!(world.cache.group_bytes(QUIET) < u64::from(ready) * SEGMENT_SIZE as u64);
    }
}

#[test]
fn an_entry_keeps_its_group_when_it_is_moved_or_renewed_and_not_when_it_is_stored_anew() {
    let mut world = World::<S3Fifo>::new(16 * MIB, &[0, 20]);
    for number in 0..10 {
        world.store(number, QUIET, 500);
    }
    let key = 3_u32.to_le_bytes();
    let (hash, now) = (HASHER.hash(&key), world.now());
    let renewal = Renewal { etag: Etag::from_bits(3), windows: 0, fresh_for: FreshFor::Ever };
    let entry = world.cache.renew(hash, &key, &renewal, now).unwrap();
    assert_eq!(world.cache.entry(entry).group(), QUIET);
    (0..100_000).for_each(|number| world.store(NOISE_KEYS + number, NOISE, 500));
    assert_eq!(world.cache.statistics().spared_bytes, 10 * 528, "each moved once");
    assert_eq!(world.cache.group_bytes(QUIET), 10 * 528);
    let entry = world.cache.lookup(hash, &key, now).unwrap().entry;
    assert_eq!(world.cache.entry(entry).group(), QUIET);
    world.store(3, NOISE, 500);
    assert_eq!(world.cache.group_bytes(QUIET), 9 * 528);
}

#[test]
#[should_panic(expected = "no more is guaranteed than can be kept")]
fn no_more_can_be_guaranteed_than_half() {
    World::<S3Fifo>::new(64 * MIB, &[0, 25, 25]);
}

#[test]
fn large_values_that_are_guaranteed_and_scattered_are_kept_where_others_find_another_place() {
    for (quiet_size, noise_size) in [(300_000, 900_000), (600_000, 1_000_000), (900_000, 500_000)] {
        let mut world = World::<S3Fifo>::new(16 * MIB, &[0, 37]);
        let most = world.arena_size * 37 / 100 - 4 * SEGMENT_SIZE as u64;
        let mut end = 0;
        while world.cache.group_bytes(QUIET) <= most {
            world.store(end, QUIET, quiet_size);
            let size = [300, 260_000, 300_000, 600_000][world.below(4) as usize];
            world.store(NOISE_KEYS + end, NOISE, size);
            end += 1;
        }
        for _ in 0..1_000 {
            let key = world.zipf(20);
            world.read(2 * NOISE_KEYS + key, NOISE, noise_size);
        }
        assert_eq!(world.count(0..end), end as usize, "{quiet_size} beside {noise_size}");
    }
}

#[test]
fn where_large_guaranteed_values_leave_no_place_to_a_larger_one_one_of_them_gives_way() {
    let mut world = World::<S3Fifo>::new(64 * MIB, &[0, 45]);
    // Of each five segments, two are guaranteed, and the next value needs four.
    let count = u32::try_from(world.arena_size / SEGMENT_SIZE as u64 / 5).unwrap();
    for number in 0..count {
        world.store(number, QUIET, 300_000);
        world.store(NOISE_KEYS + number, NOISE, 700_000);
    }
    // At the end of the arena.
    world.store(count, QUIET, 300_000);
    (0..1_000).for_each(|number| world.store(2 * NOISE_KEYS + number, NOISE, 1_000_000));
    let lost = count as usize + 1 - world.count(0..count + 1);
    assert!((1..3).contains(&lost), "{lost} of {count}");
    assert_eq!(world.cache.statistics().evicted_guaranteed, lost as u64);
}

#[test]
fn stores_do_not_wait_until_all_that_is_guaranteed_was_moved() {
    let mut world = World::<S3Fifo>::new(16 * MIB, &[0, 20]);
    // Steps look at each of them once before they have moved.
    let end = world.fill(QUIET, 20, 0, 100);
    let steps = end / STEP_ENTRIES_MAX;
    (0..5_000).for_each(|number| world.store(NOISE_KEYS + number, NOISE, 16 << 10));
    // Those of one segment at most.
    assert!(steps > 100 && world.waited < 20, "{} of {steps} steps", world.waited);
    assert_eq!(world.count(0..end), end as usize);
}
