//! Entries out and back in: what comes back was there, was not withdrawn, and is stale at best.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use shard_cache::hash::{Etag, KeyHash, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, Force, FreshFor, Freshness, Kind, Layout, NewValue, NotRestored, Purge, PurgeRefused,
    REMOVED_MAX, Renewal, Saved, StaleWindows, WINDOWS_COUNT_MAX, Walked, Withdrawals, Withdrawn,
};
use std::collections::{BTreeMap, BTreeSet};

const WINDOWS: [StaleWindows; 2] = [
    StaleWindows { while_revalidate_ms: 1_000, if_error_ms: 10_000 },
    StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 },
];
const KIND: Kind = Kind { content_type: 7, windows: 0 };
const OLD: KeyHasher = KeyHasher::new([7, 9]);
const NEW: KeyHasher = KeyHasher::new([1, 2]);
const MIB: usize = 1 << 20;

/// An entry that a walk has handed out.
#[derive(Clone, Debug)]
struct Kept {
    key: Vec<u8>,
    value: Vec<u8>,
    born_ms: u64,
    fresh_until_ms: Option<u64>,
    frequency: u8,
    proven: bool,
}

impl Kept {
    fn of(saved: &Saved<'_>) -> Self {
        assert_eq!(saved.content_type, KIND.content_type);
        Self {
            key: saved.key.to_vec(),
            value: saved.value.to_vec(),
            born_ms: saved.born_ms,
            fresh_until_ms: saved.fresh_until_ms,
            frequency: saved.frequency,
            proven: saved.proven,
        }
    }

    fn saved(&self) -> Saved<'_> {
        Saved {
            etag: Etag::from_bits(self.value.len() as u64),
            content_type: KIND.content_type,
            windows: None,
            frequency: self.frequency,
            proven: self.proven,
            born_ms: self.born_ms,
            fresh_until_ms: self.fresh_until_ms,
            key: &self.key,
            value: &self.value,
        }
    }
}

struct World {
    cache: Cache<'static>,
    hasher: KeyHasher,
    now_ms: u64,
}

