//! The segments of the arena: which are written, in which order they come back, which are held.
//!
//! ```text
//!            opened first                        opened last
//! small      [ Sealed | Sealed | Open | Sealed | Open ]        a queue for each pool
//! main       [ Sealed | Open | Sealed | Sealed ]
//! guaranteed [ Sealed | Sealed | Open ]                        see `quota`
//! condemned  [ Condemned | Condemned ]                         held by pins
//! in none    Free, Reserved, Victim, and the later parts of runs
//! ```
//!
//! Each pool has one open segment for each *class* of lifetime, so that what is written together
//! dies together and expiry frees whole segments. In an arena of few segments classes are merged,
//! so that open segments stay a small part of it. A segment stands in its pool's queue from when it
//! is opened until it is emptied; the queues' heads are the oldest.
//!
//! An entry larger than a segment takes a *run* of consecutive segments of its own, taken and freed
//! together: the first carries the state and the pins of all. A run never wraps round the end.
//! Where no run is free, a *window* of neighbours is emptied and reserved for it (see `window`).
//!
//! One of the condemned may be the *spill*: pinned entries are copied into it out of the others,
//! which come back sooner for that. It is free with its last pin, as they are.
//!
//! Entries keep the low 32 bits of milliseconds. Each segment remembers in 64 bits the time of its
//! oldest entry; no other lies 49 days from it.
//!
//! A map of one bit a segment says which are free, so that room is found wherever it is: a search
//! reads the map at most twice, which is 512 bytes for each GiB of arena, and only when a segment
//! is full.

mod window;

use crate::layout::SEGMENT_SIZE;
use crate::policy::Pool;
use window::{Search, Window};

/// Segments that reclaiming keeps free ahead of the writer.
pub(crate) const FREE_AHEAD: u32 = 3;

/// Of these, what only moving entries may take: so room can always be made.
const FREE_FOR_MOVES: u32 = 1;

/// Segments that one search for dead segments, or for neighbours, looks at.
const LOOKS_MAX: u32 = 16;

/// A segment is closed when it is this old, so that 32 bits tell its entries' times apart.
const OPEN_MS_MAX: u64 = 24 * 3600 * 1000;

/// What lives at most this long belongs to one class, milliseconds; what lives longer than the last
/// to one more.
const CLASS_ENDS_MS: [u64; 9] =
    [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 1_024_000, 3_600_000];
const CLASSES_MAX: usize = CLASS_ENDS_MS.len() + 1;

/// Open segments may take a part in this many of the arena.
const OPEN_PART: usize = 20;

/// Where there are guarantees, one more is kept free, and only what they spare may take that.
const FREE_FOR_SPARED: u32 = 1;

/// Pools.
const POOLS: usize = 3;

/// Queues: one a pool, and the condemned.
const QUEUES: usize = POOLS + 1;
const CONDEMNED: usize = POOLS;

/// No segment.
const NONE: u32 = u32::MAX;

/// What a segment is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of value in it.
    Free,
    /// Free, but kept for a large value.
    Reserved,
    /// Entries are appended.
    Open,
    /// Entries are read.
    Sealed,
    /// It is being emptied.
    Victim,
    /// Its entries have left the index, and its bytes are held by pins.
    Condemned,
    /// A later part of a run; the first part speaks for it.
    Rest,
}

/// What is known of a segment: a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The stamp at which it was opened; of a condemned one, the time since when it is.
    pub(crate) opened: u64,
    /// The stamp at which its last entry was written.
    pub(crate) closed: u64,
    /// The stamp of its oldest entry.
    pub(crate) base: u64,
    /// Milliseconds from which on all its entries are dead; `u64::MAX` if some never are.
    pub(crate) dead_ms: u64,
    pub(crate) pins: u32,
    /// Bytes of entries.
    pub(crate) used: u32,
    /// Bytes of those that the index points to.
    pub(crate) live: u32,
    /// Segments of its run, itself included; of a later part, how far back the first lies.
    pub(crate) run: u32,
    /// The last walk that came by, if it is not too long ago for its number.
    pub(crate) walk: u32,
    before: u32,
    next: u32,
    pub(crate) state: State,
    pub(crate) pool: Pool,
}

