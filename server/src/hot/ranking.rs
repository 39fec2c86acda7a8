//! The hottest keys of all shards together.
//!
//! Counts and errors of a key add up. Where a key has no counter, it may have come as often as the
//! least of that table's counters says: so much is added to both, and what holds for one table
//! holds for the sum (Agarwal et al., "Mergeable summaries", 2012).

use super::sketch::{Counter, Table};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Tables that are being added up.
#[derive(Debug, Default)]
pub struct Ranking<'t> {
    keys: BTreeMap<u64, Heavy<'t>>,
    samples: u64,
    bytes: u64,
    absent_max: u64,
}

/// A key and what was counted of it.
#[derive(Clone, Copy, Debug)]
pub struct Heavy<'t> {
    /// One of its counters: its key and its owner.
    pub counter: &'t Counter,
    /// How often it came, at most.
    pub count: u64,
    /// How much of the count may be other keys'.
    pub error: u64,
    /// How often it came for certain.
    pub seen: u64,
    /// How often another shard was asked, of those seen.
    pub remote: u64,
    /// Body bytes of the replies to those seen.
    pub bytes: u64,
    /// What keys without a counter may have come in those tables in which it has one.
    absent_max: u64,
}

impl<'t> Ranking<'t> {
    /// Adds a table.
    pub fn add(&mut self, table: &'t Table) {
        self.samples += table.samples();
        self.bytes += table.bytes();
        let absent_max = u64::from(table.absent_max());
        self.absent_max += absent_max;
        for counter in table.counters() {
            let new =
                Heavy { counter, count: 0, error: 0, seen: 0, remote: 0, bytes: 0, absent_max: 0 };
            let sum = self.keys.entry(counter.hash().bits()).or_insert(new);
            sum.count += u64::from(counter.count());
            sum.error += u64::from(counter.error());
            sum.seen += u64::from(counter.count() - counter.error());
            sum.remote += u64::from(counter.remote());
            sum.bytes += counter.bytes();
            sum.absent_max += absent_max;
        }
    }

    /// How many lookups were counted.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Body bytes of the replies to them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hottest keys, at most `count` of them, the hottest first.
    #[must_use]
    pub fn top(self, count: usize) -> Vec<Heavy<'t>> {
        let total = self.absent_max;
        let complete = |heavy: Heavy<'t>| {
            let absent = total - heavy.absent_max;
            Heavy { count: heavy.count + absent, error: heavy.error + absent, ..heavy }
        };
        let mut keys: Vec<_> = self.keys.into_values().map(complete).collect();
        // Of two that may have come as often, the one that is better known.
        keys.sort_unstable_by_key(|heavy| {
            (Reverse(heavy.count), heavy.error, heavy.counter.hash().bits())
        });
        keys.truncate(count);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::super::sketch::{Lookup, Sketch};
    use super::*;
    use proptest::prelude::*;
    use shard_cache::hash::KeyHash;

    fn sketch(counters_count: u16, stream: &[u8]) -> Sketch {
        let mut sketch = Sketch::new(counters_count);
        for key in stream {
            let hash = KeyHash::from_bits((*key).into());
            let key = std::slice::from_ref(key);
            sketch.count(&Lookup { hash, key, owner: 0, is_remote: false });
        }
        sketch
    }

    #[test]
    fn a_key_that_a_full_table_lacks_may_have_come_as_often_as_its_least() {
        let tables = [sketch(2, &[1, 1, 1, 2]), sketch(2, &[1, 3, 3, 4, 4, 4]), sketch(2, &[1])];
        let mut ranking = Ranking::default();
        tables.iter().for_each(|sketch| ranking.add(sketch.table()));
        assert_eq!(ranking.samples(), 11);
        let top = ranking.top(2);
        // In the second table 4 took over the counter of 1, which lacks at most 3 there.
        let shown: Vec<_> =
            top.iter().map(|heavy| (heavy.counter.key()[0], heavy.count, heavy.error)).collect();
        assert_eq!(shown, [(1, 3 + 2 + 1, 2), (4, 4 + 1, 1 + 1)]);
        assert_eq!(top[0].seen, 4);
    }

    proptest! {
        #[test]
        fn the_bounds_of_tables_hold_for_their_sum(
            counters_count in 1_u16..9,
            streams in prop::collection::vec(prop::collection::vec(0_u8..20, 0..100), 0..5),
        ) {
            let sketches: Vec<_> =
                streams.iter().map(|stream| sketch(counters_count, stream)).collect();
            let mut ranking = Ranking::default();
            sketches.iter().for_each(|sketch| ranking.add(sketch.table()));
            let absent_max = ranking.absent_max;
            let top = ranking.top(usize::MAX);
            prop_assert!(top.is_sorted_by_key(|heavy| Reverse(heavy.count)));
            for key in 0..20 {
                let count = streams.iter().flatten().filter(|other| **other == key).count() as u64;
                match top.iter().find(|heavy| heavy.counter.key() == [key]) {
                    None => prop_assert!(count <= absent_max),
                    Some(heavy) => {
                        prop_assert!(heavy.count >= count && heavy.count - heavy.error <= count);
                        prop_assert!(heavy.seen <= count);
                        prop_assert_eq!(heavy.seen, heavy.count - heavy.error);
                    }
                }
            }
        }
    }
}
