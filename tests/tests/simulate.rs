//! Runs the simulated world over many seeds, each twice.
//!
//! `make sim SEED=n` runs one seed, `TICKS=n` with a storm of another length, `SEEDS=n` that many
//! seeds from `SEED` on. See `docs/simulator.md`.

#![expect(clippy::disallowed_methods, reason = "a seed enters by the environment")]
#![expect(clippy::print_stdout, reason = "a run that was asked for says what it came to")]

use pelton::metrics::{Counters, TABLE};
use pelton_tests::sim::marks::{Mark, Marks};
use pelton_tests::sim::{Report, World};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of the test, and ticks of the storm of each.
const SEEDS: u64 = 300;
const TICKS: u64 = 3_000;

/// Marks that no seed may walk, and why.
const NEVER_WALKED: [(Mark, &str); 1] = [(
    Mark::CloseWithReceive,
    "a shard joins before it closes; `ring_conformance` shows what would happen",
)];

/// Counters that stay at zero, and why.
const NEVER_COUNTED: [(&str, &str); 6] = [
    ("closed_socket_error", "the simulated kernel has no unknown errors"),
    ("completions_stale", "a slot's life ends after its last completion"),
    ("cache_store_refused", "values that the origin lets through fit, and caches have room"),
    ("ring_submissions_delayed", "the simulated queue has room"),
    ("buffers_held", "a level, zero at the end"),
    ("flights_active", "a level, zero at the end"),
];

/// What was asked for by the environment.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: u64,
    count: u64,
    ticks: u64,
    /// One seed or some, instead of the test's own.
    explicit: bool,
}

impl Asked {
    fn from_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
        };
        let (seed, seeds) = (number("SEED"), number("SEEDS"));
        let count = if seed.is_some() { 1 } else { SEEDS };
        Self {
            first: seed.unwrap_or(0),
            count: seeds.unwrap_or(count),
            ticks: number("TICKS").unwrap_or(TICKS),
            explicit: seed.is_some() || seeds.is_some(),
        }
    }
}

/// What all seeds came to.
#[derive(Debug, Default)]
struct Sum {
    marks: Marks,
    counters: Vec<u64>,
    ticks: u64,
    replies_count: u64,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.marks.add(&report.marks);
        self.counters.resize(TABLE.len(), 0);
        for (sum, value) in self.counters.iter_mut().zip(Counters::values(&report.counters)) {
            *sum += value;
        }
        self.ticks += report.ticks;
        self.replies_count += report.replies_count;
    }

    fn merge(&mut self, other: &Self) {
        self.marks.add(&other.marks);
        self.counters.resize(TABLE.len(), 0);
        for (sum, value) in self.counters.iter_mut().zip(&other.counters) {
            *sum += value;
        }
        self.ticks += other.ticks;
        self.replies_count += other.replies_count;
    }

    fn print(&self) {
        println!("{} ticks, {} replies", self.ticks, self.replies_count);
        for (row, value) in TABLE.iter().zip(&self.counters) {
            println!("{value:>12} {}", row.field);
        }
        for mark in Mark::ALL {
            println!("{:>12} {mark:?}: {}", self.marks.count(*mark), mark.sentence());
        }
    }

    /// What no seed has walked or counted although it should.
    fn missing(&self) -> Vec<String> {
        let walked = |mark: &Mark| NEVER_WALKED.iter().any(|(never, _)| never == mark);
        let counted = |field: &str| NEVER_COUNTED.iter().any(|(never, _)| *never == field);
        let marks = self.marks.missing().filter(|mark| !walked(mark));
        let rows = TABLE.iter().zip(&self.counters);
        let rows = rows.filter(|(row, value)| **value == 0 && !counted(row.field));
        marks.map(|mark| format!("{mark:?}")).chain(rows.map(|(row, _)| row.field.into())).collect()
    }
}

/// Runs a seed once. A failure says how to repeat it and what led there.
fn run(seed: u64, ticks: u64) -> Report {
    let mut world = World::new(seed);
    catch_unwind(AssertUnwindSafe(|| world.run(ticks))).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("?");
        let description = world.describe();
        panic!("{description}\n{text}\nrepeat it: make sim SEED={seed} TICKS={ticks}");
    })
}

fn run_twice(seed: u64, ticks: u64) -> Report {
    let report = run(seed, ticks);
    let again = run(seed, ticks);
    assert_eq!(report, again, "seed {seed} does not repeat itself");
    report
}

/// Runs all seeds, on all cores; which core runs which seed makes no difference.
fn run_all(asked: Asked) -> Sum {
    let next = AtomicU64::new(asked.first);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= asked.first + asked.count {
                return sum;
            }
            sum.add(&run_twice(seed, asked.ticks));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Sum::default();
        for worker in workers {
            let sum = worker.join().unwrap_or_else(|cause| resume_unwind(cause));
            all.merge(&sum);
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_satisfies_the_oracles_twice_alike() {
        let asked = Asked::from_environment();
        let sum = run_all(asked);
        if asked.explicit {
            sum.print();
        } else {
            let missing = sum.missing();
            assert!(missing.is_empty(), "no seed has come by {missing:?}");
        }
    }
}
