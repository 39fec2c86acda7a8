//! Which keys are hot: a sample of a shard's lookups, counted in bounded memory.
//!
//! One lookup in sixteen is counted, at random, so that the others cost a decrement and no pattern
//! of requests can hide from it. What is shown covers the last 10 to 20 s: two sketches, of which
//! the younger counts; after 10 s the older one is forgotten and takes its place.
//!
//! Nobody is told unless he asks: a reader lends a [`Window`], the shard copies its counters into
//! it and gives it back. `sketch` is one half's counters, `ranking` adds up those of all shards.

mod ranking;
mod sketch;

pub use ranking::{Heavy, Ranking};
pub use sketch::{Counter, Lookup, Sample, Sketch, Table};

use shard_cache::time::Instant;
use std::time::Duration;

/// Counters of a sketch: a key with more than 1/1024 of the lookups has one.
const COUNTERS_COUNT: u16 = 1024;

/// How long a sketch counts.
const HALF: Duration = Duration::from_secs(10);

/// Of so many lookups one is counted, on average: at 8, a hit costs 2.4% more than without, and a
/// busy shard has more samples in a second than a share needs.
pub const SAMPLED_ONE_IN: u32 = 16;

/// Bytes of what a shard counts in, and of the copy that is lent to it.
pub const SIZE: usize = 2 * Sketch::size(COUNTERS_COUNT) + 2 * TABLE_SIZE;
const TABLE_SIZE: usize = COUNTERS_COUNT as usize * size_of::<Counter>();

/// The hot keys of one shard.
#[derive(Debug)]
pub struct HotKeys {
    /// Lookups to let pass before one is counted.
    skip: u32,
    random: u64,
    current: Sketch,
    previous: Sketch,
}

impl HotKeys {
    /// Nothing counted yet; allocates all it will ever need. `seed` decides which lookups are.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let sketch = || Sketch::new(COUNTERS_COUNT);
        // Xorshift never leaves zero.
        let mut keys = Self { skip: 0, random: seed | 1, current: sketch(), previous: sketch() };
        keys.skip = keys.draw();
        keys
    }

    /// Whether the lookup that comes next is to be counted.
    #[inline]
    pub const fn is_next(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    /// Counts a lookup. What is returned goes with its reply.
    pub fn count(&mut self, lookup: &Lookup<'_>) -> Sample {
        self.skip = self.draw();
        self.current.count(lookup)
    }

    /// Counts body bytes of the reply to a lookup that was counted.
    #[inline(never)]
    pub fn add_bytes(&mut self, sample: Sample, bytes: u64) {
        self.current.add_bytes(sample, bytes);
    }

    /// Forgets what is over. To be told the time a few times in ten seconds.
    pub fn forget(&mut self, now: Instant) {
        match self.current.table().began() {
            Some(began) if now < began + HALF => return,
            Some(_) => std::mem::swap(&mut self.current, &mut self.previous),
            None => {}
        }
        self.current.clear(Some(now));
    }

    /// Copies all counters.
    pub fn copy_to(&self, window: &mut Window, now: Instant) {
        window.halves[0].copy_from(self.previous.table());
        window.halves[1].copy_from(self.current.table());
        window.read_at = now;
    }

    /// How many lookups pass until the next is counted: any number from 0 to 30, 15 on average.
    const fn draw(&mut self) -> u32 {
        const CHOICES: u64 = 2 * SAMPLED_ONE_IN as u64 - 1;
        (((self.word() >> 32) * CHOICES) >> 32) as u32
    }

    /// Xorshift64* (Vigna, 2016).
    const fn word(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// What a shard has counted, as a reader takes it away.
#[derive(Clone, Debug)]
pub struct Window {
    halves: [Table; 2],
    read_at: Instant,
}

impl Window {
    /// An empty one; allocates all it will ever need.
    #[must_use]
    pub fn new() -> Self {
        Self { halves: [(); 2].map(|()| Table::new(COUNTERS_COUNT)), read_at: Instant::ZERO }
    }

    /// The older and the younger half.
    #[must_use]
    pub const fn halves(&self) -> &[Table; 2] {
        &self.halves
    }

    /// How long was counted.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let began = self.halves.iter().find_map(Table::began).unwrap_or(self.read_at);
        Duration::from_nanos(self.read_at.ns_since(began))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
