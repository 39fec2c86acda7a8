//! How connections end, and the shard: terminate, join, close; drain.
//!
//! *Terminate* stops new work and shuts the socket, which ends an armed receive. *Join* waits until
//! nothing is in flight. *Close* closes the descriptor; when that has completed, the slot is free.
//! Closing a descriptor with a receive armed would send no FIN and leak the socket, and closing one
//! with unread bytes would send a reset and take the last reply along; hence the steps.

use super::pump::Stop;
use super::replies::{Ask, Owed, Plain};
use super::requests::{Request, What};
use super::slots::{NONE, Recv, State};
use super::{DRAIN_GRACE, JOIN_PATIENCE, LINGER, Shard};
use crate::error::CloseReason;
use crate::http::{self, Connection, Refusal};
use crate::mesh::{Found, Order};
use crate::ring::{Kind, Op, Ring, Shutdown, Token};
use std::collections::VecDeque;

impl<R: Ring> Shard<R> {
    /// Everything is sent. Shuts our side, and waits a while for the peer to have read it.
    pub(super) fn retire(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        let reason = slot.last.unwrap_or(CloseReason::PeerClosed);
        if slot.peer_ended {
            let cut_short = !slot.inbox.is_empty() && slot.last.is_none();
            let reason = if cut_short { CloseReason::PeerVanished } else { reason };
            self.terminate(index, reason);
            self.join(index);
            return;
        }
        slot.state = State::Lingering;
        slot.reason = reason;
        slot.deadline = self.now + LINGER;
        slot.deadline_reason = reason;
        let fd = slot.fd;
        self.input.discard(&mut slot.inbox, &mut self.ring);
        self.ring.push(Self::NO_SLOT, Op::Shutdown { fd, how: Shutdown::Write });
        self.pump_linger(index);
    }

    /// Throws away what still arrives until the peer ends.
    pub(super) fn pump_linger(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        if slot.peer_ended {
            let reason = slot.reason;
            self.terminate(index, reason);
            self.join(index);
        } else if slot.recv == Recv::Idle {
            slot.recv = Recv::Armed;
            let fd = slot.fd;
            self.submit(index, Kind::Recv, Op::Recv { fd });
        } else if slot.recv == Recv::Starved {
            self.starving.add(index);
        }
    }

    /// Ends a connection whatever it is doing; nothing of it is sent or served any more.
    pub(super) fn terminate(&mut self, index: u32, reason: CloseReason) {
        let slot = &mut self.slots[index];
        if !matches!(slot.state, State::Open | State::Lingering) {
            return;
        }
        slot.state = State::Terminating;
        slot.reason = reason;
        slot.deadline = self.now + JOIN_PATIENCE;
        self.input.discard(&mut slot.inbox, &mut self.ring);
        while let Some(owed) = self.replies.drop_first(&mut self.slots[index]) {
            self.let_go(owed);
        }
        let slot = &mut self.slots[index];
        slot.end_batch();
        self.writes.put_if_any(slot.upload.take());
        let fd = slot.fd;
        if slot.in_flight > 0 {
            self.ring.push(Self::NO_SLOT, Op::Shutdown { fd, how: Shutdown::Both });
        }
        self.ready.add(&mut self.slots, index);
    }

    /// Closes a terminated connection once nothing of it is in flight.
    pub(super) fn join(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        if slot.in_flight > 0 {
            return;
        }
        if slot.block != NONE {
            self.output.release(slot.block, &mut self.cache);
            slot.block = NONE;
        }
        slot.state = State::Closing;
        let (fd, reason) = (slot.fd, slot.reason);
        self.count_closed(reason);
        self.submit(index, Kind::Close, Op::Close { fd });
        self.slots[index].check();
    }

    /// A terminated connection that does not join: its receive outlived the shutdown.
    pub(super) fn join_by_force(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        slot.deadline = self.now + JOIN_PATIENCE;
        let target = Token::new(Kind::Recv, index, slot.generation);
        self.submit(index, Kind::Cancel, Op::Cancel { target });
    }

    /// Gives back what a reply held that will not be written.
    pub(super) fn let_go(&mut self, owed: Owed) {
        match owed {
            Owed::Entry(pin, _) => self.cache.unpin(pin),
            Owed::Parcel(parcel, _) => self.put_parcel(parcel),
            Owed::Upload(upload) => self.writes.put(upload),
            Owed::Waiting | Owed::Plain(_) => {}
        }
    }

