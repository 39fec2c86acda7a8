//! The method: two servers at one rate, in alternating windows, by the CPU time of a request.
//!
//! Three servers run side by side on one CPU: the baseline, the candidate, and a twin of the
//! baseline. Only one of them is under load at a time. In each round every server has one window,
//! in an order that turns around from round to round, so that what drifts meets all alike. A
//! round gives a difference candidate - baseline and, as the measure of the noise, a difference
//! twin - baseline. Nothing is said where the noise is too loud. What servers do on their own
//! account, a snapshot say, meets only their own windows where those without one are paused.

#![expect(clippy::print_stdout, reason = "prints what it measures as it goes")]

use crate::load::{BUFFERS, Outcome, Plan, Stream, Until, Wire, Worker};
use crate::procfs::{self, Steal, Usage};
use crate::report::BUSY_MAX;
use crate::ring::Ring;
use crate::server::Server;
use crate::statistics::Estimate;
use crate::traffic::{Distribution, Keys, Recipe, Records, Requests, Verify};
use crate::{CompareArgs, pin};
use nix::sys::signal::Signal;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// How long the last requests of a window may take.
const GRACE: Duration = Duration::from_secs(2);

/// Share of the offered rate that a server must answer for its window to count.
const ANSWERED_MIN: f64 = 0.98;

/// Exit code where the candidate costs more than the margin.
const THRESHOLD_MISSED: u8 = 7;
/// Exit code where the noise allows no verdict.
const NOT_RESOLVED: u8 = 3;

/// What the field Host says.
const HOST: &str = "localhost";

const CANDIDATE: &str = "candidate";
const NAMES: [&str; 3] = ["baseline", CANDIDATE, "twin"];

/// Starts the servers, measures, prints, ends the servers.
pub(crate) fn run(args: &CompareArgs) -> io::Result<ExitCode> {
    let records = args.traffic.records()?;
    let path = args.traffic.path(if records.keys.is_empty() { &args.path } else { "" });
    let requests = args.traffic.requests(Recipe {
        keys: Keys { known: &records.keys, cold: &[] },
        ..Recipe::get(path, HOST)
    })?;
    let commands = [&args.baseline, &args.candidate, &args.baseline];
    pin(args.server_cpu)?;
    let servers = [0_u16, 1, 2].map(|index| {
        Server::start(commands[usize::from(index)], args.port + index, NAMES[usize::from(index)])
    });
    pin(args.load_cpu)?;
    let [baseline, candidate, twin] = servers;
    let mut servers = [baseline?, candidate?, twin?];
    for server in &mut servers {
        server.wait_until_up()?;
    }
    let mut ring = Ring::new(BUFFERS)?;
    if !records.keys.is_empty() {
        for server in &servers {
            warm_up(&mut ring, args, server, &records)?;
        }
    }
    if args.pause {
        servers.iter().try_for_each(|server| server.signal(Signal::SIGSTOP))?;
    }
    println!("{}", procfs::machine());
    println!(
        "{:.0} requests/s, {} connections, {} a batch, {} windows of {} s each",
        args.rate, args.connections, args.traffic.pipeline, args.pairs, args.window
    );
    let rounds = measure(&mut ring, args, &servers, &requests)?;
    Ok(report(args, &rounds))
}

/// Asks a server once for every key, so that what is measured is warm, and the candidate right.
fn warm_up(
    ring: &mut Ring,
    args: &CompareArgs,
    server: &Server,
    records: &Records,
) -> io::Result<()> {
    let requests = Requests::new(&Recipe {
        keys: Keys { known: &records.keys, cold: &[] },
        distribution: Distribution::Sequential,
        count: Some(records.keys.len()),
        // A server that closes after so many is asked for no more.
        portion: args.traffic.churn.unwrap_or(1) as usize,
        closing: args.traffic.churn.is_some(),
        ..Recipe::get(args.traffic.path(""), HOST)
    });
    let requests = requests.map_err(io::Error::other)?;
    // The baseline may be a floor, whose bodies are all the same.
    let verify = args.traffic.verify.filter(|_| server.name == CANDIDATE);
    let verify = verify.map(|verify| (verify, records));
    let outcome = drive(ring, server, &requests, args, Drive::Sweep(verify))?;
    if verify.is_some() {
        println!("{} bodies compared, all equal", outcome.total().answered);
    }
    Ok(())
}

