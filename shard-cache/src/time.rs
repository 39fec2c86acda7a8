//! Time as a shard knows it: nanoseconds since an epoch of its process, handed in by the caller.
//!
//! Nothing here reads a clock. `Ring::turn` is the only source of an [`Instant`], so a simulation
//! can make any instant it likes, and two readings can never disagree within a turn.

use std::ops::Add;
use std::time::Duration;

/// A point in monotonic time: nanoseconds since the process's epoch (585 years fit), which may lie
/// before its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The epoch; as a deadline it has always passed.
    pub const ZERO: Self = Self(0);

    /// The instant `ns` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds from `earlier` to `self`.
    ///
    /// # Panics
    /// If `earlier` is later: monotonic time does not go back.
    #[must_use]
    pub const fn ns_since(self, earlier: Self) -> u64 {
        assert!(self.0 >= earlier.0, "monotonic time does not go back");
        self.0 - earlier.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// # Panics
    /// If the sum lies more than 585 years after the epoch.
    fn add(self, duration: Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).expect("a configured duration is bounded");
        Self(self.0.checked_add(ns).expect("a deadline lies within 585 years"))
    }
}

/// Whole seconds since the Unix epoch, for dates on the wire. It may step; nothing is timed by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallSeconds(pub u64);
