//! What a shard does without when it has more to do than it can: a level, and whose misses are
//! admitted.
//!
//! The signal is the lag of the loop: how long a turn takes is how long what has arrived waits for
//! the next one. Every 10 ms the longest turn since the last look is taken down, and the middle one
//! of three such looks decides, so that one long turn changes nothing.
//!
//! ```text
//! lag, targets   1          2           6        20
//!     Normal  |  Elevated | Brownout  | Shed   | Emergency      up: one a look
//!                0.6        1.2         3.6      12              down: one a second, below this
//! ```
//!
//! From a lag of 40 ms on it sheds whatever the target is. A shard that is busy for 85% of its
//! time, or whose process is held back by its control group, is elevated at least; one whose
//! process will soon have no memory is in an emergency, one level a look.
//!
//! A hit costs about what a refusal costs, so refusing hits helps nobody; a miss costs many times
//! more. So a turn has a budget of misses: the target, divided by what a miss was seen to cost
//! this shard; four times that below [`Level::Brownout`]. Those that are not admitted at once are
//! put off to the end of the turn: then the budget is given to the first of them, and the others
//! are refused. Time in which the shard had nothing to do is a credit of up to three targets: what
//! came while it was held up is not refused, unless it is held up by misses.
//!
//! Who is first is not left to chance. Tenants of a higher class come first. Then, keys fall
//! into 128 cohorts by their hash, and lower ones come first, so that the same keys are
//! fetched, and then are hits, instead of all being refused now and then (the idea is that of
//! DAGOR, `SoCC` 2018, and of Uber's Cinnamon).

#[cfg(feature = "busy-cost")]
use super::busy_cost::BusyCost;
use super::flights::Waiter;
use crate::limits::MISS_SIZE_MAX;
use crate::mesh::{Class, Shortage, TenantIndex};
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use std::time::Duration;

/// How often the signals are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long the lag is to be low before the level goes down by one.
const CALM: Duration = Duration::from_secs(1);

/// Of the time between two looks, how much a shard that is busy works, in percent: with more than
/// that it gives up what can wait.
const BUSY_PERCENT: u64 = 85;

/// How many targets' time a shard may save up for misses.
const CREDIT_TARGETS_MAX: u64 = 3;

/// From this lag on a shard sheds, whatever the target is: the outermost guard.
const LAG_MAX_NS: u64 = 40_000_000;

/// How loaded a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Everything is done.
    Normal,
    /// Nothing is fetched early.
    Elevated,
    /// Misses have a small budget.
    Brownout,
    /// Stale values are not fetched anew either.
    Shed,
    /// Misses have a quarter of that budget.
    Emergency,
}

impl Level {
    /// All levels, from the calmest on.
    pub const ALL: [Self; 5] =
        [Self::Normal, Self::Elevated, Self::Brownout, Self::Shed, Self::Emergency];

    /// The lowest level while the process is short of this.
    const fn least(shortage: Shortage) -> Self {
        match shortage {
            Shortage::Nothing => Self::Normal,
            Shortage::Cpu => Self::Elevated,
            Shortage::Memory => Self::Emergency,
        }
    }

    /// The lag from which on a shard is at this level, in tenths of the target.
    const fn lag_tenths(self) -> u64 {
        match self {
            Self::Normal => 0,
            Self::Elevated => 10,
            Self::Brownout => 20,
            Self::Shed => 60,
            Self::Emergency => 200,
        }
    }

    fn up(self) -> Self {
        Self::ALL.get(self as usize + 1).copied().unwrap_or(self)
    }

    fn down(self) -> Self {
        (self as usize).checked_sub(1).map_or(self, |index| Self::ALL[index])
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Brownout => "brownout",
            Self::Shed => "shed",
            Self::Emergency => "emergency",
        }
    }
}

