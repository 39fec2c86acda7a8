//! wrk2's output, line for line, so that what reads the one reads the other.
//!
//! Three things are counted better: a timeout is counted once for each request that was not
//! answered in time, never for an idle connection; the warm-up ends when it is told to, where wrk2
//! calibrates for ten seconds and more; and times are microseconds throughout.

use super::Run;
use super::spectrum::{self, Moments};
use super::units::{binary, metric, span, time_us};
use crate::load::{Errors, Tally};
use hdrhistogram::Histogram;
use std::fmt::Write;
use std::time::Duration;

/// Percentiles of the short table.
const PERCENTILES: [f64; 8] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];

/// What is printed.
pub(super) struct Summary<'a> {
    duration: Duration,
    url: &'a str,
    threads: usize,
    connections: usize,
    /// Mean latency in microseconds and interval of sampling, one a thread; empty without warm-up.
    calibrations: Vec<(f64, Duration)>,
    latency: Moments,
    rate: Moments,
    distribution: Option<&'a Histogram<u64>>,
    uncorrected: Option<(&'a Histogram<u64>, Moments)>,
    requests: u64,
    elapsed: Duration,
    bytes: u64,
    errors: &'a Errors,
    refused: u64,
}

impl<'a> Summary<'a> {
    pub(super) fn of(run: &Run<'a>, total: &'a Tally) -> Self {
        let threads = &run.outcome.threads;
        let warm = !run.plan.warm_up.is_zero();
        let calibrations = threads
            .iter()
            .filter(|_| warm)
            .map(|thread| (thread.warm_mean_us, thread.sample_every));
        let rates: Vec<f64> = threads.iter().flat_map(|thread| thread.rates.clone()).collect();
        let uncorrected = &total.uncorrected;
        Self {
            duration: run.duration,
            url: run.url,
            threads: run.plan.threads,
            connections: run.plan.streams.iter().map(|stream| stream.connections).sum(),
            calibrations: calibrations.collect(),
            latency: Moments::of(&total.latency),
            rate: Moments::of_samples(&rates),
            distribution: (run.latency || run.uncorrected).then_some(&total.latency),
            uncorrected: run.uncorrected.then(|| (uncorrected, Moments::of(uncorrected))),
            requests: total.answered,
            elapsed: run.outcome.elapsed,
            bytes: total.bytes_read,
            errors: &total.errors,
            refused: total.refused,
        }
    }
}

pub(super) fn text(summary: &Summary<'_>) -> String {
    let mut text = String::new();
    write_text(&mut text, summary).expect("a string grows");
    text
}

fn write_text(out: &mut String, summary: &Summary<'_>) -> std::fmt::Result {
    writeln!(out, "Running {} test @ {}", span(summary.duration), summary.url)?;
    writeln!(out, "  {} threads and {} connections", summary.threads, summary.connections)?;
    for (mean_us, every) in &summary.calibrations {
        writeln!(
            out,
            "  Thread calibration: mean lat.: {:.3}ms, rate sampling interval: {}ms",
            mean_us / 1e3,
            every.as_millis()
        )?;
    }
    writeln!(out, "  Thread Stats{:>6}{:>11}{:>8}{:>12}", "Avg", "Stdev", "Max", "+/- Stdev")?;
    for (label, moments, format) in [
        ("Latency", summary.latency, time_us as fn(f64, usize) -> String),
        ("Req/Sec", summary.rate, metric),
    ] {
        writeln!(
            out,
            "    {label:<10}{}{}{}{:8.2}%",
            format(moments.mean, 8),
            format(moments.deviation, 10),
            format(moments.max, 9),
            moments.within_percent
        )?;
    }
    if let Some(distribution) = summary.distribution {
        let title = "Latency Distribution (HdrHistogram - Recorded Latency)";
        write_distribution(out, title, distribution, summary.latency)?;
    }
    if let Some((distribution, moments)) = summary.uncorrected {
        let title = "Latency Distribution (HdrHistogram - Uncorrected Latency (measured without \
                     taking delayed starts into account))";
        write_distribution(out, title, distribution, moments)?;
    }
    let (requests, elapsed_s) = (summary.requests, summary.elapsed.as_secs_f64());
    let elapsed = time_us(elapsed_s * 1e6, 0);
    writeln!(out, "  {requests} requests in {elapsed}, {}B read", binary(summary.bytes as f64))?;
    let Errors { connect, read, write, timeout, .. } = *summary.errors;
    if connect + read + write + timeout > 0 {
        writeln!(
            out,
            "  Socket errors: connect {connect}, read {read}, write {write}, timeout {timeout}"
        )?;
    }
    if summary.refused > 0 {
        writeln!(out, "  Non-2xx or 3xx responses: {}", summary.refused)?;
    }
    writeln!(out, "Requests/sec: {:9.2}", requests as f64 / elapsed_s)?;
    writeln!(out, "Transfer/sec: {:>10}B", binary(summary.bytes as f64 / elapsed_s))
}

