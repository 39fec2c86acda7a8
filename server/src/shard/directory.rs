//! Which other shards hold copies of our values, and what they have not yet dropped of them.
//!
//! For each value that was granted the directory keeps the set of its holders, by the key's hash.
//! Before the value changes, each of them is asked to drop his copy. Such requests are numbered;
//! a holder answers with the number of the last one that he has followed, and as they stand in the
//! same queue as the grants, he has no copy then that is older. Whoever changes a value waits until
//! all that was asked for up to then is *settled*: followed, or the holder's lease is over (see
//! `mesh::leases`). That may wait for another key's holder as well, which is as short, and needs no
//! set of its own.
//!
//! A place in the directory is taken from a key that seems cold where none is free. Its holders are
//! asked to drop it, so the directory never knows of fewer copies than there are: that is its
//! invariant.
//!
//! ```text
//! slot   [ hash 64 | holders 63 | hot 1 ]     sets of eight, found by the hash's low bits
//! ```

use super::Shard;
use crate::limits::{DIRECTORY_SLOT_SIZE, Limits};
use crate::mesh::{Leases, Message};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// Slots of a set: two cache lines.
const WAYS: usize = 8;
/// The holders that are told apart; beyond, several shards share a bit and are all asked.
const HOLDERS_MAX: u16 = 63;
/// A holder has reported hits.
const HOT: u64 = 1 << 63;

/// How often leases are renewed.
const RENEW: Duration = Duration::from_millis(250);
/// How long a holder may owe an answer before his lease is renewed no more.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    holders: u64,
}

const _: () = assert!(size_of::<Slot>() == DIRECTORY_SLOT_SIZE, "the bill says so");

/// What one holder owes us.
#[derive(Debug)]
struct Holder {
    /// Numbers of the requests that he has not answered, oldest first.
    asked: VecDeque<u32>,
    /// All his copies were taken back since the time of this number.
    taken_back: Option<u32>,
    /// When he last answered, or was asked when he owed nothing.
    since: Instant,
    /// Somebody went on because his lease was over: it stays so until he owes nothing.
    is_lapsed: bool,
}

impl Holder {
    fn owes(&self) -> bool {
        !self.asked.is_empty() || self.taken_back.is_some()
    }

    /// All his copies are taken back at the time of this number. Where they were before and he has
    /// not answered, somebody still waits for that.
    fn take_back(&mut self, number: u32) {
        self.taken_back.get_or_insert(number);
    }

    /// Whether he has followed all requests up to this number.
    fn has_followed(&self, number: u32) -> bool {
        let is_later = |asked: u32| asked.wrapping_sub(number).cast_signed() > 0;
        self.asked.front().is_none_or(|asked| is_later(*asked))
            && self.taken_back.is_none_or(is_later)
    }
}

/// The number of the last request that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked(u32);

impl Asked {
    /// Nobody was asked for anything yet.
    pub(super) const NOTHING: Self = Self(0);
}

/// The directory of one owner.
#[derive(Debug)]
pub(super) struct Directory {
    slots: Box<[Slot]>,
    /// Where the search for a cold slot goes on.
    hand: usize,
    holders: Box<[Holder]>,
    /// A holder may owe an answer.
    is_owed: bool,
    /// The last request's number.
    number: u32,
    renewed_at: Option<Instant>,
    invalidations_max: usize,
}

impl Directory {
    /// An empty directory; allocates all it will ever need.
    pub(super) fn new(limits: &Limits) -> Self {
        let holder = |_| Holder {
            asked: VecDeque::with_capacity(limits.invalidations_max as usize),
            taken_back: None,
            since: Instant::ZERO,
            is_lapsed: false,
        };
        Self {
            slots: vec![Slot::default(); limits.directory_slots_count as usize].into(),
            hand: 0,
            holders: (0..limits.shards).map(holder).collect(),
            is_owed: false,
            number: 0,
            renewed_at: None,
            invalidations_max: limits.invalidations_max as usize,
        }
    }

    fn set(&mut self, hash: u64) -> Option<&mut [Slot]> {
        let places = self.places(hash);
        self.slots.get_mut(places)
    }

    /// Where the slots of a set lie, if there are any.
    fn places(&self, hash: u64) -> Range<usize> {
        let sets = self.slots.len() / WAYS;
        let set = usize::try_from(hash & 0xffff_ffff).expect("32 bits") % sets.max(1);
        set * WAYS..(set + 1) * WAYS
    }

