//! How long things took on one shard: distributions that are recorded without allocating.
//!
//! A shard owns one [`Histograms`], records into it, and about once a second swaps it for an
//! empty one; the full one travels to the reader, is added to a cumulative one, emptied and sent
//! back. All have equal bounds, so neither recording nor adding ever resizes.

use hdrhistogram::Histogram;

/// What is shorter is recorded as this, nanoseconds: the finest bucket of `/metrics` is 10 us.
const NS_MIN: u64 = 1_000;

/// What is longer is recorded as this, nanoseconds: twice the longest deadline of a request.
const NS_MAX: u64 = 60_000_000_000;

/// Significant decimal digits: within 1.5%, at 22 KiB a distribution.
const DIGITS: u8 = 2;

/// The upper edges of the classic buckets of `/metrics`, nanoseconds; the last one is +Inf.
pub const EDGES_NS: [u64; 15] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// One distribution of durations.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
    /// The exact sum, since a histogram keeps a value within 1% only.
    sum_ns: u64,
}

impl Distribution {
    /// An empty one; allocates all it will ever need.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(NS_MIN, NS_MAX, DIGITS)
            .expect("the bounds are constants that the histogram allows");
        Self { histogram, sum_ns: 0 }
    }

    /// Records one duration, nanoseconds; beyond the bounds it counts as the bound.
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// Records `count` equal durations, nanoseconds each.
    pub fn record_many(&mut self, ns: u64, count: u64) {
        self.histogram.saturating_record_n(ns.clamp(NS_MIN, NS_MAX), count);
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(count));
    }

    /// Adds all that `other` holds.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all distributions have equal bounds");
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Empties it; keeps its memory.
    pub fn clear(&mut self) {
        self.histogram.reset();
        self.sum_ns = 0;
    }

    /// How many durations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their sum, nanoseconds.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The duration that the share `quantile` (0 to 1) of all does not exceed, nanoseconds;
    /// 0 when nothing was recorded.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// How many fell into each bucket of [`EDGES_NS`] and into the one beyond; not cumulative.
    #[must_use]
    pub fn buckets(&self) -> [u64; EDGES_NS.len() + 1] {
        let mut buckets = [0; EDGES_NS.len() + 1];
        for cell in self.histogram.iter_recorded() {
            // A cell that straddles an edge counts where its middle lies: off by half of 1%.
            let middle = self.histogram.median_equivalent(cell.value_iterated_to());
            let index = EDGES_NS.partition_point(|edge| *edge < middle);
            buckets[index] += cell.count_at_value();
        }
        buckets
    }
}

impl Default for Distribution {
    fn default() -> Self {
        Self::new()
    }
}

/// Outcomes that latency is told apart by; the value of the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Answered from memory.
    Hit = 0,
    /// Waited for the origin.
    Miss = 1,
    /// Anything else: health, refusals, failures.
    Other = 2,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Hit, Self::Miss, Self::Other];

    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Other => "other",
        }
    }
}

/// All distributions of one shard: 90 KiB.
#[derive(Clone, Debug, Default)]
pub struct Histograms {
    latency: [Distribution; Outcome::ALL.len()],
    loop_lag: Distribution,
}

impl Histograms {
    /// Empty ones; allocates all they will ever need.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the turn that received a request to the one that handed its reply to the kernel.
    #[must_use]
    pub const fn latency(&self, outcome: Outcome) -> &Distribution {
        &self.latency[outcome as usize]
    }

    /// Records the latency of one reply, nanoseconds.
    pub fn record_latency(&mut self, outcome: Outcome, ns: u64) {
        self.latency[outcome as usize].record(ns);
    }

    /// Records the latency of `count` replies that left together, nanoseconds.
    pub fn record_latencies(&mut self, outcome: Outcome, ns: u64, count: u64) {
        self.latency[outcome as usize].record_many(ns, count);
    }

    /// How long a completion could have waited because the loop was busy: the length of a turn
    /// without its wait.
    #[must_use]
    pub const fn loop_lag(&self) -> &Distribution {
        &self.loop_lag
    }

    /// Records one loop lag, nanoseconds.
    pub fn record_loop_lag(&mut self, ns: u64) {
        self.loop_lag.record(ns);
    }

    /// Adds all that `other` holds.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            mine.add(theirs);
        }
        self.loop_lag.add(&other.loop_lag);
    }

    /// Empties all; keeps their memory.
    pub fn clear(&mut self) {
        for latency in &mut self.latency {
            latency.clear();
        }
        self.loop_lag.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_edge_they_do_not_exceed() {
        let mut distribution = Distribution::new();
        for ns in [0, 9_000, 20_000, 900_000, 2_000_000_000, u64::MAX] {
            distribution.record(ns);
        }
        let buckets = distribution.buckets();
        assert_eq!(buckets[0], 2, "0 and 9 us");
        assert_eq!(buckets[1], 1, "20 us");
        assert_eq!(buckets[6], 1, "0.9 ms");
        assert_eq!(buckets[EDGES_NS.len()], 2, "2 s and beyond all bounds");
        assert_eq!(distribution.count(), 6);
        assert_eq!(distribution.sum_ns(), u64::MAX);
    }

    #[test]
    fn adding_and_clearing_conserve_counts_and_sums() {
        let mut total = Histograms::new();
        let mut part = Histograms::new();
        for round in 1..=3 {
            part.record_latencies(Outcome::Miss, 40_000, 5);
            part.record_loop_lag(7_000);
            total.add(&part);
            part.clear();
            assert_eq!(part.latency(Outcome::Miss).count(), 0);
            assert_eq!(total.latency(Outcome::Miss).count(), 5 * round);
            assert_eq!(total.latency(Outcome::Miss).sum_ns(), 200_000 * round);
            assert_eq!(total.loop_lag().count(), round);
        }
        let median_ns = total.latency(Outcome::Miss).quantile_ns(0.5);
        assert!(median_ns.abs_diff(40_000) <= 600, "{median_ns}");
    }
}
