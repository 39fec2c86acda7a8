//! Whether a server is up, by what came of the requests it was sent.
//!
//! Closed: all pass. It opens when half of at least 20 requests of the last two seconds have
//! failed, or ten in a row. Open: none pass, for half a second, then for a second. Half open: one
//! request may pass, then five, then twenty, each step when those before have been answered; a
//! failure opens it again. So a server that heals is tried again within a second, or when a trial
//! that hangs has been given up.
//!
//! Invariant: a request that was admitted in an earlier life of the breaker moves it no more.

use std::time::Duration;
use tokio::time::Instant;

/// Requests that are counted together, and of how many such spans.
const BUCKET: Duration = Duration::from_millis(200);
const BUCKETS_COUNT: usize = 10;

/// It opens on no fewer requests than these.
const CALLS_MIN: u32 = 20;

/// So many failures in a row open it at once.
const ROW_MAX: u32 = 10;

/// How long it stays open: the first time, and when a trial has failed.
const OPEN_FIRST: Duration = Duration::from_millis(500);
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// How many requests may pass in each step of the trial.
const STEPS: [u32; 3] = [1, 5, 20];

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was never sent: nothing is known.
    Unasked,
    /// The server answered.
    Answered,
    /// The server failed, or was not reached.
    Failed,
    /// It was given up.
    TimedOut,
}

/// Whether a server is taken to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It is tried.
    HalfOpen,
    /// It is not.
    Open,
}

/// A request that was admitted: in which life of the breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    life: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen { step: usize, sent: u32, answered: u32 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    calls: u32,
    failures: u32,
}