    /// Who may have copies of the key: a bit each.
    pub(super) fn holders(&self, hash: KeyHash) -> u64 {
        let set = self.slots.get(self.places(hash.bits())).unwrap_or_default();
        set.iter().find(|slot| slot.hash == hash.bits()).map_or(0, |slot| slot.holders & !HOT)
    }

    /// Notes that `holder` gets a copy. Returns the hash of another key that gave its place, and
    /// the holders of that; nothing if there is no directory.
    fn grant(&mut self, hash: KeyHash, holder: u16) -> Option<(KeyHash, u64)> {
        let hash = hash.bits();
        self.hand = (self.hand + 1) % WAYS;
        let hand = self.hand;
        let set = self.set(hash)?;
        let known = set.iter().position(|slot| slot.hash == hash && slot.holders != 0);
        let place = known.or_else(|| set.iter().position(|slot| slot.holders == 0));
        let place = place.unwrap_or_else(|| {
            let cold = (0..WAYS).map(|way| (hand + way) % WAYS);
            let cold = cold.clone().find(|way| set[*way].holders & HOT == 0).unwrap_or(hand);
            set.iter_mut().for_each(|slot| slot.holders &= !HOT);
            cold
        });
        let slot = &mut set[place];
        let out = if slot.hash == hash { Slot::default() } else { *slot };
        let holders = if slot.hash == hash { slot.holders } else { 0 };
        *slot = Slot { hash, holders: holders | bit(holder) };
        Some((KeyHash::from_bits(out.hash), out.holders & !HOT))
    }

    /// Takes a key out. Returns its holders.
    fn withdraw(&mut self, hash: KeyHash) -> u64 {
        let hash = hash.bits();
        let Some(set) = self.set(hash) else { return 0 };
        let slot = set.iter_mut().find(|slot| slot.hash == hash);
        slot.map_or(0, |slot| std::mem::take(slot).holders & !HOT)
    }

    /// Notes that holders have served copies.
    fn heat(&mut self, hash: KeyHash) {
        let hash = hash.bits();
        let set = self.set(hash).unwrap_or_default();
        if let Some(slot) = set.iter_mut().find(|slot| slot.hash == hash && slot.holders != 0) {
            slot.holders |= HOT;
        }
    }

    /// Whether `holder` has a copy of the key, as far as is known here.
    pub(super) fn has(&self, hash: KeyHash, holder: u16) -> bool {
        self.slots.iter().any(|slot| slot.hash == hash.bits() && slot.holders & bit(holder) != 0)
    }

    /// Whether a holder has not answered yet.
    pub(super) fn owes(&self) -> bool {
        self.holders.iter().any(Holder::owes)
    }

    /// What must be settled before a value may change about which all have been asked by now.
    const fn asked(&self) -> Asked {
        Asked(self.number)
    }

    /// Whether no copy is served any more that somebody was asked for to drop.
    fn is_settled(&mut self, asked: Asked, leases: &Leases, now: Instant) -> bool {
        let mut is_settled = true;
        if !self.is_owed {
            return true;
        }
        for (index, holder) in (0..).zip(&mut self.holders) {
            if !holder.has_followed(asked.0) {
                holder.is_lapsed |= leases.is_over(index, now);
                is_settled &= holder.is_lapsed;
            }
        }
        is_settled
    }

    /// A holder has followed all requests up to this number. Returns whether he owes nothing more.
    fn follow(&mut self, holder: u16, number: u32, now: Instant) {
        let holder = &mut self.holders[usize::from(holder)];
        holder.since = now;
        while holder
            .asked
            .front()
            .is_some_and(|asked| number.wrapping_sub(*asked).cast_signed() >= 0)
        {
            holder.asked.pop_front();
        }
        holder.is_lapsed &= holder.owes();
    }
}

const fn bit(holder: u16) -> u64 {
    1 << (holder % HOLDERS_MAX)
}

impl<R: Ring> Shard<R> {
    /// Whether `to` may have a copy of the value under this hash, which is noted then.
    pub(super) fn grant(&mut self, hash: KeyHash, to: u16) -> bool {
        if self.changes.holds_back(hash) {
            return false;
        }
        let Some((out, holders)) = self.directory.grant(hash, to) else { return false };
        self.counters.replica_grants += 1;
        self.ask_holders(out, holders);
        true
    }

