//! Space-Saving: the heaviest keys of a stream, in a bounded number of counters.
//!
//! Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data
//! streams", 2005. A key that has no counter takes over one of those that count least: it goes on
//! from that count and notes it as its error. So no counter is ever too low, and none is too high
//! by more than its error; a key without a counter came no more often than the least of them says;
//! and a key that makes up more than 1/m of a stream has one of m counters.
//!
//! ```text
//! order   [ 3 3 3 | 4 4 | 9 ]     counters by what they count; the ends of runs of equal counts
//!               ^     ^   ^       are known, so that counting one more is one exchange of places
//! heads   [ . > counter > counter ]   chains by the key's hash
//! ```
//!
//! Every operation takes a constant number of steps, but for the chain of a hash, which is one
//! counter long on average under a secret hash.

use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;

/// Bytes of a key that are kept: enough to know it by. What is longer is cut.
const KEY_KEPT_SIZE_MAX: usize = 64;

/// Ends a chain.
const NONE: u16 = u16::MAX;

/// What is counted of one key.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    hash: KeyHash,
    bytes: u64,
    count: u32,
    error: u32,
    remote: u32,
    owner: u16,
    key_size: u16,
    key: [u8; KEY_KEPT_SIZE_MAX],
}

impl Counter {
    const EMPTY: Self = Self {
        hash: KeyHash::from_bits(0),
        bytes: 0,
        count: 0,
        error: 0,
        remote: 0,
        owner: 0,
        key_size: 0,
        key: [0; KEY_KEPT_SIZE_MAX],
    };

    /// The key's hash.
    #[must_use]
    pub const fn hash(&self) -> KeyHash {
        self.hash
    }

    /// The key, or as much of it as is kept.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key[..usize::from(self.key_size).min(KEY_KEPT_SIZE_MAX)]
    }

    /// Whether the key is longer than what is kept of it.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.key_size as usize > KEY_KEPT_SIZE_MAX
    }

    /// The shard that owns the key.
    #[must_use]
    pub const fn owner(&self) -> u16 {
        self.owner
    }

    /// How often it came, at most.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// How much of the count may be another key's.
    #[must_use]
    pub const fn error(&self) -> u32 {
        self.error
    }

    /// How often another shard was asked, since the key has this counter.
    #[must_use]
    pub const fn remote(&self) -> u32 {
        self.remote
    }

    /// Body bytes of the replies, since the key has this counter.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The counters of a sketch, and what they are a part of.
#[derive(Clone, Debug)]
pub struct Table {
    counters: Box<[Counter]>,
    samples: u64,
    bytes: u64,
    began: Option<Instant>,
}

impl Table {
    /// An empty one; allocates all it will ever need.
    #[must_use]
    pub fn new(counters_count: u16) -> Self {
        let counters = vec![Counter::EMPTY; counters_count.into()].into();
        Self { counters, samples: 0, bytes: 0, began: None }
    }

    /// Counters that hold a key.
    pub fn counters(&self) -> impl Iterator<Item = &Counter> {
        self.counters.iter().filter(|counter| counter.count > 0)
    }

    /// How often a key without a counter came, at most.
    #[must_use]
    pub fn absent_max(&self) -> u32 {
        self.counters.iter().map(|counter| counter.count).min().unwrap_or(0)
    }

    /// How many lookups were counted.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Body bytes of their replies.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Since when; none before the first moment that was told.
    #[must_use]
    pub const fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Becomes a copy of `other`, which has as many counters; allocates nothing.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.counters.copy_from_slice(&other.counters);
        (self.samples, self.bytes, self.began) = (other.samples, other.bytes, other.began);
    }
}

/// Names the counter that a lookup was counted in, so that what its reply takes finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    counter: u16,
    /// Low bits of the key's hash: another key may have taken the counter over meanwhile.
    tag: u16,
}

