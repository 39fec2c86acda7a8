//! The load generator: an open loop at a constant rate, or a closed loop.
//!
//! At a constant rate every batch of requests has an intended start, evenly spaced, whatever the
//! server does; latency counts from it, so a server that stalls is charged with all who wait
//! meanwhile. In a closed loop a connection asks again when it was answered: that finds the peak,
//! and its latencies leave out what an independent client would have waited.
//!
//! `schedule` says when batches are due, `connection` holds what is known of one connection,
//! `worker` drives the connections of one thread over a `link`, `tally` counts what came.

mod connection;
mod link;
mod schedule;
mod tally;
mod worker;

pub(crate) use link::Wire;
pub(crate) use tally::{Errors, Tally};
pub(crate) use worker::Worker;

#[cfg(test)]
mod planted;
#[cfg(test)]
mod tests;

use crate::address::Address;
use crate::pin;
use crate::ring::{BufferSizes, Ring};
use crate::traffic::{Records, Requests, Verify};
use std::io;
use std::time::Duration;

/// The receive buffers of a generator: sixteen pipelined replies with bodies of 150 bytes fit one.
pub(crate) const BUFFERS: BufferSizes = BufferSizes { count: 1024, size: 8192 };

/// What to do.
pub(crate) struct Plan<'a> {
    pub(crate) address: &'static Address,
    pub(crate) threads: usize,
    /// The CPU of each thread; empty where the scheduler chooses.
    pub(crate) cpus: Vec<usize>,
    pub(crate) streams: Vec<Stream<'a>>,
    pub(crate) until: Until,
    /// Latencies count for batches that are due after this.
    pub(crate) warm_up: Duration,
    /// A request that is not answered for so long is counted; the run waits so long at its end.
    pub(crate) timeout: Duration,
    /// Replies that take longer do not count as in time.
    pub(crate) deadline: Duration,
    /// Never sleep shortly before a batch is due.
    pub(crate) spin: bool,
}

/// Requests of one client, or tenant: a rate and connections of its own.
pub(crate) struct Stream<'a> {
    pub(crate) name: &'a str,
    pub(crate) connections: usize,
    /// Requests a second, or `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    /// Requests in a batch: sent at once, answered in order.
    pub(crate) pipeline: usize,
    pub(crate) requests: &'a Requests,
    /// Where in the sequence to begin: the start of a portion.
    pub(crate) first_request: usize,
    /// What bodies are compared with.
    pub(crate) verify: Option<(Verify, &'a Records)>,
    /// Replies have no bodies, since the requests are HEAD.
    pub(crate) bodiless: bool,
}

/// When to stop starting batches.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After every request of the sequence was sent once; on one thread only.
    Swept,
}

/// What came of it.
pub(crate) struct Outcome {
    /// From the start to the end of sending, or to the last answer where that was earlier.
    pub(crate) elapsed: Duration,
    /// One for each stream.
    pub(crate) tallies: Vec<Tally>,
    /// One for each thread.
    pub(crate) threads: Vec<Thread>,
}

/// How a thread of the generator fared.
pub(crate) struct Thread {
    /// Mean latency while warming up, microseconds; zero without a warm-up.
    pub(crate) warm_mean_us: f64,
    /// How often the rate was sampled.
    pub(crate) sample_every: Duration,
    /// Requests a second in each sample.
    pub(crate) rates: Vec<f64>,
    /// Share of the time that it was on its CPU, from 0 to 1.
    pub(crate) busy: f64,
}

impl Outcome {
    /// All streams together.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new();
        self.tallies.iter().for_each(|tally| total.add(tally));
        total
    }

    /// Replies a second.
    pub(crate) fn rate(&self) -> f64 {
        self.total().answered as f64 / self.elapsed.as_secs_f64()
    }

    /// The busiest thread's share of its CPU.
    pub(crate) fn busy(&self) -> f64 {
        self.threads.iter().map(|thread| thread.busy).fold(0.0, f64::max)
    }
}

/// Carries a plan out, each thread on a ring of its own.
pub(crate) fn run(plan: &Plan<'_>) -> io::Result<Outcome> {
    let work = |index: usize| {
        if !plan.cpus.is_empty() {
            pin(plan.cpus[index % plan.cpus.len()])?;
        }
        let mut ring = Ring::new(BUFFERS)?;
        Worker::new(Wire::new(&mut ring, plan.address), plan, index).run()
    };
    let parts: Vec<io::Result<Outcome>> = std::thread::scope(|scope| {
        let work = &work;
        let spawned: Vec<_> =
            (0..plan.threads).map(|index| scope.spawn(move || work(index))).collect();
        let joined = spawned.into_iter().map(|thread| thread.join());
        joined.map(|part| part.expect("a thread of the generator ends by itself")).collect()
    });
    let mut parts = parts.into_iter();
    let mut whole = parts.next().expect("there is a thread")?;
    for part in parts {
        let part = part?;
        whole.elapsed = whole.elapsed.max(part.elapsed);
        for (tally, other) in whole.tallies.iter_mut().zip(&part.tallies) {
            tally.add(other);
        }
        whole.threads.extend(part.threads);
    }
    Ok(whole)
}
