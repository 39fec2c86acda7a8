//! Flights: one fetch of one key, which others may join.
//!
//! The first miss of a key leads a flight; misses of the same key that come while it is under way
//! follow it. When it lands, its waiters are woken a bounded number a turn (the rush). A client
//! that leaves cancels nothing: its reply is gone and the waiter finds nobody.
//!
//! A purge or a write of its key makes a flight *void*: nobody joins it any more. What it brings is
//! given to those who wait for it, who had asked before, and to nobody else; and not even to them
//! where the cache has something to serve by then, since it may come of a write that is not yet
//! applied.
//!
//! Waiters are bounded: all together, those of one flight, and those of one other shard that
//! follow. They keep its parcels, and a crowd that asks for one cold key must not take all of them:
//! with the rest it reads what is in memory.
//!
//! Invariant: at most one flight of a key is being fetched that is not void; every waiter is
//! answered once; an entry that waiters are still to be served from is pinned.

use super::directory::Asked;
use super::slots::NONE;
use crate::error::FetchFailure;
use crate::http::Source;
use crate::limits::{FLIGHT_SIZE_MAX, Limits, WAITER_SIZE_MAX};
use crate::mesh::{FlightFacts, FlightId, Key, Parcel, ReplyRef};
use shard_cache::Pin;
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use std::collections::VecDeque;

/// Who waits for a flight.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A connection of this shard.
    Local(ReplyRef),
    /// Another shard.
    Remote(u16, Box<Parcel>),
}

/// What a landed flight gives its waiters.
#[derive(Debug)]
pub(super) enum Landed {
    /// The entry that the fetch has brought, negative ones included, or that took its place.
    Entry(Pin),
    /// The fetch failed, and this entry may be served all the same.
    Stale(Pin, FetchFailure),
    /// The origin does not have the key, and the cache had no room to remember that.
    Absent,
    /// The origin failed.
    Failed(FetchFailure),
}

#[derive(Debug)]
struct Flight {
    generation: u32,
    hash: KeyHash,
    key: Key,
    /// The next flight in the same bucket of the index.
    next: u32,
    first: u32,
    last: u32,
    /// How many wait for it.
    waits_count: u32,
    /// The group of entries that what it brings belongs to.
    group: u8,
    /// Its key was purged while it was fetched: what lands is for those who wait already.
    is_void: bool,
    /// When the origin was asked: what lands may be as old as that.
    ordered: Instant,
    /// What must be settled before what lands is shown to anybody.
    asked: Asked,
    landed: Option<Landed>,
}

#[derive(Debug)]
struct Wait {
    next: u32,
    source: Source,
    waiter: Option<Waiter>,
}

const _: () = assert!(size_of::<Flight>() as u64 <= FLIGHT_SIZE_MAX, "the bill says so");
const _: () = assert!(size_of::<Wait>() as u64 <= WAITER_SIZE_MAX, "the bill says so");

/// All flights of a shard and those who wait for them.
#[derive(Debug)]
pub(super) struct Flights {
    flights: Box<[Flight]>,
    flights_free: Vec<u32>,
    index: Box<[u32]>,
    waits: Box<[Wait]>,
    waits_free: Vec<u32>,
    /// Waiters of each other shard.
    remote_counts: Box<[u32]>,
    flight_waits_max: u32,
    remote_waits_max: u32,
    /// Landed flights whose waiters are being woken, oldest first.
    rushing: VecDeque<u32>,
    /// Asked of the origin and not landed yet.
    fetching: u32,
}

/// What joining a flight came to.
#[derive(Debug)]
pub(super) enum Joined {
    /// The caller leads: it must ask the origin.
    Lead(FlightId),
    /// Somebody has asked already.
    Follow,
    /// There is no room: the waiter is given back.
    Full(Option<Waiter>),
}

impl Flights {
    pub(super) fn new(limits: &Limits) -> Self {
        let (flights_count, waits_count) = (limits.flights_max, limits.waiters_max);
        let flight = || Flight {
            generation: 0,
            hash: KeyHash::from_bits(0),
            key: Key::EMPTY,
            next: NONE,
            first: NONE,
            last: NONE,
            waits_count: 0,
            group: 0,
            is_void: false,
            ordered: Instant::ZERO,
            asked: Asked::NOTHING,
            landed: None,
        };
        let wait = || Wait { next: NONE, source: Source::Fetched, waiter: None };
        Self {
            flights: (0..flights_count).map(|_| flight()).collect(),
            flights_free: (0..flights_count).rev().collect(),
            index: vec![NONE; flights_count.next_power_of_two() as usize].into_boxed_slice(),
            waits: (0..waits_count).map(|_| wait()).collect(),
            waits_free: (0..waits_count).rev().collect(),
            remote_counts: vec![0; usize::from(limits.shards)].into_boxed_slice(),
            flight_waits_max: limits.flight_waiters_max,
            remote_waits_max: limits.parcels_waiting_max,
            rushing: VecDeque::with_capacity(flights_count as usize),
            fetching: 0,
        }
    }

