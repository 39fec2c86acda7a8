//! Runs of many seeds, each twice, and what they came to.

use super::marks::{Mark, Marks};
use super::{Report, World};
use pelton::metrics::TABLE;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Ticks of a storm, unless something else is asked for.
pub const TICKS: u64 = 3_000;

/// Marks that no seed may walk, and why.
const NEVER_WALKED: [(Mark, &str); 1] = [(
    Mark::CloseWithReceive,
    "a shard joins before it closes; `ring_conformance` shows what would happen",
)];

/// Counters that stay at zero, and why.
const NEVER_COUNTED: [(&str, &str); 15] = [
    ("closed_socket_error", "the simulated kernel has no unknown errors"),
    ("completions_stale", "a slot's life ends after its last completion"),
    ("ring_submissions_delayed", "the simulated queue has room"),
    ("closed_new_bound", "off: a process test shows it"),
    ("closed_address_bound", "off: a process test shows it"),
    ("closed_requests_bound", "off: a process test shows it"),
    ("accepts_paused", "a level, zero at the end"),
    ("buffers_held", "a level, zero at the end"),
    ("flights_active", "a level, zero at the end"),
    ("cache_condemned_bytes", "a level, mostly zero at the end"),
    ("cache_purged", "nothing of the server purges yet"),
    ("cache_moved_bytes", "few keys of a small world are hot when their segment is emptied"),
    ("restored", "what a small world has forgotten it has mostly no room for"),
    ("restore_withdrawn", "nothing of the server removes or purges yet"),
    ("restore_too_large", "bounds stay what they were when the snapshot was written"),
];

/// Which seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// How many, from there on.
    pub count: u64,
    /// Ticks of the storm of each.
    pub ticks: u64,
}

/// What a number of seeds came to. It is printed in lines that can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Seeds run, each twice.
    pub seeds: u64,
    /// Requests answered to their end, in both runs of each seed.
    pub requests: u64,
    /// Acts, in both runs of each seed.
    pub ticks: u64,
    /// CPU time of the runs, microseconds.
    pub cpu_us: u64,
    /// What the shards counted, in the order of [`TABLE`].
    counters: [u64; TABLE.len()],
    marks: Marks,
}

impl Default for Sum {
    fn default() -> Self {
        let (counters, marks) = ([0; TABLE.len()], Marks::default());
        Self { seeds: 0, requests: 0, ticks: 0, cpu_us: 0, counters, marks }
    }
}

impl Sum {
    fn add_report(&mut self, report: &Report) {
        self.seeds += 1;
        self.requests += 2 * report.replies_count;
        self.ticks += 2 * report.ticks;
        self.marks.add(&report.marks);
        for (sum, value) in self.counters.iter_mut().zip(report.counters.values()) {
            *sum += value;
        }
    }

    /// Adds what other seeds came to.
    pub fn add(&mut self, other: &Self) {
        for (sum, (_, value)) in self.values_mut().zip(other.lines()) {
            *sum += value;
        }
    }

    /// What no seed has walked or counted although it should.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let excused = |name: &str| {
            NEVER_WALKED.iter().any(|(mark, _)| mark.name() == name)
                || NEVER_COUNTED.iter().any(|(field, _)| *field == name)
        };
        let zero = self.lines().filter(|(_, value)| *value == 0);
        zero.map(|(name, _)| name).filter(|name| !excused(name)).collect()
    }

    /// Requests a second of CPU time.
    #[must_use]
    pub fn requests_per_cpu_second(&self) -> u64 {
        (self.requests * 1_000_000).checked_div(self.cpu_us).unwrap_or(0)
    }

    /// Reads what another process has printed.
    ///
    /// # Errors
    /// The line that is not one of a sum.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut sum = Self::default();
        let names: Vec<&str> = Self::default().lines().map(|(name, _)| name).collect();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() != names.len() {
            return Err(format!("{} lines instead of {}:\n{text}", lines.len(), names.len()));
        }
        for ((place, name), line) in sum.values_mut().zip(names).zip(lines) {
            let number = line.trim_start().strip_suffix(name).map(|number| number.trim().parse());
            *place = number.and_then(Result::ok).ok_or_else(|| line.to_owned())?;
        }
        Ok(sum)
    }

    fn lines(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let head = [
            ("seeds", self.seeds),
            ("requests", self.requests),
            ("ticks", self.ticks),
            ("cpu_us", self.cpu_us),
        ];
        let counters = TABLE.iter().map(|row| row.field).zip(self.counters);
        let marks = Mark::ALL.iter().map(|mark| (mark.name(), self.marks.count(*mark)));
        head.into_iter().chain(counters).chain(marks)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        [&mut self.seeds, &mut self.requests, &mut self.ticks, &mut self.cpu_us]
            .into_iter()
            .chain(&mut self.counters)
            .chain(self.marks.counts_mut())
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|(name, value)| writeln!(f, "{value:>14} {name}"))
    }
}

/// Runs all seeds, on all cores; which core runs which seed makes no difference.
///
/// # Errors
/// What the first failing seed found, what led there, and the command that repeats it.
pub fn run_all(seeds: Seeds) -> Result<Sum, String> {
    let next = AtomicU64::new(seeds.first);
    let end = seeds.first.saturating_add(seeds.count);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                sum.cpu_us = cpu_us();
                return Ok(sum);
            }
            match run_twice(seed, seeds.ticks) {
                Ok(report) => sum.add_report(&report),
                Err(failure) => {
                    next.store(end, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Sum::default();
        for worker in workers {
            all.add(&worker.join().expect("a worker catches what its seeds throw")?);
        }
        Ok(all)
    })
}

fn run_twice(seed: u64, ticks: u64) -> Result<Report, String> {
    let report = run(seed, ticks)?;
    if report == run(seed, ticks)? {
        Ok(report)
    } else {
        Err(format!("two runs of a seed differ\n{}", repeat(seed, ticks)))
    }
}

fn run(seed: u64, ticks: u64) -> Result<Report, String> {
    let world = World::new(seed);
    catch_unwind(AssertUnwindSafe(|| world.run(ticks))).map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("?");
        format!("{}\n{text}\n{}", world.describe(), repeat(seed, ticks))
    })
}

fn repeat(seed: u64, ticks: u64) -> String {
    format!("repeat it: make sim SEED={seed} TICKS={ticks}")
}

/// CPU time of this thread, from the scheduler's own account.
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: Option<u64> = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_printed_and_read_again() {
        let mut sum = Sum { seeds: 3, requests: 2_000, ticks: 7, cpu_us: 500, ..Sum::default() };
        sum.counters[4] = 11;
        sum.marks.hit(Mark::SendShort);
        assert_eq!(Sum::parse(&sum.to_string()), Ok(sum.clone()));
        assert_eq!(sum.requests_per_cpu_second(), 4_000_000);
        let mut twice = sum.clone();
        twice.add(&sum);
        assert_eq!((twice.counters[4], twice.marks.count(Mark::SendShort)), (22, 2));
        assert!(Sum::parse("3 seeds\n").is_err());
    }

    #[test]
    fn what_was_never_walked_is_named_unless_it_is_excused() {
        let missing = Sum::default().missing();
        assert!(missing.contains(&"SendShort"));
        assert!(missing.contains(&"requests_hit"));
        assert!(!missing.contains(&"CloseWithReceive"));
        assert!(!missing.contains(&"completions_stale"));
    }
}
