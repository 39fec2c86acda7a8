//! The index: from a key's hash to where its entry lies. One size for life, never a stall.
//!
//! ```text
//! bucket   [ slot | slot | slot | slot | slot | slot | slot | slot ]    64 bytes, one cache line
//! slot     63    tag    38 37 frequency 36 35        location + 1        0       0 = empty
//! ```
//!
//! A key may stand in either of two buckets and goes into the one with more room. The first comes
//! from the hash; the other is the *mirror* of the first about a point that the tag chooses, so the
//! mirror of the other is the first again, and a slot's other bucket is known without a look at its
//! entry. Where both buckets of a new key are full, a neighbour that has room in its other bucket
//! moves there. So no key is crowded out before nine in ten slots are in use; then the one of the
//! sixteen that ranks lowest gives way.
//!
//! A tag of 26 bits makes a look at a wrong entry rare, and the whole key is compared before a hit
//! is believed. What the frequency means is the policy's (see `policy`); it lies here because a
//! lookup has this line at hand, and the entries' lines stay as they were written.
//!
//! Bits of the hash: the low 32 choose the first bucket, 30 to 55 are the tag; the highest choose
//! the shard, are the same for all keys of one, and so are of no use here.

use crate::entry::EntryRef;
use crate::hash::KeyHash;
use crate::policy::FREQUENCY_MAX;
use crate::prefetch::prefetch;

/// Slots of a bucket.
pub(crate) const SLOTS: usize = 8;
/// Bytes of a bucket: a cache line.
pub(crate) const BUCKET_SIZE: usize = 64;

const EMPTY: u64 = 0;
const TAG_SHIFT: u32 = 38;
const TAG_BITS: u32 = 26;
const FREQUENCY_SHIFT: u32 = 36;
const FREQUENCY_MASK: u64 = (FREQUENCY_MAX as u64) << FREQUENCY_SHIFT;
const LOCATION_MASK: u64 = (1 << FREQUENCY_SHIFT) - 1;

/// Which slot of which bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    bucket: u32,
    slot: u8,
}

/// A slot that was found, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) entry: EntryRef,
    pub(crate) frequency: u8,
}

/// The index over memory that was lent, zeroed and aligned to a cache line.
///
/// It lies in the same mapping as the arena, so that it gets huge pages where the host grants them:
/// with small ones, the page walk of a lookup costs more than its cache misses.
#[derive(Debug)]
pub(crate) struct Index<'m>(&'m mut [[u8; BUCKET_SIZE]]);

/// A slot's place in its bucket.
const SLOT_SIZE: usize = BUCKET_SIZE / SLOTS;

