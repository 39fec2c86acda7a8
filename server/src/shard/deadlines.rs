//! Closes connections whose time is over, and finds those that are slow.
//!
//! A slot holds its one deadline as a number; nothing is queued or cancelled when it changes, which
//! is at every request. A sweep looks at a share of the slots each turn and at all of them every
//! half second, so a deadline is late by at most that: timeouts are seconds, and this costs a
//! comparison for a slot and sweep.

use super::slots::State;
use super::{BLOCKED_MAX, SWEEP, Shard};
use crate::error::CloseReason;
use crate::ring::Ring;
use shard_cache::STEP_MOVED_BYTES_MAX;

impl<R: Ring> Shard<R> {
    /// Looks at the share of slots that is due in this turn.
    pub(super) fn expire(&mut self) {
        self.relief_bytes_left = STEP_MOVED_BYTES_MAX;
        self.relieve_lending();
        let count = self.slots.high();
        if count == 0 {
            return;
        }
        let elapsed_ns = self.now.ns_since(self.swept_at);
        // A value finds no room: whoever holds it is found sooner.
        let sweep = if self.stalled.is_some() { SWEEP / 10 } else { SWEEP };
        let sweep_ns = u64::try_from(sweep.as_nanos()).expect("half a second fits");
        let due = u64::from(count) * elapsed_ns / sweep_ns;
        if due == 0 {
            return;
        }
        self.swept_at = self.now;
        let due = u32::try_from(due).unwrap_or(count).min(count);
        for _ in 0..due.min(self.limits.sweep_per_turn_max) {
            self.sweep_cursor =
                if self.sweep_cursor + 1 < count { self.sweep_cursor + 1 } else { 0 };
            self.expire_one(self.sweep_cursor);
        }
    }

    fn expire_one(&mut self, index: u32) {
        let slot = &self.slots[index];
        match slot.state {
            State::Open if self.is_drained(index) => {
                self.terminate(index, CloseReason::Draining);
            }
            State::Open | State::Lingering if slot.deadline <= self.now => {
                self.terminate(index, slot.deadline_reason);
            }
            // Others cannot be served for want of what this one blocks.
            State::Open
                if self.starved && slot.sending && slot.blocked_since + BLOCKED_MAX <= self.now =>
            {
                self.terminate(index, CloseReason::OutputBound);
            }
            State::Open if slot.upload.is_some() && self.blocks_uploads(index) => {
                self.terminate(index, CloseReason::OutputBound);
            }
            State::Open if self.cache.condemned_bytes() > 0 => self.relieve(index),
            State::Terminating if slot.deadline <= self.now => self.join_by_force(index),
            State::Open | State::Lingering | State::Terminating => {}
            State::Free | State::Closing => {}
        }
    }

    /// Whether the reader of a batch takes nothing while somebody waits for its upload.
    fn blocks_uploads(&self, index: u32) -> bool {
        let slot = &self.slots[index];
        let is_blocked = slot.sending && slot.blocked_since + BLOCKED_MAX <= self.now;
        is_blocked && self.writes.is_wanted()
    }
}
