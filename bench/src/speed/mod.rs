//! The speed of the cache beside that of its peers, without a server around them.
//!
//! All hold the same entries and take turns: each operation is done so many times by one after the
//! other, and again, so that an unsteady machine is as unsteady for all. CPU time is the thread's.

mod peers;

use crate::procfs::Usage;
use crate::report::parse_count;
use crate::statistics::Estimate;
use crate::traffic::{Distribution, Sampler};
use clap::{Args, ValueEnum};
use peers::{Batched, Key, Moka, Ours, Peer, Plain, Quick};
use std::io;
use std::ops::Range;

/// Bytes of a key.
const KEY_SIZE: usize = 16;

/// Keys that are written out at a time.
const PIECE: u32 = 1 << 16;

/// So many entries, in percent of those that are read, fill every cache.
const FULL_PERCENT: u64 = 170;

#[derive(Args)]
pub(crate) struct SpeedArgs {
    /// Entries that each cache holds, such as 1M.
    #[arg(long, default_value = "1M", value_parser = parse_count)]
    entries: u32,
    /// Operations of a round.
    #[arg(long, default_value = "1M", value_parser = parse_count)]
    operations: u32,
    /// Rounds.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Only this cache, for a profiler or a counter of instructions; without it, all.
    #[arg(long)]
    only: Option<Name>,
    /// Only this operation.
    #[arg(long)]
    operation: Option<Operation>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Pelton,
    /// Pelton, 16 keys at a time.
    Batched,
    Hashbrown,
    QuickCache,
    Moka,
}

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Of keys that are there, by Zipf 0.99.
    Hit,
    /// Of keys that are not.
    Miss,
    /// Of a new key in a cache that is full.
    Store,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Pelton => "pelton",
            Self::Batched => "pelton, 16 at a time",
            Self::Hashbrown => "hashbrown map",
            Self::QuickCache => "quick_cache",
            Self::Moka => "moka",
        }
    }

    fn build(self, entries: usize) -> io::Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Pelton => Box::new(Ours::new(entries)?),
            Self::Batched => Box::new(Batched(Ours::new(entries)?)),
            Self::Hashbrown => Box::new(Plain::new(entries)),
            Self::QuickCache => Box::new(Quick::new(entries)),
            Self::Moka => Box::new(Moka::new(entries)),
        })
    }

    /// Whether its stores are timed: a map lets nothing go, and a batch is one of lookups.
    fn evicts(self) -> bool {
        !matches!(self, Self::Batched | Self::Hashbrown)
    }
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Store => "store that evicts",
        }
    }
}

/// A cache, and the CPU nanoseconds of an operation in each round.
struct Contender {
    name: Name,
    peer: Box<dyn Peer>,
    rounds_ns: Vec<f64>,
}

/// Times operations of caches, and prints a table.
///
/// # Errors
/// There is not enough memory, or the kernel's account of CPU time cannot be read.
pub(crate) fn run(args: &SpeedArgs) -> io::Result<()> {
    let mut contenders = Vec::new();
    for &name in Name::value_variants() {
        if args.only.is_none_or(|only| only == name) {
            let mut peer = name.build(args.entries as usize)?;
            keys(0..args.entries).for_each(|chunk| peer.store_all(&chunk));
            contenders.push(Contender { name, peer, rounds_ns: Vec::new() });
        }
    }
    println!("| operation | cache | CPU ns | pelton's share of it |");
    println!("|---|---|---|---|");
    for &operation in Operation::value_variants() {
        if args.operation.is_none_or(|only| only == operation) {
            time(operation, &mut contenders, args)?;
            print(operation, &contenders);
        }
    }
    Ok(())
}

/// The keys of these numbers, a piece at a time.
fn keys(numbers: Range<u32>) -> impl Iterator<Item = Vec<Key>> {
    let pieces = numbers.clone().step_by(PIECE as usize);
    pieces.map(move |start| (start..numbers.end.min(start + PIECE)).map(key).collect())
}

fn key(number: u32) -> Key {
    let text = format!("key-{number:012}");
    text.as_bytes().try_into().expect("a number of 32 bits has at most 10 digits")
}

/// Does one operation in all rounds; the contenders take turns.
fn time(operation: Operation, contenders: &mut [Contender], args: &SpeedArgs) -> io::Result<()> {
    let mut sampler = Sampler::new(Distribution::Zipf(0.99), args.entries, 1);
    let mut draw = |first: u32| -> Vec<Key> {
        (0..args.operations).map(|_| key(first + sampler.draw())).collect()
    };
    // No key of this number or a higher one was stored before.
    let mut unknown = args.entries;
    if operation == Operation::Store {
        let full = u64::from(args.entries) * FULL_PERCENT / 100;
        unknown = u32::try_from(full).map_err(io::Error::other)?;
        for contender in contenders.iter_mut().filter(|contender| contender.name.evicts()) {
            keys(args.entries..unknown).for_each(|chunk| contender.peer.store_all(&chunk));
        }
    }
    contenders.iter_mut().for_each(|contender| contender.rounds_ns.clear());
    for _ in 0..args.rounds {
        let keys: Vec<Key> = match operation {
            Operation::Hit => draw(0),
            Operation::Miss => draw(unknown),
            Operation::Store => (unknown..unknown + args.operations).map(key).collect(),
        };
        for Contender { name, peer, rounds_ns } in contenders.iter_mut() {
            let before = Usage::of_this_thread()?;
            match operation {
                Operation::Hit => assert_eq!(peer.read_all(&keys), keys.len(), "all are there"),
                Operation::Miss => assert_eq!(peer.read_all(&keys), 0, "none is there"),
                Operation::Store if name.evicts() => peer.store_all(&keys),
                Operation::Store => continue,
            }
            let used = Usage::of_this_thread()?.since(before);
            rounds_ns.push(used.cpu_ns as f64 / keys.len() as f64);
        }
        if operation == Operation::Store {
            unknown += args.operations;
        }
    }
    Ok(())
}

fn print(operation: Operation, contenders: &[Contender]) {
    let show = |Estimate { median, low, high }: Estimate, places: usize| {
        format!("{median:.places$} [{low:.places$}, {high:.places$}]")
    };
    let ours = contenders.iter().find(|contender| contender.name == Name::Pelton);
    for contender in contenders.iter().filter(|contender| !contender.rounds_ns.is_empty()) {
        let shares = ours.map_or_else(String::new, |ours| {
            let pairs = ours.rounds_ns.iter().zip(&contender.rounds_ns);
            show(Estimate::of(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>()), 2)
        });
        let ns = show(Estimate::of(&contender.rounds_ns), 0);
        println!("| {} | {} | {ns} | {shares} |", operation.text(), contender.name.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hold_what_was_stored_and_nothing_else() {
        for &name in Name::value_variants() {
            let mut peer = name.build(10_000).expect("there is memory for it");
            keys(0..10_000).for_each(|chunk| peer.store_all(&chunk));
            let found: usize = keys(5_000..15_000).map(|chunk| peer.read_all(&chunk)).sum();
            assert_eq!(found, 5_000, "{}", name.text());
        }
    }

    #[test]
    fn a_full_cache_lets_others_go() {
        for &name in Name::value_variants().iter().filter(|name| name.evicts()) {
            let mut peer = name.build(10_000).expect("there is memory for it");
            keys(0..200_000).for_each(|chunk| peer.store_all(&chunk));
            let found: usize = keys(0..200_000).map(|chunk| peer.read_all(&chunk)).sum();
            assert!(found < 200_000, "{}: {found}", name.text());
        }
    }
}
