//! How many requests at a time bring the most answers, while there is always somebody who waits.
//!
//! How long answers take tells little then: a server with four workers that is sent 256 requests
//! answers as many a second as if it was sent five, and takes fifty times as long for each. So two
//! limits are compared by what they bring:
//!
//! ```text
//! at the limit -> a third lower: nearly as many answers? it stays there
//!              -> else a root higher: clearly more answers? it stays there -> at the limit ...
//! ```

use std::time::Duration;
use tokio::time::Instant;

/// A rate is taken over at least so long and so many answers, or over the longest time.
const WINDOW_MIN: Duration = Duration::from_millis(50);
const ANSWERS_MIN: u32 = 64;
const WINDOW_MAX: Duration = Duration::from_millis(500);

/// The lower limit, as a share, and what it has to bring of the other's answers.
const LOWER: f64 = 0.7;
const AS_MANY: f64 = 0.95;

/// What the higher limit has to bring.
const MORE: f64 = 1.05;

/// Which limit is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Base,
    Lower,
    Higher,
}

/// A comparison that goes on.
#[derive(Debug)]
pub(super) struct Climb {
    stage: Stage,
    /// The limit that is compared with, and answers a second there.
    base: f64,
    rate: f64,
    since: Instant,
    answers: u32,
}

impl Climb {
    /// Begins at this limit.
    pub(super) const fn new(base: f64, now: Instant) -> Self {
        Self { stage: Stage::Base, base, rate: 0.0, since: now, answers: 0 }
    }

    /// One more answer, while so many requests were on their way. Returns the limit to go on with.
    pub(super) fn learn(&mut self, limit: f64, in_flight: u32, now: Instant) -> f64 {
        if f64::from(in_flight) >= limit + 1.0 {
            // What was sent before the limit fell says nothing of it.
            (self.since, self.answers) = (now, 0);
            return limit;
        }
        self.answers += 1;
        let window = now - self.since;
        if window < WINDOW_MIN || (self.answers < ANSWERS_MIN && window < WINDOW_MAX) {
            return limit;
        }
        let rate = f64::from(self.answers) / window.as_secs_f64();
        (self.since, self.answers) = (now, 0);
        match self.stage {
            Stage::Base => (self.stage, self.rate) = (Stage::Lower, rate),
            Stage::Lower if rate >= AS_MANY * self.rate => self.base = limit,
            Stage::Lower => self.stage = Stage::Higher,
            Stage::Higher => {
                self.stage = Stage::Base;
                if rate >= MORE * self.rate {
                    self.base = limit;
                }
            }
        }
        match self.stage {
            Stage::Base => self.base,
            Stage::Lower => self.base * LOWER,
            Stage::Higher => self.base + self.base.sqrt(),
        }
    }
}