impl World {
    fn new(budget: usize, hasher: KeyHasher, now_ms: u64) -> Self {
        let layout = Layout::new(budget, 600 << 10).unwrap();
        let memory = vec![0_u8; layout.memory_bytes() + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        let memory = &mut memory[skip..][..layout.memory_bytes()];
        let mut cache = Cache::new(layout, memory, hasher, &WINDOWS);
        cache.set_segments_ready(u32::MAX);
        Self { cache, hasher, now_ms }
    }

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    fn store(&mut self, key: &[u8], bytes: &[u8], fresh_for: FreshFor) -> bool {
        let etag = Etag::from_bits(bytes.len() as u64);
        let value = NewValue { etag, kind: KIND, group: 0, fresh_for, negative: false, bytes };
        self.cache.store(self.hasher.hash(key), key, &value, self.now()).is_ok()
    }

    fn purge(&mut self, what: Purge<'_>) -> Result<(), PurgeRefused> {
        self.cache.purge(what, Force::Hard, self.now())
    }

    fn remove(&mut self, key: &[u8]) {
        self.cache.remove(self.hasher.hash(key), key);
    }

    fn lookup(&mut self, key: &[u8]) -> Option<(Vec<u8>, Freshness)> {
        let hit = self.cache.lookup(self.hasher.hash(key), key, self.now())?;
        Some((self.cache.entry(hit.entry).value().to_vec(), hit.freshness))
    }

    fn walk_step(&mut self, into: &mut Vec<Kept>) -> Walked {
        let now = self.now();
        self.cache.walk(now, |saved| {
            into.push(Kept::of(saved));
            true
        })
    }

    fn walk_to_end(&mut self) -> Vec<Kept> {
        let mut kept = Vec::new();
        while self.walk_step(&mut kept) != Walked::End {}
        kept
    }

    fn end_walk(&mut self) -> Option<Withdrawals> {
        let mut withdrawals = Withdrawals::new(self.hasher);
        let is_all = self.cache.end_walk_with(|withdrawn| assert!(withdrawals.add(withdrawn)));
        is_all.then_some(withdrawals)
    }

    fn restore(&mut self, kept: &Kept) -> Result<(), NotRestored> {
        let now = self.now();
        self.cache.restore(self.hasher.hash(&kept.key), &kept.saved(), KIND, now)
    }
}

#[test]
fn everything_comes_back_stale_and_as_popular_as_it_was() {
    let mut old = World::new(8 * MIB, OLD, 1 << 32);
    let sizes = [0, 1, 100, 5_000, 300_000];
    for (number, size) in (0_u8..).zip(sizes) {
        let fresh_for = if number == 2 { FreshFor::Ever } else { FreshFor::Ms(60_000) };
        assert!(old.store(&[number], &vec![number; size], fresh_for));
    }
    for _ in 0..3 {
        assert!(old.lookup(&[3]).is_some());
    }
    old.cache.begin_walk();
    let kept = old.walk_to_end();
    assert_eq!(kept.len(), sizes.len(), "each once");
    assert!(old.end_walk().is_some());
    assert_eq!(old.cache.statistics().pins, 0);

    let mut new = World::new(8 * MIB, NEW, (1 << 32) + 500);
    new.cache.begin_restore();
    for kept in &kept {
        assert_eq!(new.restore(kept), Ok(()));
        assert_eq!(new.restore(kept), Err(NotRestored::Known));
    }
    new.cache.end_restore();
    for (number, size) in (0_u8..).zip(sizes) {
        assert_eq!(new.lookup(&[number]), Some((vec![number; size], Freshness::Stale)));
    }
    new.cache.begin_walk();
    let again = new.walk_to_end();
    let hot = again.iter().find(|kept| kept.key == [3]).unwrap();
    assert_eq!(hot.frequency, 3);
    assert_eq!(hot.born_ms, 1 << 32, "its age is what it was");
    new.now_ms += 1_000;
    assert_eq!(new.lookup(&[2]).unwrap().1, Freshness::Retained, "its windows began at its return");
    new.now_ms += 10_000;
    assert_eq!(new.lookup(&[2]), None);
}

#[test]
fn what_is_dead_or_negative_is_not_handed_out_and_what_dies_meanwhile_does_not_come_back() {
    let mut old = World::new(4 * MIB, OLD, 50_000);
    assert!(old.store(b"short", b"x", FreshFor::Ms(1)));
    assert!(old.store(b"long", b"x", FreshFor::Ms(30_000)));
    let negative = NewValue {
        etag: Etag::from_bits(0),
        kind: KIND,
        group: 0,
        fresh_for: FreshFor::Ms(60_000),
        negative: true,
        bytes: b"",
    };
    old.cache.store(OLD.hash(b"absent"), b"absent", &negative, old.now()).unwrap();
    old.now_ms += 11_000;
    old.cache.begin_walk();
    let kept = old.walk_to_end();
    assert_eq!(kept.iter().map(|kept| &kept.key[..]).collect::<Vec<_>>(), [b"long"]);
    let mut new = World::new(4 * MIB, NEW, 95_000);
    new.cache.begin_restore();
    assert_eq!(new.restore(&kept[0]), Err(NotRestored::Dead));
    new.now_ms = 85_000;
    assert_eq!(new.restore(&kept[0]), Ok(()));
    assert_eq!(new.lookup(b"long").unwrap().1, Freshness::Retained);
}

#[test]
fn what_is_withdrawn_during_a_walk_is_named_at_its_end() {
    let mut old = World::new(4 * MIB, OLD, 1);
    for key in ["a:1", "a:2", "b:1", "ab", "c"] {
        assert!(old.store(key.as_bytes(), b"x", FreshFor::Ever));
    }
    old.cache.begin_walk();
    let kept = old.walk_to_end();
    assert_eq!(kept.len(), 5);
    old.remove(b"c");
    old.remove(b"evicted by now");
    old.purge(Purge::Prefix(b"ab")).unwrap();
    old.purge(Purge::Group(b"a")).unwrap();
    // Enough upkeep for the rules to retire, if they could.
    old.now_ms += 100_000;
    (0..100).for_each(|_| old.cache.step(old.now()));
    let withdrawals = old.end_walk().unwrap();
    let left: Vec<_> =
        kept.iter().filter(|kept| !withdrawals.hide(&kept.key, kept.born_ms)).collect();
    assert_eq!(left.iter().map(|kept| &kept.key[..]).collect::<Vec<_>>(), [b"b:1"]);
    assert!(withdrawals.hide(b"c", u64::MAX), "removed, whenever it was born");
    assert!(withdrawals.hide(b"evicted by now", 0), "handed out, evicted and then removed");
    assert!(!withdrawals.hide(b"a:1", u64::MAX), "stored after the purge");
    let mut more = Withdrawals::new(OLD);
    assert!(more.add(Withdrawn::Everything { until_ms: 5 }));
    assert!(more.hide(b"b:1", 5) && !more.hide(b"b:1", 6));
    assert!(!more.add(Withdrawn::Prefix { prefix: &[0; 600], until_ms: 5 }));
}

#[test]
fn more_removals_than_are_remembered_spoil_a_walk_and_keep_what_is_left_out() {
    let mut old = World::new(16 * MIB, OLD, 1);
    let keys: Vec<_> = (0..=REMOVED_MAX).map(|number| number.to_le_bytes()).collect();
    old.cache.begin_walk();
    for key in &keys {
        assert!(old.store(key, b"x", FreshFor::Ever));
        old.remove(key);
    }
    assert!(old.end_walk().is_none());
    old.cache.begin_walk();
    old.remove(&keys[0]);
    assert!(old.end_walk().is_some());

    let mut new = World::new(16 * MIB, NEW, 1);
    new.cache.begin_restore();
    let of = |key: &[u8]| Kept {
        key: key.to_vec(),
        value: Vec::new(),
        born_ms: 1,
        fresh_until_ms: None,
        frequency: 0,
        proven: false,
    };
    for key in &keys[1..] {
        assert!(new.store(key, b"x", FreshFor::Ever));
        new.remove(key);
    }
    assert_eq!(new.restore(&of(&keys[5])), Err(NotRestored::Withdrawn));
    assert_eq!(new.restore(&of(b"other")), Ok(()));
    assert!(new.store(&keys[0], b"x", FreshFor::Ever));
    new.remove(&keys[0]);
    assert_eq!(new.restore(&of(b"one more")), Err(NotRestored::Withdrawn), "nothing is known");
}

#[test]
fn values_with_windows_of_their_own_keep_them_and_further_ones_have_the_first() {
    let mut world = World::new(16 * MIB, OLD, 1);
    let window = |ms| StaleWindows { while_revalidate_ms: ms, if_error_ms: 2 * ms };
    let given = WINDOWS.len();
    let indices: Vec<_> = (0..300).map(|ms| world.cache.windows_index(window(ms))).collect();
    let expected = (given..WINDOWS_COUNT_MAX).map(|index| u8::try_from(index).ok());
    assert!(indices[..WINDOWS_COUNT_MAX - given].iter().copied().eq(expected));
    assert_eq!(indices.last(), Some(&None));
    assert_eq!(world.cache.windows_index(window(5)), indices[5]);

    let kind = Kind { windows: indices[5].unwrap(), ..KIND };
    let (etag, fresh_for) = (Etag::from_bits(1), FreshFor::Ms(100));
    let value = NewValue { etag, kind, group: 0, fresh_for, negative: false, bytes: b"v" };
    let now = world.now();
    world.cache.store(world.hasher.hash(b"own"), b"own", &value, now).unwrap();
    assert!(world.store(b"given", b"v", FreshFor::Ms(100)));
    world.cache.begin_walk();
    let mut seen = BTreeMap::new();
    while world.cache.walk(now, |saved| {
        seen.insert(saved.key.to_vec(), saved.windows);
        true
    }) != Walked::End
    {}
    assert_eq!(seen[&b"own"[..]], Some(window(5)));
    assert_eq!(seen[&b"given"[..]], None);
}

#[test]
fn what_was_written_since_is_not_replaced_by_what_an_earlier_process_had() {
    let mut new = World::new(16 * MIB, NEW, 1);
    let old = Kept {
        key: b"k".to_vec(),
        value: b"old".to_vec(),
        born_ms: 1,
        fresh_until_ms: None,
        frequency: 0,
        proven: false,
    };
    let hash = new.hasher.hash(b"k");
    new.cache.begin_restore();
    // The cache may have lost the new value by now.
    new.cache.supersede(hash);
    assert_eq!(new.restore(&old), Err(NotRestored::Withdrawn));
    new.cache.end_restore();
    // A walk does not count what is written.
    new.cache.begin_walk();
    for number in 0..=REMOVED_MAX as u64 {
        new.cache.supersede(KeyHash::from_bits(number));
    }
    assert!(new.end_walk().is_some());
}

#[test]
fn a_purge_before_anything_was_put_back_hides_it_and_does_not_retire_before_all_is() {
    let of = |key: &[u8]| Kept {
        key: key.to_vec(),
        value: Vec::new(),
        born_ms: 1_000,
        fresh_until_ms: None,
        frequency: 0,
        proven: false,
    };
    let mut new = World::new(4 * MIB, NEW, 100_000);
    new.cache.begin_restore();
    new.purge(Purge::Prefix(b"a")).unwrap();
    new.now_ms += 100_000;
    new.cache.step(new.now());
    assert_eq!(new.restore(&of(b"ab")), Err(NotRestored::Withdrawn));
    new.cache.end_restore();
    new.cache.step(new.now());
    assert_eq!(new.cache.statistics().purge_rules, 0, "rules retire again");

    new.cache.begin_restore();
    assert_eq!(new.restore(&of(b"b")), Ok(()));
    new.purge(Purge::Everything).unwrap();
    assert_eq!(new.lookup(b"b"), None);
    assert_eq!(new.restore(&of(b"c")), Err(NotRestored::Withdrawn));
}

#[test]
fn what_was_renewed_is_handed_out_with_its_new_times_and_not_replaced_by_its_old_ones() {
    let mut world = World::new(8 * MIB, OLD, 1_000);
    assert!(world.store(b"k", b"value", FreshFor::Ms(100)));
    world.cache.begin_walk();
    let before = world.walk_to_end();
    world.end_walk().unwrap();
    world.now_ms = 1_500;
    let (etag, fresh_for) = (Etag::from_bits(b"value".len() as u64), FreshFor::Ms(60_000));
    let renewal = Renewal { etag, windows: KIND.windows, fresh_for };
    assert!(world.cache.renew(OLD.hash(b"k"), b"k", &renewal, world.now()).is_some());
    world.cache.begin_walk();
    let after = world.walk_to_end();
    world.end_walk().unwrap();
    let times = |kept: &Kept| (kept.born_ms, kept.fresh_until_ms);
    assert_eq!(
        [&before, &after].map(|kept| kept.iter().map(times).collect::<Vec<_>>()),
        [vec![(1_000, Some(1_100))], vec![(1_500, Some(61_500))]]
    );
    world.cache.begin_restore();
    assert_eq!(world.restore(&before[0]), Err(NotRestored::Known));
    assert_eq!(world.lookup(b"k").unwrap().1, Freshness::Fresh);
}

#[test]
fn of_two_versions_the_later_one_stays_whichever_comes_back_first() {
    let of = |born_ms: u64| Kept {
        key: b"a".to_vec(),
        value: vec![0; usize::try_from(born_ms).unwrap()],
        born_ms,
        fresh_until_ms: None,
        frequency: 0,
        proven: false,
    };
    for order in [[5, 6], [6, 5]] {
        let mut new = World::new(4 * MIB, NEW, 100);
        new.cache.begin_restore();
        let restored = order.map(|born_ms| new.restore(&of(born_ms)).is_ok());
        assert_eq!(restored, [true, order[1] == 6]);
        assert_eq!(new.lookup(b"a").unwrap().0.len(), 6);
        assert!(new.store(b"a", b"x", FreshFor::Ever));
        assert_eq!(new.restore(&of(99)), Err(NotRestored::Known));
        assert_eq!(new.cache.statistics().entries, 1);
    }
}

#[test]
fn nothing_leaves_for_what_comes_back() {
    let mut new = World::new(4 * MIB, NEW, 100_000);
    assert!(new.store(b"here", &[1; 1_000], FreshFor::Ever));
    new.cache.begin_restore();
    let mut refused = 0;
    for number in 0..20_000_u32 {
        let kept = Kept {
            key: number.to_le_bytes().to_vec(),
            value: vec![2; 1_000],
            born_ms: 1,
            fresh_until_ms: None,
            frequency: 3,
            proven: true,
        };
        refused += u32::from(new.restore(&kept) == Err(NotRestored::NoRoom));
        new.cache.step(new.now());
    }
    assert!(refused > 10_000, "{refused}");
    let statistics = new.cache.statistics();
    assert_eq!(statistics.evicted, 0);
    assert!(statistics.bytes > 2 * MIB as u64, "and most of the arena is used: {statistics:?}");
    assert!(new.lookup(b"here").is_some());
    assert!(new.store(b"more", &[1; 1_000], FreshFor::Ever), "there is room for what is stored");
}

#[test]
fn an_entry_that_was_not_taken_is_handed_out_again() {
    let mut old = World::new(4 * MIB, OLD, 1);
    for number in 0..1_000_u32 {
        assert!(old.store(&number.to_le_bytes(), &[0; 100], FreshFor::Ever));
    }
    old.cache.begin_walk();
    let mut seen = Vec::new();
    let mut room = 0;
    loop {
        let now = old.now();
        let walked = old.cache.walk(now, |saved| {
            if room == 0 {
                return false;
            }
            room -= 1;
            seen.push(saved.key.to_vec());
            true
        });
        match walked {
            Walked::On => {}
            Walked::Held => room = 7,
            Walked::End => break,
        }
    }
    assert_eq!(seen.len(), 1_000);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1_000);
}

