//! Spreads over time what would else happen at once.
//!
//! Keys that were fetched together would be stale together, and be fetched together for ever; what
//! is drawn here lets them drift apart. It is drawn from the key and the time, so that a run can be
//! repeated.

use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use std::time::Duration;

/// Any part of `whole`, from none to all of it, as likely as any other.
pub(super) fn share_of(whole: Duration, hash: KeyHash, now: Instant) -> Duration {
    let ns = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let part = u128::from(mix(hash.bits() ^ mix(now.ns()))) * u128::from(ns);
    Duration::from_nanos(u64::try_from(part >> 64).expect("less than the whole"))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every other.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_keys_and_times_that_are_neighbours_are_spread_evenly() {
        let whole = Duration::from_millis(100);
        for neighbours_differ in ["keys", "times"] {
            let mut tenths = [0; 10];
            for number in 0..10_000 {
                let (key, ms) = if neighbours_differ == "keys" { (number, 7) } else { (7, number) };
                let now = Instant::from_ns(ms * 1_000_000);
                let share = share_of(whole, KeyHash::from_bits(key), now);
                assert!(share < whole);
                tenths[usize::try_from(share.as_millis() / 10).unwrap()] += 1;
            }
            assert!(tenths.iter().all(|count| (850..1_150).contains(count)), "{tenths:?}");
        }
        assert_eq!(share_of(Duration::ZERO, KeyHash::from_bits(7), Instant::ZERO), Duration::ZERO);
    }
}
