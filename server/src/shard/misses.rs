//! A miss: it joins the fetch that is under way, begins one, or is refused.
//!
//! Refused is a miss of a key whose fetch has failed just now, and one for which the shard has no
//! time (see `overload`). What may be served although its fetch has failed is served then.

use super::Shard;
use super::flights::{Joined, Waiter};
use super::mailbox::refusal;
use super::overload::{Miss, Verdict};
use super::replies::{Ask, Owed, Plain};
use crate::error::FetchFailure;
use crate::http::{Refusal, Source};
use crate::mesh::{Answer, Message, Parcel, ReplyRef, TenantIndex};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;

impl<R: Ring> Shard<R> {
    /// A request of a connection of ours misses.
    pub(super) fn miss(
        &mut self,
        slot: u32,
        ask: Ask,
        (hash, by): (KeyHash, TenantIndex),
        start: u32,
        size: u16,
    ) {
        let name = self.owe(slot, ask, Owed::Waiting);
        if self.flights.is_fetching(hash, self.requests.key(start, size)) {
            self.wait_for(name, (hash, by), start, size);
            return;
        }
        if let Some(failure) = self.pause(hash) {
            self.answer_unfetched(name, hash, start, size, failure);
            return;
        }
        match self.overload.ask() {
            Verdict::Begin => self.wait_for(name, (hash, by), start, size),
            Verdict::Later => {
                let (waiter, key) = (Waiter::Local(name), Some((start, size)));
                let class = self.tenants.class(by);
                self.overload.put_off(Miss { waiter, hash, by, class, key });
            }
            Verdict::Refuse => self.refuse_local(name, hash, start, size),
        }
    }

    /// A read of another shard misses.
    pub(super) fn miss_of_peer(&mut self, from: u16, hash: KeyHash, parcel: Box<Parcel>) {
        if self.flights.is_fetching(hash, parcel.key()) {
            self.wait_for_peer(from, hash, parcel);
            return;
        }
        if let Some(failure) = self.pause(hash) {
            self.answer_peer_unfetched(from, hash, parcel, failure);
            return;
        }
        match self.overload.ask() {
            Verdict::Begin => self.wait_for_peer(from, hash, parcel),
            Verdict::Later => {
                let by = parcel.tenant;
                let class = self.tenants.class(by);
                let waiter = Waiter::Remote(from, parcel);
                self.overload.put_off(Miss { waiter, hash, by, class, key: None });
            }
            Verdict::Refuse => self.refuse_peer(from, hash, parcel),
        }
    }

    /// Gives what is left of the turn's budget to the misses that were put off.
    pub(super) fn admit_misses(&mut self) {
        let mut later = self.overload.take_later();
        for Miss { waiter, hash, by, key, .. } in later.drain(..) {
            match (waiter, key) {
                (Waiter::Remote(from, parcel), _) => {
                    // Another of the same key may have begun just now.
                    if self.flights.is_fetching(hash, parcel.key()) || self.overload.begins() {
                        self.wait_for_peer(from, hash, parcel);
                    } else {
                        self.refuse_peer(from, hash, parcel);
                    }
                }
                (Waiter::Local(name), Some((start, size))) => {
                    let key = self.requests.key(start, size);
                    if self.flights.is_fetching(hash, key) || self.overload.begins() {
                        self.wait_for(name, (hash, by), start, size);
                    } else {
                        self.refuse_local(name, hash, start, size);
                    }
                }
                (Waiter::Local(_), None) => unreachable!("it was parsed in this turn"),
            }
        }
        self.overload.give_back(later);
    }

    /// Fetches a stale entry anew, unless that is under way, has failed just now, or there is too
    /// much to do.
    pub(super) fn refresh(&mut self, hash: KeyHash, key: &[u8]) {
        if self.flights.is_fetching(hash, key) || !self.may_refresh(hash) {
            return;
        }
        if let Joined::Lead(id) = self.flights.join(hash, key, None) {
            self.order(id, None);
        }
    }

