//! When batches are due.

#![expect(clippy::disallowed_types, reason = "a generator keeps its own time")]

use std::time::{Duration, Instant};

/// The batches of one stream on one thread.
///
/// Batch k of a stream is due k intervals after the start and belongs to connection k mod n, so
/// that connections take turns. Of n connections a thread has every so-many-th.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// Between two batches of the whole stream; `None` in a closed loop: they are due when a
    /// connection is free.
    interval: Option<Duration>,
    connections: Connections,
    /// No batch is due from here on.
    end: Option<Instant>,
    /// Batches of this thread that will ever be due.
    batches_max: u64,
    /// Batches of this thread that are due so far.
    released: u64,
}

/// Which of a stream's connections a thread has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connections {
    /// Of the whole stream.
    pub(super) count: usize,
    /// The first one of this thread, and how many apart the next ones are.
    pub(super) first: usize,
    pub(super) stride: usize,
}

impl Connections {
    /// How many this thread has.
    pub(super) const fn here(self) -> usize {
        (self.count.saturating_sub(self.first)).div_ceil(self.stride)
    }
}

impl Schedule {
    pub(super) const fn new(
        start: Instant,
        interval: Option<Duration>,
        connections: Connections,
        end: Option<Instant>,
        batches_max: u64,
    ) -> Self {
        Self { start, interval, connections, end, batches_max, released: 0 }
    }

    /// When this thread's batch `index` is due; `now` in a closed loop.
    pub(super) fn due(&self, index: u64, now: Instant) -> Instant {
        let Some(interval) = self.interval else { return now };
        let Connections { count, first, stride } = self.connections;
        let here = self.connections.here() as u64;
        let (cycle, local) = (index / here, index % here);
        let place = cycle * count as u64 + first as u64 + local * stride as u64;
        self.start + interval.mul_f64(place as f64)
    }

    /// When the next batch is due, if one ever is and time brings it.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        (self.interval.is_some() && !self.is_over(now)).then(|| self.due(self.released, now))
    }

    /// Whether no further batch will be due.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.connections.here() == 0
            || self.released >= self.batches_max
            || self.end.is_some_and(|end| self.due(self.released, now) >= end)
    }

    /// Releases the next batch if it is due; returns which of the thread's connections it is for.
    pub(super) fn release(&mut self, now: Instant) -> Option<usize> {
        if self.is_over(now) || self.next(now).is_some_and(|due| due > now) {
            return None;
        }
        let here = self.connections.here() as u64;
        let local = usize::try_from(self.released % here).expect("a few connections");
        self.released += 1;
        Some(local)
    }

    /// Batches that were due so far.
    pub(super) const fn released(&self) -> u64 {
        self.released
    }

    /// Whether batches come by the clock.
    pub(super) const fn is_open_loop(&self) -> bool {
        self.interval.is_some()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some moment to begin at")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn thread(first: usize, start: Instant) -> Schedule {
        let connections = Connections { count: 5, first, stride: 2 };
        Schedule::new(start, Some(10 * MS), connections, Some(start + 95 * MS), u64::MAX)
    }

    #[test]
    fn batches_are_due_evenly_and_connections_take_turns() {
        let start = Instant::now();
        let connections = Connections { count: 2, first: 0, stride: 1 };
        let mut schedule = Schedule::new(start, Some(10 * MS), connections, None, 3);
        assert_eq!(schedule.release(start), Some(0));
        assert_eq!(schedule.release(start + 9 * MS), None);
        assert_eq!(schedule.next(start), Some(start + 10 * MS));
        assert_eq!(schedule.release(start + 25 * MS), Some(1));
        assert_eq!(schedule.release(start + 25 * MS), Some(0));
        assert_eq!(schedule.release(start + 99 * MS), None);
        assert!(schedule.is_over(start + 99 * MS));
    }

    #[test]
    fn threads_together_have_every_batch_once() {
        let start = Instant::now();
        let mut times: Vec<_> = [0, 1]
            .iter()
            .flat_map(|&first| {
                let mut schedule = thread(first, start);
                std::iter::from_fn(move || {
                    let due = schedule.next(start)?;
                    schedule.release(due)?;
                    Some(due - start)
                })
            })
            .collect();
        times.sort_unstable();
        assert_eq!(times, (0..10).map(|batch| 10 * MS * batch).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_without_connections_has_nothing_to_do() {
        let start = Instant::now();
        let connections = Connections { count: 1, first: 1, stride: 2 };
        let mut schedule = Schedule::new(start, Some(MS), connections, None, u64::MAX);
        assert!(schedule.is_over(start) && schedule.next(start).is_none());
        assert_eq!(schedule.release(start), None);
    }

    #[test]
    fn a_closed_loop_is_always_due_until_its_end() {
        let start = Instant::now();
        let connections = Connections { count: 1, first: 0, stride: 1 };
        let mut schedule = Schedule::new(start, None, connections, Some(start + MS), u64::MAX);
        assert_eq!(schedule.release(start), Some(0));
        assert_eq!(schedule.release(start), Some(0));
        assert_eq!(schedule.next(start), None);
        assert_eq!(schedule.release(start + MS), None);
    }
}