    /// All shards but this one.
    pub(super) fn others(&self) -> impl Iterator<Item = u16> + use<R> {
        let own = self.index;
        (0..self.peers.count()).filter(move |shard| *shard != own)
    }

    /// Asks all holders of a value to drop it, and says what to wait for before it may change.
    pub(super) fn invalidate(&mut self, hash: KeyHash) -> Asked {
        let holders = self.directory.withdraw(hash);
        self.ask_holders(hash, holders);
        self.directory.asked()
    }

    fn ask_holders(&mut self, hash: KeyHash, holders: u64) {
        if holders == 0 {
            return;
        }
        self.directory.number = self.directory.number.wrapping_add(1);
        let number = self.directory.number;
        for shard in self.others() {
            if holders & bit(shard) == 0 {
                continue;
            }
            let holder = &mut self.directory.holders[usize::from(shard)];
            if !holder.owes() {
                holder.since = self.now;
            }
            self.directory.is_owed = true;
            if holder.asked.len() < self.directory.invalidations_max {
                holder.asked.push_back(number);
                self.counters.replica_invalidations += 1;
                self.peers.send(shard, Message::Invalidate { number, hash });
            } else {
                self.take_back(shard);
            }
        }
    }

    /// Asks all shards to drop all they have of ours.
    pub(super) fn invalidate_all(&mut self) -> Asked {
        self.directory.slots.fill(Slot::default());
        self.directory.number = self.directory.number.wrapping_add(1);
        for shard in self.others() {
            self.take_back(shard);
        }
        self.directory.asked()
    }

    /// Takes back all copies that a holder has: it needs no room in a queue.
    fn take_back(&mut self, shard: u16) {
        let holder = &mut self.directory.holders[usize::from(shard)];
        if !holder.owes() {
            holder.since = self.now;
        }
        self.directory.is_owed = true;
        holder.take_back(self.directory.number);
        self.counters.replica_epochs += 1;
        self.leases.raise_epoch(shard);
        self.peers.nudge(shard);
    }

    /// Whether a value may change for which this was asked.
    pub(super) fn is_settled(&mut self, asked: Asked) -> bool {
        // Who has no connections left serves nobody, and may have stopped.
        let is_over = self.control.drained_count() == self.peers.count();
        is_over || self.directory.is_settled(asked, &self.leases, self.now)
    }

    /// A holder has followed our requests up to this number.
    pub(super) fn receive_followed(&mut self, from: u16, number: u32) {
        self.directory.follow(from, number, self.now);
    }

    /// A holder has served copies of a key of ours.
    pub(super) fn receive_hit(&mut self, hash: KeyHash) {
        self.cache.count_hit(hash);
        self.directory.heat(hash);
    }

