//! What came of a stream: how many replies, of what kinds, how late, and what went wrong.

use crate::traffic::Kind;
use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest latency that is told from longer ones: a day, as in wrk2.
const LATENCY_US_MAX: u64 = 24 * 3600 * 1_000_000;

/// An empty distribution of microseconds, in the resolution of wrk2.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds are in order")
}

/// Records a duration; what is longer than the bound counts as the bound.
pub(super) fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(us);
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByKind {
    pub(crate) answered: u64,
    /// Of them, those that met what such a request should meet.
    pub(crate) as_expected: u64,
}

/// Everything that is counted of a stream.
pub(crate) struct Tally {
    /// Replies, warm-up included.
    pub(crate) answered: u64,
    pub(crate) bytes_read: u64,
    /// Replies with a status above 399.
    pub(crate) refused: u64,
    /// In the order of [`Kind::ALL`].
    pub(crate) kinds: [ByKind; 4],
    /// Connections made.
    pub(crate) connects: u64,
    /// Microseconds from the intended start to the reply.
    pub(crate) latency: Histogram<u64>,
    /// Microseconds from the actual start to the reply.
    pub(crate) uncorrected: Histogram<u64>,
    /// As `latency`, of replies with a status below 300 alone.
    pub(crate) served: Histogram<u64>,
    /// As `latency`, of replies with a status above 399 alone.
    pub(crate) shed: Histogram<u64>,
    /// Of those with a status below 300, how many came within the deadline.
    pub(crate) in_time: u64,
    /// Of those with a status below 300, how many came on each connection.
    pub(crate) per_connection: Vec<u64>,
    /// As `latency`, of the warm-up.
    pub(crate) warm: Histogram<u64>,
    /// Microseconds by which this generator itself, not the server, was late to start a batch.
    pub(crate) lateness: Histogram<u64>,
    pub(crate) errors: Errors,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            answered: 0,
            bytes_read: 0,
            refused: 0,
            kinds: [ByKind::default(); 4],
            connects: 0,
            latency: histogram(),
            uncorrected: histogram(),
            served: histogram(),
            shed: histogram(),
            in_time: 0,
            per_connection: Vec::new(),
            warm: histogram(),
            lateness: histogram(),
            errors: Errors::default(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.bytes_read += other.bytes_read;
        self.refused += other.refused;
        self.connects += other.connects;
        for (kind, other) in self.kinds.iter_mut().zip(&other.kinds) {
            kind.answered += other.answered;
            kind.as_expected += other.as_expected;
        }
        for (own, other) in [
            (&mut self.latency, &other.latency),
            (&mut self.uncorrected, &other.uncorrected),
            (&mut self.served, &other.served),
            (&mut self.shed, &other.shed),
            (&mut self.warm, &other.warm),
            (&mut self.lateness, &other.lateness),
        ] {
            own.add(other).expect("all have the same bounds");
        }
        self.in_time += other.in_time;
        self.per_connection.extend(&other.per_connection);
        self.errors.add(&other.errors);
    }

    pub(super) fn count_reply(&mut self, kind: Kind, status: u16) {
        self.answered += 1;
        self.refused += u64::from(status > 399);
        let by_kind = &mut self.kinds[kind as usize];
        by_kind.answered += 1;
        if kind.expects(status) {
            by_kind.as_expected += 1;
        } else {
            self.errors.status += 1;
            self.errors.note(|| format!("status {status} for a request of kind {}", kind.name()));
        }
    }
}

/// When a request was due and sent, and how it ended, after the warm-up.
pub(super) struct Latencies {
    pub(super) latency: Duration,
    pub(super) uncorrected: Duration,
    pub(super) status: u16,
    pub(super) deadline: Duration,
}

impl Tally {
    pub(super) fn record(&mut self, reply: &Latencies) {
        let Latencies { latency, uncorrected, status, deadline } = *reply;
        record(&mut self.latency, latency);
        record(&mut self.uncorrected, uncorrected);
        if status < 300 {
            record(&mut self.served, latency);
            self.in_time += u64::from(latency <= deadline);
        } else if status > 399 {
            record(&mut self.shed, latency);
        }
    }
}

/// How a connection failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Connect,
    Read,
    Write,
}

/// What went wrong, by kind, and the first of it in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    /// Replies with a status that such a request should not meet.
    pub(crate) status: u64,
    /// Replies with a wrong body.
    pub(crate) body: u64,
    /// Connections that could not be made.
    pub(crate) connect: u64,
    /// Connections that ended while replies were owed, or brought what is no reply.
    pub(crate) read: u64,
    /// Connections that took no more requests.
    pub(crate) write: u64,
    /// Requests that were not answered in time, each counted once.
    pub(crate) timeout: u64,
    /// Requests that were never answered.
    pub(crate) unanswered: u64,
    /// Requests that were due and never sent: the server was behind.
    pub(crate) unsent: u64,
    pub(crate) first: Option<String>,
}

impl Errors {
    /// Requests or connections that failed. What timed out and was answered later is not among
    /// them, nor what was not sent.
    pub(crate) const fn count(&self) -> u64 {
        self.status + self.body + self.connect + self.read + self.write + self.unanswered
    }

    pub(super) fn count_failure(&mut self, failure: Failure, what: &str) {
        match failure {
            Failure::Connect => self.connect += 1,
            Failure::Read => self.read += 1,
            Failure::Write => self.write += 1,
        }
        self.note(|| what.to_owned());
    }

    pub(super) fn note(&mut self, say: impl FnOnce() -> String) {
        self.first.get_or_insert_with(say);
    }

    fn add(&mut self, other: &Self) {
        self.status += other.status;
        self.body += other.body;
        self.connect += other.connect;
        self.read += other.read;
        self.write += other.write;
        self.timeout += other.timeout;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.first = self.first.take().or_else(|| other.first.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_counts_as_in_time_and_what_is_refused_never_does() {
        let mut tally = Tally::new();
        for (ms, status) in [(100, 200), (101, 200), (1, 503), (1, 304)] {
            let latency = Duration::from_millis(ms);
            let deadline = Duration::from_millis(100);
            tally.record(&Latencies { latency, uncorrected: latency, status, deadline });
        }
        assert_eq!((tally.in_time, tally.served.len(), tally.shed.len()), (1, 2, 1));
        assert_eq!(tally.latency.len(), 4);
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new();
        one.count_reply(Kind::Hit, 200);
        record(&mut one.latency, Duration::from_micros(10));
        let mut other = Tally::new();
        other.count_reply(Kind::Hit, 503);
        other.count_reply(Kind::Absent, 404);
        record(&mut other.latency, Duration::MAX);
        one.add(&other);
        assert_eq!((one.answered, one.refused, one.errors.count()), (3, 2, 1));
        assert_eq!(one.kinds[Kind::Hit as usize], ByKind { answered: 2, as_expected: 1 });
        assert_eq!(one.kinds[Kind::Absent as usize], ByKind { answered: 1, as_expected: 1 });
        assert_eq!((one.latency.len(), one.latency.min()), (2, 10));
        assert_eq!(one.errors.first.as_deref(), Some("status 503 for a request of kind hit"));
    }
}
