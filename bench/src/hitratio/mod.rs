//! Hit ratios of the cache and its peers over recorded and made-up traces.
//!
//! `workload` is what is asked for, `caches` who is asked, `plot` draws the result.

mod caches;
mod plot;
mod workload;

use caches::{CACHE_LINE, Engine, Fifo, Lru, Moka, Quick, Store};
use clap::Args;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use workload::Workload;

#[derive(Args)]
pub(crate) struct HitratioArgs {
    /// Where the recorded traces are.
    #[arg(long, default_value = "bench/traces")]
    traces: PathBuf,
    /// Of the made-up traces.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only workloads whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write plots to this file, as SVG.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// Sizes of the caches, percent of a workload's footprint.
const PERCENTS: [u32; 5] = [1, 2, 5, 10, 25];

/// Who is compared; ours first.
const NAMES: [&str; 5] = ["pelton", "LRU", "FIFO", "quick_cache", "moka"];
const LRU: usize = 1;

/// One workload with one size of cache: a hit ratio in percent for each of [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    workload: &'static str,
    percent: u32,
    ratios: [f64; NAMES.len()],
}

impl Row {
    /// How far ours is behind the best of them, points.
    fn behind(&self) -> f64 {
        self.ratios.into_iter().fold(0.0, f64::max) - self.ratios[0]
    }
}

/// Replays everything, and prints a table and its summary.
///
/// # Errors
/// A trace cannot be read, or the plot not written.
pub(crate) fn run(args: &HitratioArgs) -> io::Result<()> {
    let mut workloads = workload::recorded(&args.traces)?;
    workloads.extend(workload::made_up(args.seed));
    workloads.retain(|workload| workload.name.contains(&args.only));
    if workloads.is_empty() {
        return Err(io::Error::other(format!("no workload has {:?} in its name", args.only)));
    }
    let rows = replay_all(&workloads);
    println!("| workload | cache | {} | behind the best |", NAMES.join(" | "));
    println!("|---|---|{}", "---|".repeat(NAMES.len() + 1));
    for row in &rows {
        let ratios = row.ratios.map(|ratio| format!("{ratio:.2}")).join(" | ");
        println!("| {} | {}% | {ratios} | {:.2} |", row.workload, row.percent, row.behind());
    }
    println!("\n{}", summary(&rows));
    args.svg.as_ref().map_or(Ok(()), |path| std::fs::write(path, plot::draw(&rows)))
}

/// What the table comes to.
fn summary(rows: &[Row]) -> String {
    let count = rows.len() as f64;
    let means: Vec<String> = (0..NAMES.len())
        .map(|place| {
            let mean = rows.iter().map(|row| row.ratios[place]).sum::<f64>() / count;
            format!("{} {mean:.2}", NAMES[place])
        })
        .collect();
    let behind = rows.iter().map(Row::behind).sum::<f64>() / count;
    let worst = rows.iter().map(Row::behind).fold(0.0, f64::max);
    let ahead = rows.iter().filter(|row| row.ratios[0] > row.ratios[LRU]).count();
    format!(
        "means: {}\nours is {behind:.2} points behind the best of a row in the mean, {worst:.2} at \
         most, and ahead of LRU in {ahead} of {} rows",
        means.join(", "),
        rows.len()
    )
}

/// All rows, on as many threads as there are CPUs.
fn replay_all(workloads: &[Workload]) -> Vec<Row> {
    let jobs: Vec<(&Workload, u32)> =
        workloads.iter().flat_map(|workload| PERCENTS.map(|percent| (workload, percent))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let take = || {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let &(workload, percent) = jobs.get(place)?;
            Some((place, replay(workload, percent)))
        };
        std::iter::from_fn(take).collect::<Vec<_>>()
    };
    let mut rows = thread::scope(|scope| {
        let threads: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(work))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn replay(workload: &Workload, percent: u32) -> Row {
    let capacity = workload.footprint() * u64::from(percent) / 100;
    let objects = workload.objects.len();
    let layout = caches::layout(capacity);
    let mut memory = vec![0; layout.memory_bytes() + CACHE_LINE];
    let ratios = [
        ratio(Engine::new(layout, &mut memory), workload),
        ratio(Lru::new(capacity, objects), workload),
        ratio(Fifo::new(capacity, objects), workload),
        ratio(Quick::new(capacity, objects * percent as usize / 100), workload),
        ratio(Moka::new(capacity), workload),
    ];
    Row { workload: workload.name, percent, ratios }
}

/// Hits of all requests, percent.
fn ratio(mut store: impl Store, workload: &Workload) -> f64 {
    let times_ms = (0_u64..).map(|place| place * 1_000 / workload.rate);
    let hits = workload
        .requests
        .iter()
        .zip(times_ms)
        .filter(|&(&number, now_ms)| {
            store.request(number, workload.objects[number as usize], now_ms)
        })
        .count();
    100.0 * hits as f64 / workload.requests.len() as f64
}

#[cfg(test)]
mod tests {
    use super::workload::Object;
    use super::*;

    const OBJECT: Object = Object { value_size: 5_100, ttl_ms: None };

    /// Whether each of `numbers` hits, one after the other, with room for so many.
    fn hits(mut store: impl Store, numbers: &[u32]) -> Vec<bool> {
        numbers.iter().map(|&number| store.request(number, OBJECT, 0)).collect()
    }

    fn capacity(objects: u32) -> u64 {
        u64::from(OBJECT.size() * objects)
    }

    #[test]
    fn a_queue_drops_the_oldest_and_a_list_the_least_recently_used() {
        let numbers = [0, 1, 0, 2, 0, 1];
        let fifo = hits(Fifo::new(capacity(2), 3), &numbers);
        assert_eq!(fifo, [false, false, true, false, false, false]);
        let lru = hits(Lru::new(capacity(2), 3), &numbers);
        assert_eq!(lru, [false, false, true, false, true, false]);
    }

    #[test]
    fn what_is_too_old_is_a_miss_everywhere() {
        let object = Object { ttl_ms: Some(100), ..OBJECT };
        let layout = caches::layout(64 << 20);
        let mut memory = vec![0; layout.memory_bytes() + CACHE_LINE];
        let stores: [Box<dyn Store + '_>; 5] = [
            Box::new(Engine::new(layout, &mut memory)),
            Box::new(Lru::new(64 << 20, 1)),
            Box::new(Fifo::new(64 << 20, 1)),
            Box::new(Quick::new(64 << 20, 1)),
            Box::new(Moka::new(64 << 20)),
        ];
        for mut store in stores {
            let at = [0, 99, 100, 199].map(|now_ms| store.request(0, object, now_ms));
            assert_eq!(at, [false, true, false, true]);
        }
    }

    #[test]
    fn a_row_is_as_far_behind_as_the_best_is_ahead() {
        let row = |ratios| Row { workload: "test", percent: 1, ratios };
        assert_eq!(row([50.0, 40.0, 30.0, 51.5, 51.0]).behind(), 1.5);
        assert_eq!(row([50.0, 40.0, 30.0, 49.0, 50.0]).behind(), 0.0);
        let rows = [row([50.0, 40.0, 30.0, 51.5, 51.0]), row([40.0, 41.0, 0.0, 0.0, 0.0])];
        let summary = summary(&rows);
        assert!(summary.starts_with("means: pelton 45.00, LRU 40.50,"), "{summary}");
        assert!(summary.contains("1.25 points behind"), "{summary}");
        assert!(summary.ends_with("1.50 at most, and ahead of LRU in 1 of 2 rows"), "{summary}");
    }
}