/// What one turn was.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnFacts {
    /// When the next turn began.
    pub(super) now: Instant,
    /// How long it took, nanoseconds: the wait before the next one is not in it.
    pub(super) turn_ns: u64,
    /// How long the wait before the next one took, nanoseconds.
    pub(super) waited_ns: u64,
    /// Hits and others that were answered.
    pub(super) replies: u64,
    /// Passes that it would take to come round to everybody who is ready; at least one.
    pub(super) rounds: u64,
    /// What the process is short of.
    pub(super) shortage: Shortage,
}

/// Why a level was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Up: the lag was too long.
    Lag,
    /// Up: there was hardly any time left.
    Busy,
    /// Up: the process is short of CPU time, or of memory.
    Short(Shortage),
    /// Down.
    Calm,
}

/// A miss that was put off to the end of its turn.
#[derive(Debug)]
pub(super) struct Miss {
    /// Who waits.
    pub(super) waiter: Waiter,
    /// The hash of the key.
    pub(super) hash: KeyHash,
    /// Who asks, and how much he matters.
    pub(super) by: TenantIndex,
    pub(super) class: Class,
    /// Where the key lies among those of the requests of this turn; nowhere where a parcel has it.
    pub(super) key: Option<(u32, u16)>,
}

const _: () = assert!(size_of::<Miss>() as u64 <= MISS_SIZE_MAX, "the bill says so");

/// What becomes of a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is fetched.
    Begin,
    /// It is put off to the end of the turn.
    Later,
    /// It is refused.
    Refuse,
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug)]
struct Looks {
    lag_ns: u64,
    busy_ns: u64,
    waited_ns: u64,
    is_refusing: bool,
}

impl Looks {
    const NOTHING: Self = Self { lag_ns: 0, busy_ns: 0, waited_ns: 0, is_refusing: false };

    const fn busy_percent(&self) -> u64 {
        match self.busy_ns + self.waited_ns {
            0 => 0,
            all_ns => self.busy_ns * 100 / all_ns,
        }
    }
}

/// The controller of one shard.
#[derive(Debug)]
pub(super) struct Overload {
    target_ns: u64,
    level: Level,
    /// Changes of the level, by their reasons.
    changes: LevelChanges,
    looked_at: Instant,
    seen: Looks,
    /// Lags of the last three looks.
    lags_ns: [u64; 3],
    /// Busy times of the last three looks, percent.
    busy_percents: [u64; 3],
    calm_since: Instant,
    /// Misses of this turn that were admitted.
    used: u32,
    /// The turn before has left some of its budget.
    has_slack: bool,
    /// For misses beyond the budget, nanoseconds.
    credit_ns: u64,
    /// Misses of this turn that were put off.
    later: Vec<Miss>,
    /// What a reply and a miss cost this shard, nanoseconds.
    reply_ns: u64,
    miss_ns: u64,
    /// What a miss of each of the last three turns cost that had some.
    misses_ns: [u64; 3],
    #[cfg(feature = "busy-cost")]
    pub(super) busy_cost: BusyCost,
}

impl Overload {
    /// Calm, with this target for the lag, and room for so many misses to be put off.
    pub(super) fn new(target: Duration, later_max: u32) -> Self {
        Self {
            target_ns: u64::try_from(target.as_nanos()).expect("a configured duration is bounded"),
            level: Level::Normal,
            changes: LevelChanges::default(),
            looked_at: Instant::ZERO,
            seen: Looks::NOTHING,
            lags_ns: [0; 3],
            busy_percents: [0; 3],
            calm_since: Instant::ZERO,
            used: 0,
            has_slack: true,
            credit_ns: 0,
            later: Vec::with_capacity(later_max as usize),
            reply_ns: 1_000,
            miss_ns: 1_000,
            misses_ns: [1_000; 3],
            #[cfg(feature = "busy-cost")]
            busy_cost: BusyCost::of_environment(),
        }
    }

    /// The level.
    pub(super) const fn level(&self) -> Level {
        self.level
    }

    /// Whether no miss is put off.
    pub(super) const fn has_decided(&self) -> bool {
        self.later.is_empty()
    }

    /// The lag that decides, nanoseconds.
    pub(super) const fn lag_ns(&self) -> u64 {
        middle(self.lags_ns)
    }

