//! Bytes held in place while they are sent.
//!
//! Pins are counted by segment. One that is emptied of its keys while it has pins is *condemned*:
//! nobody gets it until the last of them is given back. Whoever sends slowly would so hold up to
//! 256 KiB for each value; therefore what such a pin holds can be copied out, into the *spill*: a
//! segment like any other, which holds nothing but such copies, each with a pin of its own. That it
//! pays is decided by a rule (`Segments::pays_to_spill`) by which every segment that stays
//! condemned is waited for by half at least; the spill itself, when it is full, falls under it too.
//!
//! A value that has a run of segments for itself is not copied: it takes what it needs.

use crate::cache::Cache;
use crate::entry::{EntryRef, Header};
use crate::layout::SEGMENT_SIZE;
use crate::policy::Policy;
use crate::segments::{Segments, State};
use crate::time::Instant;

/// Holds an entry's bytes in place. Neither `Copy` nor `Clone`: each pin is let go once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is not given back holds its segment for ever"]
pub struct Pin(EntryRef);

impl Pin {
    /// The entry it holds.
    #[must_use]
    pub const fn entry(&self) -> EntryRef {
        self.0
    }

    fn segment(&self) -> u32 {
        Segments::at(self.0.offset())
    }
}

impl<P: Policy> Cache<'_, P> {
    /// Holds the bytes of an entry in place until the pin is given back.
    pub fn pin(&mut self, at: EntryRef) -> Pin {
        let segment = self.segment_mut(at);
        assert!(
            !matches!(segment.state, State::Free | State::Reserved | State::Rest),
            "only bytes that are there are pinned"
        );
        segment.pins += 1;
        self.statistics.pins += 1;
        Pin(at)
    }

    /// Gives a pin back.
    // Out of line: most sends end without a pin, and their path stays short.
    #[inline(never)]
    pub fn unpin(&mut self, pin: Pin) {
        self.segments.unpin(pin.segment());
        self.statistics.pins -= 1;
    }

    /// Bytes of segments without entries that pins hold.
    #[must_use]
    pub const fn condemned_bytes(&self) -> u64 {
        self.segments.condemned_count() as u64 * SEGMENT_SIZE as u64
    }

    /// Whether a pin holds a condemned segment.
    #[must_use]
    pub fn is_condemned(&self, pin: &Pin) -> bool {
        self.segments.get(pin.segment()).state == State::Condemned
    }

    /// The bytes that [`Cache::spill`] would copy of what a pin holds: at most half a segment.
    /// `None` where it would not.
    #[must_use]
    pub fn spill_size(&self, pin: &Pin) -> Option<usize> {
        // The rest need not be read to know it of most.
        if !self.is_condemned(pin) {
            return None;
        }
        let size = Header::read(self.arena, pin.entry()).entry_size();
        self.segments.pays_to_spill(pin.segment(), size).then_some(size)
    }

    /// Copies what a pin holds out of its condemned segment, if that pays, and gives it back for
    /// one on the copy; otherwise the pin stays what it is. Nobody may be sending from it: what is
    /// held lies elsewhere afterwards.
    pub fn spill(&mut self, pin: Pin, now: Instant) -> Pin {
        let Some(size) = self.spill_size(&pin) else { return pin };
        let stamp = self.rules.stamp(now.ms());
        let Some(offset) = self.segments.spill(size, stamp) else { return pin };
        let header = Header::read(self.arena, pin.entry());
        let copy = self.copy(pin.entry(), header, offset, stamp);
        self.statistics.spilled_bytes += size as u64;
        self.unpin(pin);
        self.pin(copy)
    }
}
