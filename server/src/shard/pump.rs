//! What each ready connection may do now: all control flow of a connection is in this file.
//!
//! Two passes over the ready connections, round robin. The first writes replies that have become
//! ready, parses what has arrived and starts loading the index buckets of its keys; the second
//! serves all parsed requests. A last step sends, reads on, or closes. Each connection parses a
//! bounded number of requests a turn, and so does the shard; who has more waits for the next turn.
//!
//! A connection with a send in flight is left alone: what it wants more lies in its socket.

use super::replies::{Ask, Plain};
use super::requests::{Request, What};
use super::slots::{NONE, Recv, State};
use super::{Shard, slots};
use crate::error::CloseReason;
use crate::http::{Connection, Phase, Route, Step};
use crate::ring::{Kind, Op, Ring, Token};

/// Why a connection stopped parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Everything that arrived is parsed, or nothing more is wanted.
    Drained,
    /// Its share of the turn is used up: go on in the next turn.
    Share,
    /// Something of the shard's is used up; whoever gives it back makes this connection ready.
    Starved,
}

impl<R: Ring> Shard<R> {
    /// Lets every ready connection do what it may.
    pub(super) fn pump(&mut self) {
        self.starved = false;
        let count = self.ready.len().min(self.pumped.capacity());
        for _ in 0..count {
            let Some(index) = self.ready.next(&mut self.slots) else { break };
            match self.slots[index].state {
                State::Open => {
                    self.pump_parse(index);
                    self.pumped.push(index);
                }
                State::Lingering => self.pump_linger(index),
                State::Terminating => self.join(index),
                // Woken by a completion of its last life's end; there is nothing left to do.
                State::Closing | State::Free => {}
            }
        }
        self.serve_all();
        let mut pumped = std::mem::take(&mut self.pumped);
        for index in pumped.drain(..) {
            self.pump_finish(index);
        }
        self.pumped = pumped;
        self.rearm_starved();
    }

    /// First pass: writes what is ready, parses what has arrived.
    fn pump_parse(&mut self, index: u32) {
        if self.slots[index].sending {
            return;
        }
        self.write_owed(index);
        let stop = self.parse(index);
        if stop != Stop::Drained {
            self.starved |= stop == Stop::Starved;
            self.ready.add(&mut self.slots, index);
        }
    }

    fn parse(&mut self, index: u32) -> Stop {
        let before = self.requests.len();
        for _ in 0..self.limits.requests_per_connection_turn_max {
            let slot = &self.slots[index];
            if slot.last.is_some() || slot.inbox.is_empty() {
                return Stop::Drained;
            }
            // What is parsed behind an owed reply is owed as well.
            let owed_count = usize::from(slot.owed_count) + self.requests.len() - before;
            if owed_count >= self.limits.replies_per_connection_max as usize {
                // The reply that comes next makes the connection ready.
                return Stop::Drained;
            }
            if !self.requests.has_room() {
                return Stop::Share;
            }
            if !self.has_room_to_serve(index) {
                return Stop::Starved;
            }
            if let Some(stop) = self.parse_one(index) {
                return stop;
            }
        }
        Stop::Share
    }

    /// Whether one more request can be served, whatever it asks for.
    fn has_room_to_serve(&self, index: u32) -> bool {
        let parsed = self.requests.len();
        (self.slots[index].block != NONE || self.output.has_free())
            && self.replies.free_count() > parsed
            && self.parcels.len() > self.requests.remote
    }

    /// Parses one request, or as much as has arrived of it. Returns why there cannot be another.
    fn parse_one(&mut self, index: u32) -> Option<Stop> {
        let slot = &mut self.slots[index];
        let chunk = self.input.chunk(&slot.inbox, &self.ring);
        let size = chunk.len();
        let (request, consumed) = match slot.exchange.next(chunk, &self.settings.http) {
            Step::Request { request, consumed } => {
                let draining = self.draining_since.is_some();
                let ask = Ask {
                    head_only: request.head_only,
                    connection: request.connection(draining),
                    if_none_match: request.if_none_match,
                    sample: None,
                };
                let what = match request.route {
                    Route::Health => What::Plain(Plain::Health),
                    Route::Refused(refusal) => What::Plain(Plain::Refused(refusal)),
                    Route::Lookup { key } => {
                        let key_size = key.copy_to(self.requests.key_room());
                        let (start, size) = self.requests.keep_key(key_size);
                        let hash = self.hasher.hash(self.requests.key(start, size));
                        let owner = self.owners.of(hash, self.requests.key(start, size));
                        if owner == self.index {
                            self.cache.prefetch(hash);
                        } else {
                            self.requests.remote += 1;
                        }
                        What::Lookup { hash, owner, start, size }
                    }
                };
                (Request { slot: index, what, ask }, consumed)
            }
            Step::Partial { consumed } => {
                self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
                if consumed == size || self.input.gather(&mut slot.inbox, &mut self.ring) {
                    return None;
                }
                // Two buffers that could not be joined wait for a carry block.
                let starved = slot.inbox.held() > 1;
                return Some(if starved { Stop::Starved } else { Stop::Drained });
            }
            Step::Refused(refusal) => {
                let ask = Ask { connection: Connection::Close, ..Ask::NONE };
                (Request { slot: index, what: What::Plain(Plain::Refused(refusal)), ask }, size)
            }
        };
        self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
        if request.ask.connection == Connection::Close {
            slot.last = Some(if matches!(request.what, What::Plain(Plain::Refused(_))) {
                CloseReason::Refused
            } else if self.draining_since.is_some() {
                CloseReason::Draining
            } else {
                CloseReason::Requested
            });
            self.input.discard(&mut slot.inbox, &mut self.ring);
        }
        if slot.block == NONE {
            slot.block = self.output.acquire().expect("has_room_to_serve was asked");
            slot.blocked_since = self.now;
        }
        slot.fresh = false;
        slot.deadline = slots::NEVER;
        self.requests.push(request);
        None
    }

