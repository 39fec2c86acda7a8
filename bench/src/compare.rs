//! The method: two servers at one rate, in alternating windows, by the CPU time of a request.
//!
//! Three servers run side by side on one CPU: the baseline, the candidate, and a twin of the
//! baseline. Only one of them is under load at a time. In each round every server has one window,
//! in an order that turns around from round to round, so that what drifts meets all alike. A
//! round gives a difference candidate - baseline and, as the measure of the noise, a difference
//! twin - baseline. Nothing is said where the noise is too loud.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "waits for servers to come up, and prints what it measures as it goes"
)]

use crate::load::{self, Outcome, Plan, Until};
use crate::procfs::{self, Steal, Usage};
use crate::report::BUSY_MAX;
use crate::requests::{Requests, Target};
use crate::ring::Ring;
use crate::statistics::Estimate;
use crate::{CompareArgs, pin};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Tries to connect to a new server, [`TRY_EVERY`] apart: 30 s in all.
const TRIES_MAX: u32 = 300;
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Share of the offered rate that a server must answer for its window to count.
const ANSWERED_MIN: f64 = 0.98;

/// Exit code where the candidate costs more than the margin.
const THRESHOLD_MISSED: u8 = 7;
/// Exit code where the noise allows no verdict.
const NOT_RESOLVED: u8 = 3;

const NAMES: [&str; 3] = ["baseline", "candidate", "twin"];

/// Starts the servers, measures, prints, ends the servers.
pub(crate) fn run(args: &CompareArgs) -> io::Result<ExitCode> {
    let commands = [&args.baseline, &args.candidate, &args.baseline];
    pin(Some(args.server_cpu))?;
    let servers = [0_u16, 1, 2].map(|index| {
        Server::start(commands[usize::from(index)], args.port + index, NAMES[usize::from(index)])
    });
    pin(Some(args.load_cpu))?;
    let [baseline, candidate, twin] = servers;
    let servers = [baseline?, candidate?, twin?];
    for server in &servers {
        server.wait_until_up()?;
    }
    let mut ring = Ring::new()?;
    let records = args.traffic.records()?;
    if let Some(records) = &records {
        warm_up(&mut ring, args, &servers, &records.keys, args.traffic.bodies(records))?;
    }
    let keys = records.as_ref().map(|records| &records.keys[..]);
    let target = keys.map_or(Target::Path(&args.traffic.path), |keys| Target::Random {
        keys,
        seed: args.traffic.seed,
    });
    let requests = Requests::new(&target, "localhost", args.traffic.pipeline as usize);
    println!("{}", procfs::machine());
    println!(
        "{:.0} requests/s, {} connections, {} a batch, {} windows of {} s each",
        args.rate, args.traffic.connections, args.traffic.pipeline, args.pairs, args.window
    );
    let rounds = measure(&mut ring, args, &servers, &requests)?;
    Ok(report(args, &rounds))
}

/// A server under test, ended when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    name: &'static str,
}

impl Server {
    fn start(command: &str, port: u16, name: &'static str) -> io::Result<Self> {
        let command = command.replace("{port}", &port.to_string());
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), name })
    }

    fn wait_until_up(&self) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(TRY_EVERY);
        }
        Err(io::Error::other(format!("the {} does not listen on {}", self.name, self.address)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks each server once for every key, so that what is measured is warm, and right.
fn warm_up(
    ring: &mut Ring,
    args: &CompareArgs,
    servers: &[Server; 3],
    keys: &[String],
    bodies: &[Box<[u8]>],
) -> io::Result<()> {
    let requests = Requests::new(&Target::Sweep { keys }, "localhost", 1);
    for server in servers {
        let is_candidate = server.name == "candidate";
        let plan = Plan {
            address: server.address,
            connections: args.traffic.connections as usize,
            pipeline: 1,
            rate: None,
            until: Until::Swept,
            requests: &requests,
            first_request: 0,
            bodies: if is_candidate { bodies } else { &[] },
        };
        let outcome = load::run(ring, &plan)?;
        refuse_errors(server, &outcome)?;
        if is_candidate && !bodies.is_empty() {
            println!("{} bodies compared, all equal", outcome.answered);
        }
    }
    Ok(())
}

fn refuse_errors(server: &Server, outcome: &Outcome) -> io::Result<()> {
    match &outcome.errors.first {
        None if outcome.errors.count() == 0 => Ok(()),
        first => Err(io::Error::other(format!(
            "the {} made {} errors: {}",
            server.name,
            outcome.errors.count(),
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
    let pipeline = args.traffic.pipeline as usize;
    let batches = requests.count() / pipeline;
    let batches_per_window = args.rate * args.window / pipeline as f64;
    let mut rounds = Vec::new();
    // The first round warms up and is not kept.
    for index in 0..=args.pairs {
        let begun = (index as f64 * batches_per_window) % batches as f64;
        let mut windows: [Option<Window>; 3] = [None; 3];
        let order = if index % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for server in order {
            let plan = Plan {
                address: servers[server].address,
                connections: args.traffic.connections as usize,
                pipeline,
                rate: Some(args.rate),
                until: Until::Elapsed(Duration::from_secs_f64(args.window)),
                requests,
                first_request: whole(begun) * pipeline,
                bodies: &[],
            };
            windows[server] = Some(window(ring, args, &servers[server], &plan)?);
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
    plan: &Plan<'_>,
) -> io::Result<Window> {
    let steal = Steal::now()?;
    let before = Usage::of_process(server.child.id(), &args.thread)?;
    let outcome = load::run(ring, plan)?;
    let used = Usage::of_process(server.child.id(), &args.thread)?.since(before);
    refuse_errors(server, &outcome)?;
    let answered = outcome.answered as f64;
    Ok(Window {
        us_per_request: used.cpu_ns as f64 / 1e3 / answered,
        requests_per_wait: answered / used.waits.max(1) as f64,
        p99_us: outcome.latency.value_at_quantile(0.99) as f64 / 1e3,
        answered_share: outcome.rate() / args.rate,
        generator_busy: outcome.busy,
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
    for (what, estimate) in [("twin - baseline", &noise), ("candidate - baseline", &difference)] {
        println!(
            "{what:<22} {:+.3} us  [{:+.3}, {:+.3}]",
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