impl<'m> Index<'m> {
    /// An index over `memory`, whose size is a multiple of [`BUCKET_SIZE`].
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        assert!(memory.as_ptr().addr().is_multiple_of(BUCKET_SIZE), "a bucket is a cache line");
        let (buckets, rest) = memory.as_chunks_mut();
        assert!(rest.is_empty(), "the index is made of whole buckets");
        assert!(!buckets.is_empty(), "a key has somewhere to stand");
        Self(buckets)
    }

    /// The slots of a bucket and what is in them.
    #[inline]
    fn slots(&self, bucket: u32) -> impl Iterator<Item = (Place, u64)> {
        let (words, _) = self.0[bucket as usize].as_chunks();
        (0..)
            .zip(words)
            .map(move |(slot, word)| (Place { bucket, slot }, u64::from_le_bytes(*word)))
    }

    #[inline]
    fn slot(&mut self, place: Place) -> &mut [u8; SLOT_SIZE] {
        let (words, _) = self.0[place.bucket as usize].as_chunks_mut();
        &mut words[usize::from(place.slot)]
    }

    fn put(&mut self, place: Place, word: u64) {
        *self.slot(place) = word.to_le_bytes();
    }

    /// The two buckets of a hash; they may be one.
    #[inline]
    fn buckets(&self, hash: KeyHash) -> [u32; 2] {
        let low = hash.bits() & 0xffff_ffff;
        let first = ((low * self.0.len() as u64) >> 32) as u32;
        [first, self.mirror(first, tag(hash))]
    }

    /// The other bucket of a key with this tag that stands in `bucket`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "below the count of buckets, 32 bits")]
    fn mirror(&self, bucket: u32, tag: u64) -> u32 {
        let count = self.0.len() as u64;
        let (point, bucket) = ((tag * count) >> TAG_BITS, u64::from(bucket));
        (if point >= bucket { point - bucket } else { point + count - bucket }) as u32
    }

    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        for bucket in self.buckets(hash) {
            prefetch(&self.0[bucket as usize]);
        }
    }

    /// Calls `is_match` for each entry whose tag is that of `hash`, until it says yes.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        mut is_match: impl FnMut(EntryRef) -> bool,
    ) -> Option<Found> {
        let tag = tag(hash);
        for bucket in self.buckets(hash) {
            for (place, word) in self.slots(bucket) {
                if word >> TAG_SHIFT == tag
                    && let Some(entry) = location(word)
                    && is_match(entry)
                {
                    return Some(Found { place, entry, frequency: frequency(word) });
                }
            }
        }
        None
    }

    /// A place for a new key: an empty slot in the emptier bucket, one that a neighbour has left
    /// for it, or else the slot of the entry of the least `rank`, which may look at its frequency;
    /// that entry is returned as crowded out.
    pub(crate) fn place<R: Ord>(
        &mut self,
        hash: KeyHash,
        rank: impl Fn(EntryRef, u8) -> R,
    ) -> (Place, Option<EntryRef>) {
        let buckets = self.buckets(hash);
        let used =
            buckets.map(|bucket| self.slots(bucket).filter(|(_, word)| *word != EMPTY).count());
        let bucket = if used[1] < used[0] { buckets[1] } else { buckets[0] };
        if let Some(place) = self.empty_slot(bucket).or_else(|| self.make_room(buckets)) {
            return (place, None);
        }
        let (place, entry) = buckets
            .into_iter()
            .flat_map(|bucket| self.slots(bucket))
            .filter_map(|(place, word)| Some((place, word, location(word)?)))
            .min_by_key(|(_, word, entry)| rank(*entry, frequency(*word)))
            .map(|(place, _, entry)| (place, entry))
            .expect("a full bucket has entries");
        (place, Some(entry))
    }

    fn empty_slot(&self, bucket: u32) -> Option<Place> {
        self.slots(bucket).find_map(|(place, word)| (word == EMPTY).then_some(place))
    }

    /// Moves a neighbour to its other bucket: at most 16 looks. Returns the slot that it left.
    fn make_room(&mut self, buckets: [u32; 2]) -> Option<Place> {
        let (from, word, to) = buckets.into_iter().flat_map(|bucket| self.slots(bucket)).find_map(
            |(from, word)| {
                let to = self.empty_slot(self.mirror(from.bucket, word >> TAG_SHIFT))?;
                Some((from, word, to))
            },
        )?;
        self.put(to, word);
        self.clear(from);
        Some(from)
    }

    pub(crate) fn set(&mut self, place: Place, hash: KeyHash, entry: EntryRef, frequency: u8) {
        assert!(entry.0 < LOCATION_MASK, "an arena has below 512 GiB");
        let frequency = (u64::from(frequency) << FREQUENCY_SHIFT) & FREQUENCY_MASK;
        self.put(place, (tag(hash) << TAG_SHIFT) | frequency | (entry.0 + 1));
    }

    /// Changes the frequency of the entry at `place`.
    #[inline]
    pub(crate) fn set_frequency(&mut self, place: Place, frequency: u8) {
        let slot = self.slot(place);
        let rest = u64::from_le_bytes(*slot) & !FREQUENCY_MASK;
        let frequency = (u64::from(frequency) << FREQUENCY_SHIFT) & FREQUENCY_MASK;
        *slot = (rest | frequency).to_le_bytes();
    }

    pub(crate) fn clear(&mut self, place: Place) {
        self.put(place, EMPTY);
    }
}

