//! The simulated machine that all rings of a world share: its clock, its network, its record.

#![expect(clippy::disallowed_types, reason = "all actors of a world share it, in one thread")]

use super::badge::Quota;
use super::faults::Faults;
use super::marks::{Mark, Marks};
use super::net::Net;
use super::trace::{Trace, Who};
use crate::prng::Prng;
use pelton::ring::Token;
use shard_cache::time::{Instant, WallSeconds};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// What the wall clock shows when a run begins: 2026-11-23 00:00:00 UTC.
const WALL_FIRST: u64 = 1_795_392_000;

/// How far the wall clock steps at most, seconds.
const WALL_STEP_MAX: u64 = 7200;

/// A wake-up on its way to a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake {
    /// When it arrives.
    pub(super) due: Instant,
    /// To which shard.
    pub(super) shard: u16,
}

/// Everyone who may act while a shard is stalled in the middle of a turn.
pub trait Others: fmt::Debug {
    /// Lets them act until then.
    fn go_on(&self, until: Instant);
}

/// The machine.
#[derive(Debug)]
pub struct Host {
    now: Instant,
    wall_offset: u64,
    /// Draws for whatever is not a client's own behaviour.
    pub(super) prng: Prng,
    /// What may go wrong.
    pub faults: Faults,
    /// Sockets and descriptors.
    pub net: Net,
    /// What happened.
    pub trace: Trace,
    /// Which rare paths were walked.
    pub marks: Marks,
    /// What the tenant with a rate has got.
    pub(super) quota: Quota,
    /// Sends that completed with fewer bytes than asked.
    pub(super) sends_short: u64,
    pub(super) wakes: Vec<Wake>,
    /// Who acts while a shard is stalled; nobody where a ring is played with alone.
    pub(super) others: Option<Weak<dyn Others>>,
    /// How many shards share the machine.
    pub(super) shards_count: u16,
}

impl Host {
    /// A machine on which nothing has happened yet.
    #[must_use]
    pub fn new(prng: Prng, faults: Faults, net: Net, shards_count: u16) -> Self {
        Self {
            // Not zero: a shard may not take a fresh process for one at rest.
            now: Instant::from_ns(1_000_000),
            wall_offset: WALL_FIRST,
            prng,
            faults,
            net,
            trace: Trace::default(),
            marks: Marks::default(),
            quota: Quota::new(shards_count),
            sends_short: 0,
            wakes: Vec::new(),
            others: None,
            shards_count,
        }
    }

    /// The monotonic time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock, which steps.
    #[must_use]
    pub const fn wall(&self) -> WallSeconds {
        WallSeconds(self.wall_offset + self.now.ns() / 1_000_000_000)
    }

    /// Lets a moment go by, as code takes its time.
    pub(super) fn pass(&mut self) {
        let moment = Duration::from_nanos(self.prng.range(100, 10_000));
        self.now = self.now + moment;
    }

    /// Lets time go on to `until`; it never goes back.
    pub fn advance(&mut self, until: Instant) {
        self.now = self.now.max(until);
        if self.prng.chance(self.faults.wall_step) {
            let step = self.prng.range(1, WALL_STEP_MAX);
            if self.prng.coin() {
                self.wall_offset += step;
                self.marks.hit(Mark::WallForwards);
            } else {
                self.wall_offset -= step;
                self.marks.hit(Mark::WallBackwards);
            }
        }
    }

    /// A point in time after now, as late as the faults allow.
    pub(super) fn soon(&mut self) -> Instant {
        let delay_ns = self.prng.below(self.faults.delay_ns_max + 1);
        let due_ns = self.now.ns() + delay_ns;
        Instant::from_ns(due_ns.next_multiple_of(self.faults.quantum_ns))
    }

    /// Whether a fault of this likelihood happens now.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.prng.chance(per_mille)
    }

    /// Whether a shard is stalled now: until when, and who acts meanwhile.
    pub(super) fn stall(&mut self, shard: u16) -> Option<(Instant, Rc<dyn Others>)> {
        if self.faults.stall == 0 || !self.prng.chance(self.faults.stall) {
            return None;
        }
        let others = self.others.as_ref()?.upgrade()?;
        let most = self.faults.stall_ns_max;
        let most = if self.prng.chance(100) { most } else { most / 1000 };
        let stall_ns = self.prng.below(most);
        self.marks.hit(Mark::StalledInTurn);
        self.marks.hit_if(stall_ns > 1_000_000_000, Mark::StalledForLong);
        self.trace.note(self.now, Who::Ring(shard), "is stalled (ns)", [stall_ns, 0]);
        Some((self.now + Duration::from_nanos(stall_ns), others))
    }

    /// Writes a line about a submission of a shard.
    pub(super) fn note(&mut self, shard: u16, what: &'static str, token: Token, words: [u64; 2]) {
        self.trace.note_token(self.now, Who::Ring(shard), what, token, words);
    }
}
