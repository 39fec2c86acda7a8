//! How much of a cache each group of entries takes, and how much it is guaranteed.
//!
//! A *group* is a number below 64 that an entry bears; group 0 is everybody without a guarantee.
//! (The groups of keys that a purge names are others: they are read from keys.) What a group is
//! guaranteed is *owed* to it while it has entries for it; what it does not use is lent to whoever
//! wants it. A group that takes no more than that loses nothing to make room: when the segment of
//! such an entry is emptied, the entry moves to the *guaranteed pool*, whatever the policy says.
//! An entry of a group that takes more is the policy's, and those of group 0 are.
//!
//! ```text
//! small, main   policy's choice goes     group within its guarantee --> guaranteed pool
//! guaranteed    left alone, until a third of it is holes or owed to nobody
//! ```
//!
//! The guaranteed pool is let be while it is owed, so cold guaranteed entries cost nothing after
//! one move. It is emptied, in turn with the pool that the policy names, once a third of it could
//! go. So moves cost at most two bytes for each that they free, and since what is guaranteed is at
//! most half of what is not needed otherwise, a pool of three quarters of that holds it. Beyond
//! seven eighths nothing is spared: so a cache makes room whatever is guaranteed.

use crate::cache::{Cache, size_32};
use crate::entry::{EntryRef, GROUPS_COUNT_MAX, Header};
use crate::layout::{SEGMENT_SIZE, run_count};
use crate::policy::{Policy, Pool};
use crate::segments::Segments;

/// Of entries up to this size so many fit a segment that what they leave over does not count.
const PACKED_SIZE_MAX: usize = SEGMENT_SIZE / 8;

/// What is known of a group, in bytes of the arena.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Guaranteed to it.
    guaranteed: u64,
    /// Taken by entries that the index points to.
    taken: u64,
    /// Of these, in the guaranteed pool.
    spared: u64,
}

impl Share {
    /// Bytes in the guaranteed pool that are not owed.
    fn excess(&self) -> u64 {
        self.taken.saturating_sub(self.guaranteed).min(self.spared)
    }
}

/// The groups of a cache.
#[derive(Debug)]
pub(crate) struct Quotas {
    are_any: bool,
    shares: [Share; GROUPS_COUNT_MAX],
    /// Segments that guarantees leave to everything else.
    needed_count: u32,
    /// Whether what was emptied last makes no room at once.
    was_last: bool,
}

impl Quotas {
    /// No guarantees so far, in a cache of which `needed_count` segments are needed otherwise.
    pub(crate) fn new(needed_count: u32) -> Self {
        let shares = [Share::default(); GROUPS_COUNT_MAX];
        Self { are_any: false, shares, needed_count, was_last: false }
    }

    /// Guarantees bytes by group, in an arena of `segments_count`. Returns whether there are any.
    pub(crate) fn guarantee(&mut self, bytes: &[u64], segments_count: u32) -> bool {
        assert!(bytes.len() <= GROUPS_COUNT_MAX, "a group has 6 bits");
        assert!(bytes.first().is_none_or(|bytes| *bytes == 0), "group 0 has no guarantee");
        let most = guaranteed_bytes_max(segments_count, self.needed_count);
        let sum = bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        assert!(sum <= most, "no more is guaranteed than can be kept");
        self.shares.iter_mut().zip(bytes).for_each(|(share, bytes)| share.guaranteed = *bytes);
        self.are_any = bytes.iter().any(|bytes| *bytes > 0);
        self.are_any
    }

    pub(crate) const fn are_any(&self) -> bool {
        self.are_any
    }

    /// Bytes that a group takes.
    pub(crate) fn taken(&self, group: u8) -> u64 {
        self.shares[usize::from(group)].taken
    }

    /// An entry of `size` bytes has come to lie in `pool`. Returns whether its group has a
    /// guarantee.
    pub(crate) fn add(&mut self, group: u8, size: usize, pool: Pool) -> bool {
        let share = &mut self.shares[usize::from(group)];
        share.taken += taken_size(size);
        if pool == Pool::Guaranteed {
            share.spared += taken_size(size);
        }
        share.guaranteed > 0
    }

    /// An entry of `size` bytes lies no more in `pool`. Returns whether its group has a guarantee.
    pub(crate) fn subtract(&mut self, group: u8, size: usize, pool: Pool) -> bool {
        let share = &mut self.shares[usize::from(group)];
        share.taken -= taken_size(size);
        if pool == Pool::Guaranteed {
            share.spared -= taken_size(size);
        }
        share.guaranteed > 0
    }

    /// Whether a group has a guarantee.
    pub(crate) fn has_guarantee(&self, group: u8) -> bool {
        self.are_any && self.shares[usize::from(group)].guaranteed > 0
    }

