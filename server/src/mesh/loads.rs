//! How many connections each shard has, so that a new one can go where there are fewer, and whether
//! any of them has room for one.
//!
//! The kernel spreads connections over the sockets of a group by a hash, and where they are few
//! they land unevenly, for as long as they live. A shard counts a connection where it is to be
//! before it hands it over, so that many at a time do not all go to the same shard, and none counts
//! one where there is no room: whoever was counted finds a slot.
//!
//! Where no shard has room, all accepts pause, and new connections wait in the kernel. One shard
//! that pauses alone would leave its share of new clients silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Alone on its cache line: only accepts and closes touch it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

impl Load {
    /// Counts one more, if there are fewer than `max`.
    fn begins(&self, max: u32) -> bool {
        let has_room = self.0.fetch_add(1, Ordering::Relaxed) < max;
        if !has_room {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }

    fn ends(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a connection ends where it was counted");
    }
}

/// The counts of all shards, shared by them.
#[derive(Clone, Debug)]
pub struct Loads(Arc<All>);

#[derive(Debug)]
struct All {
    loads: Box<[Load]>,
    /// Connections of all shards; counted only where they have a bound.
    total: Load,
    total_max: Option<u32>,
    /// Most connections of a shard.
    load_max: u32,
    /// Most connections that wait at a listener, and may come at once.
    backlog_max: u32,
    /// A pause lasts until there is room for so many.
    room_min: u32,
    paused: AtomicBool,
}

/// Connections for which there must be room before a pause ends: it begins at most once for so
/// many, and each costs a cancellation and an accept for each listener.
const ROOM_MIN_MAX: u32 = 64;

impl Loads {
    /// Of `shards_count` shards without connections, each with room for `load_max`, and with room
    /// for `total_max` together, where that is given; at most `backlog_max` wait at a listener.
    #[must_use]
    pub fn new(
        shards_count: usize,
        load_max: u32,
        backlog_max: u32,
        total_max: Option<u32>,
    ) -> Self {
        let room_min = (load_max.min(total_max.unwrap_or(u32::MAX)) / 64).clamp(1, ROOM_MIN_MAX);
        let loads = (0..shards_count).map(|_| Load::default()).collect();
        let paused = AtomicBool::new(false);
        let total = Load::default();
        Self(Arc::new(All { loads, total, total_max, load_max, backlog_max, room_min, paused }))
    }

    /// A connection is, or is to be, with this shard, if that has room for one more.
    #[must_use]
    pub fn begins(&self, shard: u16) -> bool {
        let load = &self.0.loads[usize::from(shard)];
        let has_room = load.begins(self.0.load_max);
        let has_total = has_room && self.0.total_max.is_none_or(|max| self.0.total.begins(max));
        if has_room && !has_total {
            load.ends();
        }
        has_total
    }

    /// A connection of this shard is closed.
    pub fn ends(&self, shard: u16) {
        self.0.loads[usize::from(shard)].ends();
        if self.0.total_max.is_some() {
            self.0.total.ends();
        }
    }

    /// Room for so many of all shards together, where that has a bound.
    fn total_room(&self) -> u32 {
        let count = || self.0.total.0.load(Ordering::Relaxed);
        self.0.total_max.map_or(u32::MAX, |max| max.saturating_sub(count()))
    }

    fn count(&self, shard: u16) -> u32 {
        self.0.loads[usize::from(shard)].0.load(Ordering::Relaxed)
    }

    fn counts(&self) -> impl Iterator<Item = u32> {
        self.0.loads.iter().map(|load| load.0.load(Ordering::Relaxed))
    }

    /// The shard that has the fewest connections.
    #[must_use]
    pub fn lightest(&self) -> u16 {
        let least = (0..).zip(self.counts()).min_by_key(|(_, count)| *count);
        least.map(|(index, _)| index).expect("there is a shard")
    }

    /// The shard that has fewer connections than `shard`, by more than an eighth: where there are
    /// many, a hash is even enough, and no connection changes its core for nothing.
    #[must_use]
    pub fn lighter(&self, shard: u16) -> Option<u16> {
        let index = self.lightest();
        let least = self.count(index);
        (self.count(shard) > least + least / 8).then_some(index)
    }

    /// Whether `shard` has so little room that it is not to accept all that come, and until there
    /// is twice as much.
    #[must_use]
    pub fn is_narrow(&self, shard: u16, was_narrow: bool) -> bool {
        let All { load_max, backlog_max, .. } = *self.0;
        let room = load_max.saturating_sub(self.count(shard)).min(self.total_room());
        room < if was_narrow { (2 * backlog_max).min(load_max) } else { backlog_max }
    }

