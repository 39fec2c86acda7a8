//! Plays random operations seed by seed. A seed that fails is shortened, and says how to repeat it.

use crate::choices::{Choice, Choices};
use crate::kernel_stage::KernelStage;
use crate::random::play;
use crate::sim_stage::SimStage;
use std::ops::Range;

/// Seeds that are played on the kernel's ring, and on the simulated one.
const KERNEL_SEEDS: u64 = 300;
const SIM_SEEDS: u64 = 3_000;

/// Operations of a run.
const STEPS: u32 = 400;

/// What plays a seed, so many operations of it.
type Play = fn(u64, u32) -> Choices;

fn on_the_kernel(seed: u64, steps: u32) -> Choices {
    play(&mut KernelStage::with_small_buffers(), seed, steps)
}

fn simulated(seed: u64, steps: u32) -> Choices {
    play(&mut SimStage::new(seed), seed, steps)
}

/// Plays a seed on a thread of its own, which may register 16 rings and gives back the places by
/// ending only. `None` if it fails.
fn attempt(play: Play, seed: u64, steps: u32) -> Option<Choices> {
    std::thread::scope(|scope| scope.spawn(|| play(seed, steps)).join()).ok()
}

fn play_all(ring: &str, play: Play, seeds: Range<u64>) -> Choices {
    let mut sum = Choices::default();
    for seed in seeds {
        let choices = attempt(play, seed, STEPS);
        sum.append(choices.unwrap_or_else(|| fail(ring, play, seed)));
    }
    sum
}

/// Looks for fewer operations of the seed that fail as well.
fn fail(ring: &str, play: Play, seed: u64) -> ! {
    let mut steps = STEPS;
    while steps > 1 && attempt(play, seed, steps / 2).is_none() {
        steps /= 2;
    }
    panic!(
        "seed {seed} fails on the {ring} ring, as do its first {steps} operations; the last lists \
         above end in what failed. Repeat it: \
         RING_SEED={seed} cargo test -p pelton-tests --test ring_conformance random"
    );
}

#[expect(clippy::disallowed_methods, reason = "a seed enters by the environment")]
fn seed() -> Option<u64> {
    let seed = std::env::var("RING_SEED").ok()?;
    Some(seed.parse().expect("RING_SEED is a number"))
}

#[expect(clippy::print_stdout, reason = "with --nocapture it shows the counts")]
pub(crate) fn play_both() {
    if let Some(seed) = seed() {
        play_all("kernel's", on_the_kernel, seed..seed + 1);
        play_all("simulated", simulated, seed..seed + 1);
        return;
    }
    let kernel = play_all("kernel's", on_the_kernel, 0..KERNEL_SEEDS);
    let simulated = play_all("simulated", simulated, 0..SIM_SEEDS);
    println!("{:<20} {:>8} {:>9}", "choice", "kernel's", "simulated");
    for choice in Choice::ALL {
        let (here, there) = (kernel.count(choice), simulated.count(choice));
        println!("{:<20} {here:>8} {there:>9}", format!("{choice:?}"));
    }
    for choice in Choice::ALL {
        let here = kernel.count(choice);
        assert!(simulated.count(choice) > 0, "only the kernel's ring made it, {here}: {choice:?}");
    }
}
