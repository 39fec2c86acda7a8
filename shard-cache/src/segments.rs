//! The segments of the arena: which is written, which come back, which are held by pins.
//!
//! ```text
//!          emptied ->                          written ->
//! [ Free | Victim | Sealed | Sealed | Sealed | Open | Free | Free ]      round and round
//!          hand                                       cursor
//! ```
//!
//! The log runs through the arena in the order of addresses and begins again at its start; the
//! *cursor* is where it goes on. What lies ahead of the cursor was written longest ago, so the
//! *hand* that picks segments to be emptied walks ahead of it, and starts afresh from it when
//! overtaken.
//! Segments that expired elsewhere are free where they lie and are filled when the cursor comes by.
//!
//! An entry larger than a segment takes a *run* of consecutive segments of its own, taken and freed
//! together: the first carries the state and the pins of all. A run never wraps round the end.
//!
//! Each segment remembers in 64 bits when its first entry was written. Entries keep the low 32 bits
//! of milliseconds; as a segment is closed before a day is over, theirs are restored from its own.
//!
//! A map of one bit a segment says which are free, so that room is found wherever it is: a search
//! reads the map at most twice, which is 512 bytes for each GiB of arena, and only when a segment
//! is full.

use crate::layout::SEGMENT_SIZE;

/// Segments that reclaiming keeps free ahead of the writer.
pub(crate) const FREE_AHEAD: u32 = 3;

/// Segments that one search for a victim looks at, beside those it can tell to be free.
const LOOKS_MAX: u32 = 16;

/// A segment is closed when it is this old, so that 32 bits tell its entries' times apart.
const OPEN_MS_MAX: u64 = 24 * 3600 * 1000;

/// What a segment is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of value in it.
    Free,
    /// Entries are appended.
    Open,
    /// Full of entries.
    Sealed,
    /// Its entries have left the index, and its bytes are held by pins.
    Condemned,
    /// A later part of a run; the first part speaks for it.
    Rest,
}

/// What is known of a segment, 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Milliseconds at which its first entry was written.
    pub(crate) opened_ms: u64,
    /// Milliseconds from which on all its entries are dead; `u64::MAX` if some never are.
    pub(crate) dead_ms: u64,
    pub(crate) pins: u32,
    /// Bytes of entries.
    pub(crate) used: u32,
    /// Segments of its run, itself included.
    pub(crate) run: u32,
    pub(crate) state: State,
}

const _: () = assert!(size_of::<Segment>() == 32, "two to a cache line");

/// Bytes that the table and the map take for each `count` segments.
pub(crate) const fn table_size(count: usize) -> usize {
    count * size_of::<Segment>() + count.div_ceil(64) * size_of::<u64>()
}

/// All segments.
#[derive(Debug)]
pub(crate) struct Segments {
    table: Box<[Segment]>,
    /// Bit `n % 64` of word `n / 64` is set while segment `n` is free and ready.
    free_map: Box<[u64]>,
    free: u32,
    /// How many may be touched: their pages are populated.
    ready: u32,
    open: Option<u32>,
    /// Where the writer looks next.
    cursor: u32,
    /// Where the search for the oldest segment goes on.
    hand: u32,
    /// Where the search for dead segments goes on.
    sweep: u32,
}

impl Segments {
    pub(crate) fn new(count: u32) -> Self {
        let segment =
            Segment { opened_ms: 0, dead_ms: 0, pins: 0, used: 0, run: 1, state: State::Free };
        Self {
            table: vec![segment; count as usize].into_boxed_slice(),
            free_map: vec![0; (count as usize).div_ceil(64)].into_boxed_slice(),
            free: 0,
            ready: 0,
            open: None,
            cursor: 0,
            hand: 0,
            sweep: 0,
        }
    }

