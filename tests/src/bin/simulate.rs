//! Runs seeds of the simulated world: `make sim`.
//!
//! ```text
//! SEED=17              one seed, twice
//! SEED=17 SEEDS=500    so many, from that one on
//! SEED=17 TIME=60      as many as run in so many seconds, on all cores
//! TICKS=20000          length of each storm, with any of them
//! ```
//!
//! A shard keeps the memory that it is given for as long as its process lives. So the seeds of a
//! long run are run in parts, each in a process of its own.

#![expect(clippy::disallowed_methods, reason = "seeds enter by the environment; time is measured")]
#![expect(clippy::disallowed_types, reason = "how long a run takes is measured")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what it came to")]

use pelton_tests::sim::runs::{Seeds, Sum, TICKS, run_all};
use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Seeds of one process: some 100 MB.
const PART: u64 = 64;

/// Seeds, where neither a seed nor a time was asked for.
const SEEDS: u64 = 300;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let seed = number("SEED")?;
    let ticks = number("TICKS")?.unwrap_or(TICKS);
    let first = seed.unwrap_or(0);
    if let Some(time_s) = number("TIME")? {
        let sum = run_for(first, ticks, Duration::from_secs(time_s))?;
        report(&sum);
        let missing = sum.missing();
        println!(
            "never walked: {}",
            if missing.is_empty() { "none".into() } else { missing.join(" ") }
        );
        return Ok(());
    }
    let count = number("SEEDS")?.unwrap_or_else(|| if seed.is_some() { 1 } else { SEEDS });
    let sum = run_all(Seeds { first, count, ticks })?;
    if env::args().nth(1).as_deref() == Some("--part") {
        print!("{sum}");
    } else {
        report(&sum);
    }
    Ok(())
}

fn number(name: &str) -> Result<Option<u64>, String> {
    let Some(text) = env::var(name).ok().filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.parse().map_err(|_| format!("{name} is a whole number, not {text:?}."))?;
    Ok(Some(number))
}

/// Runs parts until the time is over. Each uses all cores.
fn run_for(first: u64, ticks: u64, time: Duration) -> Result<Sum, String> {
    let program =
        env::current_exe().map_err(|error| format!("no path to this program: {error}"))?;
    let begun = Instant::now();
    let mut sum = Sum::default();
    while begun.elapsed() < time {
        let part = Command::new(&program)
            .arg("--part")
            .env("SEED", first.wrapping_add(sum.seeds).to_string())
            .env("SEEDS", PART.to_string())
            .env("TICKS", ticks.to_string())
            .env_remove("TIME")
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        if !part.status.success() {
            return Err(format!("{} seeds passed before.", sum.seeds));
        }
        sum.add(&Sum::parse(&String::from_utf8_lossy(&part.stdout))?);
    }
    Ok(sum)
}

fn report(sum: &Sum) {
    print!("{sum}");
    println!("{} simulated requests a second of CPU", sum.requests_per_cpu_second());
}