    /// Flights being fetched.
    pub(super) const fn fetching(&self) -> u32 {
        self.fetching
    }

    /// Flights and waiters in use.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.flights.len() - self.flights_free.len(), self.waits.len() - self.waits_free.len())
    }

    /// Joins the flight of `key`, or begins it. A refresh has no waiter.
    pub(super) fn join(&mut self, hash: KeyHash, key: &[u8], waiter: Option<Waiter>) -> Joined {
        if waiter.is_some() && self.waits_free.is_empty() {
            return Joined::Full(waiter);
        }
        match self.find_or_begin(hash, key) {
            Some((index, begun)) => self.follow(index, begun, waiter),
            None => Joined::Full(waiter),
        }
    }

    /// Joins the flight of the key in `parcel` for the shard `from`, or begins it.
    pub(super) fn join_remote(&mut self, hash: KeyHash, from: u16, parcel: Box<Parcel>) -> Joined {
        let begun =
            if self.waits_free.is_empty() { None } else { self.find_or_begin(hash, parcel.key()) };
        let waiter = Some(Waiter::Remote(from, parcel));
        match begun {
            Some((index, begun)) => self.follow(index, begun, waiter),
            None => Joined::Full(waiter),
        }
    }

    /// The flight of `key`, and whether it was begun just now; none if there is no room.
    fn find_or_begin(&mut self, hash: KeyHash, key: &[u8]) -> Option<(u32, bool)> {
        if let Some(index) = self.find(hash, key) {
            return Some((index, false));
        }
        let index = self.flights_free.pop()?;
        let bucket = self.bucket(hash);
        let flight = &mut self.flights[index as usize];
        assert!(flight.landed.is_none(), "a free flight carries nothing");
        flight.hash = hash;
        flight.key = Key::new(key).expect("the parser bounds keys");
        flight.is_void = false;
        flight.next = std::mem::replace(&mut self.index[bucket], index);
        self.fetching += 1;
        Some((index, true))
    }

    fn follow(&mut self, index: u32, begun: bool, waiter: Option<Waiter>) -> Joined {
        let Flight { generation, waits_count, .. } = self.flights[index as usize];
        if begun {
            self.wait(index, waiter, Source::Fetched);
            Joined::Lead(FlightId { slot: index, generation })
        } else if !self.may_follow(waits_count, waiter.as_ref()) {
            Joined::Full(waiter)
        } else {
            self.wait(index, waiter, Source::Collapsed);
            Joined::Follow
        }
    }

    /// Whether one more may wait for a flight that has so many waiters.
    fn may_follow(&self, waits_count: u32, waiter: Option<&Waiter>) -> bool {
        let has_room = waits_count < self.flight_waits_max;
        match waiter {
            None => true,
            Some(Waiter::Local(_)) => has_room,
            Some(Waiter::Remote(from, _)) => {
                has_room && self.remote_counts[usize::from(*from)] < self.remote_waits_max
            }
        }
    }

    /// The key and hash of a flight that is being fetched.
    pub(super) fn key(&self, id: FlightId) -> (KeyHash, &Key) {
        let flight = &self.flights[id.slot as usize];
        assert_eq!(flight.generation, id.generation, "an order is answered once");
        (flight.hash, &flight.key)
    }

    /// The origin is asked for the flight's key, and other shards were asked to drop their copies
    /// of it.
    pub(super) fn note_order(&mut self, id: FlightId, now: Instant, asked: Asked) {
        let flight = &mut self.flights[id.slot as usize];
        flight.ordered = now;
        flight.asked = asked;
    }

    /// What the flight brings belongs to this group of entries.
    pub(super) fn set_group(&mut self, id: FlightId, group: u8) {
        self.flights[id.slot as usize].group = group;
    }

    /// The group of entries that what the flight brings belongs to.
    pub(super) fn group(&self, id: FlightId) -> u8 {
        self.flights[id.slot as usize].group
    }

    /// When the origin was asked for the flight's key.
    pub(super) fn ordered(&self, id: FlightId) -> Instant {
        self.flights[id.slot as usize].ordered
    }

    /// What must be settled before what lands is shown to anybody.
    pub(super) fn asked(&self, id: FlightId) -> Asked {
        self.flights[id.slot as usize].asked
    }

    /// Whether the key of a flight was purged while it was fetched.
    pub(super) fn is_void(&self, id: FlightId) -> bool {
        self.flights[id.slot as usize].is_void
    }

    /// Whether this key is being fetched.
    pub(super) fn is_fetching(&self, hash: KeyHash, key: &[u8]) -> bool {
        self.find(hash, key).is_some()
    }

    /// The flight of this key that is being fetched: the one that may be joined, or `last`, which
    /// is void.
    pub(super) fn facts(
        &self,
        hash: KeyHash,
        key: &[u8],
        last: Option<FlightId>,
        now: Instant,
    ) -> Option<FlightFacts> {
        let is_of = |id: &FlightId| {
            let flight = &self.flights[id.slot as usize];
            let is_same = flight.generation == id.generation && flight.key.as_bytes() == key;
            is_same && flight.is_void && flight.landed.is_none()
        };
        let void = || last.filter(is_of).map(|id| id.slot);
        let flight = &self.flights[self.find(hash, key).or_else(void)? as usize];
        Some(FlightFacts {
            age_ms: now.ns_since(flight.ordered) / 1_000_000,
            waiters_count: flight.waits_count,
            is_void: flight.is_void,
        })
    }

    /// Lets nobody join the flight of this key any more, if there is one: what it brings may be
    /// older than a purge. Returns whether there was one.
    pub(super) fn void(&mut self, hash: KeyHash, key: &[u8]) -> bool {
        let found = self.find(hash, key);
        if let Some(index) = found {
            self.void_one(index);
        }
        found.is_some()
    }

    /// Does the same for all keys that `is_named` names. Returns how many there were.
    pub(super) fn void_all(&mut self, is_named: impl Fn(&[u8]) -> bool) -> u64 {
        let mut count = 0;
        for bucket in 0..self.index.len() {
            let mut index = self.index[bucket];
            while index != NONE {
                let flight = &self.flights[index as usize];
                let next = flight.next;
                if is_named(flight.key.as_bytes()) {
                    self.void_one(index);
                    count += 1;
                }
                index = next;
            }
        }
        count
    }

    fn void_one(&mut self, index: u32) {
        self.unlink(index);
        self.flights[index as usize].is_void = true;
    }

    /// Takes a flight out of the index: a new miss of its key begins a new one.
    fn unlink(&mut self, index: u32) {
        let bucket = self.bucket(self.flights[index as usize].hash);
        let next = std::mem::replace(&mut self.flights[index as usize].next, NONE);
        if self.index[bucket] == index {
            self.index[bucket] = next;
            return;
        }
        let mut before = self.index[bucket];
        while self.flights[before as usize].next != index {
            before = self.flights[before as usize].next;
        }
        self.flights[before as usize].next = next;
    }

    /// The flight has landed: its waiters are woken from here on.
    pub(super) fn land(&mut self, id: FlightId, landed: Landed) {
        if !self.is_void(id) {
            self.unlink(id.slot);
        }
        let flight = &mut self.flights[id.slot as usize];
        flight.landed = Some(landed);
        self.fetching -= 1;
        self.rushing.push_back(id.slot);
    }

    /// Whether waiters are to be woken.
    pub(super) fn is_rushing(&self) -> bool {
        !self.rushing.is_empty()
    }

    /// The next waiter of the oldest landed flight, and what it is given; or the end of that
    /// flight, with what it held.
    pub(super) fn rush(&mut self) -> Option<Rush<'_>> {
        let index = *self.rushing.front()?;
        let flight = &mut self.flights[index as usize];
        let place = flight.first;
        if place == NONE {
            self.rushing.pop_front();
            flight.generation = flight.generation.wrapping_add(1);
            self.flights_free.push(index);
            let landed = flight.landed.take().expect("a rushing flight has landed");
            return Some(Rush::End(landed));
        }
        let wait = &mut self.waits[place as usize];
        flight.first = wait.next;
        if flight.first == NONE {
            flight.last = NONE;
        }
        flight.waits_count -= 1;
        self.waits_free.push(place);
        let waiter = wait.waiter.take().expect("a listed waiter waits");
        if let Waiter::Remote(from, _) = waiter {
            self.remote_counts[usize::from(from)] -= 1;
        }
        let landed = flight.landed.as_ref().expect("a rushing flight has landed");
        Some(Rush::Waiter(waiter, wait.source, landed))
    }

    fn wait(&mut self, index: u32, waiter: Option<Waiter>, source: Source) {
        let Some(waiter) = waiter else { return };
        let place = self.waits_free.pop().expect("checked before joining");
        if let Waiter::Remote(from, _) = waiter {
            self.remote_counts[usize::from(from)] += 1;
        }
        self.waits[place as usize] = Wait { next: NONE, source, waiter: Some(waiter) };
        let flight = &mut self.flights[index as usize];
        match flight.last {
            NONE => flight.first = place,
            last => self.waits[last as usize].next = place,
        }
        flight.last = place;
        flight.waits_count += 1;
    }

    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let mut index = self.index[self.bucket(hash)];
        while index != NONE {
            let flight = &self.flights[index as usize];
            if flight.hash == hash && flight.key.as_bytes() == key {
                return Some(index);
            }
            index = flight.next;
        }
        None
    }

    fn bucket(&self, hash: KeyHash) -> usize {
        let mask = self.index.len() as u64 - 1;
        usize::try_from(hash.bits() & mask).expect("masked by the size of the index")
    }
}

/// One step of waking the waiters of landed flights.
#[derive(Debug)]
pub(super) enum Rush<'a> {
    /// This one is to be answered from what landed.
    Waiter(Waiter, Source, &'a Landed),
    /// All waiters of a flight are answered; what it held is to be let go.
    End(Landed),
}