/// A lookup, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'k> {
    /// The key's hash.
    pub hash: KeyHash,
    /// The key.
    pub key: &'k [u8],
    /// The shard that owns it.
    pub owner: u16,
    /// Whether another shard had to be asked.
    pub is_remote: bool,
}

/// Space-Saving over a number of counters.
#[derive(Debug)]
pub struct Sketch {
    table: Table,
    /// The first counter of each chain, by low bits of the hash.
    heads: Box<[u16]>,
    /// The next counter of a counter's chain.
    next: Box<[u16]>,
    /// Counters, those that count least first.
    order: Box<[u16]>,
    /// Where in the order a counter stands.
    place: Box<[u16]>,
    /// The run that a counter is in: counters that stand together and count the same.
    run: Box<[u16]>,
    /// The last place of a run.
    run_end: Box<[u16]>,
    /// Runs that are not in use.
    runs_free: Vec<u16>,
}

impl Sketch {
    /// An empty one of at least one counter; allocates all it will ever need.
    #[must_use]
    pub fn new(counters_count: u16) -> Self {
        assert!((1..NONE).contains(&counters_count), "counters have an index of 16 bits");
        let zeroes = || vec![0; counters_count.into()].into_boxed_slice();
        let heads_count = usize::from(counters_count).next_power_of_two();
        let order: Box<[u16]> = (0..counters_count).collect();
        let mut sketch = Self {
            table: Table::new(counters_count),
            heads: vec![NONE; heads_count].into(),
            next: zeroes(),
            place: order.clone(),
            order,
            run: zeroes(),
            run_end: zeroes(),
            runs_free: Vec::with_capacity(counters_count.into()),
        };
        sketch.clear(None);
        sketch
    }

    /// Bytes that a sketch of so many counters takes.
    #[must_use]
    pub const fn size(counters_count: u16) -> usize {
        let count = counters_count as usize;
        let indices = count.next_power_of_two() + 6 * count;
        count * size_of::<Counter>() + indices * size_of::<u16>()
    }

    /// Forgets everything and begins anew.
    pub fn clear(&mut self, began: Option<Instant>) {
        self.table.counters.iter_mut().for_each(|counter| counter.count = 0);
        (self.table.samples, self.table.bytes, self.table.began) = (0, 0, began);
        self.heads.fill(NONE);
        // All count nothing, so any order will do: they are one run.
        self.run.fill(0);
        let counters_count = u16::try_from(self.order.len()).expect("checked when it was made");
        self.run_end[0] = counters_count - 1;
        self.runs_free.clear();
        self.runs_free.extend(1..counters_count);
    }

    /// What it holds.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Counts a lookup.
    pub fn count(&mut self, lookup: &Lookup<'_>) -> Sample {
        self.table.samples += 1;
        let index = self.find(lookup.hash).unwrap_or_else(|| self.take_over(lookup));
        self.raise(index);
        self.table.counters[usize::from(index)].remote += u32::from(lookup.is_remote);
        Sample { counter: index, tag: tag(lookup.hash) }
    }

    /// Counts body bytes of the reply to a lookup. They are its key's if that has its counter yet.
    pub fn add_bytes(&mut self, sample: Sample, bytes: u64) {
        self.table.bytes += bytes;
        let counter = &mut self.table.counters[usize::from(sample.counter)];
        if counter.count > 0 && tag(counter.hash) == sample.tag {
            counter.bytes += bytes;
        }
    }

    fn find(&self, hash: KeyHash) -> Option<u16> {
        let mut index = self.heads[self.chain(hash)];
        while index != NONE {
            if self.table.counters[usize::from(index)].hash == hash {
                return Some(index);
            }
            index = self.next[usize::from(index)];
        }
        None
    }