#[derive(Clone, Debug)]
enum Act {
    Store(u8, usize, FreshFor),
    Remove(u8),
    Purge(u8),
    Read(u8),
    Later(u64),
    Step,
    Walk,
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop_oneof![10 => 0..2_000_usize, 3 => 2_000..80_000_usize, 1 => 0..600_000_usize];
    let fresh_for = prop_oneof![Just(FreshFor::Ever), (0..20_000_u32).prop_map(FreshFor::Ms)];
    prop_oneof![
        20 => (any::<u8>(), size, fresh_for)
            .prop_map(|(key, size, fresh_for)| Act::Store(key, size, fresh_for)),
        3 => any::<u8>().prop_map(Act::Remove),
        1 => any::<u8>().prop_map(Act::Purge),
        10 => any::<u8>().prop_map(Act::Read),
        3 => (0..5_000_u64).prop_map(Act::Later),
        6 => Just(Act::Step),
        6 => Just(Act::Walk),
    ]
}

/// Two bytes, so that purges by prefix hit several keys.
fn key(number: u8) -> [u8; 2] {
    [number % 16, number / 16]
}

/// A cache that is walked while it is used, and what may be found of it in a snapshot.
struct Used {
    world: World,
    /// The versions of each key since it was last withdrawn.
    versions: BTreeMap<[u8; 2], Vec<Vec<u8>>>,
    touched: BTreeSet<[u8; 2]>,
    kept: Vec<Kept>,
    stored: u32,
}

