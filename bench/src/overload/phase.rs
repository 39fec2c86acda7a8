//! One load on a server, and what came of it.

use super::OverloadArgs;
use crate::load::{BUFFERS, Errors, Outcome, Plan, Stream, Tally, Until, Wire, Worker};
use crate::procfs::Usage;
use crate::ring::Ring;
use crate::server::Server;
use crate::traffic::{Distribution, Keys, Recipe, Records, Requests};
use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

/// What is not measured at the start of a load: a level goes up and down in less.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the last requests of a load may take.
const GRACE: Duration = Duration::from_secs(2);
/// What is asked in a closed loop, before it is asked again.
const CLOSED_COUNT: usize = 400_000;
/// How often `/healthz` is asked for, each second.
const PROBES_RATE: f64 = 50.0;
/// What the field Host says.
const HOST: &str = "localhost";

/// What a server is offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests a second; without it, a closed loop.
    pub(super) rate: Option<f64>,
    pub(super) connections: usize,
}

/// What came of a load, after its warm-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    /// Requests a second that were due, or were sent in a closed loop.
    pub(super) offered: f64,
    /// Requests a second that were served in time.
    pub(super) goodput: f64,
    pub(super) served_p50_us: f64,
    pub(super) served_p99_us: f64,
    /// Of those that were refused; 0 where none was.
    pub(super) shed_p99_us: f64,
    /// Connections that broke, and requests that were never answered.
    pub(super) broken: u64,
    /// Requests for `/healthz` that were not answered in time, of all.
    pub(super) unhealthy: u64,
    /// The most that a connection was served, over the least.
    pub(super) fairness: f64,
    pub(super) generator_busy: f64,
    /// CPU nanoseconds of the server, and replies of both kinds, warm-up included.
    pub(super) cpu_ns: f64,
    pub(super) served: f64,
    pub(super) shed: f64,
}

impl Phase {
    /// The share of what was due that was served in time.
    pub(super) fn in_time_share(&self) -> f64 {
        (self.goodput / self.offered).min(1.0)
    }
}

/// Drives one server from this thread.
pub(super) struct Driver<'a> {
    args: &'a OverloadArgs,
    server: &'a Server,
    ring: Ring,
    probes: Requests,
    /// Where all are hits, the same sequence for all loads.
    hits: Option<Requests>,
    /// Loads so far: each has keys of its own.
    number: u32,
}

impl<'a> Driver<'a> {
    pub(super) fn new(args: &'a OverloadArgs, server: &'a Server) -> io::Result<Self> {
        let probes = Requests::new(&Recipe { count: Some(1), ..Recipe::get("/healthz", HOST) });
        let hits =
            args.hits.map(|keys| sequence("/lookup/{key}", keys, CLOSED_COUNT)).transpose()?;
        Ok(Self {
            args,
            server,
            ring: Ring::new(BUFFERS)?,
            probes: probes.map_err(io::Error::other)?,
            hits,
            number: 0,
        })
    }

    /// Offers a load and counts what comes of it.
    pub(super) fn drive(&mut self, load: &Load) -> io::Result<Phase> {
        self.number += 1;
        let duration = WARM_UP + self.args.window;
        let own;
        let requests = if let Some(hits) = &self.hits {
            hits
        } else {
            let count = load.rate.map(|rate| whole(rate * duration.as_secs_f64()) + 1);
            let count = count.unwrap_or(CLOSED_COUNT / 8);
            let keys = u32::try_from(count).expect("a few seconds of requests");
            own = sequence(&format!("/lookup/{}-{{key}}", self.number), keys, count)?;
            &own
        };
        let stream = Stream {
            name: "load",
            connections: load.connections,
            rate: load.rate,
            pipeline: 1,
            requests,
            first_request: 0,
            verify: None,
            bodiless: false,
        };
        let (name, rate) = ("probe", Some(PROBES_RATE));
        let probe = Stream { name, connections: 1, rate, requests: &self.probes, ..stream };
        let plan = Plan {
            address: self.server.address,
            threads: 1,
            cpus: Vec::new(),
            streams: vec![stream, probe],
            until: Until::Elapsed(duration),
            warm_up: WARM_UP,
            timeout: GRACE,
            deadline: self.args.deadline,
            spin: false,
        };
        let before = Usage::of_process(self.server.id(), "")?;
        let link = Wire::new(&mut self.ring, self.server.address);
        let outcome = Worker::new(link, &plan, 0).run()?;
        let cpu_ns = Usage::of_process(self.server.id(), "")?.since(before).cpu_ns;
        Ok(phase(load, self.args.window, &outcome, cpu_ns as f64))
    }
}

/// Every key once and in order, and then again if there are fewer than requests.
fn sequence(path: &str, keys: u32, count: usize) -> io::Result<Requests> {
    let records = Records::generated(keys);
    let requests = Requests::new(&Recipe {
        keys: Keys { known: &records.keys, cold: &[] },
        distribution: Distribution::Sequential,
        count: Some(count),
        ..Recipe::get(path, HOST)
    });
    requests.map_err(io::Error::other)
}

fn phase(load: &Load, window: Duration, outcome: &Outcome, cpu_ns: f64) -> Phase {
    let [tally, probe] = &outcome.tallies[..] else { unreachable!("there are two streams") };
    let seconds = window.as_secs_f64();
    let counts = &tally.per_connection;
    let least = counts.iter().min().copied().unwrap_or(0).max(1);
    let most = counts.iter().max().copied().unwrap_or(0);
    let p99 = |of: &Histogram<u64>| if of.is_empty() { 0.0 } else { at(of, 0.99) };
    Phase {
        offered: load.rate.unwrap_or_else(|| tally.latency.len() as f64 / seconds),
        goodput: tally.in_time as f64 / seconds,
        served_p50_us: at(&tally.served, 0.5),
        served_p99_us: p99(&tally.served),
        shed_p99_us: p99(&tally.shed),
        broken: broken(tally),
        unhealthy: probe.latency.len() - probe.in_time + broken(probe),
        fairness: most as f64 / least as f64,
        generator_busy: outcome.busy(),
        cpu_ns,
        served: (tally.answered - tally.refused) as f64,
        shed: tally.refused as f64,
    }
}

const fn broken(tally: &Tally) -> u64 {
    let Errors { connect, read, write, unanswered, .. } = tally.errors;
    connect + read + write + unanswered
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count: not negative, and small"
)]
pub(super) const fn whole(number: f64) -> usize {
    number as usize
}