    /// Gives a key one of the counters that count least.
    fn take_over(&mut self, lookup: &Lookup<'_>) -> u16 {
        // The last of its run: it needs no exchange of places when it counts one more.
        let least = usize::from(self.run[usize::from(self.order[0])]);
        let index = self.order[usize::from(self.run_end[least])];
        let Counter { hash: former, count, .. } = self.table.counters[usize::from(index)];
        if count > 0 {
            self.unchain(index, former);
        }
        let chain = self.chain(lookup.hash);
        self.next[usize::from(index)] = self.heads[chain];
        self.heads[chain] = index;
        let counter = &mut self.table.counters[usize::from(index)];
        (counter.hash, counter.owner) = (lookup.hash, lookup.owner);
        (counter.error, counter.remote, counter.bytes) = (count, 0, 0);
        counter.key_size = u16::try_from(lookup.key.len()).expect("keys are at most 512 bytes");
        let kept = lookup.key.len().min(KEY_KEPT_SIZE_MAX);
        counter.key[..kept].copy_from_slice(&lookup.key[..kept]);
        index
    }

    fn unchain(&mut self, index: u16, hash: KeyHash) {
        let (chain, after) = (self.chain(hash), self.next[usize::from(index)]);
        let mut link = &mut self.heads[chain];
        while *link != index {
            link = &mut self.next[usize::from(*link)];
        }
        *link = after;
    }

    /// Counts one more: the counter goes to the end of its run and from there to the run above.
    fn raise(&mut self, index: u16) {
        let own = usize::from(index);
        let run = self.run[own];
        let end = self.run_end[usize::from(run)];
        let at = usize::from(end);
        let place = self.place[own];
        if place != end {
            let other = self.order[at];
            self.order[usize::from(place)] = other;
            self.place[usize::from(other)] = place;
            self.order[at] = index;
            self.place[own] = end;
        }

        let counters = &mut self.table.counters;
        counters[own].count += 1;
        let count = counters[own].count;
        let above = self.order.get(at + 1).map(|above| usize::from(*above));
        let above = above.filter(|above| counters[*above].count == count);
        let is_alone = at == 0 || self.run[usize::from(self.order[at - 1])] != run;
        match above {
            // A run of one goes up as it is.
            None if is_alone => {}
            None => {
                self.run_end[usize::from(run)] -= 1;
                let new = self.runs_free.pop().expect("there are no more runs than counters");
                self.run_end[usize::from(new)] = end;
                self.run[own] = new;
            }
            Some(above) => {
                self.run[own] = self.run[above];
                if is_alone {
                    self.runs_free.push(run);
                } else {
                    self.run_end[usize::from(run)] -= 1;
                }
            }
        }
    }

    const fn chain(&self, hash: KeyHash) -> usize {
        tag(hash) as usize & (self.heads.len() - 1)
    }
}

