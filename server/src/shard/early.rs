//! What is read often is fetched before it is stale.
//!
//! Of the lookups only those are looked at that are counted for the list of hot keys, so the more
//! often a key is read, the surer it is found in the last part of its lifetime. Its owner fetches
//! it then. A shard that has a copy drops it and reads from the owner, which looks ahead for those
//! who want a copy, and gives none of what is being fetched.

use super::Shard;
use super::overload::Level;
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use shard_cache::{EntryRef, Freshness, Standing};

/// It is the last of so many parts of its lifetime.
const EARLY_PART: u64 = 20;

impl<R: Ring> Shard<R> {
    /// The key of a request of this turn is read, and counted.
    pub(super) fn look_ahead(&mut self, hash: KeyHash, owner: u16, start: u32, size: u16) {
        if self.overload.level() >= Level::Elevated {
            return;
        }
        let key = self.requests.key(start, size);
        if owner != self.index {
            if let Some(copy) = self.replicas.lookup(hash, key, self.now)
                && is_ending(self.replicas.get(copy).times(), 0, self.now)
            {
                self.replicas.remove(hash);
            }
            return;
        }
        let seen = self.cache.inspect(hash, key, self.now);
        if let Some((at, Standing::Live(Freshness::Fresh))) = seen
            && self.ends(hash, at)
        {
            self.refresh_parsed(hash, start, size);
        }
    }

    /// A shard that reads this key often wants a copy of its fresh value.
    pub(super) fn look_ahead_for_peer(&mut self, hash: KeyHash, key: &[u8], at: EntryRef) {
        if self.overload.level() < Level::Elevated && self.ends(hash, at) {
            self.refresh(hash, key);
        }
    }

    fn ends(&self, hash: KeyHash, at: EntryRef) -> bool {
        let entry = self.cache.entry(at);
        let times = (entry.born_ms(), entry.fresh_until_ms());
        is_ending(times, self.recent.fetch_us(hash).unwrap_or(0), self.now)
    }
}

/// Whether a value that is fresh is in the last part of its lifetime, or as near to its end as
/// twice the time that a fetch takes. It was born and is fresh until then, milliseconds.
fn is_ending((born_ms, end_ms): (u64, Option<u64>), fetch_us: u32, now: Instant) -> bool {
    let Some(end_ms) = end_ms else { return false };
    let lifetime_ms = end_ms - born_ms;
    let fetch_ms = u64::from(fetch_us) / 1000;
    let early_ms = (2 * fetch_ms).clamp(lifetime_ms / EARLY_PART, lifetime_ms / 2);
    end_ms.saturating_sub(now.ms()) <= early_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_in_its_last_twentieth_or_where_a_fetch_takes_longer_before_that() {
        let is_ending = |end_ms, fetch_us, now_ms: u64| {
            is_ending((1_000, end_ms), fetch_us, Instant::from_ns(now_ms * 1_000_000))
        };
        assert!(!is_ending(None, 0, 1 << 40));
        let end = Some(11_000);
        assert!(!is_ending(end, 0, 10_499) && is_ending(end, 0, 10_500));
        assert!(!is_ending(end, 1_000_000, 8_999) && is_ending(end, 1_000_000, 9_000));
        assert!(!is_ending(end, u32::MAX, 5_999) && is_ending(end, u32::MAX, 6_000), "half of it");
    }
}