fn write_distribution(
    out: &mut String,
    title: &str,
    distribution: &Histogram<u64>,
    moments: Moments,
) -> std::fmt::Result {
    writeln!(out, "  {title}")?;
    for percentile in PERCENTILES {
        let value_us = value_at(distribution, percentile);
        writeln!(out, "{percentile:7.3}%{}", time_us(value_us as f64, 10))?;
    }
    writeln!(out)?;
    writeln!(out, "  Detailed Percentile spectrum:")?;
    out.push_str(&spectrum::text(distribution, moments));
    writeln!(out, "{}", "-".repeat(58))
}

/// The value at a percentile by the rule of the original HdrHistogram, which rounds the rank where
/// the `hdrhistogram` package takes the next larger one.
fn value_at(distribution: &Histogram<u64>, percentile: f64) -> u64 {
    let rank = (percentile / 100.0 * distribution.len() as f64).round().max(1.0);
    let mut count = 0;
    let reached = distribution.iter_recorded().find(|bucket| {
        count += bucket.count_at_value();
        count as f64 >= rank
    });
    reached.map_or(0, |bucket| distribution.lowest_equivalent(bucket.value_iterated_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What wrk2 printed of a run against a server that answers in up to 5 ms.
    const GOLDEN: &str = include_str!("../../testdata/wrk2-latency-output.txt");

    /// Two values of the short table that lie between rows of the spectrum, and their ranks.
    const BETWEEN_ROWS: [(u64, u64); 2] = [(1_660, 29_533), (1_980, 29_801)];

    /// The distribution that the golden output shows: of the values between two known ones only
    /// the number is known, so all of them are taken to be the larger one.
    fn golden_distribution() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 24 * 3600 * 1_000_000, 3).unwrap();
        let mut known = BETWEEN_ROWS.to_vec();
        for line in GOLDEN.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [value_ms, _, count, inverse] = fields[..] else { continue };
            if inverse == "inf" || inverse.parse::<f64>().is_err() {
                continue;
            }
            let value_us: u64 = value_ms.replace('.', "").parse().unwrap();
            known.push((value_us, count.parse().unwrap()));
        }
        known.sort_unstable();
        let mut before = 0;
        for (value_us, rank) in known {
            histogram.record_n(value_us, rank - before).unwrap();
            before = rank;
        }
        histogram
    }

    #[test]
    fn the_output_is_wrk2s_to_the_letter() {
        let distribution = golden_distribution();
        let ms = |ms: f64| ms * 1e3;
        let every = Duration::from_millis(10);
        let summary = Summary {
            duration: Duration::from_secs(25),
            url: "http://127.0.0.1:9121/lookup/abc",
            threads: 2,
            connections: 32,
            calibrations: vec![(ms(0.828), every), (ms(0.912), every)],
            latency: Moments { mean: 905.4, deviation: 393.06, max: 4840.0, within_percent: 63.73 },
            rate: Moments { mean: 1_060.0, deviation: 564.71, max: 1_780.0, within_percent: 69.15 },
            distribution: Some(&distribution),
            uncorrected: None,
            requests: 48_971,
            elapsed: Duration::from_secs_f64(48_971.0 / 1958.80),
            bytes: 4_358_600,
            errors: &Errors::default(),
            refused: 0,
        };
        let text = text(&summary);
        for (ours, golden) in text.lines().zip(GOLDEN.lines()) {
            assert_eq!(ours, golden);
        }
        assert_eq!(text.lines().count(), GOLDEN.lines().count());
    }

    #[test]
    fn errors_and_refusals_have_lines_where_there_are_some() {
        let errors = Errors { read: 2, timeout: 3, ..Errors::default() };
        let summary = Summary {
            duration: Duration::from_secs(1),
            url: "u",
            threads: 1,
            connections: 1,
            calibrations: Vec::new(),
            latency: Moments::default(),
            rate: Moments::default(),
            distribution: None,
            uncorrected: None,
            requests: 10,
            elapsed: Duration::from_secs(1),
            bytes: 100,
            errors: &errors,
            refused: 4,
        };
        let text = text(&summary);
        assert!(text.contains("\n  Socket errors: connect 0, read 2, write 0, timeout 3\n"));
        assert!(text.contains("\n  Non-2xx or 3xx responses: 4\n"));
        assert!(text.ends_with("Requests/sec:     10.00\nTransfer/sec:     100.00B\n"));
    }
}
