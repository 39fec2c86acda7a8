//! Pseudo-random numbers for simulations: one `u64` seed decides everything, on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): a counter and a mixing function. No floats, no global
//! state. Chances are per mille.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// The stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent stream, so that more draws in one place do not change another.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.word())
    }

    /// Any number.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero: nothing is below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        // The bias is at most bound / 2^64.
        let product = u128::from(self.word()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a product of two words is a word")
    }

    /// A number from `min` to `max`, both possible.
    pub fn range(&mut self, min: u64, max: u64) -> u64 {
        assert!(min <= max, "a range has its smaller end first");
        min + self.below(max - min + 1)
    }

    /// An index below `count`.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("it is below a usize")
    }

    /// A size from `min` to `max`, both possible.
    pub fn size(&mut self, min: usize, max: usize) -> usize {
        usize::try_from(self.range(min as u64, max as u64)).expect("it is at most a usize")
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// Either.
    pub fn coin(&mut self) -> bool {
        self.chance(500)
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Puts `values` into any order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.index(last + 1));
        }
    }
}

/// Mixes the bits of a word: each bit of the result depends on each bit of the word.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // The first words of SplitMix64 with seed 0, as published with the algorithm.
        let mut prng = Prng::new(0);
        assert_eq!(prng.word(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(prng.word(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(prng.word(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn a_range_reaches_both_ends_and_nothing_beyond() {
        let mut prng = Prng::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| prng.range(3, 6)).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
    }

    #[test]
    fn a_shuffle_keeps_every_value() {
        let mut values: Vec<u32> = (0..100).collect();
        Prng::new(1).shuffle(&mut values);
        assert!(!values.is_sorted());
        values.sort_unstable();
        assert!(values.iter().copied().eq(0..100));
    }
}
