//! How many requests a server is sent at a time: fewer while it answers slower than it did.
//!
//! After Netflix's "gradient" limit: the time that answers take now is compared with what they took
//! over the long run. Where it is up to twice that, the limit grows by its square root; beyond, it
//! shrinks by how much slower answers have become, at most by half at a time. A server that fails
//! begins anew with a tenth: what it is sent grows as it answers.
//!
//! That fails where requests have always to wait: then the long run is what answers take under too
//! much load, and the limit grows with it. As long as they do, [`Climb`] finds the limit.

use super::climb::Climb;
use std::time::Duration;
use tokio::time::Instant;

/// The least that a server is sent.
const LEAST: f64 = 4.0;

/// How much slower than in the long run counts as usual.
const TOLERANCE: f64 = 2.0;

/// Answers that the long run is an average of.
const LONG_RUN: f64 = 600.0;

/// How often the limit moves, and by how much of the way.
const PERIOD: Duration = Duration::from_millis(20);
const STEP: f64 = 0.2;

/// What is left of the limit after a period in which requests have failed.
const AFTER_FAILURE: f64 = 0.9;

/// A limit.
#[derive(Debug)]
pub(super) struct Limit {
    max: f64,
    value: f64,
    /// Seconds that an answer took, in the long run; none is known yet at 0.
    long_s: f64,
    period: Period,
    /// While some always wait.
    climb: Option<Climb>,
}

/// What has happened since the limit moved last.
#[derive(Debug)]
struct Period {
    since: Instant,
    sum_s: f64,
    count: u32,
    in_flight_max: u32,
    has_failed: bool,
}

impl Period {
    const fn new(since: Instant) -> Self {
        Self { since, sum_s: 0.0, count: 0, in_flight_max: 0, has_failed: false }
    }
}

impl Limit {
    /// A limit that is never more than `max`.
    pub(super) fn new(max: u32) -> Self {
        let period = Period::new(Instant::now());
        let mut limit = Self { max: f64::from(max), value: 0.0, long_s: 0.0, period, climb: None };
        limit.restart();
        limit
    }

    /// How many requests may be sent at a time.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to `max`")]
    pub(super) fn get(&self) -> u32 {
        self.value as u32
    }

    /// Begins anew with a tenth of the most.
    pub(super) fn restart(&mut self) {
        self.value = self.bounded(self.max / 10.0);
        self.climb = None;
        self.period = Period::new(self.period.since);
    }

    /// Some have always been waiting of late, or not.
    pub(super) fn set_standing(&mut self, is_standing: bool, now: Instant) {
        if !is_standing {
            self.climb = None;
        } else if self.climb.is_none() {
            self.climb = Some(Climb::new(self.value, now));
        }
    }

    /// A request took so long, while so many were on their way.
    pub(super) fn learn(&mut self, took: Duration, in_flight: u32, is_answer: bool, now: Instant) {
        if let (Some(climb), true) = (&mut self.climb, is_answer) {
            let value = climb.learn(self.value, in_flight, now);
            self.value = self.bounded(value);
            return;
        }
        let period = &mut self.period;
        period.in_flight_max = period.in_flight_max.max(in_flight);
        period.has_failed |= !is_answer;
        if is_answer {
            let took_s = took.as_secs_f64();
            period.sum_s += took_s;
            period.count += 1;
            if self.long_s == 0.0 {
                self.long_s = took_s;
            }
            self.long_s += (took_s - self.long_s) / LONG_RUN;
        }
        if now - period.since >= PERIOD {
            self.adjust();
            self.period = Period::new(now);
        }
    }

    fn adjust(&mut self) {
        let Period { sum_s, count, in_flight_max, has_failed, .. } = self.period;
        if has_failed {
            self.value = self.bounded(self.value * AFTER_FAILURE);
            return;
        }
        // Who does not use what there is learns nothing about more.
        if count == 0 || 2.0 * f64::from(in_flight_max) < self.value {
            return;
        }
        let short_s = sum_s / f64::from(count);
        // A server that became faster is not held to what it was.
        if self.long_s > 2.0 * short_s {
            self.long_s *= 0.95;
        }
        let gradient = (TOLERANCE * self.long_s / short_s.max(f64::MIN_POSITIVE)).clamp(0.5, 1.0);
        let aim = self.value * gradient + self.value.sqrt();
        self.value = self.bounded(self.value + STEP * (aim - self.value));
    }

    fn bounded(&self, value: f64) -> f64 {
        value.clamp(LEAST.min(self.max), self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learns of so many periods full of answers that take this long.
    fn answers(limit: &mut Limit, at: &mut Instant, periods: u32, took_ms: u64) {
        for _ in 0..periods {
            for _ in 0..20 {
                *at += PERIOD / 20;
                limit.learn(Duration::from_millis(took_ms), limit.get(), true, *at);
            }
        }
    }

    #[test]
    fn it_grows_to_its_most_while_answers_take_as_long_as_ever() {
        let (mut limit, mut at) = (Limit::new(256), Instant::now());
        assert_eq!(limit.get(), 25);
        answers(&mut limit, &mut at, 150, 1);
        assert_eq!(limit.get(), 256);
    }

    #[test]
    fn it_shrinks_while_answers_take_much_longer_and_recovers() {
        let (mut limit, mut at) = (Limit::new(256), Instant::now());
        answers(&mut limit, &mut at, 150, 1);
        answers(&mut limit, &mut at, 10, 20);
        let small = limit.get();
        assert!(small < 128, "{small}");
        answers(&mut limit, &mut at, 150, 1);
        assert_eq!(limit.get(), 256);
    }

    #[test]
    fn failures_shrink_it_and_it_begins_anew_with_a_tenth() {
        let (mut limit, mut at) = (Limit::new(256), Instant::now());
        answers(&mut limit, &mut at, 150, 1);
        limit.learn(Duration::ZERO, 1, false, at + PERIOD);
        assert_eq!(limit.get(), 230);
        limit.restart();
        assert_eq!(limit.get(), 25);
    }

    #[test]
    fn nothing_is_learned_from_a_server_that_is_hardly_used() {
        let (mut limit, mut at) = (Limit::new(256), Instant::now());
        for _ in 0..100 {
            at += PERIOD;
            limit.learn(Duration::from_millis(1), 1, true, at);
        }
        assert_eq!(limit.get(), 25);
    }

    #[test]
    fn a_most_below_the_least_holds() {
        assert_eq!(Limit::new(1).get(), 1);
    }
}
