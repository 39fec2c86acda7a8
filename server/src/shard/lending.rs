//! Values that other shards read in pieces, because they are larger than a parcel.
//!
//! A reader has told its client the size of the value and has sent the beginning of it, so the rest
//! must be of the same bytes, whatever becomes of the key meanwhile: each such read has a place in
//! this table and holds a pin. Which piece is next the parcel says; here is nothing but the pin.
//!
//! A reader whose client is slow asks late, and would hold the arena with that. Nobody reads the
//! bytes between two pieces, so they are copied out of a condemned segment as they are; where slow
//! readers hold too much all the same, a place is withdrawn, one a turn, and the client's
//! connection is closed when the reader asks again.
//!
//! Invariant: a place is taken by at most one parcel, so there are as many as there are parcels.

use super::output::spill_within;
use super::{BLOCKED_MAX, HOLD_MAX, Shard};
use crate::limits::LENT_SIZE_MAX;
use crate::mesh::{Answer, LentId, Message, Parcel};
use crate::ring::Ring;
use shard_cache::Pin;
use shard_cache::time::Instant;

/// Places that are looked at in a turn for what they hold of condemned segments: as many as a shard
/// has parcels, so that a look at all of 64 shards takes some seventy turns.
const RELIEVED_TURN_MAX: usize = 512;

#[derive(Debug)]
struct Place {
    generation: u32,
    pin: Option<Pin>,
    asked_at: Instant,
}

const _: () =
    assert!(size_of::<Place>() + size_of::<u32>() <= LENT_SIZE_MAX as usize, "the bill says so");

/// What is lent to other shards.
#[derive(Debug)]
pub(super) struct Lending {
    owner: u16,
    places: Box<[Place]>,
    free: Vec<u32>,
    cursor: usize,
}

impl Lending {
    /// The table of the shard `owner`, with a place for each of the others' parcels.
    pub(super) fn new(owner: u16, parcels_count: u32) -> Self {
        let place = || Place { generation: 0, pin: None, asked_at: Instant::ZERO };
        Self {
            owner,
            places: (0..parcels_count).map(|_| place()).collect(),
            free: (0..parcels_count).rev().collect(),
            cursor: 0,
        }
    }

    /// Keeps what `pin` holds for a parcel.
    pub(super) fn lend(&mut self, pin: Pin, now: Instant) -> LentId {
        let index = self.free.pop().expect("there are as many places as parcels");
        let place = &mut self.places[index as usize];
        let before = place.pin.replace(pin);
        assert!(before.is_none(), "a free place holds nothing");
        place.asked_at = now;
        LentId { owner: self.owner, index, generation: place.generation }
    }

    /// What is kept under this name; nothing if it was withdrawn.
    fn find(&mut self, lent: LentId, now: Instant) -> Option<&Pin> {
        assert_eq!(lent.owner, self.owner, "who has lent it is asked for it");
        let place = &mut self.places[lent.index as usize];
        if place.generation != lent.generation {
            return None;
        }
        place.asked_at = now;
        place.pin.as_ref()
    }

    /// Ends it: the pin is the caller's to let go.
    fn end(&mut self, index: u32) -> Pin {
        let place = &mut self.places[index as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        place.pin.take().expect("a place that is taken holds a pin")
    }

    /// The next place in turn, if it is taken and nobody has asked for a while.
    fn next_idle(&mut self, now: Instant) -> Option<(u32, &mut Place)> {
        self.cursor = if self.cursor + 1 < self.places.len() { self.cursor + 1 } else { 0 };
        let index = u32::try_from(self.cursor).expect("places are counted in 32 bits");
        let place = self.places.get_mut(self.cursor)?;
        let is_idle = place.pin.is_some() && place.asked_at + BLOCKED_MAX <= now;
        is_idle.then_some((index, place))
    }

    /// Whether nothing is lent.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }
}

impl<R: Ring> Shard<R> {
    /// Another shard asks for more of a value that was lent to it, or has done with it.
    pub(super) fn serve_piece(&mut self, from: u16, mut parcel: Box<Parcel>) {
        let lent = parcel.lent.expect("who asks for a piece names the value");
        match self.lending.find(lent, self.now) {
            Some(pin) => {
                self.counters.remote_pieces += 1;
                let is_last = parcel.fill_piece(self.cache.entry(pin.entry()).value());
                if is_last {
                    parcel.lent = None;
                    let pin = self.lending.end(lent.index);
                    self.cache.unpin(pin);
                }
            }
            None => {
                parcel.lent = None;
                parcel.answer = Answer::Withdrawn;
            }
        }
        self.peers.send(from, Message::Reply(parcel));
    }

    /// Brings a parcel home whose value is written, or is wanted by nobody.
    pub(super) fn put_parcel(&mut self, mut parcel: Box<Parcel>) {
        match parcel.lent {
            None => self.parcels.put(parcel),
            Some(lent) => {
                parcel.ask_end();
                self.peers.send(lent.owner, Message::Piece(parcel));
            }
        }
    }

    /// Takes from slow readers of other shards what they hold of condemned segments.
    pub(super) fn relieve_lending(&mut self) {
        let Self { cache, lending, now, relief_bytes_left: left, .. } = self;
        if cache.condemned_bytes() == 0 || lending.is_empty() {
            return;
        }
        for _ in 0..RELIEVED_TURN_MAX.min(lending.places.len()) {
            let Some((index, place)) = lending.next_idle(*now) else { continue };
            let asked_at = place.asked_at;
            let Some(pin) = place.pin.take() else { continue };
            let pin = place.pin.insert(spill_within(cache, pin, *now, left));
            if cache.is_condemned(pin)
                && cache.condemned_bytes() > self.limits.condemned_size_max
                && asked_at + HOLD_MAX <= *now
                && *left > 0
            {
                // As with connections: what it held is to be free before another is closed.
                *left = 0;
                self.counters.lent_withdrawn += 1;
                let pin = lending.end(index);
                cache.unpin(pin);
            }
        }
    }
}
