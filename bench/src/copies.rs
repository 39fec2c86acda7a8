//! How often a shard asks another, and whether that is as often as it must be.
//!
//! Shards without a kernel answer requests by Zipf 0.99, each shard for every key. Of N shards that
//! have copies of the hottest keys there is, a read goes to another one in
//!
//! ```text
//! (1 - F) (1 - 1/N)     F: share of the reads that ask for the hottest r keys
//!                       r: copies of a shard, and one more of N - 1 that it owns itself
//! ```
//!
//! What is above that are copies of keys that are not the hottest, and copies that come and go.

use crate::replay::{Plan, Shards};
use crate::report::parse_count;
use crate::traffic::{Distribution, Records, Sampler, mass};
use clap::Args;
use pelton::metrics::Counters;
use std::io;

/// How skewed the reads are.
const EXPONENT: f64 = 0.99;

/// The share no longer falls where a window's is below the last one's by less.
const SETTLED: f64 = 0.0005;

#[derive(Args)]
pub(crate) struct CopiesArgs {
    /// Numbers of shards; several, with commas between.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "2,4,8",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Vec<u16>,
    /// Settings of `cache.replica_share`, likewise.
    #[arg(long, value_name = "SHARE,..", value_delimiter = ',', default_value = "0%,0.5%,2%,5%")]
    shares: Vec<String>,
    /// `cache.memory`: all keys have to fit.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    memory: String,
    /// Keys that are asked for.
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    keys: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "N", default_value_t = 100)]
    value_size: u32,
    /// Connections to each shard.
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Requests of a window. One follows another until fewer reads are remote in none.
    #[arg(long, value_name = "N", default_value = "4M", value_parser = parse_count)]
    requests: u32,
    /// What draws the keys.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Counts remote reads for each number of shards and each share, and prints a table.
///
/// # Errors
/// The server would not start so, or the keys do not fit its cache.
pub(crate) fn run(args: &CopiesArgs) -> io::Result<()> {
    let records = Records::generated(args.keys);
    println!("cache.memory {}, {} keys, Zipf {EXPONENT}", args.memory, args.keys);
    println!(
        "| shards | share | MiB a shard | copies a shard | remote | formula | above it, points \
         | copies stored a thousand reads |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &shards in &args.shards {
        for share in &args.shares {
            let found = measure(args, &records.keys, shards, share)?;
            let (remote, least) = (100.0 * found.remote, 100.0 * found.formula(args.keys));
            println!(
                "| {shards} | {share} | {:.1} | {} | {remote:.1}% | {least:.1}% | {:.1} | {:.1} |",
                found.size as f64 / f64::from(1 << 20),
                found.copies / u64::from(shards),
                remote - least,
                1000.0 * found.stored,
            );
        }
    }
    Ok(())
}

/// What was counted in the last window.
#[derive(Debug)]
struct Window {
    shards: u16,
    /// Bytes of a shard for copies.
    size: u64,
    /// Copies, all shards together.
    copies: u64,
    /// Share of the reads that went to another shard.
    remote: f64,
    /// Copies that were stored, a read.
    stored: f64,
}

impl Window {
    /// The share of the reads of `keys` that has to go to another shard with as many copies.
    fn formula(&self, keys: u32) -> f64 {
        let hottest = self.copies / u64::from(self.shards - 1).max(1);
        let hottest = u32::try_from(hottest).unwrap_or(keys);
        (1.0 - mass(keys, EXPONENT, hottest)) * (1.0 - 1.0 / f64::from(self.shards))
    }
}

/// Lets shards answer window after window until their share of remote reads no longer falls.
fn measure(args: &CopiesArgs, keys: &[String], shards: u16, share: &str) -> io::Result<Window> {
    let sets = [format!("cache.memory={}", args.memory), format!("cache.replica_share={share}")];
    let plan = Plan::new(shards, &sets, args.connections)?;
    let draw = |shard: u16| {
        let seed = args.seed.wrapping_add(shard.into());
        let mut sampler = Sampler::new(Distribution::Zipf(EXPONENT), args.keys, seed);
        move || sampler.draw() as usize
    };
    let mut replay = Shards::new(&plan, keys, draw)?;
    let value = vec![b'x'; args.value_size as usize];
    let mut remote_before = 1.0;
    loop {
        let before = replay.counters();
        replay.run(args.requests.into(), |_| &value);
        let after = replay.counters();
        if after.iter().any(|(_, counters)| counters.cache_evicted > 0) {
            return Err(io::Error::other("not all keys fit cache.memory"));
        }
        let copies: u64 = after.iter().map(|(_, counters)| counters.replica_entries).sum();
        let window = Window {
            shards,
            size: plan.limits.replicas_size,
            copies,
            remote: mean(&before, &after, |counters| counters.remote_reads),
            stored: mean(&before, &after, |counters| counters.replica_stored),
        };
        if window.remote > remote_before - SETTLED {
            return Ok(window);
        }
        remote_before = window.remote;
    }
}

/// What was counted between two times, a read. Each shard counts alike: who asks others less often
/// answers more in the same time.
fn mean(
    before: &[(u64, Counters)],
    after: &[(u64, Counters)],
    count: impl Fn(&Counters) -> u64,
) -> f64 {
    let shares = before.iter().zip(after).map(|((reads_before, before), (reads, after))| {
        (count(after) - count(before)) as f64 / (reads - reads_before) as f64
    });
    shares.sum::<f64>() / after.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: CopiesArgs,
    }

    /// Values so large that a shard has copies of a tenth of the keys.
    fn found(share: &str) -> (Window, f64) {
        let flags = "copies --memory 128MiB --keys 20k --value-size 1000 --requests 200k";
        let args = Cli::parse_from(flags.split(' ')).args;
        let window = measure(&args, &Records::generated(20_000).keys, 2, share).unwrap();
        let formula = window.formula(args.keys);
        (window, formula)
    }

    #[test]
    fn without_copies_every_other_read_is_remote() {
        let (window, formula) = found("0%");
        assert_eq!((window.size, window.copies, window.stored), (0, 0, 0.0));
        assert!((formula - 0.5).abs() < 1e-9 && (window.remote - 0.5).abs() < 0.01, "{window:?}");
    }

    #[test]
    fn with_copies_remote_reads_are_not_far_above_the_formula() {
        let (window, formula) = found("2%");
        assert!((2_000..8_000).contains(&window.copies), "{window:?}");
        assert!(formula < 0.2, "{window:?}: {formula}");
        assert!((formula - 0.01..formula + 0.08).contains(&window.remote), "{window:?}: {formula}");
    }
}
