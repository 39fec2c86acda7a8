//! Connection slots: one fixed place for each connection that a shard may hold.
//!
//! ```text
//! Free -> Open -> Lingering -> Terminating -> Closing -> Free
//!           |                      ^
//!           +----------------------+
//! ```
//!
//! - `Open`: requests are read and answered.
//! - `Lingering`: all replies are sent and our side is shut; what still arrives is thrown away, so
//!   that the kernel does not reset the connection and take the last reply with it.
//! - `Terminating`: both sides are shut; nothing is pushed, the last completions are awaited.
//! - `Closing`: the descriptor is being closed; the slot is free when that has completed.
//!
//! Invariant: a slot leaves `Terminating` only at `in_flight == 0`, so no completion of one life
//! is ever seen by the next; the generation in every token is checked all the same.

use super::batches::Batch;
use super::input::Inbox;
use crate::error::CloseReason;
use crate::http::Exchange;
use crate::limits::CONNECTION_SLOT_SIZE_MAX;
use crate::mesh::{AddressPlace, NO_TENANT, TenantIndex, Upload};
use crate::ring::Fd;
use shard_cache::time::Instant;

/// No slot, block, reply or buffer: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Where a connection stands; see the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Open,
    Lingering,
    Terminating,
    Closing,
}

/// What the connection's receive is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recv {
    /// Not armed; `pump` arms it when the connection may read.
    Idle,
    /// In flight.
    Armed,
    /// In flight, and a cancellation was pushed.
    Cancelling,
    /// Ended because no buffer was free; armed again when there are some.
    Starved,
}

/// What keeps a connection from parsing more of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Nothing,
    /// A batch, whose keys are taken instead.
    Batch,
    /// The last reply that it owes.
    Reply,
    /// It is one beyond a bound, and is told so.
    Refusal,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) state: State,
    pub(super) fd: Fd,
    /// Submissions whose last completion has not been seen.
    pub(super) in_flight: u8,
    pub(super) recv: Recv,
    /// A send is in flight; its bytes are the spans of `block`.
    pub(super) sending: bool,
    /// The send in flight was cancelled, so that what it holds can be copied out.
    pub(super) recalled: bool,
    /// The slot stands in the ready queue.
    pub(super) queued: bool,
    /// No request was parsed yet.
    pub(super) fresh: bool,
    /// It is beyond a bound: it is told so and closed.
    pub(super) refused: Option<CloseReason>,
    /// Where it is counted by its address.
    pub(super) address: Option<AddressPlace>,
    /// Requests that it has sent.
    pub(super) requests_count: u32,
    /// The peer sends no more.
    pub(super) peer_ended: bool,
    /// No request is parsed any more: the connection closes for this reason once its replies are
    /// sent.
    pub(super) last: Option<CloseReason>,
    /// Why it was terminated; valid from `Terminating` on.
    pub(super) reason: CloseReason,
    pub(super) exchange: Exchange,
    pub(super) inbox: Inbox,
    /// The write or batch whose body is on its way in, or the batch that is answered.
    pub(super) upload: Option<Box<Upload>>,
    /// The next request waits for an upload.
    pub(super) wants_upload: bool,
    /// Whether more of the input may be parsed.
    pub(super) hold: Hold,
    /// The batch that is answered.
    pub(super) batch: Option<Batch>,
    /// The output block, or [`NONE`].
    pub(super) block: u32,
    /// Replies owed that could not be written at once: a list in the table of replies.
    pub(super) owed_first: u32,
    pub(super) owed_last: u32,
    /// How many there are, and one more while a batch is answered.
    pub(super) owed_count: u16,
    /// When the connection is closed for `deadline_reason`, unless something happens before.
    pub(super) deadline: Instant,
    pub(super) deadline_reason: CloseReason,
    /// Since when no byte of `block` was taken.
    pub(super) blocked_since: Instant,
    /// Who was the last to ask.
    pub(super) tenant: TenantIndex,
}

const _: () = assert!(size_of::<Slot>() as u64 <= CONNECTION_SLOT_SIZE_MAX, "the bill says so");

impl Slot {
    fn new() -> Self {
        Self {
            generation: 0,
            state: State::Free,
            fd: Fd(-1),
            in_flight: 0,
            recv: Recv::Idle,
            sending: false,
            recalled: false,
            queued: false,
            fresh: true,
            refused: None,
            address: None,
            requests_count: 0,
            peer_ended: false,
            last: None,
            reason: CloseReason::PeerClosed,
            exchange: Exchange::new(),
            inbox: Inbox::new(),
            upload: None,
            wants_upload: false,
            hold: Hold::Nothing,
            batch: None,
            block: NONE,
            owed_first: NONE,
            owed_last: NONE,
            owed_count: 0,
            deadline: NEVER,
            deadline_reason: CloseReason::IdleTimeout,
            blocked_since: Instant::ZERO,
            tenant: NO_TENANT,
        }
    }

