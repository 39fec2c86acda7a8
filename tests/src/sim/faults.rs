//! What may go wrong in a run.
//!
//! Faults that always happen a little hide each other: a server whose receives always end early
//! never fills a buffer. So each seed turns whole kinds of faults on or off (Groce et al., "Swarm
//! testing", 2012), and gives those that are on a likelihood of their own.

use crate::prng::Prng;

/// What may go wrong in the simulated kernel: likelihoods per mille, and one delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A completion comes at most this late.
    pub delay_ns_max: u64,
    /// A receive delivers fewer bytes than there are.
    pub receive_short: u32,
    /// A receive or accept shot ends by itself.
    pub shot_end: u32,
    /// A send takes only some of the bytes for now.
    pub send_piece: u32,
    /// A send that took some of its bytes completes with them.
    pub send_short: u32,
    /// An accept fails although a descriptor is free.
    pub accept_failure: u32,
    /// A cancelled operation completes as if it were not cancelled, if it can.
    pub cancel_lost: u32,
    /// A turn shows only some of the completions that were posted.
    pub hold_back: u32,
    /// A turn returns early and empty.
    pub turn_empty: u32,
    /// The wall clock steps.
    pub wall_step: u32,
}

impl Faults {
    /// A kernel on its best day.
    pub const NONE: Self = Self {
        delay_ns_max: 1_000,
        receive_short: 0,
        shot_end: 0,
        send_piece: 0,
        send_short: 0,
        accept_failure: 0,
        cancel_lost: 0,
        hold_back: 0,
        turn_empty: 0,
        wall_step: 0,
    };

    /// Some faults on, some off.
    pub fn draw(prng: &mut Prng) -> Self {
        Self {
            delay_ns_max: prng.pick(&[1_000, 20_000, 200_000, 2_000_000]),
            receive_short: some(prng, 900),
            shot_end: some(prng, 300),
            send_piece: some(prng, 500),
            send_short: some(prng, 500),
            accept_failure: some(prng, 200),
            cancel_lost: some(prng, 700),
            hold_back: some(prng, 500),
            turn_empty: some(prng, 200),
            wall_step: some(prng, 5),
        }
    }
}

/// What may go wrong in the simulated origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginFaults {
    /// A fetch takes at most this long.
    pub delay_ns_max: u64,
    /// A fetch of a key that has a value fails, per mille.
    pub failure: u32,
}

impl OriginFaults {
    /// An origin on its best day.
    pub const NONE: Self = Self { delay_ns_max: 1_000, failure: 0 };

    /// Some faults on, some off.
    pub fn draw(prng: &mut Prng) -> Self {
        Self {
            delay_ns_max: prng.pick(&[0, 100_000, 10_000_000, FETCH_NS_MAX]),
            failure: some(prng, 300),
        }
    }
}

/// No fetch takes longer.
pub(super) const FETCH_NS_MAX: u64 = 300_000_000;

/// Off every other time, else a likelihood up to `max`.
pub(super) fn some(prng: &mut Prng, max: u32) -> u32 {
    if prng.coin() { 0 } else { u32::try_from(prng.range(1, max.into())).expect("it is small") }
}
