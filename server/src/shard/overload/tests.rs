//! The controller in a shard that is a sum: what arrives in a turn is served or refused, and that
//! is how long the next turn takes.

use super::*;
use crate::mesh::{NO_TENANT, ReplyRef};
use shard_cache::hash::KeyHasher;

const TARGET: Duration = Duration::from_millis(2);
const TARGET_NS: u64 = 2_000_000;
const MISS_NS: u64 = 750_000;
const REFUSAL_NS: u64 = 2_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A shard that has nothing but misses, as many a second as it is told.
struct World {
    overload: Overload,
    hasher: KeyHasher,
    now_ns: u64,
    /// Misses that have arrived and those that will, by when they do.
    next_at_ns: u64,
    every_ns: u64,
    number: u64,
    levels: Vec<Level>,
    /// How often who is refused asks again at once, and who will in the next turn.
    retries: u32,
    again: Vec<(KeyHash, u32)>,
    /// How often the shard is held up for 8 ms by something else.
    held_up_every_ns: u64,
    held_up_at_ns: u64,
}

fn miss(hash: KeyHash) -> Miss {
    Miss {
        waiter: Waiter::Local(ReplyRef::NONE),
        hash,
        by: NO_TENANT,
        class: Class::Standard,
        key: None,
    }
}

/// What a while came to.
#[derive(Debug, Default)]
struct Sum {
    served: u64,
    asked: u64,
    /// From arrival to the end of the turn, of those that were served.
    waited_ns: Vec<u64>,
    /// Those that were served of the lower half of the cohorts.
    served_of_lower_half: u64,
    /// Those that were served, by their cohorts.
    cohorts: Vec<u64>,
}

impl Sum {
    fn p99_ns(&mut self) -> u64 {
        self.waited_ns.sort_unstable();
        self.waited_ns[self.waited_ns.len() * 99 / 100]
    }
}

impl World {
    fn new() -> Self {
        let overload = Overload::new(TARGET, 10_000);
        let levels = vec![Level::Normal];
        let hasher = KeyHasher::new([7, 9]);
        Self {
            overload,
            hasher,
            now_ns: 0,
            next_at_ns: 0,
            every_ns: SECOND_NS,
            number: 0,
            levels,
            retries: 0,
            again: Vec::new(),
            held_up_every_ns: u64::MAX,
            held_up_at_ns: 0,
        }
    }

    /// Offers this share of what the shard can do, in percent.
    fn offer(&mut self, percent: u64) {
        self.every_ns = MISS_NS * 100 / percent;
        self.next_at_ns = self.now_ns + self.every_ns;
    }

    fn run(&mut self, seconds: u64) -> Sum {
        let mut sum = Sum::default();
        let end_ns = self.now_ns + seconds * SECOND_NS;
        while self.now_ns < end_ns {
            self.turn(&mut sum);
        }
        sum
    }

