//! Replies that are owed but could not be written at once.
//!
//! Most replies are written in the turn in which their request was parsed and never come here. One
//! that must wait (for another shard, for the origin, or behind one that waits) takes a place in
//! this table and in its connection's list, so that replies leave in the order of the requests.
//!
//! Invariant: a connection's list is in the order of its requests; only the first of a list is
//! ever written. A [`ReplyRef`] of an earlier life finds nothing: its connection is gone.

use super::slots::{NONE, Slot};
use crate::hot::Sample;
use crate::http::{BatchToken, Connection, EtagSet, Refusal, Request, Source, Term};
use crate::limits::REPLY_SIZE_MAX;
use crate::mesh::{Parcel, ReplyRef, Upload};
use shard_cache::Pin;
use shard_cache::hash::Etag;
use shard_cache::time::Instant;

/// What of a request decides how its reply is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// HEAD: the head alone.
    pub(super) head_only: bool,
    /// What the head says about the connection.
    pub(super) connection: Connection,
    /// If-None-Match.
    pub(super) if_none_match: EtagSet,
    /// The key of a batch whose item it is, not a reply of its own.
    pub(super) item: Option<BatchToken>,
    /// Where the body's bytes are counted, if the lookup was.
    pub(super) sample: Option<Sample>,
}

/// A reply without an entry behind it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plain {
    /// The health check.
    Health,
    /// The interim reply to a client that waits to send its body.
    Continue,
    /// The origin does not have the key.
    Absent(Term, Source),
    /// The head of the reply to a batch, and the beginning of its items.
    Items,
    /// The end of the reply to a batch.
    ItemsEnd,
    /// The value was stored under this tag; whether its key is new.
    Stored(Etag, bool),
    /// The key is gone.
    Deleted,
    /// The request was refused, the origin failed, or a bound was reached.
    Refused(Refusal),
}

/// What a reply waits for, or carries.
#[derive(Debug)]
pub(super) enum Owed {
    /// A fetch, or another shard.
    Waiting,
    /// An entry of our cache.
    Entry(Pin, Source),
    /// A value from another shard, or a piece of it; this many bytes of the value are written.
    Parcel(Box<Parcel>, u32),
    /// A write that begins when it is the first.
    Upload(Box<Upload>),
    /// Nothing but a head and a few fixed bytes.
    Plain(Plain),
}

#[derive(Debug)]
struct Reply {
    generation: u32,
    next: u32,
    slot: u32,
    ask: Ask,
    arrived: Instant,
    owed: Option<Owed>,
}

const _: () = assert!(size_of::<Reply>() as u64 <= REPLY_SIZE_MAX, "the bill says so");

/// All replies of a shard that wait.
#[derive(Debug)]
pub(super) struct Replies {
    table: Box<[Reply]>,
    free: Vec<u32>,
}

impl Replies {
    pub(super) fn new(count: u32) -> Self {
        let reply = || Reply {
            generation: 0,
            next: NONE,
            slot: NONE,
            ask: Ask::NONE,
            arrived: Instant::ZERO,
            owed: None,
        };
        Self { table: (0..count).map(|_| reply()).collect(), free: (0..count).rev().collect() }
    }