impl Used {
    fn play(&mut self, act: &Act) {
        let Self { world, versions, touched, .. } = self;
        match act {
            Act::Store(number, size, fresh_for) => {
                self.stored += 1;
                let value = [self.stored.to_le_bytes().to_vec(), vec![*number; *size]].concat();
                if world.store(&key(*number), &value, *fresh_for) {
                    versions.entry(key(*number)).or_default().push(value);
                    touched.insert(key(*number));
                }
            }
            Act::Remove(number) => {
                world.remove(&key(*number));
                versions.remove(&key(*number));
                touched.insert(key(*number));
            }
            Act::Purge(number) => {
                let prefix = number % 16;
                if world.purge(Purge::Prefix(&[prefix])).is_ok() {
                    versions.retain(|key, _| key[0] != prefix);
                    touched.extend((0..16).map(|rest| [prefix, rest]));
                }
            }
            Act::Read(number) => drop(world.lookup(&key(*number))),
            Act::Later(ms) => world.now_ms += ms,
            Act::Step => world.cache.step(world.now()),
            Act::Walk => drop(world.walk_step(&mut self.kept)),
        }
    }
}

proptest! {
    #[test]
    fn what_comes_back_was_stored_and_never_withdrawn_and_what_was_at_rest_does(
        before in proptest::collection::vec(act(), 0..200),
        during in proptest::collection::vec(act(), 0..400),
        later_ms in 0..20_000_u64,
    ) {
        let mut used = Used {
            world: World::new(4 * MIB, OLD, 1 << 32),
            versions: BTreeMap::new(),
            touched: BTreeSet::new(),
            kept: Vec::new(),
            stored: 0,
        };
        used.world.cache.begin_walk();
        before.iter().for_each(|act| used.play(act));
        used.world.cache.begin_walk();
        used.touched.clear();
        used.kept.clear();
        let keys = (0..=u8::MAX).map(key);
        let there: Vec<_> = keys.filter(|key| used.world.lookup(key).is_some()).collect();
        during.iter().for_each(|act| used.play(act));
        let Used { world: mut old, versions, touched, mut kept, .. } = used;
        while old.walk_step(&mut kept) != Walked::End {}
        let withdrawals = old.end_walk().unwrap();
        kept.retain(|kept| !withdrawals.hide(&kept.key, kept.born_ms));
        for key in there.iter().filter(|key| !touched.contains(*key)) {
            let is_kept = kept.iter().any(|kept| kept.key == key);
            assert!(is_kept || old.lookup(key).is_none(), "{key:?} was there all the time");
        }
        assert_eq!(old.cache.statistics().pins, 0);

        let mut new = World::new(8 * MIB, NEW, old.now_ms + later_ms);
        new.cache.begin_restore();
        for kept in &kept {
            let known = versions.get(&kept.key[..]).is_some_and(|all| all.contains(&kept.value));
            assert!(known, "{:?} is of no version that could be read", kept.key);
            let restored = new.restore(kept);
            let is_dead = kept.fresh_until_ms.is_some_and(|end| end + 10_000 <= new.now_ms);
            assert!(restored.is_err() || !is_dead);
            if restored.is_ok() {
                let (value, freshness) = new.lookup(&kept.key).unwrap();
                assert_eq!(value, kept.value);
                assert_ne!(freshness, Freshness::Fresh);
            }
        }
    }
}
