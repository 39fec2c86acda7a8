//! The ghost: which keys left the small pool a short while ago. Two rotating Bloom filters a line.
//!
//! ```text
//! line   [ filter: 224 bits | filter: 224 bits | keys in the newer | which is newer | epoch ]
//! ```
//!
//! A key belongs to one line of 64 bytes and sets four bits of its newer filter. The ghost is to
//! remember about as many keys as the cache holds entries: more of them, and keys that are merely
//! asked for now and then crowd the main pool. So an epoch ends after half as many keys; what was
//! noted in this epoch and the one before is remembered. A line learns of a new epoch when a key is
//! noted in it: the older filter is cleared and becomes the newer, so that forgetting never stalls
//! a shard as the clearing of a whole filter would. A filter that holds 22 keys ends its own epoch,
//! which keeps those few that look remembered and are not below 3 in 100.

use crate::hash::KeyHash;

/// Bytes of a line: a cache line.
pub(crate) const LINE_SIZE: usize = 64;

/// Keys that a line remembers at most.
pub(crate) const LINE_KEYS: usize = 2 * FILTER_KEYS as usize;

/// Keys that fill a filter: ten bits each.
const FILTER_KEYS: u8 = 22;
/// Bytes of a filter.
const FILTER_SIZE: usize = 28;
/// Where a line counts the keys of its newer filter, says which one that is, and in which epoch.
const COUNT: usize = 2 * FILTER_SIZE;
const NEWER: usize = COUNT + 1;
const EPOCH: usize = NEWER + 1;
/// Bits that a key sets.
const BITS: usize = 4;

/// The ghost over memory that was lent, zeroed.
#[derive(Debug)]
pub(crate) struct Ghost<'m> {
    lines: &'m mut [[u8; LINE_SIZE]],
    /// Wraps: a line that was let be for 65,536 epochs remembers its last keys once more.
    epoch: u16,
    /// Keys noted in this epoch.
    noted: u64,
}

impl<'m> Ghost<'m> {
    /// A ghost over `memory`, whose size is a multiple of [`LINE_SIZE`].
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        let (lines, rest) = memory.as_chunks_mut();
        assert!(rest.is_empty() && !lines.is_empty(), "the ghost is made of whole lines");
        Self { lines, epoch: 0, noted: 0 }
    }

    /// Notes a key that leaves a cache of `entries`.
    pub(crate) fn remember(&mut self, hash: KeyHash, entries: u64) {
        self.noted += 1;
        if self.noted > entries / 2 {
            self.epoch = self.epoch.wrapping_add(1);
            self.noted = 1;
        }
        let (line, bits) = self.places(hash);
        let age = self.age(line);
        let line = &mut self.lines[line];
        if age > 0 || line[COUNT] == FILTER_KEYS {
            line[NEWER] ^= 1;
            line[COUNT] = 0;
            let newer = usize::from(line[NEWER]) * FILTER_SIZE;
            line[newer..][..FILTER_SIZE].fill(0);
        }
        if age > 1 {
            let older = usize::from(line[NEWER] ^ 1) * FILTER_SIZE;
            line[older..][..FILTER_SIZE].fill(0);
        }
        line[EPOCH..][..2].copy_from_slice(&self.epoch.to_le_bytes());
        line[COUNT] += 1;
        let newer = usize::from(line[NEWER]) * FILTER_SIZE;
        for bit in bits {
            line[newer + bit / 8] |= 1 << (bit % 8);
        }
    }

    pub(crate) fn remembers(&self, hash: KeyHash) -> bool {
        let (line, bits) = self.places(hash);
        let age = self.age(line);
        let line = &self.lines[line];
        let has = |which: u8| {
            let filter = &line[usize::from(which) * FILTER_SIZE..][..FILTER_SIZE];
            bits.iter().all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
        };
        let newer = line[NEWER];
        age <= 1 && has(newer) || age == 0 && has(newer ^ 1)
    }

    /// Epochs since a key was noted in this line.
    fn age(&self, line: usize) -> u16 {
        let line = &self.lines[line];
        self.epoch.wrapping_sub(u16::from_le_bytes([line[EPOCH], line[EPOCH + 1]]))
    }

    /// The line of a key, and its bits in a filter.
    fn places(&self, hash: KeyHash) -> (usize, [usize; BITS]) {
        let low = hash.bits() & 0xffff_ffff;
        let line = (low * self.lines.len() as u64) >> 32;
        // The multiplier of a linear congruential generator (Steele and Vigna, 2021) spreads the
        // bits that chose the line over those that choose in it.
        let mixed = hash.bits().wrapping_mul(0xd134_2543_de82_ef95).to_le_bytes();
        let bit = |at: usize| {
            let fraction = usize::from(u16::from_le_bytes([mixed[at], mixed[at + 1]]));
            (fraction * 8 * FILTER_SIZE) >> 16
        };
        let line = usize::try_from(line).expect("below the count of lines");
        // The lowest byte of the product is the weakest; two bytes choose a bit.
        (line, [bit(6), bit(5), bit(3), bit(2)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHasher;

    fn hash(number: u32) -> KeyHash {
        KeyHasher::new([5, 6]).hash(&number.to_le_bytes())
    }

    fn ghost(lines: usize) -> Ghost<'static> {
        Ghost::new(vec![0; lines * LINE_SIZE].leak())
    }

    /// More than are ever noted: no epoch ends.
    const MANY: u64 = 1 << 40;

    #[test]
    fn the_last_keys_are_remembered_and_older_ones_forgotten() {
        let mut ghost = ghost(1_000);
        for number in 0..200_000 {
            ghost.remember(hash(number), MANY);
            assert!(ghost.remembers(hash(number)));
        }
        let remembered =
            |from: u32| (from..from + 10_000).filter(|n| ghost.remembers(hash(*n))).count();
        assert!(remembered(190_000) > 9_900, "22 keys a line and more: {}", remembered(190_000));
        assert!(remembered(0) < 300, "forgotten: {}", remembered(0));
        assert!(remembered(1_000_000) < 300, "never heard of: {}", remembered(1_000_000));
    }

    #[test]
    fn a_full_line_rotates_by_itself() {
        let mut ghost = ghost(1);
        (0..u32::from(FILTER_KEYS) * 2).for_each(|number| ghost.remember(hash(number), MANY));
        assert!((0..u32::from(FILTER_KEYS) * 2).all(|number| ghost.remembers(hash(number))));
        ghost.remember(hash(1_000), MANY);
        assert!((u32::from(FILTER_KEYS)..44).all(|number| ghost.remembers(hash(number))));
        let older = (0..u32::from(FILTER_KEYS)).filter(|number| ghost.remembers(hash(*number)));
        assert!(older.count() < 6);
    }

    #[test]
    fn half_as_many_keys_as_there_are_entries_are_remembered_at_least_and_no_more_than_all() {
        let mut ghost = ghost(1_000);
        let entries = 1_000;
        for number in 0..10_000 {
            ghost.remember(hash(number), entries);
            let first = number.saturating_sub(500);
            assert!((first..=number).step_by(99).all(|number| ghost.remembers(hash(number))));
            let older = number.saturating_sub(2_000)..number.saturating_sub(1_000);
            let older = older.step_by(99).filter(|number| ghost.remembers(hash(*number)));
            assert!(older.count() < 2, "after {number}");
        }
    }
}
