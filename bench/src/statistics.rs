//! Medians and how sure they are, without assuming a distribution.

/// A median with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// The median of `samples`, and the narrowest pair of order statistics, equally far from both
    /// ends, that holds the true median with a probability of at least 95%.
    ///
    /// With fewer than six samples no pair does; then the interval is the whole range.
    pub(crate) fn of(samples: &[f64]) -> Self {
        assert!(!samples.is_empty(), "a median needs samples");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let middle = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        let rank = interval_rank(count);
        Self { median: middle, low: sorted[rank], high: sorted[count - 1 - rank] }
    }

    /// From its low end to its high end.
    pub(crate) fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// The largest index from either end such that the true median lies outside with 5% at most. The
/// number of samples below it is binomial with p = 1/2.
fn interval_rank(count: usize) -> usize {
    let samples = count as f64;
    let mut probability = 0.5_f64.powf(samples);
    let mut below = 0.0;
    let mut rank = 0;
    for outside in 0..count / 2 {
        below += probability;
        if 2.0 * below > 0.05 {
            break;
        }
        rank = outside;
        probability *= (samples - outside as f64) / (outside as f64 + 1.0);
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Indexes from 0 of the published table of ranks for a 95% interval of the median.
    #[test]
    fn ranks_are_those_of_the_sign_test() {
        for (count, rank) in [(6, 0), (9, 1), (12, 2), (15, 3), (17, 4), (20, 5), (25, 7), (30, 9)]
        {
            assert_eq!(interval_rank(count), rank, "{count} samples");
        }
    }

    #[test]
    fn a_median_lies_in_its_interval() {
        let samples: Vec<f64> = (0..15).rev().map(f64::from).collect();
        let estimate = Estimate::of(&samples);
        assert_eq!(estimate, Estimate { median: 7.0, low: 3.0, high: 11.0 });
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Estimate::of(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
    }
}
