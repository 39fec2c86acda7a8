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
    /// What happens, happens at multiples of this: the larger, the more of it is seen at once.
    pub quantum_ns: u64,
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
    /// A shard is stalled in the middle of a turn, at any place where it meets its ring.
    pub stall: u32,
    /// A stall lasts at most this long.
    pub stall_ns_max: u64,
}

impl Faults {
    /// A kernel on its best day.
    pub const NONE: Self = Self {
        delay_ns_max: 1_000,
        quantum_ns: 1,
        receive_short: 0,
        shot_end: 0,
        send_piece: 0,
        send_short: 0,
        accept_failure: 0,
        cancel_lost: 0,
        hold_back: 0,
        turn_empty: 0,
        wall_step: 0,
        stall: 0,
        stall_ns_max: 0,
    };

    /// A kernel on its best day, and a processor that is often given to others for a moment: what
    /// they do then is seen late, or never by who does not look again before it sleeps.
    pub const STALLS: Self = Self { stall: 50, stall_ns_max: 10_000_000, ..Self::NONE };

    /// Each kind is on `on` times in a thousand.
    pub fn draw(prng: &mut Prng, on: u32) -> Self {
        let quantum_ns = prng.pick(&[1, 100_000, 1_000_000]);
        let stall_ns_max = prng.pick(&STALLS_NS_MAX);
        let mut some = |most| some(prng, on, most);
        Self {
            delay_ns_max: some(2_000_000).into(),
            quantum_ns,
            receive_short: some(900),
            shot_end: some(300),
            send_piece: some(500),
            send_short: some(500),
            accept_failure: some(200),
            cancel_lost: some(700),
            hold_back: some(500),
            turn_empty: some(200),
            wall_step: some(5),
            stall: some(20),
            stall_ns_max,
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
    /// The origin goes down for a while, per mille and fetch: all fetches fail.
    pub outage: u32,
    /// A value is larger than it may be, per mille.
    pub oversized: u32,
    /// A value is fresh for less than the usual time, per mille.
    pub short_lived: u32,
    /// The plane is not told what becomes of a write, per mille.
    pub write_unknown: u32,
    /// A value that the shard has is not brought again, per mille: it is no fault.
    pub unchanged: u32,
}

impl OriginFaults {
    /// An origin on its best day.
    pub const NONE: Self = Self {
        delay_ns_max: 1_000,
        failure: 0,
        outage: 0,
        oversized: 0,
        short_lived: 0,
        write_unknown: 0,
        unchanged: 500,
    };

    /// Each kind is on `on` times in a thousand.
    pub fn draw(prng: &mut Prng, on: u32) -> Self {
        Self {
            delay_ns_max: prng.pick(&[0, 100_000, 10_000_000, FETCH_NS_MAX]),
            failure: some(prng, on, 300),
            outage: some(prng, on, 100),
            oversized: some(prng, on, 100),
            short_lived: some(prng, on, 500),
            write_unknown: some(prng, on, 300),
            unchanged: prng.pick(&[0, 500, 1000]),
        }
    }
}

/// No fetch takes longer.
pub(super) const FETCH_NS_MAX: u64 = 300_000_000;

/// How long the longest stalls last: one that hides in a wait, or one that outlasts every lease.
pub(super) const STALLS_NS_MAX: [u64; 4] = [400_000_000, 400_000_000, 400_000_000, 3_500_000_000];

/// Off, or `on` times in a thousand a likelihood up to `max`.
pub(super) fn some(prng: &mut Prng, on: u32, max: u32) -> u32 {
    if !prng.chance(on) {
        return 0;
    }
    u32::try_from(prng.range(1, max.into())).expect("it is at most a u32")
}
