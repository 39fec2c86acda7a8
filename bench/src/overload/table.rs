//! The rounds of one server as a table, and whether they are what is aimed at.

use super::phase::Phase;
use super::{CALM, OverloadArgs};
use crate::report::BUSY_MAX;
use crate::statistics::Estimate;

/// What is to be served of the peak, by how many times that is offered.
const GOODPUT_MIN: [(f64, f64); 3] = [(2.0, 0.98), (5.0, 0.95), (10.0, 0.90)];
/// The same where all are hits.
const HITS_MIN: f64 = 0.97;
/// How much longer what is served may take than it takes at little load.
const P99_TIMES_MAX: f64 = 3.0;
/// What is to be served in time, from one second after the load has gone.
const RECOVERED_MIN: f64 = 0.999;
/// How much more one connection may be served than another.
const FAIRNESS_MAX: f64 = 2.0;

/// One round.
#[derive(Debug)]
pub(super) struct Round {
    /// Requests a second that were served a few connections in a closed loop.
    pub(super) peak: f64,
    /// At little load.
    pub(super) calm: Phase,
    /// In the order of the multiples.
    pub(super) loads: Vec<Phase>,
    /// Of what was due after each of them, from a second on, what was served in time.
    pub(super) recovered: Vec<f64>,
}

/// Prints the table. Returns whether an aim was missed.
pub(super) fn print(args: &OverloadArgs, rounds: &[Round]) -> bool {
    let each =
        |of: &dyn Fn(&Round) -> f64| Estimate::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let peak = each(&|round| round.peak);
    println!("\n### {}\n", args.name);
    println!(
        "At the peak {:.0} requests/s ({:.0} to {:.0}), rounds: {}. Medians, and 95% intervals.\n",
        peak.median,
        peak.low,
        peak.high,
        rounds.len()
    );
    println!(
        "| offered | served in time /s | of the peak | served p50, p99 ms | refused p99 ms | \
         broken | in time at {CALM} after it | most by least | missed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let calm = |round: &Round| round.calm;
    let mut missed = row(args, CALM, rounds, &calm, None);
    for (index, &times) in args.times.iter().enumerate() {
        let load = |round: &Round| round.loads[index];
        let recovered = each(&|round| round.recovered[index]);
        missed |= row(args, times, rounds, &load, Some(recovered));
    }
    println!("\n{}\n", costs(rounds));
    missed
}

/// One row; whether it misses something.
fn row(
    args: &OverloadArgs,
    times: f64,
    rounds: &[Round],
    phase: &dyn Fn(&Round) -> Phase,
    recovered: Option<Estimate>,
) -> bool {
    let each =
        |of: &dyn Fn(&Round) -> f64| Estimate::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let median = |of: &dyn Fn(Phase) -> f64| each(&|round| of(phase(round))).median;
    let share = each(&|round| phase(round).goodput / round.peak);
    let broken: u64 = rounds.iter().map(|round| phase(round).broken).sum();
    let unhealthy: u64 = rounds.iter().map(|round| phase(round).unhealthy).sum();
    let slower = each(&|round| phase(round).served_p99_us / round.calm.served_p99_us).median;
    let fairness = median(&|phase| phase.fairness);
    let busy = median(&|phase| phase.generator_busy);
    let share_min = match args.hits {
        Some(_) if times > 1.0 => HITS_MIN,
        Some(_) => 0.0,
        None => GOODPUT_MIN.iter().find(|(of, _)| *of == times).map_or(0.0, |(_, least)| *least),
    };
    let faults: Vec<&str> = [
        (share.median < share_min, "goodput"),
        (args.hits.is_none() && slower > P99_TIMES_MAX, "p99"),
        (args.hits.is_some() && fairness > FAIRNESS_MAX, "fairness"),
        (broken > 0, "broken"),
        (unhealthy > 0, "health"),
        (recovered.is_some_and(|share| share.median < RECOVERED_MIN), "recovery"),
        (busy > BUSY_MAX, "generator too busy"),
    ]
    .into_iter()
    .filter_map(|(is_missed, what)| is_missed.then_some(what))
    .collect();
    let ms = |of: &dyn Fn(Phase) -> f64| median(of) / 1e3;
    let again = recovered.map_or(String::new(), |share| {
        let [median, low, high] = [share.median, share.low, share.high].map(percent);
        format!("{median:.2}% ({low:.2} to {high:.2})")
    });
    println!(
        "| {times} x, {:.0}/s | {:.0} | {:.1}% ({:.1} to {:.1}) | {:.2}, {:.2} | {:.2} | \
         {broken} | {again} | {fairness:.1} | {} |",
        median(&|phase| phase.offered),
        median(&|phase| phase.goodput),
        percent(share.median),
        percent(share.low),
        percent(share.high),
        ms(&|phase| phase.served_p50_us),
        ms(&|phase| phase.served_p99_us),
        ms(&|phase| phase.shed_p99_us),
        faults.join(", "),
    );
    !faults.is_empty()
}

/// What a refusal costs beside a request that is served, by the CPU time of the server.
fn costs(rounds: &[Round]) -> String {
    let served_us = |round: &Round| round.calm.cpu_ns / round.calm.served / 1e3;
    let shed_us = |round: &Round| {
        let most = round.loads.iter().max_by(|a, b| a.shed.total_cmp(&b.shed))?;
        let left_ns = most.cpu_ns - most.served * served_us(round) * 1e3;
        (most.shed > most.served).then(|| left_ns / most.shed / 1e3)
    };
    let of = |samples: Vec<f64>| (!samples.is_empty()).then(|| Estimate::of(&samples).median);
    let served = of(rounds.iter().map(served_us).collect()).unwrap_or(f64::NAN);
    match of(rounds.iter().filter_map(shed_us).collect()) {
        None => format!("A request that is served costs the server {served:.1} us of CPU time."),
        Some(shed) => format!(
            "A request that is served costs the server {served:.1} us of CPU time, one that is \
             refused {shed:.1} us: rho is {:.2}%.",
            percent(shed / served)
        ),
    }
}

fn percent(share: f64) -> f64 {
    share * 100.0
}
