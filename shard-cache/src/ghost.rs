//! The ghost: which keys left the small pool a short while ago. Two rotating Bloom filters a line.
//!
//! ```text
//! line   [ filter: 224 bits | filter: 224 bits | keys in the newer | which is newer ]   64 bytes
//! ```
//!
//! A key belongs to one line and sets four bits of its newer filter. When that holds 22 keys, the
//! older filter is cleared and becomes the newer: a line rotates by itself, so that forgetting
//! never stalls a shard as the clearing of a whole filter would. It remembers its last 22 to 44
//! keys; fewer than 3 in 100 others look remembered, which makes such a key begin in the main pool.

use crate::hash::KeyHash;

/// Bytes of a line: a cache line.
pub(crate) const LINE_SIZE: usize = 64;

/// Keys that a line remembers at most.
pub(crate) const LINE_KEYS: usize = 2 * FILTER_KEYS as usize;

/// Keys that fill a filter: ten bits each.
const FILTER_KEYS: u8 = 22;
/// Bytes of a filter.
const FILTER_SIZE: usize = 28;
/// Where a line counts the keys of its newer filter, and where it says which one that is.
const COUNT: usize = 2 * FILTER_SIZE;
const NEWER: usize = COUNT + 1;
/// Bits that a key sets.
const BITS: usize = 4;

/// The ghost over memory that was lent, zeroed.
#[derive(Debug)]
pub(crate) struct Ghost<'m>(&'m mut [[u8; LINE_SIZE]]);

impl<'m> Ghost<'m> {
    /// A ghost over `memory`, whose size is a multiple of [`LINE_SIZE`].
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        let (lines, rest) = memory.as_chunks_mut();
        assert!(rest.is_empty() && !lines.is_empty(), "the ghost is made of whole lines");
        Self(lines)
    }

    pub(crate) fn remember(&mut self, hash: KeyHash) {
        let (line, bits) = self.places(hash);
        let line = &mut self.0[line];
        if line[COUNT] == FILTER_KEYS {
            line[NEWER] ^= 1;
            line[COUNT] = 0;
            let newer = usize::from(line[NEWER]) * FILTER_SIZE;
            line[newer..][..FILTER_SIZE].fill(0);
        }
        line[COUNT] += 1;
        let newer = usize::from(line[NEWER]) * FILTER_SIZE;
        for bit in bits {
            line[newer + bit / 8] |= 1 << (bit % 8);
        }
    }

    pub(crate) fn remembers(&self, hash: KeyHash) -> bool {
        let (line, bits) = self.places(hash);
        let (filters, _) = self.0[line].as_chunks::<FILTER_SIZE>();
        filters.iter().any(|filter| bits.iter().all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0))
    }

    /// The line of a key, and its bits in a filter.
    fn places(&self, hash: KeyHash) -> (usize, [usize; BITS]) {
        let low = hash.bits() & 0xffff_ffff;
        let line = (low * self.0.len() as u64) >> 32;
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

    #[test]
    fn the_last_keys_are_remembered_and_older_ones_forgotten() {
        let mut ghost = ghost(1_000);
        for number in 0..200_000 {
            ghost.remember(hash(number));
            assert!(ghost.remembers(hash(number)));
        }
        let remembered =
            |from: u32| (from..from + 10_000).filter(|n| ghost.remembers(hash(*n))).count();
        assert!(remembered(190_000) > 9_900, "22 keys a line and more: {}", remembered(190_000));
        assert!(remembered(0) < 300, "forgotten: {}", remembered(0));
        assert!(remembered(1_000_000) < 300, "never heard of: {}", remembered(1_000_000));
    }

    #[test]
    fn each_line_rotates_by_itself() {
        let mut ghost = ghost(1);
        (0..u32::from(FILTER_KEYS) * 2).for_each(|number| ghost.remember(hash(number)));
        assert!((0..u32::from(FILTER_KEYS) * 2).all(|number| ghost.remembers(hash(number))));
        ghost.remember(hash(1_000));
        assert!((u32::from(FILTER_KEYS)..44).all(|number| ghost.remembers(hash(number))));
        let older = (0..u32::from(FILTER_KEYS)).filter(|number| ghost.remembers(hash(*number)));
        assert!(older.count() < 6);
    }
}