    fn turn(&mut self, sum: &mut Sum) {
        let (mut turn_ns, mut arrived_ns) = (0, Vec::new());
        let mut arriving: Vec<_> =
            self.again.drain(..).map(|(hash, left)| (hash, self.now_ns, left)).collect();
        while self.next_at_ns <= self.now_ns {
            let hash = self.hasher.hash(&self.number.to_le_bytes());
            self.number += 1;
            arriving.push((hash, self.next_at_ns, self.retries));
            self.next_at_ns += self.every_ns;
        }
        for (hash, at_ns, left) in arriving {
            sum.asked += 1;
            let is_begun = match self.overload.ask() {
                Verdict::Begin => true,
                Verdict::Later => {
                    self.overload.put_off(miss(hash));
                    false
                }
                Verdict::Refuse => unreachable!("there is room"),
            };
            arrived_ns.push((hash, at_ns, left, is_begun));
        }
        let mut later = self.overload.take_later();
        for miss in later.drain(..) {
            let arrived = arrived_ns.iter_mut().find(|(hash, ..)| *hash == miss.hash).unwrap();
            arrived.3 = self.overload.begins();
        }
        self.overload.give_back(later);
        sum.cohorts.resize(128, 0);
        for (hash, _, left, is_begun) in &arrived_ns {
            turn_ns += if *is_begun { MISS_NS } else { REFUSAL_NS };
            sum.served += u64::from(*is_begun);
            let cohort_index = usize::try_from(cohort(*hash)).unwrap();
            sum.cohorts[cohort_index] += u64::from(*is_begun);
            if !is_begun && *left > 0 {
                self.again.push((*hash, left - 1));
            }
            sum.served_of_lower_half += u64::from(*is_begun && cohort(*hash) < 64);
        }
        if self.now_ns - self.held_up_at_ns >= self.held_up_every_ns {
            self.held_up_at_ns = self.now_ns;
            turn_ns += 4 * TARGET_NS;
        }
        let entered_ns = self.now_ns + turn_ns;
        let served = arrived_ns.iter().filter(|(.., is_begun)| *is_begun);
        sum.waited_ns.extend(served.map(|(_, at_ns, ..)| entered_ns - at_ns));
        self.now_ns =
            if self.again.is_empty() { entered_ns.max(self.next_at_ns) } else { entered_ns };
        self.overload.observe(&TurnFacts {
            now: Instant::from_ns(self.now_ns),
            turn_ns,
            waited_ns: self.now_ns - entered_ns,
            replies: 0,
            rounds: 1,
            shortage: Shortage::Nothing,
        });
        if self.levels.last() != Some(&self.overload.level()) {
            self.levels.push(self.overload.level());
        }
    }

    fn level(&self) -> Level {
        self.overload.level()
    }
}

/// What is served of what could be, in percent.
fn goodput(sum: &Sum, seconds: u64) -> u64 {
    sum.served * 100 * MISS_NS / (seconds * SECOND_NS)
}

#[test]
fn below_its_capacity_a_shard_refuses_nothing() {
    let mut world = World::new();
    world.offer(70);
    let sum = world.run(20);
    assert_eq!(sum.served, sum.asked);
    assert_eq!(world.level(), Level::Normal);
}

#[test]
fn beyond_it_a_shard_serves_about_as_much_as_at_its_peak_and_soon() {
    let (mut all, wanted) = (Vec::new(), [(2, 98), (5, 95), (10, 90)]);
    for (times, _) in wanted {
        let mut world = World::new();
        world.offer(70);
        world.run(5);
        world.offer(times * 100);
        let mut sum = world.run(10);
        // A turn of the smaller budget, the one before it, and some refusals.
        assert!(sum.p99_ns() < 2 * u64::try_from(TARGET.as_nanos()).unwrap());
        all.push(goodput(&sum, 10));
        assert!(world.level() >= Level::Brownout);
    }
    assert!(all.iter().zip(wanted).all(|(good, (_, least))| *good >= least), "{all:?}");
}

#[test]
fn when_less_is_offered_again_everything_is_served_within_a_second() {
    let mut world = World::new();
    world.offer(1_000);
    world.run(5);
    world.offer(70);
    world.run(1);
    let sum = world.run(10);
    assert_eq!(sum.served, sum.asked);
    assert_eq!(world.level(), Level::Normal, "{:?}", world.levels);
}

#[test]
fn what_came_while_a_shard_was_held_up_is_not_refused_if_it_has_time_for_it() {
    let mut world = World::new();
    world.offer(1_000);
    world.run(5);
    world.offer(60);
    world.held_up_every_ns = SECOND_NS / 10;
    world.run(1);
    let sum = world.run(10);
    assert_eq!(sum.served, sum.asked);
    assert!(world.levels.len() > 2, "it is held up for long enough to leave the calm");
}

#[test]
fn the_same_keys_are_refused_while_the_load_stays_the_same() {
    let mut world = World::new();
    world.offer(200);
    world.run(5);
    let sum = world.run(10);
    // By chance it would be half of them.
    let percent = sum.served_of_lower_half * 100 / sum.served;
    assert!(percent >= 80, "{percent}% of what is served is of the lower half");
}

