//! The percentile spectrum of a distribution, as in wrk2's output and in `.hgrm` files.
//!
//! Percentiles come closer and closer to 100: five steps from 0 to 50, five from 50 to 75, five
//! from 75 to 87.5, and so on until the steps reach the largest value. This is the iteration of
//! the original HdrHistogram; the one of the `hdrhistogram` package makes other rows.

use hdrhistogram::Histogram;
use std::fmt::Write;

/// Steps while the distance to 100% halves.
const TICKS_PER_HALF_DISTANCE: f64 = 5.0;

/// One row: so many values, this share of all, are at most that large.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    value_us: u64,
    percentile: f64,
    count: u64,
}

fn rows(histogram: &Histogram<u64>) -> Vec<Row> {
    let total = histogram.len();
    let mut rows = Vec::new();
    let mut wanted = 0.0_f64;
    let mut count = 0;
    for bucket in histogram.iter_recorded() {
        let value_us = bucket.value_iterated_to();
        count += bucket.count_at_value();
        let reached = 100.0 * count as f64 / total as f64;
        while wanted <= reached {
            rows.push(Row { value_us, percentile: wanted, count });
            let halvings = (100.0 / (100.0 - wanted)).log2().floor() + 1.0;
            wanted += 100.0 / (TICKS_PER_HALF_DISTANCE * halvings.exp2());
            if count == total {
                rows.push(Row { value_us, percentile: 100.0, count });
                return rows;
            }
        }
    }
    rows
}

/// The spectrum in milliseconds, with the three lines that follow it.
pub(super) fn text(histogram: &Histogram<u64>, moments: Moments) -> String {
    let mut text = format!(
        "{:>12} {:>12} {:>12} {:>12}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut line = |row: &Row| {
        let value_ms = row.value_us as f64 / 1e3;
        let share = row.percentile / 100.0;
        let inverse = 1.0 / (1.0 - share);
        writeln!(text, "{value_ms:12.3} {share:12.6} {:12} {inverse:12.2}", row.count)
    };
    rows(histogram).iter().try_for_each(&mut line).expect("a string grows");
    let (mean_ms, deviation_ms) = (moments.mean / 1e3, moments.deviation / 1e3);
    let max_ms = moments.max / 1e3;
    let total = histogram.len();
    let (buckets, sub_buckets) = buckets(histogram);
    text.push_str(&format!(
        "#[Mean    = {mean_ms:12.3}, StdDeviation   = {deviation_ms:12.3}]\n\
         #[Max     = {max_ms:12.3}, Total count    = {total:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]\n"
    ));
    text
}

/// How the distribution is laid out: pieces of doubling range, and the values told apart in the
/// first of them.
fn buckets(histogram: &Histogram<u64>) -> (u32, u64) {
    let largest_exact = 2 * 10_u64.pow(u32::from(histogram.sigfig()));
    let sub_buckets = largest_exact.next_power_of_two();
    let mut buckets = 1;
    while (sub_buckets << (buckets - 1)) - 1 < histogram.high() {
        buckets += 1;
    }
    (buckets, sub_buckets)
}

/// What is said of a distribution beside its percentiles, in its own unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    pub(crate) max: f64,
    /// Percent of the values that are within one deviation of the mean.
    pub(crate) within_percent: f64,
}

impl Moments {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let (mean, deviation) = (histogram.mean(), histogram.stdev());
        let within: u64 = histogram
            .iter_recorded()
            .filter(|bucket| {
                let value = histogram.median_equivalent(bucket.value_iterated_to()) as f64;
                (value - mean).abs() <= deviation
            })
            .map(|bucket| bucket.count_at_value())
            .sum();
        Self {
            mean,
            deviation,
            max: histogram.lowest_equivalent(histogram.max()) as f64,
            within_percent: 100.0 * within as f64 / histogram.len() as f64,
        }
    }

    /// Of samples that are not in a distribution.
    pub(crate) fn of_samples(samples: &[f64]) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        // Of a sample, as wrk does: one less in the divisor.
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        let within = samples.iter().filter(|sample| (*sample - mean).abs() <= deviation).count();
        Self {
            mean,
            deviation,
            max: samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            within_percent: 100.0 * within as f64 / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 86_400_000_000, 3).unwrap();
        values.iter().for_each(|&value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn one_value_is_the_least_and_the_greatest() {
        let rows = rows(&histogram(&[7]));
        let shares: Vec<f64> = rows.iter().map(|row| row.percentile).collect();
        assert_eq!(shares, [0.0, 100.0]);
        assert!(rows.iter().all(|row| row.value_us == 7 && row.count == 1));
    }

    #[test]
    fn rows_come_closer_towards_the_end() {
        let rows = rows(&histogram(&(1..=1000).collect::<Vec<_>>()));
        let at = |percentile: f64| rows.iter().find(|row| row.percentile == percentile).unwrap();
        assert_eq!((at(50.0).value_us, at(50.0).count), (500, 500));
        assert_eq!((at(90.0).value_us, at(90.0).count), (900, 900));
        assert_eq!(at(100.0).value_us, 1000);
        assert!(rows.windows(2).all(|pair| pair[0].percentile < pair[1].percentile));
        let last = rows[rows.len() - 2];
        assert_eq!(last.count, 1000);
    }

    #[test]
    fn nothing_has_no_rows() {
        assert!(rows(&histogram(&[])).is_empty());
        assert_eq!(Moments::of(&histogram(&[])), Moments::default());
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let moments = Moments::of(&histogram(&[10, 10, 10, 10, 60]));
        assert_eq!((moments.mean, moments.deviation, moments.max), (20.0, 20.0, 60.0));
        assert_eq!(moments.within_percent, 80.0);
        let moments = Moments::of_samples(&[1.0, 2.0, 3.0]);
        assert_eq!((moments.mean, moments.deviation, moments.max), (2.0, 1.0, 3.0));
        assert_eq!(moments.within_percent, 100.0);
    }

    #[test]
    fn the_layout_is_that_of_a_day_in_three_digits() {
        assert_eq!(buckets(&histogram(&[])), (27, 2048));
    }
}