const _: () = assert!(size_of::<Segment>() == 64, "a cache line");

impl Segment {
    /// The queue it belongs to.
    fn queue(&self) -> usize {
        if self.state == State::Condemned { CONDEMNED } else { self.pool as usize }
    }

    const FREE: Self = Self {
        opened: 0,
        closed: 0,
        base: 0,
        dead_ms: 0,
        pins: 0,
        used: 0,
        live: 0,
        run: 1,
        walk: 0,
        before: NONE,
        next: NONE,
        state: State::Free,
        pool: Pool::Small,
    };
}

/// Bytes that the table and the map take for each `count` segments.
pub(crate) const fn table_size(count: usize) -> usize {
    count * (size_of::<Segment>() + size_of::<u32>()) + count.div_ceil(64) * size_of::<u64>()
}

/// Segments in an order: those of a pool as they were opened, the condemned ones as they came to
/// be so.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
    /// Later parts of runs included.
    count: u32,
}

/// What room is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A value from outside.
    Store,
    /// An entry whose segment is emptied.
    Move,
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
    queues: [Queue; QUEUES],
    open: [[u32; CLASSES_MAX]; POOLS],
    /// Bytes of each segment's entries whose group has a guarantee.
    pledged: Box<[u32]>,
    /// Where in each pool's queue the search for a segment that makes room goes on; [`NONE`] is its
    /// head.
    passed: [u32; POOLS],
    /// What is kept free for entries that guarantees spare.
    free_for_spared: u32,
    /// Classes are merged by so many bits of their number.
    class_shift: u32,
    /// The condemned segment that takes copies of pinned entries, or [`NONE`].
    spill: u32,
    window: Option<Window>,
    search: Search,
    /// Where the writer looks next.
    cursor: u32,
    /// Where the search for dead segments goes on.
    sweep: u32,
}

impl Segments {
    pub(crate) fn new(count: u32) -> Self {
        let classes = |shift: u32| ((CLASSES_MAX - 1) >> shift) + 1;
        let class_shift = (0..u32::BITS)
            .find(|shift| classes(*shift) == 1 || 2 * classes(*shift) <= count as usize / OPEN_PART)
            .expect("all in one class in the end");
        Self {
            table: vec![Segment::FREE; count as usize].into_boxed_slice(),
            free_map: vec![0; (count as usize).div_ceil(64)].into_boxed_slice(),
            free: 0,
            ready: 0,
            queues: [Queue { first: NONE, last: NONE, count: 0 }; QUEUES],
            open: [[NONE; CLASSES_MAX]; POOLS],
            pledged: vec![0; count as usize].into_boxed_slice(),
            passed: [NONE; POOLS],
            free_for_spared: 0,
            class_shift,
            spill: NONE,
            window: None,
            search: Search::default(),
            cursor: 0,
            sweep: 0,
        }
    }

