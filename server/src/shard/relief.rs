//! Slow readers give the arena back.
//!
//! A body that is sent from the arena holds the segment that it lies in, however little of it that
//! is, until the peer has made room for all of it. Once everything else of such a segment has left,
//! the cache would copy the body out, but the kernel reads it where it is. So the send is recalled;
//! when it has completed, what is left of it is copied out and sent on from there:
//!
//! ```text
//! sweep      send blocked, its segment condemned:  cancel it          (recalled)
//! dispatch   it completes: some bytes, all, none
//! pump       copy out, point the spans at the copy, send again
//! ```
//!
//! Entries that are owed behind other replies are in nobody's hands, and copied out at once. Where
//! slow readers hold more than `condemned_size_max` all the same, those that block are closed, one
//! a turn.

use super::output::spill_within;
use super::replies::Owed;
use super::{BLOCKED_MAX, HOLD_MAX, Shard};
use crate::error::CloseReason;
use crate::ring::{Kind, Op, Ring, Token};

impl<R: Ring> Shard<R> {
    /// Takes from a connection what it holds of condemned segments, if it is slow.
    pub(super) fn relieve(&mut self, index: u32) {
        self.spill_owed(index);
        let slot = &mut self.slots[index];
        let blocked_since = slot.blocked_since;
        let is_blocked = slot.sending && blocked_since + BLOCKED_MAX <= self.now;
        if !is_blocked || slot.recalled {
            return;
        }
        if self.output.can_spill(slot.block, &self.cache) {
            slot.recalled = true;
            let target = Token::new(Kind::Send, index, slot.generation);
            self.submit(index, Kind::Cancel, Op::Cancel { target });
        } else if self.cache.condemned_bytes() > self.limits.condemned_size_max
            && blocked_since + HOLD_MAX <= self.now
            && self.relief_bytes_left > 0
            && self.output.holds_condemned(slot.block, &self.cache)
        {
            // What it held is free when it has joined; until then no other is closed for it.
            self.relief_bytes_left = 0;
            self.terminate(index, CloseReason::OutputBound);
        }
    }

    /// Copies out what replies hold that have waited for a while.
    fn spill_owed(&mut self, index: u32) {
        let Self { replies, slots, cache, now, relief_bytes_left: left, .. } = self;
        replies.map(&slots[index], |owed, arrived| match owed {
            Owed::Entry(pin, source) if arrived + BLOCKED_MAX <= *now => {
                Owed::Entry(spill_within(cache, pin, *now, left), source)
            }
            Owed::Waiting
            | Owed::Entry(..)
            | Owed::Parcel(..)
            | Owed::Upload(_)
            | Owed::Plain(_) => owed,
        });
    }

    /// Copies out what a recalled send holds, as far as the turn has time; the rest is recalled
    /// again.
    // Out of line: hardly any send is ever recalled.
    #[inline(never)]
    pub(super) fn spill_recalled(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        slot.recalled = false;
        self.output.spill(slot.block, &mut self.cache, self.now, &mut self.relief_bytes_left);
    }
}