    /// Does the same for the key of a request of this turn.
    pub(super) fn refresh_parsed(&mut self, hash: KeyHash, start: u32, size: u16) {
        let is_fetching = self.flights.is_fetching(hash, self.requests.key(start, size));
        if is_fetching || !self.may_refresh(hash) {
            return;
        }
        let key = self.requests.key(start, size);
        if let Joined::Lead(id) = self.flights.join(hash, key, None) {
            self.order(id, None);
        }
    }

    fn may_refresh(&mut self, hash: KeyHash) -> bool {
        self.pause(hash).is_none() && self.overload.may_refresh()
    }

    /// How the last fetch of a key failed, if that was so short ago that it is not fetched now.
    fn pause(&mut self, hash: KeyHash) -> Option<FetchFailure> {
        let failure = self.recent.pause(hash, self.now)?;
        self.counters.fetches_paused += 1;
        Some(failure)
    }

    /// Joins the flight of a key, or begins it.
    fn wait_for(
        &mut self,
        name: ReplyRef,
        (hash, by): (KeyHash, TenantIndex),
        start: u32,
        size: u16,
    ) {
        let key = self.requests.key(start, size);
        match self.flights.join(hash, key, Some(Waiter::Local(name))) {
            Joined::Lead(id) => self.order(id, Some(self.tenants.group(by))),
            Joined::Follow => {}
            Joined::Full(_) => {
                // As where the origin fails, what may be served is better than nothing.
                let owed = match self.cache.lookup(hash, key, self.now) {
                    Some(hit) => Owed::Entry(self.cache.pin(hit.entry), Source::Hit),
                    None => Owed::Plain(Plain::Refused(Refusal::Overloaded)),
                };
                self.resolve(name, owed);
            }
        }
    }

    fn wait_for_peer(&mut self, from: u16, hash: KeyHash, parcel: Box<Parcel>) {
        let group = self.tenants.group(parcel.tenant);
        // The key is copied into the flight before the parcel waits in it.
        match self.flights.join_remote(hash, from, parcel) {
            Joined::Lead(id) => self.order(id, Some(group)),
            Joined::Follow => {}
            Joined::Full(waiter) => {
                let Some(Waiter::Remote(_, mut parcel)) = waiter else {
                    unreachable!("the parcel is given back")
                };
                match self.cache.lookup(hash, parcel.key(), self.now) {
                    Some(hit) => self.fill(&mut parcel, hit.entry, Source::Hit),
                    None => parcel.answer = Answer::Shed,
                }
                self.peers.send(from, Message::Reply(parcel));
            }
        }
    }

    fn refuse_local(&mut self, name: ReplyRef, hash: KeyHash, start: u32, size: u16) {
        self.counters.fetches_shed += 1;
        self.answer_unfetched(name, hash, start, size, FetchFailure::NoRoom);
    }

    fn refuse_peer(&mut self, from: u16, hash: KeyHash, parcel: Box<Parcel>) {
        self.counters.fetches_shed += 1;
        self.answer_peer_unfetched(from, hash, parcel, FetchFailure::NoRoom);
    }

    /// Answers as if a fetch had failed.
    fn answer_unfetched(
        &mut self,
        name: ReplyRef,
        hash: KeyHash,
        start: u32,
        size: u16,
        failure: FetchFailure,
    ) {
        let key = self.requests.key(start, size);
        let owed = match self.cache.lookup(hash, key, self.now) {
            Some(hit) => Owed::Entry(self.cache.pin(hit.entry), Source::Kept(failure)),
            None => Owed::Plain(Plain::Refused(refusal(failure))),
        };
        self.resolve(name, owed);
    }

    fn answer_peer_unfetched(
        &mut self,
        from: u16,
        hash: KeyHash,
        mut parcel: Box<Parcel>,
        failure: FetchFailure,
    ) {
        match self.cache.lookup(hash, parcel.key(), self.now) {
            Some(hit) => self.fill(&mut parcel, hit.entry, Source::Kept(failure)),
            None => parcel.answer = Answer::Failed(failure),
        }
        self.peers.send(from, Message::Reply(parcel));
    }
}
