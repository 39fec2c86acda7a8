//! How a budget of memory is divided. Nothing else is allocated, and nothing after construction.
//!
//! ```text
//! mapped by the owner   [ index | ghost | pad to a segment | arena ]
//! made by the cache     table of segments, purge rules, removed keys
//! ```

use crate::entry::{KEY_MASK, VALUE_SIZE_MAX, entry_size};
use crate::ghost::{LINE_KEYS, LINE_SIZE};
use crate::index::{BUCKET_SIZE, SLOTS};
use crate::purge::RULES_SIZE;
use crate::quota::guaranteed_bytes_max;
use crate::segments::{FREE_AHEAD, table_size};
use crate::snapshot::REMOVED_SIZE;
use std::fmt;

/// Bytes of a segment, the unit in which space comes back.
pub const SEGMENT_SIZE: usize = 256 << 10;

/// The longest key that is kept, bytes.
pub(crate) const KEY_SIZE_MAX: usize = 512;
const _: () = assert!(KEY_SIZE_MAX <= KEY_MASK as usize, "a header has room for its size");

/// The index is sized for entries of this many bytes, all in: keys of 16 and values of 100. Larger
/// ones leave some of it unused; smaller ones fill it before they fill the arena.
const ENTRY_SIZE_TYPICAL: usize = entry_size(16, 100);

/// Percent of slots that are in use when the arena is full of typical entries. Of a million keys
/// none is crowded out below it (see `index`).
const LOAD_PERCENT: usize = 90;

/// The sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    segments_count: u32,
    buckets_count: u32,
    ghost_lines_count: u32,
    value_size_max: u32,
}

/// A budget that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// The least budget that works, bytes.
    pub least_bytes: usize,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cache needs at least {} bytes a shard", self.least_bytes)
    }
}

impl std::error::Error for LayoutError {}

impl Layout {
    /// Divides `budget_bytes` for values of at most `value_size_max` bytes.
    ///
    /// # Errors
    /// [`LayoutError`] if the arena could not hold the largest value beside the segments that are
    /// kept free.
    ///
    /// # Panics
    /// If `value_size_max` exceeds 256 MiB: the header has 28 bits for it.
    pub fn new(budget_bytes: usize, value_size_max: u32) -> Result<Self, LayoutError> {
        assert!(value_size_max as usize <= VALUE_SIZE_MAX, "a header has 28 bits for the size");
        let least = least_count(value_size_max);
        let least_bytes = Self::of(least, value_size_max).total_bytes();
        if budget_bytes < least_bytes {
            return Err(LayoutError { least_bytes });
        }
        let mut segments = budget_bytes / SEGMENT_SIZE;
        while Self::of(segments, value_size_max).total_bytes() > budget_bytes {
            segments -= 1;
        }
        Ok(Self::of(segments, value_size_max))
    }

    fn of(segments: usize, value_size_max: u32) -> Self {
        let entries = segments * SEGMENT_SIZE / ENTRY_SIZE_TYPICAL;
        let slots = entries * 100 / LOAD_PERCENT;
        let count = |count: usize| u32::try_from(count).expect("an arena has below 2^32 segments");
        Self {
            segments_count: count(segments),
            buckets_count: count(slots.div_ceil(SLOTS)),
            ghost_lines_count: count(entries.div_ceil(LINE_KEYS)),
            value_size_max,
        }
    }

    /// Segments of the arena.
    #[must_use]
    pub const fn segments_count(&self) -> u32 {
        self.segments_count
    }

    /// Bytes of the arena.
    #[must_use]
    pub const fn arena_bytes(&self) -> usize {
        self.segments_count as usize * SEGMENT_SIZE
    }

    /// Bytes that may be guaranteed to groups of entries in all (see [`Cache::guarantee`]): half of
    /// what is not needed for the largest value and what is kept free.
    ///
    /// [`Cache::guarantee`]: crate::Cache::guarantee
    #[must_use]
    pub const fn guaranteed_bytes_max(&self) -> u64 {
        guaranteed_bytes_max(self.segments_count, self.needed_count())
    }

    /// Segments that guarantees leave to everything else: the fewest that an arena can have.
    #[expect(clippy::cast_possible_truncation, reason = "no more than there are segments")]
    pub(crate) const fn needed_count(&self) -> u32 {
        least_count(self.value_size_max) as u32
    }

    /// Bytes of the index.
    #[must_use]
    pub const fn index_bytes(&self) -> usize {
        self.buckets_count as usize * BUCKET_SIZE
    }

    /// Bytes of the ghost, which remembers about as many keys as the arena has room for.
    #[must_use]
    pub const fn ghost_bytes(&self) -> usize {
        self.ghost_lines_count as usize * LINE_SIZE
    }

    /// Bytes before the arena: index and ghost, and what makes them a multiple of
    /// [`SEGMENT_SIZE`].
    #[must_use]
    pub const fn front_bytes(&self) -> usize {
        (self.index_bytes() + self.ghost_bytes()).next_multiple_of(SEGMENT_SIZE)
    }

    /// Bytes that the caller maps.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.front_bytes() + self.arena_bytes()
    }

    /// Bytes that the cache itself allocates when it is made.
    #[must_use]
    pub const fn tables_bytes(&self) -> usize {
        table_size(self.segments_count as usize) + RULES_SIZE + REMOVED_SIZE
    }

    /// Bytes of everything.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        self.memory_bytes() + self.tables_bytes()
    }

    pub(crate) const fn value_size_max(&self) -> u32 {
        self.value_size_max
    }
}

/// Segments of the smallest arena for values of at most `value_size_max` bytes.
const fn least_count(value_size_max: u32) -> usize {
    let run = run_count(entry_size(KEY_SIZE_MAX, value_size_max as usize));
    2 * run + FREE_AHEAD as usize + 2
}

/// Segments that an entry of `size` bytes takes: one that it shares, or a run of its own.
pub(crate) const fn run_count(size: usize) -> usize {
    size.div_ceil(SEGMENT_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_used() {
        for budget in [16 << 20, 100 << 20, (1 << 30) + 12345] {
            let layout = Layout::new(budget, 1 << 20).unwrap();
            assert!(layout.total_bytes() <= budget);
            assert!(layout.total_bytes() + 3 * SEGMENT_SIZE > budget, "{layout:?}");
        }
    }

    #[test]
    fn a_budget_that_is_too_small_says_what_would_do() {
        let LayoutError { least_bytes } = Layout::new(1 << 20, 1 << 20).unwrap_err();
        assert!(Layout::new(least_bytes - 1, 1 << 20).is_err());
        assert!(Layout::new(least_bytes, 1 << 20).is_ok());
    }
}
