//! Runs the simulated world over a few seeds, each twice: every oracle holds, and between them the
//! seeds have walked every rare path. `make sim` runs more of them, and faster.

#[cfg(test)]
mod tests {
    use pelton_tests::sim::runs::{Seeds, TICKS, run_all};

    /// Enough for every mark, from here on.
    const SEEDS: u64 = 250;
    const FIRST: u64 = 3_500;

    #[test]
    fn every_seed_satisfies_the_oracles_twice_alike() {
        let sum = run_all(Seeds { first: FIRST, count: SEEDS, ticks: TICKS });
        let sum = sum.unwrap_or_else(|failure| panic!("{failure}"));
        let missing = sum.missing();
        assert!(missing.is_empty(), "no seed has come by {missing:?}");
    }
}
