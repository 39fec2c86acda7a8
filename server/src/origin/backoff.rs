//! How long a server is left alone that could not be connected to: twice as long each time, up to a
//! second, which is how long a breaker stays open.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// How long after the first failure, and at most.
const FIRST: Duration = Duration::from_millis(50);
const MAX: Duration = Duration::from_secs(1);

/// Failures to connect.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// In a row.
    failures: Cell<u32>,
}

impl Backoff {
    /// It has failed again: how long it is left alone. That is from half of the time to all of it,
    /// so that those who have lost a server together do not come back together.
    pub(super) fn next(&self) -> Duration {
        let share = RandomState::new().hash_one(0) % 512 + 512;
        let share = u32::try_from(share).expect("it is below 1024");
        let failures = self.failures.replace(self.failures.get().saturating_add(1));
        longest(failures) * share / 1024
    }

    /// It has not failed.
    pub(super) fn forget(&self) {
        self.failures.set(0);
    }
}

/// The longest time after so many failures before the last one.
fn longest(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_doubles_up_to_its_most_and_is_forgotten() {
        let times: Vec<_> = [0, 1, 4, 5, u32::MAX].map(|n| longest(n).as_millis()).into();
        assert_eq!(times, [50, 100, 800, 1000, 1000]);
        let backoff = Backoff::default();
        for failures in [0, 1, 2, 3] {
            let (time, most) = (backoff.next(), longest(failures));
            assert!(time >= most / 2 && time <= most, "{time:?}");
        }
        backoff.forget();
        assert!(backoff.next() <= FIRST);
    }
}