    /// Changes of the level.
    pub(super) const fn changes(&self) -> LevelChanges {
        self.changes
    }

    /// What becomes of one more miss. Who is told to begin begins.
    pub(super) fn ask(&mut self) -> Verdict {
        if self.level < Level::Brownout && self.used < self.budget() {
            self.used += 1;
            Verdict::Begin
        } else if self.later.len() < self.later.capacity() {
            Verdict::Later
        } else {
            self.seen.is_refusing = true;
            Verdict::Refuse
        }
    }

    /// Puts a miss off, as was said.
    pub(super) fn put_off(&mut self, miss: Miss) {
        assert!(self.later.len() < self.later.capacity(), "there was room when it was said");
        self.later.push(miss);
    }

    /// The misses that were put off, those that come first in front. They are to be given back.
    pub(super) fn take_later(&mut self) -> Vec<Miss> {
        let mut later = std::mem::take(&mut self.later);
        later.sort_unstable_by_key(|miss| (miss.class, cohort(miss.hash)));
        later
    }

    /// Whether one of these is begun; who is told so begins.
    pub(super) fn begins(&mut self) -> bool {
        let has_room = self.used < self.budget();
        self.used += u32::from(has_room);
        self.seen.is_refusing |= !has_room;
        has_room
    }

    /// The end of those that were put off.
    pub(super) fn give_back(&mut self, later: Vec<Miss>) {
        assert!(later.is_empty(), "every miss is begun or refused");
        self.later = later;
    }

    /// Whether what nobody waits for may be fetched: in a brownout only what misses leave.
    pub(super) fn may_refresh(&mut self) -> bool {
        let may = match self.level {
            Level::Normal | Level::Elevated => true,
            Level::Brownout => self.has_slack,
            Level::Shed | Level::Emergency => false,
        };
        may && self.begins()
    }

    /// How many misses a turn may have.
    fn budget(&self) -> u32 {
        let ns = match self.level {
            Level::Normal | Level::Elevated => self.target_ns * (1 + CREDIT_TARGETS_MAX),
            Level::Brownout | Level::Shed | Level::Emergency => self.budget_ns() + self.credit_ns,
        };
        u32::try_from(ns / self.miss_ns.max(1)).unwrap_or(u32::MAX).max(1)
    }

    /// How long the misses of a turn may take without credit.
    fn budget_ns(&self) -> u64 {
        match self.level {
            Level::Emergency => self.target_ns.min(LAG_MAX_NS) / 4,
            Level::Shed => self.target_ns.min(LAG_MAX_NS),
            Level::Normal | Level::Elevated | Level::Brownout => self.target_ns,
        }
    }

    /// What a turn has taken of the credit, and what the wait behind it has given.
    fn settle_credit(&mut self, waited_ns: u64) {
        let taken_ns = (u64::from(self.used) * self.miss_ns).saturating_sub(self.budget_ns());
        let left_ns = self.credit_ns.saturating_sub(taken_ns);
        self.credit_ns = (left_ns + waited_ns).min(self.target_ns * CREDIT_TARGETS_MAX);
    }

    /// A turn is over.
    pub(super) fn observe(&mut self, turn: &TurnFacts) {
        self.learn_costs(turn);
        self.has_slack = self.used < self.budget();
        self.settle_credit(turn.waited_ns);
        self.used = 0;
        let seen = &mut self.seen;
        seen.lag_ns = seen.lag_ns.max(turn.turn_ns * turn.rounds);
        seen.busy_ns += turn.turn_ns;
        seen.waited_ns += turn.waited_ns;
        if turn.now < self.looked_at + LOOK {
            return;
        }
        self.looked_at = turn.now;
        let seen = std::mem::replace(&mut self.seen, Looks::NOTHING);
        self.lags_ns = [self.lags_ns[1], self.lags_ns[2], seen.lag_ns];
        self.busy_percents = [self.busy_percents[1], self.busy_percents[2], seen.busy_percent()];
        self.set_level(turn, seen.is_refusing);
    }