    /// Whether all accepts are to pause.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Relaxed)
    }

    /// Begins a pause where no shard has room, and ends it where there is room for some. Whether it
    /// did either: the other shards are to be woken.
    ///
    /// Each shard does so every turn, and looks at the others only while it is full or all pause.
    /// What it sees of them may be late; then the next turn of any of them sets it right.
    #[must_use]
    pub fn steer(&self, shard: u16) -> bool {
        let was_paused = self.is_paused();
        let load_max = self.0.load_max;
        let total_room = self.total_room();
        if !was_paused && self.count(shard) < load_max && total_room > 0 {
            return false;
        }
        let room = self.counts().fold(0, |sum: u32, count| {
            // More may be counted for a moment than there are.
            sum.saturating_add(load_max.saturating_sub(count))
        });
        let room = room.min(total_room);
        let is_paused = if was_paused { room < self.0.room_min } else { room == 0 };
        self.0.paused.store(is_paused, Ordering::Relaxed);
        is_paused != was_paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(loads: &Loads, shard: u16, count: u32) {
        (0..count).for_each(|_| assert!(loads.begins(shard)));
    }

    #[test]
    fn a_new_connection_goes_where_there_are_fewer_by_an_eighth() {
        let loads = Loads::new(3, 100, 1, None);
        assert_eq!(loads.lighter(0), None);
        begin(&loads, 0, 1);
        assert_eq!((loads.lighter(0), loads.lighter(1)), (Some(1), None));
        begin(&loads, 1, 17);
        begin(&loads, 2, 16);
        begin(&loads, 0, 17);
        assert_eq!(loads.lighter(0), None, "18 are not more than 16 and an eighth");
        begin(&loads, 0, 1);
        assert_eq!(loads.lighter(0), Some(2));
        loads.ends(0);
        assert_eq!(loads.lighter(0), None);
    }

    #[test]
    fn a_full_shard_takes_no_more_and_accepts_pause_only_when_all_are_full() {
        let loads = Loads::new(2, 3, 1, None);
        begin(&loads, 0, 3);
        assert!(!loads.begins(0));
        assert!(!loads.steer(0) && !loads.is_paused(), "the other one has room");
        assert_eq!(loads.lightest(), 1);
        begin(&loads, 1, 3);
        assert!(loads.steer(1) && loads.is_paused());
        assert!(!loads.steer(0), "it is paused already");
        loads.ends(1);
        assert!(loads.steer(0) && !loads.is_paused());
        assert!(loads.begins(1) && !loads.begins(1));
    }

    #[test]
    fn a_shard_is_narrow_without_room_for_all_that_wait_until_there_is_twice_as_much() {
        let loads = Loads::new(1, 10_000, 4096, None);
        begin(&loads, 0, 5904);
        assert!(!loads.is_narrow(0, false));
        begin(&loads, 0, 1);
        assert!(loads.is_narrow(0, false));
        (0..4096).for_each(|_| loads.ends(0));
        assert!(loads.is_narrow(0, true) && !loads.is_narrow(0, false));
        loads.ends(0);
        assert!(!loads.is_narrow(0, true));
        assert!(Loads::new(1, 20, 4096, None).is_narrow(0, false), "it never has so much");
    }

    #[test]
    fn all_together_may_have_fewer_than_each_has_room_for() {
        let loads = Loads::new(2, 100, 1, Some(3));
        begin(&loads, 0, 2);
        begin(&loads, 1, 1);
        assert!(!loads.begins(0) && !loads.begins(1));
        assert!(loads.steer(0) && loads.is_paused());
        loads.ends(1);
        assert!(loads.steer(1) && !loads.is_paused());
        begin(&loads, 0, 1);
        assert!(!loads.begins(1));
    }

    #[test]
    fn a_pause_lasts_until_there_is_room_for_some() {
        let loads = Loads::new(2, 256, 1, None);
        (0..2).for_each(|shard| begin(&loads, shard, 256));
        assert!(loads.steer(0));
        for shard in [0, 1, 0] {
            loads.ends(shard);
            assert!(!loads.steer(0), "a sixty-fourth is four");
        }
        loads.ends(1);
        assert!(loads.steer(1) && !loads.is_paused());
    }
}
