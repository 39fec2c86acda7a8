//! Reads the clocks, for the kernel's ring and for the planes that are not simulated.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the source of time")]

use shard_cache::time::{Instant, WallSeconds};
use std::time::{SystemTime, UNIX_EPOCH};

/// The beginning of the process, shared by all threads so that their instants compare.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(std::time::Instant);

impl Epoch {
    /// Begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self(std::time::Instant::now())
    }

    /// The monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        let ns = self.0.elapsed().as_nanos();
        Instant::from_ns(u64::try_from(ns).expect("a process runs less than 585 years"))
    }
}

/// The wall clock. A clock set before 1970 reads as zero.
#[must_use]
pub fn wall() -> WallSeconds {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    WallSeconds(since_1970.map_or(0, |duration| duration.as_secs()))
}