/// How the generator is to drive a server.
#[derive(Clone, Copy)]
enum Drive<'a> {
    /// Every request once, in a closed loop, bodies compared.
    Sweep(Option<(Verify, &'a Records)>),
    /// One window, from this request on.
    Window(usize),
}

/// Drives one server from this thread; errors of the server are errors.
fn drive(
    ring: &mut Ring,
    server: &Server,
    requests: &Requests,
    args: &CompareArgs,
    drive: Drive<'_>,
) -> io::Result<Outcome> {
    let (rate, pipeline, first_request, verify, until) = match drive {
        Drive::Sweep(verify) => (None, 1, 0, verify, Until::Swept),
        Drive::Window(first) => {
            let until = Until::Elapsed(Duration::from_secs_f64(args.window));
            (Some(args.rate), args.traffic.pipeline as usize, first, None, until)
        }
    };
    let stream = Stream {
        name: server.name,
        connections: args.connections as usize,
        rate,
        pipeline,
        requests,
        first_request,
        verify,
        bodiless: false,
    };
    let plan = Plan {
        address: server.address,
        threads: 1,
        cpus: Vec::new(),
        streams: vec![stream],
        until,
        warm_up: Duration::ZERO,
        timeout: GRACE,
        deadline: GRACE,
        spin: false,
    };
    let outcome = Worker::new(Wire::new(ring, server.address), &plan, 0).run()?;
    refuse_errors(server, &outcome)?;
    Ok(outcome)
}

fn refuse_errors(server: &Server, outcome: &Outcome) -> io::Result<()> {
    let errors = outcome.total().errors;
    match &errors.first {
        None if errors.count() == 0 => Ok(()),
        first => Err(io::Error::other(format!(
            "the {} made {} errors: {}",
            server.name,
            errors.count(),
            first.as_deref().unwrap_or("requests were not answered")
        ))),
    }
}

/// One window of one server.
#[derive(Clone, Copy)]
struct Window {
    us_per_request: f64,
    requests_per_wait: f64,
    p99_us: f64,
    answered_share: f64,
    generator_busy: f64,
    steal_percent: f64,
}

/// The windows of one round, in the order of [`NAMES`].
type Round = [Window; 3];

fn measure(
    ring: &mut Ring,
    args: &CompareArgs,
    servers: &[Server; 3],
    requests: &Requests,
) -> io::Result<Vec<Round>> {
    let portions = requests.count() / requests.portion();
    let portions_per_window = args.rate * args.window / requests.portion() as f64;
    let mut rounds = Vec::new();
    // The first round warms up and is not kept.
    for index in 0..=args.pairs {
        let begun = (index as f64 * portions_per_window) % portions as f64;
        let first = whole(begun) * requests.portion();
        let mut windows: [Option<Window>; 3] = [None; 3];
        let order = if index % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for server in order {
            windows[server] = Some(window(ring, args, &servers[server], requests, first)?);
        }
        let round = windows.map(|window| window.expect("each server had its window"));
        if index > 0 {
            let [baseline, candidate, twin] = round.map(|window| window.us_per_request);
            println!("{index:>3}  {baseline:.3}  {candidate:.3}  {twin:.3} us a request");
            rounds.push(round);
        }
    }
    Ok(rounds)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a sequence: not negative, and small"
)]
const fn whole(number: f64) -> usize {
    number as usize
}

fn window(
    ring: &mut Ring,
    args: &CompareArgs,
    server: &Server,
    requests: &Requests,
    first_request: usize,
) -> io::Result<Window> {
    if args.pause {
        server.signal(Signal::SIGCONT)?;
    }
    let steal = Steal::now()?;
    let before = Usage::of_process(server.id(), &args.thread)?;
    let outcome = drive(ring, server, requests, args, Drive::Window(first_request))?;
    let used = Usage::of_process(server.id(), &args.thread)?.since(before);
    if args.pause {
        server.signal(Signal::SIGSTOP)?;
    }
    let total = outcome.total();
    let answered = total.answered as f64;
    Ok(Window {
        us_per_request: used.cpu_ns as f64 / 1e3 / answered,
        requests_per_wait: answered / used.waits.max(1) as f64,
        p99_us: total.latency.value_at_quantile(0.99) as f64,
        answered_share: outcome.rate() / args.rate,
        generator_busy: outcome.busy(),
        steal_percent: Steal::now()?.percent_since(steal),
    })
}