/// A breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    life: u64,
    start: Instant,
    buckets: [Bucket; BUCKETS_COUNT],
    row: u32,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new() -> Self {
        let buckets = [Bucket::default(); BUCKETS_COUNT];
        Self { state: State::Closed, life: 0, start: Instant::now(), buckets, row: 0 }
    }

    /// What it is at `now`.
    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may pass.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Ticket> {
        if let State::Open { until } = self.state
            && until <= now
        {
            self.turn(State::HalfOpen { step: 0, sent: 0, answered: 0 });
        }
        match &mut self.state {
            State::Closed => {}
            State::Open { .. } => return None,
            State::HalfOpen { step, sent, .. } if *sent < STEPS[*step] => *sent += 1,
            State::HalfOpen { .. } => return None,
        }
        Some(Ticket { life: self.life })
    }

    /// What came of a request. Returns whether that has opened it.
    pub(super) fn end(&mut self, ticket: Ticket, verdict: Verdict, now: Instant) -> bool {
        if ticket.life != self.life {
            return false;
        }
        let has_failed = matches!(verdict, Verdict::Failed | Verdict::TimedOut);
        match &mut self.state {
            State::Closed if verdict == Verdict::Unasked => {}
            State::Closed => {
                self.count(has_failed, now);
                if self.is_too_much(now) {
                    self.turn(State::Open { until: now + OPEN_FIRST });
                    return true;
                }
            }
            State::HalfOpen { sent, .. } if verdict == Verdict::Unasked => *sent -= 1,
            State::HalfOpen { .. } if has_failed => {
                self.turn(State::Open { until: now + OPEN_AGAIN });
                return true;
            }
            State::HalfOpen { step, sent, answered } => {
                *answered += 1;
                if *answered == STEPS[*step] {
                    (*step, *sent, *answered) = (*step + 1, 0, 0);
                }
                if *step == STEPS.len() {
                    self.turn(State::Closed);
                }
            }
            State::Open { .. } => unreachable!("nothing is admitted in this life"),
        }
        false
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.life += 1;
        self.row = 0;
        self.buckets = [Bucket::default(); BUCKETS_COUNT];
    }

    fn number(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start);
        u64::try_from(passed.as_millis() / BUCKET.as_millis()).unwrap_or(u64::MAX)
    }

    fn count(&mut self, has_failed: bool, now: Instant) {
        let number = self.number(now);
        let place = usize::try_from(number % BUCKETS_COUNT as u64).expect("it is below ten");
        let bucket = &mut self.buckets[place];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket.calls += 1;
        bucket.failures += u32::from(has_failed);
        self.row = if has_failed { self.row + 1 } else { 0 };
    }

    fn is_too_much(&self, now: Instant) -> bool {
        let oldest = (self.number(now) + 1).saturating_sub(BUCKETS_COUNT as u64);
        let recent = self.buckets.iter().filter(|bucket| bucket.number >= oldest);
        let (calls, failures) =
            recent.fold((0, 0), |(calls, failures), b| (calls + b.calls, failures + b.failures));
        self.row >= ROW_MAX || calls >= CALLS_MIN && 2 * failures >= calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends a request that ends with this; whether it passed.
    fn call(breaker: &mut Breaker, verdict: Verdict, at: Instant) -> bool {
        let Some(ticket) = breaker.admit(at) else { return false };
        breaker.end(ticket, verdict, at);
        true
    }

    #[test]
    fn ten_failures_in_a_row_open_it_and_nine_do_not() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        (0..9).for_each(|_| assert!(call(&mut breaker, Verdict::TimedOut, now)));
        assert!(call(&mut breaker, Verdict::Answered, now));
        (0..10).for_each(|_| assert!(call(&mut breaker, Verdict::Failed, now)));
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!call(&mut breaker, Verdict::Answered, now));
    }

    #[test]
    fn half_of_twenty_recent_failures_open_it_and_old_ones_do_not() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        for number in 0..19 {
            let verdict = if number % 2 == 0 { Verdict::Failed } else { Verdict::Answered };
            assert!(call(&mut breaker, verdict, start));
        }
        let later = start + ms(2_100);
        assert!(call(&mut breaker, Verdict::Failed, later));
        assert_eq!(breaker.state(later), BreakerState::Closed, "the others are too long ago");
        for number in 0..19 {
            let verdict = if number % 2 == 0 { Verdict::Answered } else { Verdict::Failed };
            assert!(call(&mut breaker, verdict, later));
        }
        assert_eq!(breaker.state(later), BreakerState::Open);
    }

    #[test]
    fn it_closes_again_in_three_steps_of_answers() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        (0..10).for_each(|_| assert!(call(&mut breaker, Verdict::Failed, start)));
        let later = start + OPEN_FIRST;
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        for count in STEPS {
            let tickets: Vec<_> = (0..count).map(|_| breaker.admit(later).unwrap()).collect();
            assert!(breaker.admit(later).is_none(), "no more than {count}");
            tickets.iter().for_each(|ticket| {
                breaker.end(*ticket, Verdict::Answered, later);
            });
        }
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }

    #[test]
    fn a_trial_that_fails_opens_it_and_one_that_was_never_sent_is_tried_again() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        (0..10).for_each(|_| assert!(call(&mut breaker, Verdict::Failed, start)));
        let later = start + OPEN_FIRST;
        assert!(call(&mut breaker, Verdict::Unasked, later));
        assert!(call(&mut breaker, Verdict::TimedOut, later));
        assert_eq!(breaker.state(later + OPEN_AGAIN - ms(1)), BreakerState::Open);
        assert_eq!(breaker.state(later + OPEN_AGAIN), BreakerState::HalfOpen);
    }

    #[test]
    fn what_was_admitted_before_it_opened_moves_it_no_more() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        let old = breaker.admit(start).unwrap();
        (0..10).for_each(|_| assert!(call(&mut breaker, Verdict::Failed, start)));
        let later = start + OPEN_FIRST;
        let trial = breaker.admit(later).unwrap();
        assert!(!breaker.end(old, Verdict::Failed, later));
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        breaker.end(trial, Verdict::Answered, later);
    }
}
