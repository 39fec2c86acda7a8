//! Completions become facts: recorded in their slot, decided by nobody here.
//!
//! Nothing is submitted in this file. A connection to which something happened is queued as ready,
//! and `pump` acts on it later in the turn.

use super::Shard;
use super::accepts::Accept;
use super::slots::{Recv, State};
use crate::error::CloseReason;
use crate::ring::{Completion, Event, Fault, Kind, Ring, Token};

impl<R: Ring> Shard<R> {
    /// Records all completions of the turn.
    pub(super) fn dispatch(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain() {
            self.dispatch_one(completion);
        }
        self.completions = completions;
    }

    fn dispatch_one(&mut self, completion: Completion) {
        let Completion { token, event, more } = completion;
        match token.kind() {
            Kind::Accept => self.dispatch_accept(token, event, more),
            Kind::Watch => self.watching = false,
            Kind::Wake => {}
            Kind::Close | Kind::Cancel if token.slot() == Self::NO_SLOT.slot() => {
                self.submissions_in_flight -= 1;
            }
            Kind::Recv | Kind::Send | Kind::Cancel | Kind::Close => {
                self.dispatch_connection(token, event, more);
            }
        }
    }

    fn dispatch_accept(&mut self, token: Token, event: Event, more: bool) {
        let listener = &mut self.accepts.listeners[token.slot() as usize];
        if !more {
            listener.accept = Accept::Idle;
            self.submissions_in_flight -= 1;
        }
        match event {
            Event::Accepted(fd) => {
                let is_own = listener.is_own;
                self.accept(fd, is_own);
            }
            Event::Failed(Fault::NoDescriptors) => {
                self.counters.accept_failures += 1;
                listener.retry_at = self.now + super::ACCEPT_RETRY;
            }
            // The connection went away before it was accepted, or the listener was shut to drain
            // and the accept cancelled.
            Event::Failed(_) => {}
            event @ (Event::Received { .. }
            | Event::Ended
            | Event::Sent { .. }
            | Event::Closed
            | Event::Woken
            | Event::Cancelled) => unreachable!("an accept completed with {event:?}"),
        }
    }

    fn dispatch_connection(&mut self, token: Token, event: Event, more: bool) {
        let index = token.slot();
        let slot = &mut self.slots[index];
        if slot.generation != token.generation() || slot.state == State::Free {
            self.counters.completions_stale += 1;
            if let Event::Received { buffer, .. } = event {
                self.ring.recycle(buffer);
            }
            return;
        }
        if !more {
            slot.in_flight -= 1;
            self.submissions_in_flight -= 1;
        }
        match token.kind() {
            Kind::Recv => self.dispatch_recv(index, event, more),
            Kind::Send => self.dispatch_send(index, event),
            Kind::Close => {
                self.tenants.leave(slot.tenant);
                self.free(index);
                return;
            }
            Kind::Cancel | Kind::Accept | Kind::Watch | Kind::Wake => {}
        }
        self.ready.add(&mut self.slots, index);
    }

    fn dispatch_recv(&mut self, index: u32, event: Event, more: bool) {
        let slot = &mut self.slots[index];
        if !more {
            slot.recv = Recv::Idle;
        }
        match event {
            Event::Received { buffer, len } => {
                self.counters.request_bytes += u64::from(len);
                if slot.state != State::Open || slot.last.is_some() {
                    self.ring.recycle(buffer);
                    return;
                }
                self.input.append(&mut slot.inbox, buffer, len);
            }
            Event::Ended => slot.peer_ended = true,
            Event::Failed(Fault::NoBuffers) => {
                self.counters.buffers_starved += 1;
                if slot.state == State::Open {
                    slot.recv = Recv::Starved;
                }
            }
            Event::Failed(Fault::Cancelled) => {}
            Event::Failed(Fault::PeerGone) => self.terminate(index, CloseReason::PeerVanished),
            Event::Failed(Fault::NoDescriptors | Fault::Other(_)) => {
                self.terminate(index, CloseReason::SocketError);
            }
            event @ (Event::Accepted(_)
            | Event::Sent { .. }
            | Event::Closed
            | Event::Woken
            | Event::Cancelled) => unreachable!("a receive completed with {event:?}"),
        }
    }

    fn dispatch_send(&mut self, index: u32, event: Event) {
        let slot = &mut self.slots[index];
        assert!(slot.sending, "a send completes once");
        slot.sending = false;
        match event {
            Event::Sent { len } => {
                self.counters.reply_bytes += u64::from(len);
                slot.blocked_since = self.now;
                let done = self.output.advance(slot.block, len, &mut self.cache);
                self.counters.sends_short += u64::from(!done);
            }
            Event::Failed(Fault::NoBuffers | Fault::NoDescriptors | Fault::Cancelled) => {
                // The kernel is short of memory for a moment, or it was recalled; `pump` sends
                // again.
            }
            Event::Failed(Fault::PeerGone) => self.terminate(index, CloseReason::PeerVanished),
            Event::Failed(Fault::Other(_)) => self.terminate(index, CloseReason::SocketError),
            event @ (Event::Accepted(_)
            | Event::Received { .. }
            | Event::Ended
            | Event::Closed
            | Event::Woken
            | Event::Cancelled) => unreachable!("a send completed with {event:?}"),
        }
    }
}