    /// What the reply to a request with a body depends on: the connection may send one less.
    pub(super) fn ask_of(&mut self, index: u32, request: &http::Request<'_>) -> Ask {
        let is_last = self.slots[index].count_request(self.settings.requests_per_connection_max);
        Ask::of(request, is_last || self.draining_since.is_some())
    }

    /// Tells a connection beyond a bound that it is refused.
    #[cold]
    pub(super) fn say_refused(&mut self, index: u32) -> Stop {
        if self.slots[index].last.is_some() {
            return Stop::Drained;
        }
        if let Some(stop) = self.why_not_parse(index, self.requests.len()) {
            return stop;
        }
        let ask = Ask { connection: Connection::Close, ..Ask::NONE };
        let what = What::Plain(Plain::Refused(Refusal::Overloaded));
        self.take_up(Request { slot: index, what, ask });
        self.slots[index].last = self.slots[index].refused;
        Stop::Drained
    }

    /// Whether an open connection is to be closed because the server drains.
    ///
    /// One between two requests gets a moment to send the next, whose reply says that it is the
    /// last; one that says nothing is closed then.
    pub(super) fn is_drained(&self, index: u32) -> bool {
        let Some(since) = self.draining_since else { return false };
        let slot = &self.slots[index];
        slot.state == State::Open
            && !slot.sending
            && slot.owed_count == 0
            && slot.inbox.is_empty()
            && slot.upload.is_none()
            && self.now >= since + DRAIN_GRACE
    }

    /// Whether a draining shard has nothing left to do.
    ///
    /// One without connections still serves its keys to the others, until none of them has any, and
    /// hands out its entries until a last snapshot is written.
    pub(super) fn is_stopped(&mut self) -> bool {
        if self.draining_since.is_none() {
            return false;
        }
        let idle = self.slots.used() == 0 && self.accepts.is_idle();
        if idle && !self.drained {
            self.drained = true;
            self.control.drained();
        }
        idle && self.control.drained_count() == self.peers.count()
            && self.flights.used() == (0, 0)
            && self.lending.is_empty()
            && self.changes.is_empty()
            && self.writes.at_home() == self.limits.uploads_count as usize
            && self.parcels.at_home() == self.limits.all_parcels_count() as usize
            && !self.control.is_saving()
            && !self.peers.has_mail()
    }

    /// Frees the memory of a landed value where it was allocated.
    pub(super) fn give_back(&mut self, found: Found) {
        self.link.order(Order::Spent(found));
    }

    pub(super) fn count_closed(&mut self, reason: CloseReason) {
        let counters = &mut self.counters;
        *match reason {
            CloseReason::PeerClosed => &mut counters.closed_peer_closed,
            CloseReason::PeerVanished => &mut counters.closed_peer_vanished,
            CloseReason::Requested => &mut counters.closed_requested,
            CloseReason::Refused => &mut counters.closed_refused,
            CloseReason::IdleTimeout => &mut counters.closed_idle_timeout,
            CloseReason::HeaderTimeout => &mut counters.closed_header_timeout,
            CloseReason::BodyTimeout => &mut counters.closed_body_timeout,
            CloseReason::WriteTimeout => &mut counters.closed_write_timeout,
            CloseReason::InputBound => &mut counters.closed_input_bound,
            CloseReason::OutputBound => &mut counters.closed_output_bound,
            CloseReason::SlotsFull => &mut counters.closed_slots_full,
            CloseReason::NewBound => &mut counters.closed_new_bound,
            CloseReason::AddressBound => &mut counters.closed_address_bound,
            CloseReason::RequestsBound => &mut counters.closed_requests_bound,
            CloseReason::Draining => &mut counters.closed_draining,
            CloseReason::SocketError => &mut counters.closed_socket_error,
        } += 1;
    }
}

/// Connections whose receive found no buffer, in the order in which that happened.
#[derive(Debug)]
pub(super) struct Starving {
    queue: VecDeque<u32>,
    queued: Box<[bool]>,
}

impl Starving {
    pub(super) fn new(slots_count: u32) -> Self {
        Self {
            queue: VecDeque::with_capacity(slots_count as usize),
            queued: vec![false; slots_count as usize].into_boxed_slice(),
        }
    }

    pub(super) fn add(&mut self, index: u32) {
        if !std::mem::replace(&mut self.queued[index as usize], true) {
            self.queue.push_back(index);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.queued[index as usize] = false;
        Some(index)
    }
}
