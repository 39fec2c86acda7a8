//! Reads the clocks, for the kernel's ring and for the planes that are not simulated.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the source of time")]

use shard_cache::time::{Instant, WallSeconds};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long before the process its instants begin: what a snapshot brings back was stored before
/// the process began, but not longer before than entries are kept.
const BEFORE_MS: u64 = 1 << 32;

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
        let ns = self.uptime().as_nanos();
        let ns = u64::try_from(ns).expect("a process runs less than 585 years");
        Instant::from_ns(BEFORE_MS * 1_000_000 + ns)
    }

    /// How long the process has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The wall clock. A clock set before 1970 reads as zero.
#[must_use]
pub fn wall() -> WallSeconds {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    WallSeconds(since_1970.map_or(0, |duration| duration.as_secs()))
}

/// The wall clock to the millisecond.
#[must_use]
pub fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since the machine was booted, also while it slept, and which boot that was; zeroes
/// where the host does not say.
#[must_use]
pub fn boot() -> (u64, [u8; 16]) {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let uptime = read("/proc/uptime");
    let seconds = uptime.split_ascii_whitespace().next().unwrap_or_default();
    let digits: String = seconds.chars().filter(|digit| *digit != '.').collect();
    // Hundredths of a second.
    let ms = digits.parse::<u64>().map_or(0, |hundredths| hundredths * 10);
    let id = read("/proc/sys/kernel/random/boot_id").replace('-', "");
    (ms, u128::from_str_radix(id.trim(), 16).unwrap_or(0).to_be_bytes())
}