    /// How many replies may still be added.
    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    pub(super) fn used(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Appends a reply to the list of `slot`, whose index is `index`.
    ///
    /// # Panics
    /// If the table is full: `pump` parses no request without a free place.
    pub(super) fn append(
        &mut self,
        slot: &mut Slot,
        index: u32,
        ask: Ask,
        arrived: Instant,
        owed: Owed,
    ) -> ReplyRef {
        let place = self.free.pop().expect("a place is free for each request that is parsed");
        let reply = &mut self.table[place as usize];
        reply.next = NONE;
        reply.slot = index;
        reply.ask = ask;
        reply.arrived = arrived;
        reply.owed = Some(owed);
        match slot.owed_last {
            NONE => slot.owed_first = place,
            last => self.table[last as usize].next = place,
        }
        slot.owed_last = place;
        slot.owed_count += 1;
        ReplyRef { index: place, generation: self.table[place as usize].generation }
    }

    /// Whether the first reply of `slot` can be written.
    pub(super) fn is_ready(&self, slot: &Slot) -> bool {
        slot.owed_first != NONE
            && !matches!(self.table[slot.owed_first as usize].owed, Some(Owed::Waiting))
    }

    /// Takes the first reply of `slot`, which is ready: what it carries, its request, and when that
    /// had arrived.
    pub(super) fn take_first(&mut self, slot: &mut Slot) -> (Owed, Ask, Instant) {
        let place = slot.owed_first;
        let reply = &mut self.table[place as usize];
        slot.owed_first = reply.next;
        if slot.owed_first == NONE {
            slot.owed_last = NONE;
        }
        slot.owed_count -= 1;
        reply.generation = reply.generation.wrapping_add(1);
        self.free.push(place);
        let owed = reply.owed.take().expect("a listed reply is owed");
        (owed, reply.ask, reply.arrived)
    }

    /// Puts back the reply that [`Replies::take_first`] has just taken: it is written in part.
    pub(super) fn put_back_first(
        &mut self,
        slot: &mut Slot,
        index: u32,
        ask: Ask,
        arrived: Instant,
        owed: Owed,
    ) -> ReplyRef {
        let place = self.free.pop().expect("its place was freed a moment ago");
        let reply = &mut self.table[place as usize];
        reply.next = slot.owed_first;
        reply.slot = index;
        reply.ask = ask;
        reply.arrived = arrived;
        reply.owed = Some(owed);
        if slot.owed_last == NONE {
            slot.owed_last = place;
        }
        slot.owed_first = place;
        slot.owed_count += 1;
        ReplyRef { index: place, generation: self.table[place as usize].generation }
    }

    /// Lets `change` act on each reply of `slot`: on what it carries, and when its request arrived.
    pub(super) fn map(&mut self, slot: &Slot, mut change: impl FnMut(Owed, Instant) -> Owed) {
        let mut place = slot.owed_first;
        while let Some(reply) = self.table.get_mut(place as usize) {
            reply.owed = reply.owed.take().map(|owed| change(owed, reply.arrived));
            place = reply.next;
        }
    }

    /// Takes the first reply of `slot` whatever it waits for: its connection is ending.
    pub(super) fn drop_first(&mut self, slot: &mut Slot) -> Option<Owed> {
        (slot.owed_first != NONE).then(|| self.take_first(slot).0)
    }

    /// Gives a waiting reply what it waited for. Returns the slot of its connection, or gives
    /// `owed` back if the connection is gone.
    pub(super) fn resolve(&mut self, name: ReplyRef, owed: Owed) -> Result<u32, Owed> {
        let reply = &mut self.table[name.index as usize];
        if reply.generation != name.generation {
            return Err(owed);
        }
        assert!(matches!(reply.owed, Some(Owed::Waiting)), "a reply is resolved once");
        reply.owed = Some(owed);
        Ok(reply.slot)
    }

    /// The connection to which the reply is owed, if it still is.
    pub(super) fn slot_of(&self, name: ReplyRef) -> Option<u32> {
        let reply = &self.table[name.index as usize];
        (reply.generation == name.generation).then_some(reply.slot)
    }
}

impl Ask {
    /// A GET without conditions on a connection that stays open.
    pub(super) const NONE: Self = Self {
        head_only: false,
        connection: Connection::Persistent,
        if_none_match: EtagSet::EMPTY,
        item: None,
        sample: None,
    };

    /// What the reply to `request` depends on; `draining` ends the connection with it.
    #[inline]
    pub(super) fn of(request: &Request<'_>, draining: bool) -> Self {
        Self {
            head_only: request.head_only,
            connection: request.connection(draining),
            if_none_match: request.if_none_match,
            item: None,
            sample: None,
        }
    }
}
