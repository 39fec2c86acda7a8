//! Changes of what is served: writes and purges, one after the other for each key.
//!
//! Before a value changes, no shard serves a copy of it any more and none is given (see
//! `directory`). So whoever reads the new value anywhere is never followed by one who reads the
//! old, and what is purged is served by nobody once that is confirmed.
//!
//! Invariant: at most one change of a key is under way; no copy of its value is given meanwhile.

use super::Shard;
use super::directory::Asked;
use crate::limits::Limits;
use crate::mesh::{FORGETS_MAX, Key, Order, PURGES_MAX, PurgeOrder, Upload};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use std::collections::VecDeque;

/// A change that waits.
#[derive(Debug)]
pub(super) enum Change {
    /// A write of a key of ours.
    Write(Box<Upload>),
    /// A purge of a key of ours, or of many keys.
    Purge(Box<PurgeOrder>),
    /// A change that others have made of a key of ours.
    Forget(Box<Key>),
}

/// A change of a single key that is under way.
#[derive(Debug)]
struct Active {
    hash: KeyHash,
    /// A purge of many keys has come meanwhile: what a write leaves may be older than that.
    is_void: bool,
}

/// The changes of a shard's keys.
#[derive(Debug)]
pub(super) struct Changes {
    /// Those of single keys that are under way.
    active: Vec<Active>,
    /// A purge of many keys is under way.
    is_purging: bool,
    /// Those that wait for another one of their key, oldest first.
    waiting: VecDeque<(KeyHash, Change)>,
    /// Those that wait until no copy is served any more, oldest first.
    settling: VecDeque<(Asked, Change)>,
}

impl Changes {
    /// No changes; allocates all it will ever need.
    pub(super) fn new(limits: &Limits) -> Self {
        let count_max = limits.all_uploads_count() + PURGES_MAX + FORGETS_MAX;
        Self {
            active: Vec::with_capacity(count_max),
            is_purging: false,
            waiting: VecDeque::with_capacity(count_max),
            settling: VecDeque::with_capacity(count_max),
        }
    }

    /// Whether nothing is being changed.
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && !self.is_purging
    }

    /// Whether a change waits until no copy is served any more.
    pub(super) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Whether no copy of the value under this hash may be given.
    pub(super) fn holds_back(&self, hash: KeyHash) -> bool {
        self.is_purging || self.is_active(hash)
    }

    /// Lets the writes that are under way leave nothing in the cache: which of them a purge of many
    /// keys names is not worth knowing, since it costs no more than a fetch.
    pub(super) fn void_all(&mut self) {
        self.active.iter_mut().for_each(|active| active.is_void = true);
    }

    /// Whether what a write of the key under this hash leaves may be older than a purge.
    pub(super) fn is_void(&self, hash: KeyHash) -> bool {
        self.active.iter().any(|active| active.hash == hash && active.is_void)
    }

    /// Changes of the key under this hash that are under way or wait.
    pub(super) fn count(&self, hash: KeyHash) -> u32 {
        let active = self.active.iter().map(|active| active.hash);
        let all = active.chain(self.waiting.iter().map(|(hash, _)| *hash));
        u32::try_from(all.filter(|other| *other == hash).count()).expect("changes are bounded")
    }

    /// Whether a purge of many keys is under way.
    pub(super) const fn is_purging(&self) -> bool {
        self.is_purging
    }

    fn is_active(&self, hash: KeyHash) -> bool {
        self.active.iter().any(|active| active.hash == hash)
    }
}

impl<R: Ring> Shard<R> {
    /// Begins a change of the key under this hash, or lets it wait for another one.
    pub(super) fn change(&mut self, hash: KeyHash, change: Change) {
        if self.changes.is_active(hash) {
            self.changes.waiting.push_back((hash, change));
        } else {
            self.begin_change(hash, change);
            self.go_on();
        }
    }

    fn begin_change(&mut self, hash: KeyHash, change: Change) {
        self.changes.active.push(Active { hash, is_void: false });
        let asked = self.invalidate(hash);
        self.changes.settling.push_back((asked, change));
    }

    /// Begins a change of many keys, of which there is one at a time.
    pub(super) fn change_many(&mut self, change: Change) {
        assert!(!self.changes.is_purging, "one purge is under way at a time");
        self.changes.is_purging = true;
        let asked = self.invalidate_all();
        self.changes.settling.push_back((asked, change));
        self.go_on();
    }

    /// Goes on with the changes for which no copy is served any more.
    pub(super) fn go_on(&mut self) {
        while let Some(&(asked, _)) = self.changes.settling.front()
            && self.is_settled(asked)
        {
            match self.changes.settling.pop_front() {
                Some((_, Change::Write(upload))) => self.link.order(Order::Write(upload)),
                Some((_, Change::Purge(order))) => self.put_in_force(order),
                Some((_, Change::Forget(key))) => self.forget(key),
                None => unreachable!("there is a first one"),
            }
        }
    }

    /// Ends a change of the key under this hash: the next one begins.
    pub(super) fn end_change(&mut self, hash: KeyHash) {
        let changes = &mut self.changes;
        let place = changes.active.iter().position(|active| active.hash == hash);
        changes.active.swap_remove(place.expect("a change that ends has begun"));
        let next = changes.waiting.iter().position(|(other, _)| *other == hash);
        if let Some((_, change)) = next.and_then(|next| changes.waiting.remove(next)) {
            self.begin_change(hash, change);
        }
    }

    /// Ends a change of many keys.
    pub(super) const fn end_change_of_many(&mut self) {
        self.changes.is_purging = false;
    }
}