fn tag(hash: KeyHash) -> u64 {
    (hash.bits() >> 30) & ((1 << TAG_BITS) - 1)
}

const fn frequency(word: u64) -> u8 {
    ((word & FREQUENCY_MASK) >> FREQUENCY_SHIFT) as u8
}

fn location(word: u64) -> Option<EntryRef> {
    (word & LOCATION_MASK).checked_sub(1).map(EntryRef)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHasher;

    /// An index of this many buckets; its memory is leaked.
    fn index(buckets: usize) -> Index<'static> {
        let memory = vec![0; (buckets + 1) * BUCKET_SIZE].leak();
        let skip = memory.as_ptr().align_offset(BUCKET_SIZE);
        Index::new(&mut memory[skip..][..buckets * BUCKET_SIZE])
    }

    fn hash(number: u32) -> KeyHash {
        KeyHasher::new([1, 2]).hash(&number.to_le_bytes())
    }

    #[test]
    fn nine_tenths_of_the_slots_fill_before_a_key_is_crowded_out_and_all_are_found() {
        let mut index = index(10_000);
        for number in 0..72_000 {
            let (place, out) = index.place(hash(number), |entry, frequency| (frequency, entry.0));
            assert_eq!(out, None, "{number}");
            assert!(index.slots(place.bucket).any(|slot| slot == (place, EMPTY)));
            index.set(place, hash(number), EntryRef(u64::from(number)), 0);
        }
        for number in 0..72_000 {
            let wanted = EntryRef(u64::from(number));
            assert!(index.find(hash(number), |entry| entry == wanted).is_some(), "{number}");
        }
    }

    #[test]
    fn the_mirror_of_a_mirror_is_the_bucket_itself() {
        for count in [1_u32, 2, 3, 1_000, 65_537] {
            let index = index(count as usize);
            for number in 0..2_000 {
                let [first, other] = index.buckets(hash(number));
                assert!(first < count && other < count);
                assert_eq!(index.mirror(other, tag(hash(number))), first);
            }
        }
    }

    #[test]
    fn what_is_set_is_found_and_what_is_cleared_is_not() {
        let mut index = index(64);
        for number in 0..200 {
            let (place, out) = index.place(hash(number), |entry, frequency| (frequency, entry.0));
            assert_eq!(out, None);
            index.set(place, hash(number), EntryRef(u64::from(number)), 0);
        }
        for number in 0..200 {
            let wanted = EntryRef(u64::from(number));
            let found = index.find(hash(number), |entry| entry == wanted).unwrap();
            assert_eq!((found.entry, found.frequency), (wanted, 0));
            index.clear(found.place);
            assert_eq!(index.find(hash(number), |entry| entry == wanted), None);
        }
    }

    #[test]
    fn in_full_buckets_the_least_frequent_gives_way_and_among_those_the_lowest() {
        let mut index = index(1);
        for number in 0..8 {
            let (place, out) = index.place(hash(number), |entry, frequency| (frequency, entry.0));
            assert_eq!(out, None);
            index.set(place, hash(number), EntryRef(u64::from(number)), 0);
        }
        for number in [0, 1, 3] {
            let wanted = EntryRef(u64::from(number));
            let found = index.find(hash(number), |entry| entry == wanted).unwrap();
            index.set_frequency(found.place, 2);
            let again = index.find(hash(number), |entry| entry == wanted);
            assert_eq!(again, Some(Found { frequency: 2, ..found }));
        }
        assert_eq!(
            index.place(hash(99), |entry, frequency| (frequency, entry.0)).1,
            Some(EntryRef(2))
        );
    }
}