#[test]
fn a_ramp_up_and_down_walks_the_levels_one_by_one() {
    let mut world = World::new();
    for step in 0..=70_u64 {
        world.offer(400 - step.abs_diff(35) * 10);
        world.run(1);
    }
    world.run(5);
    assert_eq!(world.level(), Level::Normal);
    for pair in world.levels.windows(2) {
        assert_eq!((pair[0] as i8 - pair[1] as i8).abs(), 1, "{:?}", world.levels);
    }
}

#[test]
fn one_long_turn_changes_nothing_and_long_ones_lead_up_to_the_last_level_and_back() {
    let mut overload = Overload::new(TARGET, 10_000);
    let mut now_ns = 0;
    let shortage = Shortage::Nothing;
    let mut turn = |overload: &mut Overload, turn_ns: u64, waited_ns: u64| {
        now_ns += turn_ns + waited_ns;
        let now = Instant::from_ns(now_ns);
        overload.observe(&TurnFacts { now, turn_ns, waited_ns, replies: 1, rounds: 1, shortage });
        overload.level()
    };
    const MS: u64 = 1_000_000;
    assert_eq!(turn(&mut overload, 400 * MS, 0), Level::Normal);
    for _ in 0..3 {
        assert_eq!(turn(&mut overload, MS, 20 * MS), Level::Normal);
    }
    assert_eq!(turn(&mut overload, 50 * MS, 0), Level::Normal);
    let up = [(); 6].map(|()| turn(&mut overload, 50 * MS, 0));
    use Level::{Brownout, Elevated, Emergency, Shed};
    assert_eq!(up, [Elevated, Brownout, Shed, Emergency, Emergency, Emergency]);
    let mut down = vec![Emergency];
    for _ in 0..500 {
        let level = turn(&mut overload, MS, 20 * MS);
        if down.last() != Some(&level) {
            down.push(level);
        }
    }
    assert_eq!(down, [Emergency, Shed, Brownout, Elevated, Level::Normal]);
}

#[test]
fn a_shard_that_is_always_busy_with_hits_is_elevated_and_refuses_nothing() {
    let mut overload = Overload::new(TARGET, 10_000);
    for number in 1..1_000_u64 {
        let now = Instant::from_ns(number * 500_000);
        overload.observe(&TurnFacts {
            now,
            turn_ns: 500_000,
            waited_ns: 0,
            replies: 400,
            rounds: 1,
            shortage: Shortage::Nothing,
        });
        assert_eq!(overload.ask(), Verdict::Begin);
    }
    assert_eq!(overload.level(), Level::Elevated);
}

#[test]
fn misses_that_are_cheap_beside_many_hits_are_not_what_is_refused() {
    let mut overload = Overload::new(TARGET, 10_000);
    for number in 1..2_000_u64 {
        let now = Instant::from_ns(number * 5_000_000);
        let mut admitted = 0;
        for key in 0..20 {
            match overload.ask() {
                Verdict::Begin => admitted += 1,
                Verdict::Later => overload.put_off(miss(KeyHash::from_bits(number * 100 + key))),
                Verdict::Refuse => unreachable!("there is room"),
            }
        }
        let mut later = overload.take_later();
        admitted += later.drain(..).filter(|_| overload.begins()).count();
        overload.give_back(later);
        assert!(admitted == 20 || number < 100, "{number}: {admitted}");
        // 5 us a reply; every other turn has no misses, and so tells what replies cost.
        overload.observe(&TurnFacts {
            now,
            turn_ns: 5_000_000,
            waited_ns: 0,
            replies: 1_000,
            rounds: 1,
            shortage: Shortage::Nothing,
        });
        let now = Instant::from_ns(number * 5_000_000 + 2_500_000);
        overload.observe(&TurnFacts {
            now,
            turn_ns: 2_500_000,
            waited_ns: 0,
            replies: 500,
            rounds: 1,
            shortage: Shortage::Nothing,
        });
    }
    assert_eq!(overload.level(), Level::Brownout);
}

/// Takes so many turns of this length, with a wait behind each.
fn turns(overload: &mut Overload, now_ns: &mut u64, count: u64, ms: (u64, u64), short: Shortage) {
    for _ in 0..count {
        let (turn_ns, waited_ns) = (ms.0 * 1_000_000, ms.1 * 1_000_000);
        *now_ns += turn_ns + waited_ns;
        overload.observe(&TurnFacts {
            now: Instant::from_ns(*now_ns),
            turn_ns,
            waited_ns,
            replies: 1,
            rounds: 1,
            shortage: short,
        });
    }
}

