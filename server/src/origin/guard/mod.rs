//! What stands before one server of an origin: how many requests it is sent, who waits, and when it
//! is left alone.
//!
//! Each server has a guard of its own, so that one which is down costs only its own keys. A request
//! passes the [`breaker`] (is the server up?), then the [`gate`] (may it be sent now?), and is sent
//! once more if it surely never arrived and the [`budget`] allows that. What comes of it moves the
//! breaker and the [`limit`] of the gate.
//!
//! Invariant: a request that was let in is let out once, also where its future is dropped, which is
//! a timeout.
#![expect(clippy::disallowed_types, reason = "one thread: its requests share a guard")]

mod breaker;
mod budget;
mod climb;
mod gate;
mod limit;

use crate::error::FetchFailure;
use crate::mesh::OriginServer;
use crate::metrics::ServerCounters;
use breaker::{Breaker, Verdict};
use budget::Budget;
use gate::Gate;
use limit::Limit;
use std::cell::{Cell, RefCell};
use tokio::time::Instant;

pub use breaker::BreakerState;

/// Why a server gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The request surely never arrived: it may be sent again.
    Unsent,
    /// The server failed, or nobody knows.
    Failed,
    /// It answered, and the answer is of no use: the server is well.
    Useless(FetchFailure),
}

impl Trouble {
    /// What a fetch is told.
    #[must_use]
    pub const fn failure(self) -> FetchFailure {
        match self {
            Self::Unsent | Self::Failed => FetchFailure::Unavailable,
            Self::Useless(failure) => failure,
        }
    }
}

/// The guard of one server.
#[derive(Debug)]
pub struct Guard {
    name: String,
    breaker: RefCell<Breaker>,
    gate: Gate,
    limit: RefCell<Limit>,
    budget: RefCell<Budget>,
    /// The levels among them are looked up when they are asked for.
    counts: Cell<ServerCounters>,
}

impl Guard {
    /// A guard for the server called `name`, which is sent `requests_max` requests at a time at
    /// most, while `queue_max` wait.
    #[must_use]
    pub fn new(name: String, requests_max: u32, queue_max: u32) -> Self {
        let limit = Limit::new(requests_max);
        Self {
            name,
            breaker: RefCell::new(Breaker::new()),
            gate: Gate::new(limit.get(), queue_max),
            limit: RefCell::new(limit),
            budget: RefCell::new(Budget::new()),
            counts: Cell::default(),
        }
    }

    /// What the server is called: host and port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server, with what this has seen.
    #[must_use]
    pub fn report(&self) -> OriginServer {
        OriginServer { name: self.name.clone(), counters: self.counters() }
    }

    /// What it has seen, and how things are now.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        let [limit, in_flight, waiting] = self.gate.levels().map(u64::from);
        let breaker = match self.state() {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        ServerCounters { breaker, limit, in_flight, waiting, ..self.counts.get() }
    }

    /// Whether the server is taken to be up.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.breaker.borrow().state(Instant::now())
    }

    /// Sends a request that may be sent twice.
    ///
    /// # Errors
    /// The server failed, or the request was not sent.
    pub async fn read<T>(
        &self,
        attempt: impl AsyncFn() -> Result<T, Trouble>,
    ) -> Result<T, FetchFailure> {
        self.budget.borrow_mut().earn();
        match self.once(&attempt).await? {
            Err(Trouble::Unsent) if self.budget.borrow_mut().spend() => {
                self.count(|counts| counts.retried += 1);
                self.once(&attempt).await?.map_err(Trouble::failure)
            }
            answer => answer.map_err(Trouble::failure),
        }
    }

    /// Sends a request once; what the server said of it, if it was asked.
    ///
    /// # Errors
    /// The request was not sent: the server is down, or has too much to do.
    pub async fn once<T>(
        &self,
        attempt: impl AsyncFnOnce() -> Result<T, Trouble>,
    ) -> Result<Result<T, Trouble>, FetchFailure> {
        let Some(ticket) = self.breaker.borrow_mut().admit(Instant::now()) else {
            self.count(|counts| counts.broken += 1);
            return Err(FetchFailure::Unavailable);
        };
        let mut inside = Inside { guard: self, ticket, since: None, verdict: Verdict::Unasked };
        if self.gate.enter().await.is_err() {
            self.count(|counts| counts.refused += 1);
            return Err(FetchFailure::NoRoom);
        }
        inside.since = Some(Instant::now());
        inside.verdict = Verdict::TimedOut;
        let answer = attempt().await;
        inside.verdict = match answer {
            Ok(_) | Err(Trouble::Useless(_)) => Verdict::Answered,
            Err(Trouble::Unsent | Trouble::Failed) => Verdict::Failed,
        };
        Ok(answer)
    }

    fn count(&self, add: impl FnOnce(&mut ServerCounters)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }
}

/// A request that was let in. It is let out when this is dropped.
struct Inside<'a> {
    guard: &'a Guard,
    ticket: breaker::Ticket,
    /// When it was sent.
    since: Option<Instant>,
    verdict: Verdict,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let (guard, now) = (self.guard, Instant::now());
        let is_open = guard.breaker.borrow_mut().end(self.ticket, self.verdict, now);
        let Some(since) = self.since else { return };
        match self.verdict {
            Verdict::Answered => guard.count(|counts| counts.answered += 1),
            Verdict::Failed => guard.count(|counts| counts.failed += 1),
            Verdict::TimedOut => guard.count(|counts| counts.timed_out += 1),
            Verdict::Unasked => {}
        }
        let mut limit = guard.limit.borrow_mut();
        if is_open {
            tracing::warn!(server = %guard.name, "a server of the origin fails: it is left alone");
            limit.restart();
            guard.gate.refuse_all();
        } else {
            let [_, in_flight, _] = guard.gate.levels();
            limit.set_standing(guard.gate.is_standing(), now);
            limit.learn(now - since, in_flight, self.verdict == Verdict::Answered, now);
        }
        guard.gate.leave(limit.get());
    }
}

#[cfg(test)]
mod tests;