/// Low bits of a hash.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
const fn tag(hash: KeyHash) -> u16 {
    hash.bits() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Sketch {
        /// Checks everything that must hold at any time.
        fn check(&self) {
            let count = |index: u16| self.table.counters[usize::from(index)].count;
            let mut runs_used = 0;
            for (at, index) in (0..).zip(&self.order) {
                assert_eq!(self.place[usize::from(*index)], at);
                let run = self.run[usize::from(*index)];
                match self.order.get(usize::from(at) + 1) {
                    Some(above) if self.run[usize::from(*above)] == run => {
                        assert_eq!(count(*above), count(*index));
                    }
                    above => {
                        assert_eq!(self.run_end[usize::from(run)], at);
                        assert!(above.is_none_or(|above| count(*above) > count(*index)));
                        runs_used += 1;
                    }
                }
            }
            assert_eq!(self.runs_free.len() + runs_used, self.order.len());
            for counter in self.table.counters() {
                let found = self.find(counter.hash).expect("it is in its chain");
                assert_eq!(self.table.counters[usize::from(found)].hash, counter.hash);
            }
        }
    }

    /// What is true of a key: how often it came, how often from afar, its body bytes.
    type Truth = BTreeMap<u8, (u32, u32, u64)>;

    fn lookup(key: &u8) -> Lookup<'_> {
        // Few chains, so that they are long.
        let hash = KeyHash::from_bits(u64::from(key % 3) | u64::from(*key) << 32);
        let owner = u16::from(key % 2);
        Lookup { hash, key: std::slice::from_ref(key), owner, is_remote: owner == 1 }
    }

    /// Space-Saving's guarantees.
    fn assert_guarantees(table: &Table, truth: &Truth) {
        let samples: u64 = truth.values().map(|(count, ..)| u64::from(*count)).sum();
        assert_eq!(table.samples(), samples);
        assert_eq!(table.bytes(), truth.values().map(|(.., bytes)| bytes).sum::<u64>());
        let counted: u64 = table.counters().map(|counter| u64::from(counter.count())).sum();
        assert_eq!(counted, samples, "every lookup is in one counter");
        let counters_count = table.counters.len() as u64;
        assert!(u64::from(table.absent_max()) * counters_count <= samples);
        let mut held = BTreeMap::new();
        for counter in table.counters() {
            let [key] = counter.key() else { panic!("keys are of one byte") };
            assert!(held.insert(*key, counter).is_none(), "a key has one counter");
        }
        for (key, (count, remote, bytes)) in truth {
            let Some(counter) = held.remove(key) else {
                assert!(*count <= table.absent_max());
                assert!(u64::from(*count) * counters_count <= samples, "too heavy to be absent");
                continue;
            };
            assert!(counter.count() >= *count && counter.count() - counter.error() <= *count);
            assert!(counter.remote() <= *remote && counter.bytes() <= *bytes);
            assert!(
                counter.error() > 0 || (counter.remote(), counter.bytes()) == (*remote, *bytes)
            );
            assert_eq!(counter.owner(), u16::from(key % 2));
        }
        assert!(held.is_empty(), "only what came has a counter");
    }

    proptest! {
        #[test]
        fn no_count_is_too_low_and_none_is_too_high_by_more_than_its_error(
            counters_count in 1_u16..9,
            streams in prop::collection::vec(prop::collection::vec(0_u8..16, 0..200), 1..3),
        ) {
            let mut sketch = Sketch::new(counters_count);
            for stream in streams {
                sketch.clear(None);
                let mut truth = Truth::new();
                for key in stream {
                    // The lower a key, the likelier it is.
                    let key = key * key / 15;
                    let lookup = lookup(&key);
                    let sample = sketch.count(&lookup);
                    sketch.add_bytes(sample, key.into());
                    let (count, remote, bytes) = truth.entry(key).or_default();
                    *count += 1;
                    *remote += u32::from(lookup.is_remote);
                    *bytes += u64::from(key);
                    sketch.check();
                }
                assert_guarantees(sketch.table(), &truth);
            }
        }
    }

    #[test]
    fn bytes_of_a_reply_that_comes_late_are_not_another_keys() {
        let mut sketch = Sketch::new(1);
        let late = sketch.count(&lookup(&1));
        sketch.count(&lookup(&2));
        sketch.add_bytes(late, 100);
        let counter = sketch.table().counters().next().unwrap();
        assert_eq!((counter.key(), counter.bytes()), (&[2][..], 0));
        assert_eq!(sketch.table().bytes(), 100);
    }

    #[test]
    fn a_long_key_is_cut_and_a_longer_one_before_it_leaves_nothing() {
        let mut sketch = Sketch::new(1);
        let mut count = |key: &[u8]| {
            let hash = KeyHash::from_bits(key.len() as u64);
            sketch.count(&Lookup { hash, key, owner: 0, is_remote: false });
            let counter = sketch.table().counters().next().unwrap();
            (counter.key().to_vec(), counter.is_cut())
        };
        assert_eq!(count(&[b'a'; 512]), (vec![b'a'; 64], true));
        assert_eq!(count(&[b'b'; 64]), (vec![b'b'; 64], false));
        assert_eq!(count(b""), (vec![], false));
    }
}