#[test]
fn a_lag_of_40_ms_sheds_whatever_the_target_is() {
    let mut overload = Overload::new(Duration::from_secs(3_600), 10_000);
    let mut now_ns = 0;
    turns(&mut overload, &mut now_ns, 20, (39, 20), Shortage::Nothing);
    assert_eq!(overload.level(), Level::Normal);
    turns(&mut overload, &mut now_ns, 20, (41, 20), Shortage::Nothing);
    assert_eq!(overload.level(), Level::Shed);
    let counts = LevelChanges { lag: 3, ..LevelChanges::default() };
    assert_eq!(overload.changes(), counts);
    turns(&mut overload, &mut now_ns, 40, (1, 20), Shortage::Nothing);
    assert_eq!(overload.level(), Level::Shed, "it has been calm for less than a second");
    turns(&mut overload, &mut now_ns, 500, (1, 20), Shortage::Nothing);
    assert_eq!(overload.level(), Level::Normal);
    assert_eq!(overload.changes(), LevelChanges { calm: 3, ..counts });
}

#[test]
fn a_process_that_is_short_of_something_is_not_calm_before_it_has_it_again() {
    let mut overload = Overload::new(TARGET, 10_000);
    let mut now_ns = 0;
    turns(&mut overload, &mut now_ns, 500, (1, 20), Shortage::Cpu);
    assert_eq!(overload.level(), Level::Elevated);
    turns(&mut overload, &mut now_ns, 500, (1, 20), Shortage::Memory);
    assert_eq!(overload.level(), Level::Emergency);
    assert_eq!(overload.changes(), LevelChanges { cpu: 1, memory: 3, ..LevelChanges::default() });
    turns(&mut overload, &mut now_ns, 500, (1, 20), Shortage::Nothing);
    assert_eq!(overload.level(), Level::Normal);
}

#[test]
fn a_load_that_comes_and_goes_is_served_whenever_it_is_small() {
    let mut world = World::new();
    for _ in 0..10 {
        world.offer(500);
        let much = world.run(2);
        assert!(goodput(&much, 2) >= 95, "{much:?}");
        world.offer(70);
        world.run(1);
        let little = world.run(2);
        assert_eq!(little.served, little.asked);
    }
}

#[test]
fn clients_that_ask_again_at_once_when_they_are_refused_do_not_keep_it_overloaded() {
    let mut world = World::new();
    world.retries = 3;
    world.offer(200);
    let storm = world.run(10);
    assert!(storm.asked > 30_000 * 1_000 / 750, "{} have come again", storm.asked);
    // What comes again costs a refusal each time, and takes no other's place.
    assert!(goodput(&storm, 10) >= 95, "{}", goodput(&storm, 10));
    world.offer(70);
    world.run(1);
    let sum = world.run(10);
    assert_eq!(sum.served, sum.asked);
    assert_eq!(world.level(), Level::Normal);
}

#[test]
fn of_misses_that_were_put_off_those_of_a_higher_class_come_first() {
    let mut world = World::new();
    let classes = [Class::Sheddable, Class::Standard, Class::Critical];
    for number in 0..30_u8 {
        let class = classes[usize::from(number % 3)];
        world.overload.put_off(Miss { class, ..miss(world.hasher.hash(&[number])) });
    }
    let later: Vec<Class> = world.overload.take_later().iter().map(|miss| miss.class).collect();
    assert_eq!(later.len(), 30);
    assert!(later.is_sorted(), "{later:?}");
}

#[test]
fn no_cohort_is_left_out_while_there_is_room() {
    let mut world = World::new();
    world.offer(1_000);
    world.run(5);
    world.offer(90);
    world.run(2);
    let sum = world.run(20);
    assert_eq!(sum.served, sum.asked);
    assert!(sum.cohorts.iter().all(|&served| served > 0), "{:?}", sum.cohorts);
}