    /// Last step: sends, reads on, or closes.
    fn pump_finish(&mut self, index: u32) {
        if self.slots[index].state != State::Open {
            return;
        }
        self.send(index);
        if self.is_done(index) {
            self.retire(index);
            return;
        }
        self.steer_recv(index);
        self.set_deadline(index);
        if cfg!(debug_assertions) {
            self.slots[index].check();
        }
    }

    /// Sends what the block holds; gives an empty block back.
    fn send(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        if slot.sending || slot.block == NONE {
            return;
        }
        if slot.recalled {
            self.spill_recalled(index);
        }
        let slot = &mut self.slots[index];
        let spans = self.output.spans(slot.block);
        if spans.as_slice().is_empty() {
            self.output.release(slot.block, &mut self.cache);
            slot.block = NONE;
            return;
        }
        slot.sending = true;
        let fd = slot.fd;
        self.submit(index, Kind::Send, Op::Send { fd, spans });
    }

    /// Whether nothing more is owed or expected.
    fn is_done(&self, index: u32) -> bool {
        let slot = &self.slots[index];
        let quiet = !slot.sending && slot.block == NONE && slot.owed_count == 0;
        quiet && (slot.last.is_some() || (slot.peer_ended && !slot.queued))
    }

    /// Arms the receive, or pauses it while the connection holds its bound of unread input.
    fn steer_recv(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        let full = slot.inbox.held() >= self.limits.input_held_per_connection_max;
        match slot.recv {
            Recv::Idle if !full && !slot.peer_ended && slot.last.is_none() => {
                slot.recv = Recv::Armed;
                let fd = slot.fd;
                self.submit(index, Kind::Recv, Op::Recv { fd });
            }
            Recv::Armed if full => {
                slot.recv = Recv::Cancelling;
                self.counters.receives_paused += 1;
                let target = Token::new(Kind::Recv, index, slot.generation);
                self.submit(index, Kind::Cancel, Op::Cancel { target });
            }
            Recv::Starved => self.starving.add(index),
            Recv::Idle | Recv::Armed | Recv::Cancelling => {}
        }
        let slot = &self.slots[index];
        if self.input.held() > self.limits.input_held_max
            && slot.inbox.held() > self.limits.input_held_per_connection_max
        {
            self.terminate(index, CloseReason::InputBound);
        }
    }

    /// Arms the receives that found no buffer, now that some are free.
    fn rearm_starved(&mut self) {
        let free = u32::from(self.ring.buffers_count()) - self.input.held();
        for _ in 0..free.min(self.limits.starved_per_turn_max) {
            let Some(index) = self.starving.next() else { return };
            let slot = &mut self.slots[index];
            if slot.state == State::Open && slot.recv == Recv::Starved {
                slot.recv = Recv::Idle;
                self.steer_recv(index);
            }
        }
    }

    fn set_deadline(&mut self, index: u32) {
        let timeouts = self.settings.timeouts;
        let slot = &mut self.slots[index];
        if slot.state != State::Open {
            return;
        }
        if slot.sending {
            slot.deadline = slot.blocked_since + timeouts.write;
            slot.deadline_reason = CloseReason::WriteTimeout;
            return;
        }
        // A head in pieces that waits for a carry block is still the client's to complete.
        if slot.owed_count > 0 || (slot.queued && slot.exchange.phase() != Phase::Head) {
            // The origin plane and the other shards answer in bounded time.
            slot.deadline = slots::NEVER;
            return;
        }
        let (reason, after) = match slot.exchange.phase() {
            Phase::Body => (CloseReason::BodyTimeout, timeouts.body),
            Phase::Idle if slot.inbox.is_empty() && !slot.fresh => {
                (CloseReason::IdleTimeout, timeouts.idle)
            }
            // A connection that is over is done as soon as nothing is owed.
            Phase::Idle | Phase::Head | Phase::Over => {
                (CloseReason::HeaderTimeout, timeouts.header)
            }
        };
        // A slow client does not earn more time with each byte.
        if slot.deadline == slots::NEVER || slot.deadline_reason != reason {
            slot.deadline = self.now + after;
            slot.deadline_reason = reason;
        }
    }
}