    /// Whether a group takes no more than it is guaranteed.
    pub(crate) fn is_within(&self, group: u8) -> bool {
        if !self.are_any {
            return false;
        }
        let share = &self.shares[usize::from(group)];
        share.taken <= share.guaranteed
    }

    /// Whether a guaranteed pool of `count` segments, where `ready` may be used, takes no more.
    pub(crate) fn is_full(&self, count: u32, ready: u32) -> bool {
        u64::from(count) * 8 >= u64::from(ready.saturating_sub(self.needed_count)) * 7
    }

    /// Whether it is the turn of what makes no room at once.
    pub(crate) const fn take_turn(&mut self) -> bool {
        self.was_last = !self.was_last;
        self.was_last
    }

    /// Whether the guaranteed pool is to lose its oldest segment, where it has `count`, `open` of
    /// which are being written: a third of it is holes or owed to nobody.
    pub(crate) fn is_loose(&self, count: u32, open: u32) -> bool {
        let sealed_size = u64::from(count - open) * SEGMENT_SIZE as u64;
        let spared: u64 = self.shares.iter().map(|share| share.spared).sum();
        let excess: u64 = self.shares.iter().map(Share::excess).sum();
        let loose = excess + sealed_size.saturating_sub(spared);
        loose * 3 > sealed_size
    }
}

impl<P: Policy> Cache<'_, P> {
    /// Guarantees bytes of the arena by group of entries, the first of them to group 0: nothing.
    /// While the entries of a group take no more than that, they leave for none that are stored by
    /// others; what of it they do not take is lent. Entries of `n` bytes take as much as if a
    /// segment was full of them; what exceeds a segment takes all of its run. To be said before
    /// anything is stored.
    ///
    /// What can still go, counted as [`evicted_guaranteed`]: an entry whose sixteen slots of the
    /// index are all those of guaranteed ones; a value larger than a segment, where another such
    /// needs its place and there is no other, or that a soft purge names; anything while pins hold
    /// all that it could be moved to. While too few segments are ready for all that is guaranteed,
    /// less is. And what is dead or purged counts until it is met.
    ///
    /// # Panics
    /// If something is stored, there are more than [`GROUPS_COUNT_MAX`] groups, group 0 is
    /// guaranteed something, or all together are more than [`guaranteed_bytes_max`].
    ///
    /// [`evicted_guaranteed`]: crate::Statistics::evicted_guaranteed
    /// [`guaranteed_bytes_max`]: crate::Layout::guaranteed_bytes_max
    pub fn guarantee(&mut self, bytes: &[u64]) {
        assert_eq!(self.statistics.entries, 0, "what is stored was counted without guarantees");
        let are_any = self.quotas.guarantee(bytes, self.segments.count());
        self.segments.keep_for_spared(are_any);
    }

    /// Bytes of the arena that the entries of a group take.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn group_bytes(&self, group: u8) -> u64 {
        self.quotas.taken(group)
    }

    /// An entry is counted for its group where it lies now.
    pub(crate) fn enter(&mut self, at: EntryRef, header: &Header) {
        let (size, pool) = (header.entry_size(), self.segment(at).pool);
        if self.quotas.add(header.group(), size, pool) {
            self.segments.pledge(Segments::at(at.offset()), size_32(size));
        }
    }

    /// An entry is not counted any more where it lies.
    pub(crate) fn leave(&mut self, at: EntryRef, header: &Header) {
        let (size, pool) = (header.entry_size(), self.segment(at).pool);
        if self.quotas.subtract(header.group(), size, pool) {
            self.segments.release_pledge(Segments::at(at.offset()), size_32(size));
        }
    }

    /// Whether an entry of this group is spared because of its guarantee.
    pub(crate) fn is_owed(&self, group: u8) -> bool {
        self.quotas.is_within(group) && !self.is_full()
    }

    /// Whether nothing more is spared.
    pub(crate) fn is_full(&self) -> bool {
        let count = self.segments.in_pool(Pool::Guaranteed);
        self.quotas.is_full(count, self.segments.ready())
    }
}

/// Bytes that may be guaranteed in an arena of `segments_count` of which `needed_count` are needed
/// otherwise.
pub(crate) const fn guaranteed_bytes_max(segments_count: u32, needed_count: u32) -> u64 {
    (segments_count - needed_count) as u64 * SEGMENT_SIZE as u64 / 2
}

/// Bytes of the arena that an entry of `size` bytes takes: its part of a segment that is full of
/// such, or a run of its own.
fn taken_size(size: usize) -> u64 {
    let bytes = if size <= PACKED_SIZE_MAX {
        size
    } else if size <= SEGMENT_SIZE {
        SEGMENT_SIZE / (SEGMENT_SIZE / size)
    } else {
        run_count(size) * SEGMENT_SIZE
    };
    bytes as u64
}