    /// A turn without misses says what a reply costs, and one with misses what those do; the middle
    /// one of three, since a turn that is held up says nothing.
    fn learn_costs(&mut self, turn: &TurnFacts) {
        let TurnFacts { turn_ns, replies, .. } = *turn;
        if self.used > 0 {
            let misses_ns = turn_ns.saturating_sub(replies * self.reply_ns);
            self.misses_ns =
                [self.misses_ns[1], self.misses_ns[2], misses_ns / u64::from(self.used)];
            self.miss_ns = closer(self.miss_ns, middle(self.misses_ns));
        } else if let Some(reply_ns) = turn_ns.checked_div(replies) {
            self.reply_ns = closer(self.reply_ns, reply_ns);
        }
    }

    /// Goes up by one a look, and down by one once a second has been calm.
    fn set_level(&mut self, turn: &TurnFacts, is_refusing: bool) {
        let (now, least) = (turn.now, Level::least(turn.shortage));
        if let Some(reason) = self.why_up(turn.shortage) {
            self.change(self.level.up(), reason, now);
            return;
        }
        let (lag_ns, busy) = (middle(self.lags_ns), middle(self.busy_percents));
        let is_low = lag_ns < self.entry_ns(self.level) * 6 / 10 && self.level > least;
        let is_calm = match self.level {
            Level::Normal => false,
            Level::Elevated => is_low && busy < BUSY_PERCENT - 10,
            // As long as there is too much the budget alone keeps the lag low.
            Level::Brownout => is_low && !is_refusing,
            Level::Shed | Level::Emergency => is_low,
        };
        if !is_calm {
            self.calm_since = now;
        } else if now >= self.calm_since + CALM {
            self.change(self.level.down(), Reason::Calm, now);
        }
    }

    /// Why the level is to go up, if it is.
    fn why_up(&self, shortage: Shortage) -> Option<Reason> {
        if self.level == Level::Emergency {
            None
        } else if self.level < Level::least(shortage) {
            Some(Reason::Short(shortage))
        } else if middle(self.lags_ns) >= self.entry_ns(self.level.up()) {
            Some(Reason::Lag)
        } else {
            let is_busy = middle(self.busy_percents) >= BUSY_PERCENT;
            (self.level == Level::Normal && is_busy).then_some(Reason::Busy)
        }
    }

    /// The lag from which on a shard is at a level, nanoseconds.
    fn entry_ns(&self, level: Level) -> u64 {
        let of_target_ns = self.target_ns * level.lag_tenths() / 10;
        match level {
            Level::Emergency => of_target_ns,
            Level::Normal | Level::Elevated | Level::Brownout | Level::Shed => {
                of_target_ns.min(LAG_MAX_NS)
            }
        }
    }

    const fn change(&mut self, level: Level, reason: Reason, now: Instant) {
        self.level = level;
        self.calm_since = now;
        self.changes.count(reason);
    }
}

/// Changes of the level, by their reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelChanges {
    pub(super) lag: u64,
    pub(super) busy: u64,
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) calm: u64,
}

impl LevelChanges {
    const fn count(&mut self, reason: Reason) {
        let count = match reason {
            Reason::Lag => &mut self.lag,
            Reason::Busy => &mut self.busy,
            Reason::Short(Shortage::Cpu | Shortage::Nothing) => &mut self.cpu,
            Reason::Short(Shortage::Memory) => &mut self.memory,
            Reason::Calm => &mut self.calm,
        };
        *count += 1;
    }
}

/// The cohort of a key, below 128: by all bits of its hash, of which some place it.
const fn cohort(hash: KeyHash) -> u64 {
    hash.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57
}

const fn middle([a, b, c]: [u64; 3]) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if c < low {
        low
    } else if c > high {
        high
    } else {
        c
    }
}

/// An eighth of the way from what was known to what was seen.
const fn closer(known: u64, seen: u64) -> u64 {
    known - known / 8 + seen / 8
}

#[cfg(test)]
mod tests;
