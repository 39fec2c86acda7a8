//! Which entries give way: three policies behind one trait.
//!
//! A policy is a table of decisions without state: what a hit does to the two frequency bits of an
//! index slot, in which pool a new key begins, which pool loses its oldest segment, and what
//! becomes of the entries in it. The log, the ghost and the bounds on work are the cache's own and
//! the same for all, so that policies are compared by what they decide and by nothing else.
//!
//! [`S3Fifo`] is the default: it keeps one-hit keys out of the main pool, writes on a hit only
//! until a key has three, and loses little to the same policy at the granularity of objects.

use std::fmt;

/// Which of the two queues of segments an entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Where new keys are on probation.
    Small,
    /// Where keys are that have proved themselves.
    Main,
    /// Where entries are that were spared because their group takes no more than it is guaranteed.
    /// A policy never names it; what it judges here it judges as in the main pool.
    Guaranteed,
}

impl Pool {
    /// Where the policy would have it.
    pub(crate) const fn of_policy(self) -> Self {
        match self {
            Self::Small => Self::Small,
            Self::Main | Self::Guaranteed => Self::Main,
        }
    }
}

/// What becomes of an entry whose segment is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It moves to the end of the main pool's queue, with this frequency.
    Keep {
        /// At most [`FREQUENCY_MAX`].
        frequency: u8,
    },
    /// It goes.
    Drop {
        /// The ghost remembers its key.
        is_remembered: bool,
    },
}

/// The largest frequency that a slot can hold.
pub const FREQUENCY_MAX: u8 = 3;

/// Decides what is kept.
pub trait Policy: fmt::Debug {
    /// The frequency after a hit on an entry of this frequency. Where both are the same, a hit
    /// writes nothing.
    fn hit(frequency: u8) -> u8;

    /// The pool in which a key begins that is not in the cache; the ghost may remember it.
    fn admit(is_remembered: bool) -> Pool;

    /// The pool that loses its oldest segment, where the small one has `small_count` of
    /// `segments_count` in the arena. If that pool is empty, the other one does.
    fn source(small_count: u32, segments_count: u32) -> Pool;

    /// What becomes of an entry of this frequency, in the oldest segment of `pool`.
    fn judge(pool: Pool, frequency: u8) -> Verdict;
}

/// First in, first out: one queue, and hits leave no trace.
#[derive(Clone, Copy, Debug)]
pub enum Fifo {}

impl Policy for Fifo {
    fn hit(frequency: u8) -> u8 {
        frequency
    }

    fn admit(_: bool) -> Pool {
        Pool::Main
    }

    fn source(_: u32, _: u32) -> Pool {
        Pool::Main
    }

    fn judge(_: Pool, _: u8) -> Verdict {
        Verdict::Drop { is_remembered: false }
    }
}

/// Least recently used, as far as a log can tell: an entry that was read since it was written or
/// last spared is spared once more (the second chance of CLOCK).
#[derive(Clone, Copy, Debug)]
pub enum Lru {}

impl Policy for Lru {
    fn hit(_: u8) -> u8 {
        1
    }

    fn admit(_: bool) -> Pool {
        Pool::Main
    }

    fn source(_: u32, _: u32) -> Pool {
        Pool::Main
    }

    fn judge(_: Pool, frequency: u8) -> Verdict {
        match frequency {
            0 => Verdict::Drop { is_remembered: false },
            _ => Verdict::Keep { frequency: 0 },
        }
    }
}

/// S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), with
/// segments in its queues: a key leaves the small pool for the main one if it was hit there, and is
/// spared there once for each hit. What leaves the small pool without a hit is remembered by the
/// ghost, and begins in the main pool if it comes back.
#[derive(Clone, Copy, Debug)]
pub enum S3Fifo {}

/// The small pool's share of the arena.
const SMALL_PERCENT: u32 = 10;

impl Policy for S3Fifo {
    #[inline]
    fn hit(frequency: u8) -> u8 {
        if frequency < FREQUENCY_MAX { frequency + 1 } else { FREQUENCY_MAX }
    }

    fn admit(is_remembered: bool) -> Pool {
        if is_remembered { Pool::Main } else { Pool::Small }
    }

    fn source(small_count: u32, segments_count: u32) -> Pool {
        let share = u64::from(segments_count) * u64::from(SMALL_PERCENT) / 100;
        if u64::from(small_count) > share.max(1) { Pool::Small } else { Pool::Main }
    }

    fn judge(pool: Pool, frequency: u8) -> Verdict {
        match (pool, frequency) {
            (Pool::Small, 0) => Verdict::Drop { is_remembered: true },
            (Pool::Small, _) => Verdict::Keep { frequency: 0 },
            (Pool::Main | Pool::Guaranteed, 0) => Verdict::Drop { is_remembered: false },
            (Pool::Main | Pool::Guaranteed, _) => Verdict::Keep { frequency: frequency - 1 },
        }
    }
}
