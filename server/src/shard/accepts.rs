//! How connections begin: the shard's listeners, and where a new connection goes.
//!
//! A new connection stays, or goes to a shard that has fewer, or room at all. When none has any,
//! all accepts are cancelled, and new connections wait in the kernel until there is room for some:
//! a refusal costs more than the wait, and who is refused comes back at once.
//!
//! A multishot accept delivers all that wait in the kernel, whatever there is room for. So a shard
//! without room for a whole backlog accepts one connection a turn and listener. What comes beyond
//! that, and what an accept still delivers while it is being cancelled, is closed.

use super::Shard;
use crate::error::CloseReason;
use crate::mesh::{AddressPlace, Addresses, Message};
use crate::ring::{Fd, Kind, Op, Ring, Shutdown, Token};
use shard_cache::time::Instant;

/// How a shard accepts.
#[derive(Debug)]
pub(super) struct Accepts {
    pub(super) listeners: Vec<Listener>,
    /// No shard has room for a new connection, and this one has seen that.
    pub(super) paused: bool,
    /// It has little room, and accepts one connection at a time.
    narrow: bool,
    pub(super) addresses: Addresses,
    /// Connections that may not have sent a whole request.
    new_max: u32,
}

/// Refused connections of a shard at a time that are told so, and take a slot until they have read
/// that; what comes beyond is closed at once.
const REFUSED_MAX: u32 = 256;

impl Accepts {
    /// Of listeners whose connections any shard may have, and of others whose are its own.
    pub(super) fn new(shared: Vec<Fd>, own: Vec<Fd>, addresses: Addresses, new_max: u32) -> Self {
        let shared = shared.into_iter().map(|fd| Listener::new(fd, false));
        let own = own.into_iter().map(|fd| Listener::new(fd, true));
        let listeners = shared.chain(own).collect();
        Self { listeners, paused: false, narrow: false, addresses, new_max }
    }

    /// Whether no accept is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.listeners.iter().all(|listener| listener.accept == Accept::Idle)
    }
}

/// A listening socket of this shard.
#[derive(Debug)]
pub(super) struct Listener {
    fd: Fd,
    /// Its connections stay with this shard.
    pub(super) is_own: bool,
    pub(super) accept: Accept,
    pub(super) retry_at: Instant,
}

/// What a listener's accept is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Idle,
    /// In flight, for one connection.
    One,
    /// In flight, for all that come.
    Many,
}

impl Listener {
    const fn new(fd: Fd, is_own: bool) -> Self {
        Self { fd, is_own, accept: Accept::Idle, retry_at: Instant::ZERO }
    }
}

impl<R: Ring> Shard<R> {
    /// Arms the accepts that are to be armed, and cancels all while no shard has room.
    pub(super) fn arm_accepts(&mut self) {
        if self.draining_since.is_some() {
            return;
        }
        if self.loads.steer(self.index) {
            (0..self.peers.count()).for_each(|shard| self.peers.nudge(shard));
        }
        if self.loads.is_paused() != self.accepts.paused {
            self.accepts.paused = !self.accepts.paused;
            if self.accepts.paused {
                self.counters.accept_pauses += 1;
                self.cancel_accepts(|_| true);
            }
        }
        let was_narrow = self.accepts.narrow;
        self.accepts.narrow = self.loads.is_narrow(self.index, was_narrow);
        if self.accepts.narrow && !was_narrow {
            self.cancel_accepts(|accept| accept == Accept::Many);
        }
        if self.accepts.paused {
            return;
        }
        for (index, listener) in (0..).zip(&mut self.accepts.listeners) {
            if listener.accept == Accept::Idle && listener.retry_at <= self.now {
                let fd = listener.fd;
                let (accept, op) = if self.accepts.narrow {
                    (Accept::One, Op::AcceptOne { listener: fd })
                } else {
                    (Accept::Many, Op::Accept { listener: fd })
                };
                listener.accept = accept;
                self.submissions_in_flight += 1;
                self.ring.push(Token::new(Kind::Accept, index, 0), op);
            }
        }
    }

    /// Cancels the accepts that are `meant`.
    fn cancel_accepts(&mut self, meant: impl Fn(Accept) -> bool) {
        for (index, listener) in (0..).zip(&self.accepts.listeners) {
            if listener.accept != Accept::Idle && meant(listener.accept) {
                let target = Token::new(Kind::Accept, index, 0);
                self.ring.push(Self::NO_SLOT_CANCEL, Op::Cancel { target });
                self.submissions_in_flight += 1;
            }
        }
    }