/// Whether the candidate costs at most the margin more than the baseline.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Within,
    Over,
    NotResolved,
}

/// `noise` is the difference between two servers that are the same.
fn judge(noise: &Estimate, difference: &Estimate, margin_us: f64) -> Verdict {
    if noise.width() >= margin_us / 2.0 {
        Verdict::NotResolved
    } else if difference.high <= margin_us {
        Verdict::Within
    } else if difference.low > margin_us {
        Verdict::Over
    } else {
        Verdict::NotResolved
    }
}

fn report(args: &CompareArgs, rounds: &[Round]) -> ExitCode {
    let each =
        |of: &dyn Fn(&Round) -> f64| Estimate::of(&rounds.iter().map(of).collect::<Vec<_>>());
    println!("\nserver       us a request  [95% interval]     requests a wait   p99 us");
    for (index, name) in NAMES.iter().enumerate() {
        let cost = each(&|round| round[index].us_per_request);
        let batch = each(&|round| round[index].requests_per_wait).median;
        let p99 = each(&|round| round[index].p99_us).median;
        println!(
            "{name:<12} {:>12.3}  [{:.3}, {:.3}] {batch:>19.1} {p99:>10.0}",
            cost.median, cost.low, cost.high
        );
    }
    let noise = each(&|[baseline, _, twin]| twin.us_per_request - baseline.us_per_request);
    let difference =
        each(&|[baseline, candidate, _]| candidate.us_per_request - baseline.us_per_request);
    let late = |other: usize| each(&|round| round[other].p99_us - round[0].p99_us);
    for (what, estimate) in [
        ("twin - baseline", &noise),
        ("candidate - baseline", &difference),
        ("p99: twin - baseline", &late(2)),
        ("p99: candidate - baseline", &late(1)),
    ] {
        println!(
            "{what:<26} {:+.3} us  [{:+.3}, {:+.3}]",
            estimate.median, estimate.low, estimate.high
        );
    }
    let worst = |of: &dyn Fn(&Window) -> f64| {
        rounds.iter().flatten().map(of).fold(f64::NEG_INFINITY, f64::max)
    };
    let least_answered = -worst(&|window| -window.answered_share);
    let busiest = worst(&|window| window.generator_busy);
    println!(
        "at worst: steal {:.1}%, generator {:.0}% busy, {:.1}% of the offered rate answered",
        worst(&|window| window.steal_percent),
        busiest * 100.0,
        least_answered * 100.0
    );
    let verdict = if busiest > BUSY_MAX || least_answered < ANSWERED_MIN {
        println!("the rate is too high for the generator or for a server");
        Verdict::NotResolved
    } else {
        judge(&noise, &difference, args.margin_us)
    };
    let (words, code) = match verdict {
        Verdict::Within => ("within the margin", 0),
        Verdict::Over => ("over the margin", THRESHOLD_MISSED),
        Verdict::NotResolved => ("not resolved", NOT_RESOLVED),
    };
    println!("{words} of {} us", args.margin_us);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(low: f64, high: f64) -> Estimate {
        Estimate { median: f64::midpoint(low, high), low, high }
    }

    #[test]
    fn a_verdict_needs_noise_below_half_the_margin() {
        let difference = between(0.1, 0.2);
        assert_eq!(judge(&between(-0.1, 0.1), &difference, 0.5), Verdict::Within);
        assert_eq!(judge(&between(-0.2, 0.1), &difference, 0.5), Verdict::NotResolved);
    }

    #[test]
    fn a_verdict_needs_the_whole_interval_on_one_side() {
        let noise = between(-0.01, 0.01);
        assert_eq!(judge(&noise, &between(0.6, 0.7), 0.5), Verdict::Over);
        assert_eq!(judge(&noise, &between(0.4, 0.6), 0.5), Verdict::NotResolved);
    }
}