    /// Counts a request; whether it is the last of `requests_max`, where that is not 0.
    pub(super) const fn count_request(&mut self, requests_max: u32) -> bool {
        if requests_max == 0 {
            return false;
        }
        self.requests_count = self.requests_count.saturating_add(1);
        self.is_spent(requests_max)
    }

    /// Whether it has sent as many requests as it may.
    pub(super) const fn is_spent(&self, requests_max: u32) -> bool {
        requests_max != 0 && self.requests_count >= requests_max
    }

    /// A batch that is answered is over.
    pub(super) fn end_batch(&mut self) -> Option<Batch> {
        let batch = self.batch.take()?;
        self.owed_count -= 1;
        Some(batch)
    }

    /// What holds of every slot at rest between two steps.
    pub(super) fn check(&self) {
        let listed = self.owed_count - u16::from(self.batch.is_some());
        assert_eq!(self.owed_first == NONE, listed == 0, "the list and its count agree");
        match self.state {
            State::Free => assert_eq!(self.in_flight, 0, "a free slot has nothing in flight"),
            State::Closing => assert_eq!(self.in_flight, 1, "only the close is in flight"),
            State::Open | State::Lingering | State::Terminating => {
                assert!(!self.sending || self.block != NONE, "a send has a block");
                let armed = matches!(self.recv, Recv::Armed | Recv::Cancelling);
                assert!(
                    self.in_flight >= u8::from(armed) + u8::from(self.sending),
                    "what is in flight is counted"
                );
            }
        }
    }
}

/// A deadline that does not come.
pub(super) const NEVER: Instant = Instant::from_ns(u64::MAX);

/// All slots of a shard, with the free ones in a stack: the lowest are used most.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    free: Vec<u32>,
    /// Slots from here on were never used; sweeps stop here.
    high: u32,
    fresh_count: u32,
    refused_count: u32,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::new()).collect(),
            free: (0..count).rev().collect(),
            high: 0,
            fresh_count: 0,
            refused_count: 0,
        }
    }

    /// Connections of which no request was parsed yet.
    pub(super) const fn fresh_count(&self) -> u32 {
        self.fresh_count
    }

    /// Connections that are refused.
    pub(super) const fn refused_count(&self) -> u32 {
        self.refused_count
    }

    /// A request of the connection was parsed.
    #[cold]
    pub(super) fn end_fresh(&mut self, index: u32) {
        let fresh = std::mem::take(&mut self.slots[index as usize].fresh);
        self.fresh_count -= u32::from(fresh);
    }

    /// Takes a free slot for the connection `fd`, which is refused for a reason or welcome; its
    /// life is a new one.
    pub(super) fn open(&mut self, fd: Fd, refused: Option<CloseReason>) -> Option<u32> {
        let index = self.free.pop()?;
        self.fresh_count += 1;
        self.refused_count += u32::from(refused.is_some());
        self.high = self.high.max(index + 1);
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.state, State::Free, "the free list holds free slots");
        // An entry of its last life may still stand in the ready queue.
        let (generation, queued) = (slot.generation, slot.queued);
        let hold = if refused.is_some() { Hold::Refusal } else { Hold::Nothing };
        *slot = Slot { generation, queued, state: State::Open, fd, refused, hold, ..Slot::new() };
        Some(index)
    }

    /// The slot's descriptor is closed: its life ends.
    pub(super) fn free(&mut self, index: u32) {
        self.end_fresh(index);
        let slot = &mut self.slots[index as usize];
        assert_eq!(slot.state, State::Closing, "a slot is freed when its descriptor is closed");
        assert_eq!(slot.in_flight, 0, "nothing names a free slot");
        assert_eq!(slot.block, NONE, "a free slot has no output");
        assert_eq!(slot.owed_count, 0, "a free slot owes nothing");
        assert!(slot.upload.is_none(), "a free slot holds no upload");
        self.refused_count -= u32::from(slot.refused.is_some());
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }

    /// How many slots hold a connection.
    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).expect("slots have 24-bit indexes")
    }

    /// Slots from this index on were never used.
    pub(super) const fn high(&self) -> u32 {
        self.high
    }
}

impl std::ops::Index<u32> for Slots {
    type Output = Slot;

    fn index(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Slots {
    fn index_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }
}

/// Slots that have something to do, in the order in which they became ready.
#[derive(Debug)]
pub(super) struct Ready(std::collections::VecDeque<u32>);

impl Ready {
    pub(super) fn new(slots_count: u32) -> Self {
        Self(std::collections::VecDeque::with_capacity(slots_count as usize))
    }

    /// Queues `index` unless it is queued already.
    pub(super) fn add(&mut self, slots: &mut Slots, index: u32) {
        if !std::mem::replace(&mut slots[index].queued, true) {
            self.0.push_back(index);
        }
    }

    pub(super) fn next(&mut self, slots: &mut Slots) -> Option<u32> {
        let index = self.0.pop_front()?;
        slots[index].queued = false;
        Some(index)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