    pub(crate) fn set_ready(&mut self, count: u32) {
        let count = count.min(self.count());
        assert!(count >= self.ready, "what is populated stays so");
        for index in self.ready..count {
            self.set_free(index, true);
        }
        self.ready = count;
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.table.len()).expect("made from a 32-bit count")
    }

    pub(crate) const fn ready(&self) -> u32 {
        self.ready
    }

    /// Whether fewer segments are free than there should be ahead of the writer.
    pub(crate) const fn is_short(&self) -> bool {
        self.free < FREE_AHEAD
    }

    pub(crate) fn get(&self, index: u32) -> &Segment {
        &self.table[index as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Segment {
        &mut self.table[index as usize]
    }

    /// The segment that the byte at `offset` lies in.
    pub(crate) fn at(offset: usize) -> u32 {
        u32::try_from(offset / SEGMENT_SIZE).expect("an arena has below 2^32 segments")
    }

    /// The next segment to be emptied: the one that was written longest ago.
    ///
    /// `None` if none was found in a bounded look; the next call looks on from there.
    pub(crate) fn oldest(&mut self) -> Option<u32> {
        for _ in 0..LOOKS_MAX {
            let index = self.next(self.hand, false);
            if index == self.ready {
                self.hand = 0;
                continue;
            }
            self.hand = self.after(index + self.get(index).run - 1);
            if self.get(index).state == State::Sealed {
                return Some(index);
            }
        }
        None
    }

    /// A segment whose entries are all dead, if a bounded look finds one.
    pub(crate) fn dead(&mut self, now_ms: u64) -> Option<u32> {
        for _ in 0..LOOKS_MAX.min(self.ready) {
            let index = self.sweep;
            self.sweep = self.after(index);
            let segment = self.get(index);
            if segment.state == State::Sealed && segment.dead_ms <= now_ms {
                return Some(index);
            }
        }
        None
    }

    /// The segment after `index`, among those that are ready.
    const fn after(&self, index: u32) -> u32 {
        if index + 1 < self.ready { index + 1 } else { 0 }
    }

    /// Room for `size` bytes that fit one segment: the offset at which they go.
    pub(crate) fn allocate(&mut self, size: usize, now_ms: u64) -> Option<usize> {
        if let Some(open) = self.open {
            let segment = self.get(open);
            let is_young = now_ms - segment.opened_ms < OPEN_MS_MAX;
            if is_young && segment.used as usize + size <= SEGMENT_SIZE {
                return Some(self.append(open, size));
            }
            // Sealed only when a successor is found: until then it may take smaller entries.
        }
        let next = self.take(1, now_ms)?;
        if let Some(open) = self.open.replace(next) {
            self.get_mut(open).state = State::Sealed;
        }
        self.get_mut(next).state = State::Open;
        Some(self.append(next, size))
    }

    /// A run of `run` segments for one entry of `size` bytes: the offset at which it begins.
    pub(crate) fn allocate_run(&mut self, run: u32, size: usize, now_ms: u64) -> Option<usize> {
        let first = self.take(run, now_ms)?;
        for rest in first + 1..first + run {
            self.get_mut(rest).state = State::Rest;
        }
        self.get_mut(first).state = State::Sealed;
        Some(self.append(first, size))
    }

    fn append(&mut self, index: u32, size: usize) -> usize {
        let segment = self.get_mut(index);
        let offset = index as usize * SEGMENT_SIZE + segment.used as usize;
        segment.used += u32::try_from(size).expect("an entry is at most 256 MiB");
        offset
    }

    /// Takes the first `run` consecutive free segments ahead of the cursor.
    fn take(&mut self, run: u32, now_ms: u64) -> Option<u32> {
        let first = self.find_run(run)?;
        for index in first..first + run {
            self.set_free(index, false);
        }
        let segment =
            Segment { opened_ms: now_ms, dead_ms: 0, pins: 0, used: 0, run, state: State::Sealed };
        *self.get_mut(first) = segment;
        let cursor = self.after(first + run - 1);
        if self.ahead(self.hand) < self.ahead(cursor) {
            self.hand = cursor;
        }
        self.cursor = cursor;
        Some(first)
    }

    /// The first `run` consecutive free segments ahead of the cursor, round the end if need be.
    pub(crate) fn find_run(&self, run: u32) -> Option<u32> {
        if self.free < run {
            return None;
        }
        [self.cursor, 0].into_iter().find_map(|from| {
            let mut first = self.next(from, true);
            while first < self.ready {
                let end = self.next(first, false);
                if end - first >= run {
                    return Some(first);
                }
                first = self.next(end, true);
            }
            None
        })
    }

    /// The first segment from `from` on that is free, or that is not; `ready` if there is none.
    fn next(&self, from: u32, is_free: bool) -> u32 {
        let flip = if is_free { 0 } else { u64::MAX };
        let mut mask = u64::MAX << (from % 64);
        for word in from / 64..self.ready.div_ceil(64) {
            let found = (self.free_map[word as usize] ^ flip) & mask;
            if found != 0 {
                return self.ready.min(word * 64 + found.trailing_zeros());
            }
            mask = u64::MAX;
        }
        self.ready
    }

    /// How far `index` lies ahead of the cursor, round the end if need be.
    const fn ahead(&self, index: u32) -> u32 {
        if index >= self.cursor { index - self.cursor } else { index + self.ready - self.cursor }
    }

    fn set_free(&mut self, index: u32, is_free: bool) {
        let (word, bit) = (&mut self.free_map[index as usize / 64], 1 << (index % 64));
        assert_ne!(*word & bit != 0, is_free, "a segment is taken once and freed once");
        *word ^= bit;
        if is_free { self.free += 1 } else { self.free -= 1 }
    }

    /// Frees a segment, or its whole run.
    pub(crate) fn release(&mut self, index: u32) {
        let run = self.get(index).run;
        assert_eq!(self.get(index).pins, 0, "pinned bytes stay");
        for part in index..index + run {
            let segment = self.get_mut(part);
            segment.state = State::Free;
            segment.run = 1;
            self.set_free(part, true);
        }
    }
}