    /// Keeps room for entries that guarantees spare, or no longer.
    pub(crate) const fn keep_for_spared(&mut self, are_any: bool) {
        self.free_for_spared = if are_any { FREE_FOR_SPARED } else { 0 };
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

    /// Condemned segments, parts of runs included.
    pub(crate) const fn condemned_count(&self) -> u32 {
        self.queues[CONDEMNED].count
    }

    /// Whether fewer segments are free than there should be ahead of the writer.
    pub(crate) const fn is_short(&self) -> bool {
        self.free < FREE_AHEAD + self.free_for_spared
    }

    /// Whether `run` segments can be taken and nothing has to leave for them.
    pub(crate) const fn can_spare(&self, run: u32) -> bool {
        self.free >= FREE_AHEAD + self.free_for_spared + run
    }

    pub(crate) fn get(&self, index: u32) -> &Segment {
        &self.table[index as usize]
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Segment {
        &mut self.table[index as usize]
    }

    /// The segment that the byte at `offset` lies in.
    #[inline]
    pub(crate) fn at(offset: usize) -> u32 {
        u32::try_from(offset / SEGMENT_SIZE).expect("an arena has below 2^32 segments")
    }

    /// Segments of a pool.
    pub(crate) const fn in_pool(&self, pool: Pool) -> u32 {
        self.queues[pool as usize].count
    }

    /// Segments of a pool that are being written.
    pub(crate) fn open_count(&self, pool: Pool) -> u32 {
        let open = self.open[pool as usize].iter().filter(|open| **open != NONE);
        u32::try_from(open.count()).expect("at most one a class")
    }

    /// The segment of a pool that was opened first.
    pub(crate) fn oldest(&self, pool: Pool) -> Option<u32> {
        let first = self.queues[pool as usize].first;
        (first != NONE).then_some(first)
    }

    /// The oldest segment of a pool that makes room: no more than `kept_max` bytes of it are of
    /// groups with a guarantee. A bounded search, which goes on where the last one ended.
    pub(crate) fn oldest_yielding(&mut self, pool: Pool, kept_max: usize) -> Option<u32> {
        for _ in 0..LOOKS_MAX {
            let from = self.passed[pool as usize];
            let index = if from == NONE { self.oldest(pool)? } else { from };
            if self.pledged(index) <= kept_max {
                return Some(index);
            }
            self.passed[pool as usize] = self.get(index).next;
            if self.get(index).next == NONE {
                return None;
            }
        }
        None
    }

    /// Bytes of a segment's entries whose group has a guarantee.
    pub(crate) fn pledged(&self, index: u32) -> usize {
        self.pledged[index as usize] as usize
    }

    /// The index points to an entry of `size` bytes in a segment, whose group has a guarantee.
    pub(crate) fn pledge(&mut self, index: u32, size: u32) {
        self.pledged[index as usize] += size;
    }

    /// The index points to it no more.
    pub(crate) fn release_pledge(&mut self, index: u32, size: u32) {
        self.pledged[index as usize] -= size;
    }

    /// A segment that can be freed whole: all its entries are dead at `now_ms`, have left, or were
    /// written by the stamp `hidden`; if a bounded look finds one.
    pub(crate) fn dead(&mut self, now_ms: u64, hidden: u64) -> Option<u32> {
        for _ in 0..LOOKS_MAX.min(self.ready) {
            let index = self.sweep;
            self.sweep = self.after(index);
            let segment = self.get(index);
            let is_dead = segment.dead_ms <= now_ms || segment.live == 0;
            // What is guaranteed may be the last for long that is written to its segment.
            let is_last = segment.state == State::Open && segment.pool == Pool::Guaranteed;
            let is_closed = segment.state == State::Sealed || is_last;
            if is_closed && (is_dead || segment.closed <= hidden) {
                return Some(index);
            }
        }
        None
    }

    /// The segment after `index`, among those that are ready.
    const fn after(&self, index: u32) -> u32 {
        if index + 1 < self.ready { index + 1 } else { 0 }
    }

    /// The class of what lives for another `left_ms`.
    fn class(&self, left_ms: u64) -> usize {
        CLASS_ENDS_MS.partition_point(|end_ms| *end_ms < left_ms) >> self.class_shift
    }

    /// Room in `pool` for `size` bytes that fit one segment and live for `left_ms`: the offset at
    /// which they go. `stamp` is theirs if they are new.
    pub(crate) fn allocate(
        &mut self,
        size: usize,
        pool: Pool,
        left_ms: u64,
        stamp: u64,
        writer: Writer,
    ) -> Option<usize> {
        let class = self.class(left_ms);
        let open = self.open[pool as usize][class];
        if self.is_open_to(open, size, stamp) {
            return Some(self.append(open, size, stamp));
        }
        // Sealed only when a successor is found: until then it may take smaller entries.
        let kept_free = match (writer, pool) {
            (Writer::Store, _) => FREE_FOR_MOVES + self.free_for_spared,
            (Writer::Move, Pool::Guaranteed) => 0,
            (Writer::Move, _) => self.free_for_spared,
        };
        if self.free <= kept_free {
            // What is guaranteed had rather lie among what lives longer or shorter than go.
            let others = self.open[Pool::Guaranteed as usize];
            let other = others.into_iter().find(|other| self.is_open_to(*other, size, stamp));
            return other
                .filter(|_| pool == Pool::Guaranteed)
                .map(|other| self.append(other, size, stamp));
        }
        let next = self.find_run(1)?;
        self.take(next, 1, State::Open, pool, stamp);
        if open != NONE {
            self.get_mut(open).state = State::Sealed;
        }
        self.open[pool as usize][class] = next;
        Some(self.append(next, size, stamp))
    }

    /// Whether an open segment takes `size` bytes more.
    fn is_open_to(&self, open: u32, size: usize, stamp: u64) -> bool {
        open != NONE
            && stamp - self.get(open).opened < OPEN_MS_MAX
            && self.get(open).used as usize + size <= SEGMENT_SIZE
    }

    /// A run of `run` segments for one entry of `size` bytes: the offset at which it begins.
    pub(crate) fn allocate_run(
        &mut self,
        run: u32,
        size: usize,
        pool: Pool,
        stamp: u64,
    ) -> Option<usize> {
        let first = match self.window {
            _ if self.free < self.free_for_spared => return None,
            Some(window) if window.run >= run && self.is_empty(window) => {
                self.give_up_window();
                window.start
            }
            _ if self.free < self.free_for_spared + run => return None,
            _ => self.find_run(run)?,
        };
        self.take(first, run, State::Sealed, pool, stamp);
        Some(self.append(first, size, stamp))
    }

    /// Whether it pays to copy a pinned entry of `size` bytes out of segment `index`: that is
    /// condemned, and copying out all that is pinned in it, were it as large, fills at most half a
    /// segment. So readers of a value that many others read wait in place, and for at least half
    /// of a segment that stays condemned somebody waits.
    pub(crate) fn pays_to_spill(&self, index: u32, size: usize) -> bool {
        let segment = self.get(index);
        segment.state == State::Condemned
            && index != self.spill
            && segment.pins as usize * size <= SEGMENT_SIZE / 2
            && (self.free > self.free_for_spared || self.spill_has_room(size))
    }

    fn spill_has_room(&self, size: usize) -> bool {
        self.spill != NONE && self.get(self.spill).used as usize + size <= SEGMENT_SIZE
    }

    /// Room for the copy of a pinned entry: the offset at which it goes, to be pinned at once.
    pub(crate) fn spill(&mut self, size: usize, stamp: u64) -> Option<usize> {
        if !self.spill_has_room(size) {
            let next = self.find_run(1)?;
            self.take(next, 1, State::Condemned, Pool::Small, stamp);
            self.spill = next;
        }
        let offset = self.append(self.spill, size, stamp);
        // The index points to none of it.
        self.get_mut(self.spill).live = 0;
        Some(offset)
    }

    fn append(&mut self, index: u32, size: usize, stamp: u64) -> usize {
        let segment = self.get_mut(index);
        let offset = index as usize * SEGMENT_SIZE + segment.used as usize;
        let size = u32::try_from(size).expect("an entry is at most 256 MiB");
        segment.used += size;
        segment.live += size;
        segment.closed = stamp;
        offset
    }

    /// Takes `run` consecutive free segments from `first` on, for this state.
    fn take(&mut self, first: u32, run: u32, state: State, pool: Pool, stamp: u64) {
        for index in first..first + run {
            self.set_free(index, false);
            let segment = self.get_mut(index);
            segment.state = State::Rest;
            segment.run = index - first;
        }
        *self.get_mut(first) =
            Segment { opened: stamp, base: stamp, run, state, pool, ..Segment::FREE };
        self.enqueue(first);
        self.cursor = self.after(first + run - 1);
    }

    fn enqueue(&mut self, index: u32) {
        let (queue, run) = (self.get(index).queue(), self.get(index).run);
        let last = self.queues[queue].last;
        match self.table.get_mut(last as usize) {
            Some(last) => last.next = index,
            None => self.queues[queue].first = index,
        }
        let segment = self.get_mut(index);
        (segment.before, segment.next) = (last, NONE);
        self.queues[queue].last = index;
        self.queues[queue].count += run;
    }

    fn dequeue(&mut self, index: u32) {
        let segment = self.get(index);
        let (queue, run) = (segment.queue(), segment.run);
        let (before, next) = (segment.before, segment.next);
        self.passed.iter_mut().filter(|passed| **passed == index).for_each(|passed| *passed = next);
        match self.table.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.queues[queue].first = next,
        }
        match self.table.get_mut(next as usize) {
            Some(next) => next.before = before,
            None => self.queues[queue].last = before,
        }
        self.queues[queue].count -= run;
    }

    /// Takes a segment out of its queue, to be emptied.
    pub(crate) fn seize(&mut self, index: u32) {
        self.dequeue(index);
        self.close(index, State::Victim);
    }

    /// Lets nothing more be appended to a segment.
    pub(crate) fn seal(&mut self, index: u32) {
        self.close(index, State::Sealed);
    }

    fn close(&mut self, index: u32, state: State) {
        let segment = self.get_mut(index);
        assert!(matches!(segment.state, State::Open | State::Sealed), "it is in a queue");
        segment.state = state;
        let open = &mut self.open[segment.pool as usize];
        let slot = open.iter_mut().find(|open| **open == index);
        if let Some(slot) = slot {
            *slot = NONE;
        }
    }

    /// Puts a seized run at the end of a pool's queue, as if it were opened with this stamp.
    pub(crate) fn keep_run(&mut self, index: u32, pool: Pool, stamp: u64) {
        let segment = self.get_mut(index);
        assert_eq!(segment.state, State::Victim, "it was seized");
        segment.state = State::Sealed;
        segment.pool = pool;
        segment.opened = stamp;
        self.enqueue(index);
    }

    /// Frees a seized segment or run, or leaves that to the last of its pins.
    pub(crate) fn release(&mut self, index: u32, stamp: u64) {
        let segment = self.get_mut(index);
        assert_eq!((segment.state, segment.live), (State::Victim, 0), "it was emptied");
        if segment.pins > 0 {
            segment.state = State::Condemned;
            segment.opened = stamp;
            self.enqueue(index);
        } else {
            self.free(index);
        }
    }

    /// Gives back one pin of the segment; a condemned one is freed with its last.
    pub(crate) fn unpin(&mut self, index: u32) {
        let segment = self.get_mut(index);
        segment.pins = segment.pins.checked_sub(1).expect("each pin is given back once");
        if segment.pins == 0 && segment.state == State::Condemned {
            self.free_condemned(index);
        }
    }

    #[cold]
    fn free_condemned(&mut self, index: u32) {
        if index == self.spill {
            self.spill = NONE;
        }
        self.dequeue(index);
        self.free(index);
    }

    fn free(&mut self, index: u32) {
        let run = self.get(index).run;
        for part in index..index + run {
            *self.get_mut(part) = Segment::FREE;
            if self.window.is_some_and(|window| window.has(part)) {
                self.get_mut(part).state = State::Reserved;
            } else {
                self.set_free(part, true);
            }
        }
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

    fn set_free(&mut self, index: u32, is_free: bool) {
        let (word, bit) = (&mut self.free_map[index as usize / 64], 1 << (index % 64));
        assert_ne!(*word & bit != 0, is_free, "a segment is taken once and freed once");
        *word ^= bit;
        if is_free { self.free += 1 } else { self.free -= 1 }
    }
}
