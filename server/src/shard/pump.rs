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
use super::slots::{Hold, NONE, Recv, State};
use super::{Shard, slots, uploads};
use crate::error::CloseReason;
use crate::http::{Connection, Phase, Route, Step};
use crate::mesh::Action;
use crate::ring::{Kind, Op, Ring, Token};

/// Why a connection stopped parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
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
        self.send_bytes_left = self.limits.sends_size_turn_max.into();
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
        self.offer_uploads();
    }

    /// First pass: writes what is ready, parses what has arrived.
    fn pump_parse(&mut self, index: u32) {
        if self.slots[index].sending {
            return;
        }
        if self.replies.is_ready(&self.slots[index]) {
            self.write_owed(index);
        }
        let stop = self.parse(index);
        if stop != Stop::Drained {
            self.starved |= stop == Stop::Starved;
            self.ready.add(&mut self.slots, index);
        }
    }

    fn parse(&mut self, index: u32) -> Stop {
        let slot = &mut self.slots[index];
        match slot.hold {
            Hold::Nothing => {}
            Hold::Batch => return self.take_keys(index),
            Hold::Refusal => return self.say_refused(index),
            Hold::Reply if slot.owed_count > 0 => return Stop::Drained,
            Hold::Reply => slot.hold = Hold::Nothing,
        }
        let before = self.requests.len();
        let mut count = 0;
        while count < self.limits.requests_per_connection_turn_max {
            let slot = &self.slots[index];
            if slot.last.is_some() || slot.inbox.is_empty() {
                return Stop::Drained;
            }
            if let Some(stop) = self.why_not_parse(index, before) {
                return stop;
            }
            if let Some(stop) = self.parse_one(index) {
                return stop;
            }
            // A piece of a body is no request: it only gives its buffer back.
            count += u32::from(self.slots[index].upload.is_none());
        }
        Stop::Share
    }

    /// What keeps a connection from asking for more, that had parsed nothing yet in this turn when
    /// there were `before` requests.
    #[inline]
    pub(super) fn why_not_parse(&self, index: u32, before: usize) -> Option<Stop> {
        // What is parsed behind an owed reply is owed as well.
        let owed_count = usize::from(self.slots[index].owed_count) + self.requests.len() - before;
        if owed_count >= self.limits.replies_per_connection_max as usize {
            // The reply that comes next makes the connection ready.
            return Some(Stop::Drained);
        }
        if !self.requests.has_room() {
            return Some(Stop::Share);
        }
        (!self.has_room_to_serve(index)).then_some(Stop::Starved)
    }

    /// Whether one more request can be served, whatever it asks for.
    fn has_room_to_serve(&self, index: u32) -> bool {
        let parsed = self.requests.len();
        (self.slots[index].block != NONE || self.output.has_free())
            && self.replies.free_count() > parsed
            && self.parcels.len() > self.requests.remote
    }

    /// Parses one request, or as much as has arrived of it. Returns why there cannot be another.
    #[inline]
    fn parse_one(&mut self, index: u32) -> Option<Stop> {
        let requests_max = self.settings.requests_per_connection_max;
        let slot = &mut self.slots[index];
        let chunk = self.input.chunk(&slot.inbox, &self.ring);
        let size = chunk.len();
        let (request, consumed) = match slot.exchange.next(chunk, &self.settings.http) {
            Step::Request { request, consumed } => {
                let what = match request.route {
                    Route::Health => What::Plain(Plain::Health),
                    Route::Refused(refusal) => What::Plain(Plain::Refused(refusal)),
                    Route::Lookup { key } => {
                        let (start, size) = self.requests.keep(&key);
                        let key = self.requests.key(start, size);
                        let wants = (request.credential, Action::Get);
                        match self.tenants.admit_lookup(&mut slot.tenant, wants, key, self.now) {
                            Ok(by) => {
                                let hash = self.hasher.hash(key);
                                let owner = self.owners.of(hash, key);
                                if owner == self.index {
                                    self.cache.prefetch(hash);
                                } else {
                                    self.replicas.prefetch(hash);
                                    self.requests.remote += 1;
                                }
                                What::Lookup { hash, owner, by, start, size }
                            }
                            Err(refusal) => What::Plain(Plain::Refused(refusal)),
                        }
                    }
                    Route::Write | Route::Batch => unreachable!("it ends with its body"),
                };
                let is_over = slot.count_request(requests_max) | what.is_last();
                let is_last = is_over | self.draining_since.is_some();
                let ask = Ask::of(&request, is_last);
                (Request { slot: index, what, ask }, consumed)
            }
            Step::Write { write, consumed } => {
                let Some(mut upload) = self.writes.take() else { return self.want_upload(index) };
                uploads::address(&mut upload, &write, &self.hasher);
                let by = self.tenants.admit_write(&mut slot.tenant, &write, &upload, self.now);
                slot.upload = Some(upload);
                return self.begin_upload(index, consumed, write.expects_continue, by);
            }
            Step::Batch { expects_continue, credential, consumed } => {
                let Some(upload) = self.writes.take() else { return self.want_upload(index) };
                slot.upload = Some(upload);
                let by =
                    self.tenants.admit(&mut slot.tenant, (credential, Action::Batch), self.now);
                return self.begin_upload(index, consumed, expects_continue, by);
            }
            Step::Body { bytes, consumed, request } => {
                let upload = slot.upload.as_mut().expect("the head has taken one");
                assert!(upload.append(bytes), "the parser bounds bodies");
                self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
                return self.end_upload(index, &request?);
            }
            Step::Partial { consumed } => return self.read_on(index, consumed, consumed == size),
            Step::Refused(refusal) => {
                self.writes.put_if_any(slot.upload.take());
                let ask = Ask { connection: Connection::Close, ..Ask::NONE };
                (Request { slot: index, what: What::Plain(Plain::Refused(refusal)), ask }, size)
            }
        };
        self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
        self.take_up_at_once(request);
        None
    }

    /// What has come of a request is not all of it.
    fn read_on(&mut self, index: u32, consumed: usize, is_all: bool) -> Option<Stop> {
        let slot = &mut self.slots[index];
        self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
        if is_all || self.input.gather(&mut slot.inbox, &mut self.ring) {
            return None;
        }
        // Two buffers that could not be joined wait for a carry block.
        let starved = slot.inbox.held() > 1;
        Some(if starved { Stop::Starved } else { Stop::Drained })
    }

    /// Notes a request that is parsed and consumed.
    #[inline(never)]
    pub(super) fn take_up(&mut self, request: Request) {
        self.take_up_at_once(request);
    }

    /// Does so, inlined: every hit comes by here.
    #[inline(always)]
    fn take_up_at_once(&mut self, request: Request) {
        let slot = &mut self.slots[request.slot];
        if request.ask.connection == Connection::Close {
            slot.last = Some(if matches!(request.what, What::Plain(Plain::Refused(_))) {
                CloseReason::Refused
            } else if self.draining_since.is_some() {
                CloseReason::Draining
            } else if slot.is_spent(self.settings.requests_per_connection_max) {
                CloseReason::RequestsBound
            } else {
                CloseReason::Requested
            });
            self.input.discard(&mut slot.inbox, &mut self.ring);
        }
        if slot.block == NONE {
            slot.block = self.output.acquire().expect("has_room_to_serve was asked");
            slot.blocked_since = self.now;
        }
        slot.deadline = slots::NEVER;
        if slot.fresh {
            self.slots.end_fresh(request.slot);
        }
        self.requests.push(request);
    }

    /// Last step: sends, reads on, or closes.
    fn pump_finish(&mut self, index: u32) {
        let slot = &self.slots[index];
        if slot.state != State::Open {
            return;
        }
        if slot.hold != Hold::Nothing && !slot.sending {
            // What was served behind others in this turn may be the next.
            self.write_owed(index);
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
        // What was copied is bounded by its block, and those of a turn are.
        if self.output.has_bodies(slot.block) && !self.may_send_bodies(index) {
            return;
        }
        let slot = &mut self.slots[index];
        slot.sending = true;
        let fd = slot.fd;
        self.submit(index, Kind::Send, Op::Send { fd, spans });
    }

    /// Whether this turn may hand the bodies of a connection to the kernel; if not, the next may.
    #[inline(never)]
    fn may_send_bodies(&mut self, index: u32) -> bool {
        if self.send_bytes_left == 0 {
            self.counters.sends_put_off += 1;
            self.ready.add(&mut self.slots, index);
            return false;
        }
        let size = self.output.spans(self.slots[index].block).size();
        self.send_bytes_left = self.send_bytes_left.saturating_sub(size);
        true
    }

    /// Whether nothing more is owed or expected.
    fn is_done(&self, index: u32) -> bool {
        let slot = &self.slots[index];
        let quiet = !slot.sending && slot.block == NONE && slot.owed_count == 0;
        quiet && !slot.wants_upload && (slot.last.is_some() || (slot.peer_ended && !slot.queued))
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
            // Who waits for an upload waits for others to send their bodies.
            _ if slot.wants_upload => (CloseReason::BodyTimeout, timeouts.body),
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