    /// When an accept that failed is to be tried again, even if nothing else happens.
    pub(super) fn accepts_at(&self) -> Option<Instant> {
        if self.draining_since.is_some() || self.accepts.paused {
            return None;
        }
        let idle = self.accepts.listeners.iter().filter(|listener| listener.accept == Accept::Idle);
        idle.map(|listener| listener.retry_at).min()
    }

    /// Whether another shard has begun or ended a pause since this one has looked.
    pub(super) fn must_steer_accepts(&self) -> bool {
        self.draining_since.is_none() && self.loads.is_paused() != self.accepts.paused
    }

    /// Stops accepting when the server drains.
    pub(super) fn drain(&mut self) {
        if self.draining_since.is_none() && self.control.is_draining() {
            self.draining_since = Some(self.now);
            self.accepts.paused = false;
            for listener in &self.accepts.listeners {
                let fd = listener.fd;
                self.ring.push(Self::NO_SLOT, Op::Shutdown { fd, how: Shutdown::Both });
            }
            // The accept of a Unix socket outlives the shutdown.
            self.cancel_accepts(|_| true);
        }
    }

    /// A connection was accepted: it stays here, or goes to another shard, or is closed at once if
    /// none has room for it.
    pub(super) fn accept(&mut self, fd: Fd, is_own: bool) {
        self.counters.connections_accepted += 1;
        match self.place(is_own) {
            Some(shard) if shard == self.index => self.open(fd),
            Some(shard) => {
                self.counters.connections_handed += 1;
                self.peers.send(shard, Message::Connection(fd));
            }
            None => self.refuse(fd, CloseReason::SlotsFull),
        }
    }

    /// The shard that is to have a new connection, which is counted there. It is this one, if the
    /// connection is meant for it and it has room, and else one that has fewer.
    fn place(&mut self, is_own: bool) -> Option<u16> {
        // Where this shard drains, so do the others, and some may have stopped.
        let is_draining = self.draining_since.is_some();
        let stays = is_own || is_draining || !self.settings.balance;
        let lighter = if stays { None } else { self.loads.lighter(self.index) };
        if lighter.is_some_and(|shard| self.begins_with(shard)) {
            return lighter;
        }
        if self.loads.begins(self.index) {
            return Some(self.index);
        }
        let lightest = self.loads.lightest();
        (!is_draining && self.begins_with(lightest)).then_some(lightest)
    }

    /// Counts a connection with another shard, if that can be told of it and has room.
    fn begins_with(&mut self, shard: u16) -> bool {
        self.peers.has_room_beside(shard) && self.loads.begins(shard)
    }

    /// A new connection that is counted here takes a slot. One beyond a bound is told so in it, as
    /// long as few are.
    pub(super) fn open(&mut self, fd: Fd) {
        // The others may have stopped already that it would need.
        if self.drained {
            self.loads.ends(self.index);
            self.refuse(fd, CloseReason::Draining);
            return;
        }
        let (address, refused) = match self.admit(fd) {
            Ok(address) => (address, None),
            Err(reason) if self.slots.refused_count() < REFUSED_MAX => (None, Some(reason)),
            Err(reason) => {
                self.loads.ends(self.index);
                self.refuse(fd, reason);
                return;
            }
        };
        let index = self.slots.open(fd, refused).expect("there is a slot for each that is counted");
        self.slots[index].address = address;
        self.ready.add(&mut self.slots, index);
    }

    /// Whether a new connection is within all bounds, and where it is counted by its address.
    fn admit(&self, fd: Fd) -> Result<Option<AddressPlace>, CloseReason> {
        if self.slots.fresh_count() >= self.accepts.new_max {
            return Err(CloseReason::NewBound);
        }
        let addresses = &self.accepts.addresses;
        let peer = if addresses.is_bounded() { self.ring.peer(fd) } else { None };
        let place = peer.map(|address| AddressPlace::of(address, &self.hasher));
        match place {
            Some(place) if !addresses.begins(place) => Err(CloseReason::AddressBound),
            place => Ok(place),
        }
    }

    /// The descriptor of a slot is closed: it is free, and whatever counted it counts it no more.
    pub(super) fn free(&mut self, index: u32) {
        if let Some(place) = self.slots[index].address.take() {
            self.accepts.addresses.ends(place);
        }
        self.slots.free(index);
        self.loads.ends(self.index);
    }

    fn refuse(&mut self, fd: Fd, reason: CloseReason) {
        self.count_closed(reason);
        self.ring.push(Self::NO_SLOT, Op::Close { fd });
        self.submissions_in_flight += 1;
    }
}