    /// Looks at what holders owe, and renews the leases of those who owe nothing for long.
    pub(super) fn keep_leases(&mut self) {
        let Self { directory, leases, now, counters, .. } = self;
        let is_due = directory.renewed_at.is_none_or(|at| *now >= at + RENEW);
        if !is_due && !directory.is_owed {
            return;
        }
        directory.is_owed = false;
        for (shard, holder) in (0..).zip(&mut directory.holders) {
            if holder.taken_back.is_some() && leases.has_dropped(shard) {
                holder.taken_back = None;
                holder.since = *now;
                holder.is_lapsed &= holder.owes();
            }
            directory.is_owed |= holder.owes();
            let is_late = holder.owes() && *now >= holder.since + PATIENCE;
            if is_due && shard != self.index && !holder.is_lapsed && !is_late {
                leases.renew(shard, *now);
            } else if is_due && shard != self.index {
                counters.replica_leases_withheld += 1;
            }
        }
        if is_due {
            directory.renewed_at = Some(*now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::limits::Grant;
    use crate::mesh::{LEASE, MARGIN, leases};

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    const fn hash(number: u64) -> KeyHash {
        // Of one set.
        KeyHash::from_bits(number << 32 | 1)
    }

    fn directory() -> Directory {
        let config = Config::parse("test", "", &["cache.memory=1GiB".into()]).unwrap();
        let grant = Grant { shards: 4, descriptors_max: 1 << 20, memory_size: 4 << 30 };
        Directory::new(&Limits::new(&config, &grant).unwrap())
    }

    /// Asks `holder` to drop something.
    fn ask(directory: &mut Directory, holder: usize) -> Asked {
        directory.number += 1;
        directory.is_owed = true;
        directory.holders[holder].asked.push_back(directory.number);
        directory.asked()
    }

    #[test]
    fn holders_are_known_until_the_key_is_withdrawn() {
        let mut directory = directory();
        for holder in [1, 3] {
            assert_eq!(directory.grant(hash(7), holder), Some((KeyHash::from_bits(0), 0)));
        }
        assert!(directory.has(hash(7), 3) && !directory.has(hash(7), 2));
        directory.heat(hash(7));
        assert_eq!((directory.holders(hash(7)), directory.holders(hash(8))), (0b1010, 0));
        assert_eq!(directory.withdraw(hash(8)), 0);
        assert_eq!(directory.withdraw(hash(7)), 0b1010);
        assert_eq!(directory.withdraw(hash(7)), 0);
    }

    #[test]
    fn a_key_that_gives_its_place_takes_its_holders_along_and_cold_ones_go_first() {
        let mut directory = directory();
        for number in 0..8 {
            directory.grant(hash(number), 2);
        }
        (0..8).filter(|number| *number != 5).for_each(|number| directory.heat(hash(number)));
        assert_eq!(directory.grant(hash(8), 1), Some((hash(5), 0b100)));
        assert!(!directory.has(hash(5), 2) && directory.has(hash(8), 1));
        // All have been spared once.
        let (out, holders) = directory.grant(hash(9), 1).unwrap();
        assert!(holders != 0 && !directory.has(out, 2));
        assert_eq!((0..10).filter(|number| directory.withdraw(hash(*number)) != 0).count(), 8);
    }

    #[test]
    fn what_was_asked_is_settled_when_each_has_followed() {
        let (mut directory, leases) = (directory(), leases(4));
        (1..4).for_each(|holder| leases[0].renew(holder, at(0)));
        let first = ask(&mut directory, 1);
        let second = ask(&mut directory, 2);
        let third = ask(&mut directory, 1);
        directory.follow(1, first.0, at(1));
        assert!(directory.is_settled(first, &leases[0], at(1)));
        assert!(!directory.is_settled(second, &leases[0], at(1)));
        directory.follow(2, second.0, at(1));
        assert!(directory.is_settled(second, &leases[0], at(1)));
        assert!(!directory.is_settled(third, &leases[0], at(1)));
        directory.follow(1, third.0, at(1));
        assert!(directory.is_settled(third, &leases[0], at(1)) && !directory.owes());
    }

    #[test]
    fn who_is_stalled_is_not_waited_for_once_his_lease_is_over() {
        let (mut directory, leases) = (directory(), leases(4));
        leases[0].renew(1, at(0));
        let asked = ask(&mut directory, 1);
        assert!(!directory.is_settled(asked, &leases[0], at(0) + LEASE));
        assert!(directory.is_settled(asked, &leases[0], at(0) + LEASE + MARGIN));
        assert!(directory.holders[1].is_lapsed, "and his lease is not renewed");
        directory.follow(1, asked.0, at(1_001));
        assert!(!directory.holders[1].is_lapsed);
    }

    #[test]
    fn copies_that_are_taken_back_again_are_still_owed_since_the_first_time() {
        let mut directory = directory();
        let holder = &mut directory.holders[1];
        holder.take_back(5);
        holder.take_back(6);
        assert_eq!([4, 5, 6].map(|number| holder.has_followed(number)), [true, false, false]);
    }

    #[test]
    fn numbers_may_wrap() {
        let (mut directory, leases) = (directory(), leases(4));
        leases[0].renew(1, at(0));
        directory.number = u32::MAX - 1;
        let before = ask(&mut directory, 1);
        directory.number = 0;
        let after = {
            directory.holders[1].asked.push_back(0);
            directory.asked()
        };
        directory.follow(1, before.0, at(1));
        assert!(directory.is_settled(before, &leases[0], at(1)));
        assert!(!directory.is_settled(after, &leases[0], at(1)));
        directory.follow(1, after.0, at(1));
        assert!(directory.is_settled(after, &leases[0], at(1)));
    }
}
