//! Upkeep of a cache, in bounded steps: where room comes from.
//!
//! A step empties one segment after the other until enough are free ahead of the writer, or it has
//! done its share. In this order it takes: a segment that is dead as a whole; the oldest of the
//! pool that the policy names, while room is short; what stands in the window that a large value
//! waits for; and, while purge rules crowd, the oldest of all, whose entries are all moved so that
//! rules can retire.
//!
//! Of a victim, dead and purged entries go; of the others each goes or moves, as the policy says.
//! At most three quarters of a segment move out of one, so that a cache in which everything is hot
//! still makes room. An entry that has its segment or run for itself is not moved: its segment
//! changes places in the queue. What its group's guarantee spares moves in any case, to the
//! guaranteed pool; that loses its oldest segment when a third of it is not owed (see `quota`).

use crate::cache::{Cache, low, size_32};
use crate::entry::{self, EntryRef, Header, LIFETIME_MS_MAX};
use crate::hash::KeyHash;
use crate::index::Found;
use crate::layout::SEGMENT_SIZE;
use crate::policy::{Policy, Pool, Verdict};
use crate::segments::{Segments, Writer};
use crate::time::Instant;

/// Entries that one step looks at. Each may cost two waits for memory, one for the entry and one
/// for its bucket; so many stay well below the 100 us that a step may take.
pub const STEP_ENTRIES_MAX: u32 = 128;

/// Bytes that one step moves. It cannot be less: the largest entry that is moved must fit.
pub const STEP_MOVED_BYTES_MAX: usize = SEGMENT_SIZE;

/// Bytes that move out of one victim.
const KEPT_BYTES_MAX: usize = SEGMENT_SIZE / 4 * 3;

/// Why a segment is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It is the policy's choice, or dead.
    Room,
    /// A large value waits for its place.
    Window,
    /// It is older than a purge.
    Renewal,
}

/// A segment that is being emptied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    segment: u32,
    reason: Reason,
    /// Bytes of it that were looked at.
    done: u32,
    /// Bytes of it that moved, and those that may have to because of guarantees.
    kept: usize,
}

/// What a step may still do.
#[derive(Clone, Copy, Debug)]
struct Work {
    entries: u32,
    bytes: usize,
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is gone from the victim.
    Done,
    /// It stays, and the victim with it.
    Stays,
    /// It is to be moved by a later step.
    Later,
}

impl<P: Policy> Cache<'_, P> {
    /// A bounded piece of upkeep: makes room ahead of the writer and frees segments of dead
    /// entries. Looks at [`STEP_ENTRIES_MAX`] entries and moves [`STEP_MOVED_BYTES_MAX`] bytes at
    /// most.
    pub fn step(&mut self, now: Instant) {
        let mut work = Work { entries: STEP_ENTRIES_MAX, bytes: STEP_MOVED_BYTES_MAX };
        while work.entries > 0 {
            if self.victim.is_none() {
                self.victim = self.choose(now);
            }
            let Some(victim) = self.victim else { break };
            self.empty(victim, &mut work, now);
        }
        self.retire_rules();
    }

    /// The pool that loses its oldest segment.
    pub(crate) fn source(&self) -> Pool {
        let segments = &self.segments;
        let source = P::source(segments.in_pool(Pool::Small), segments.ready());
        let other = if source == Pool::Small { Pool::Main } else { Pool::Small };
        if segments.in_pool(source) > 0 { source } else { other }
    }

    /// The next segment to be emptied.
    fn choose(&mut self, now: Instant) -> Option<Victim> {
        let window = self.segments.next_in_window(now.ms());
        let is_short = self.segments.is_short();
        // What is not urgent is looked for once a millisecond.
        if !is_short && window.is_none() && self.swept_ms == now.ms() {
            return None;
        }
        self.swept_ms = now.ms();
        let dead = self.segments.dead(now.ms(), self.rules.everything());
        let oldest = || if is_short { self.oldest() } else { None };
        let (segment, reason) = dead
            .or_else(oldest)
            .map(|segment| (segment, Reason::Room))
            .or_else(|| Some((window?, Reason::Window)))
            .or_else(|| Some((self.before_rules()?, Reason::Renewal)))?;
        self.segments.seize(segment);
        Some(Victim { segment, reason, done: 0, kept: self.segments.pledged(segment) })
    }

    /// The segment that gives way to new ones: the oldest that the policy would have. Where there
    /// are guarantees it takes turns with one that makes no room now, but must be moved in time.
    fn oldest(&mut self) -> Option<u32> {
        let source = self.source();
        if !self.quotas.are_any() {
            return self.segments.oldest(source);
        }
        let other = if source == Pool::Small { Pool::Main } else { Pool::Small };
        if self.quotas.take_turn()
            && let Some(chore) = self.chore(source)
        {
            return Some(chore);
        }
        let is_full = self.is_full();
        let segments = &mut self.segments;
        let yielding = segments.oldest_yielding(source, KEPT_BYTES_MAX);
        yielding
            .or_else(|| segments.oldest_yielding(other, KEPT_BYTES_MAX))
            .or_else(|| segments.oldest(source))
            .or_else(|| segments.oldest(Pool::Guaranteed).filter(|_| is_full))
    }

    /// A segment whose emptying makes little room or none: the oldest of the guaranteed pool, if
    /// too little of that is owed; or that of the policy's, if it belongs there.
    fn chore(&self, source: Pool) -> Option<u32> {
        let segments = &self.segments;
        let (count, open) =
            (segments.in_pool(Pool::Guaranteed), segments.open_count(Pool::Guaranteed));
        if self.quotas.is_loose(count, open) || self.is_full() {
            return segments.oldest(Pool::Guaranteed);
        }
        segments.oldest(source).filter(|segment| segments.pledged(*segment) > KEPT_BYTES_MAX)
    }

    /// The stamp at which the oldest segment with entries was opened, and that segment if it stands
    /// in a queue.
    fn oldest_opened(&self) -> (u64, Option<u32>) {
        let victim = self.victim.map(|victim| self.segments.get(victim.segment).opened);
        [Pool::Small, Pool::Main, Pool::Guaranteed]
            .into_iter()
            .filter_map(|pool| self.segments.oldest(pool))
            .map(|segment| (self.segments.get(segment).opened, Some(segment)))
            .chain(victim.map(|opened| (opened, None)))
            .min()
            .unwrap_or((u64::MAX, None))
    }

    /// A segment that keeps a purge rule from retiring, where there are many.
    fn before_rules(&self) -> Option<u32> {
        let (opened, segment) = self.oldest_opened();
        segment.filter(|_| self.rules.is_crowded() && opened <= self.rules.oldest())
    }

    fn retire_rules(&mut self) {
        if self.rules.are_any() || self.rules.are_any_soft() {
            let (opened, _) = self.oldest_opened();
            self.rules.retire(opened);
        }
    }

    /// Empties a victim as far as there is work left for it.
    fn empty(&mut self, mut victim: Victim, work: &mut Work, now: Instant) {
        let used = self.segments.get(victim.segment).used;
        while victim.done < used && self.segments.get(victim.segment).live > 0 {
            self.victim = Some(victim);
            if work.entries == 0 {
                return;
            }
            work.entries -= 1;
            self.statistics.stepped_entries += 1;
            let at = EntryRef::at(victim.segment as usize * SEGMENT_SIZE + victim.done as usize);
            let header = Header::read(self.arena, at);
            let hash = self.hasher.hash(entry::key(self.arena, at));
            if let Some(found) = self.index.find(hash, |other| other == at) {
                match self.settle(&mut victim, work, (hash, found), header, now) {
                    Settled::Done => {}
                    Settled::Stays => {
                        self.victim = None;
                        return;
                    }
                    Settled::Later => {
                        work.entries = 0;
                        return;
                    }
                }
            }
            victim.done += u32::try_from(header.entry_size()).expect("at most 256 MiB");
        }
        self.victim = None;
        let stamp = self.rules.stamp(now.ms());
        self.segments.release(victim.segment, stamp);
        // Looking at a segment costs something even if all its entries are gone.
        work.entries = work.entries.saturating_sub(1);
    }

    /// Drops or moves an entry of the victim.
    fn settle(
        &mut self,
        victim: &mut Victim,
        work: &mut Work,
        (hash, found): (KeyHash, Found),
        header: Header,
        now: Instant,
    ) -> Settled {
        let Found { place, entry: at, frequency } = found;
        let size = header.entry_size();
        let (pool, live) = (self.segment(at).pool, self.segment(at).live);
        let is_dead = self.is_dead(at, &header, now);
        let is_hidden = !is_dead && self.is_hidden(at);
        let is_renewal = victim.reason == Reason::Renewal;
        let is_owed = !is_dead && !is_hidden && !header.negative && self.is_owed(header.group());
        let verdict = if is_dead || is_hidden {
            Verdict::Drop { is_remembered: false }
        } else if is_renewal {
            Verdict::Keep { frequency }
        } else if header.negative {
            Verdict::Drop { is_remembered: false }
        } else {
            P::judge(pool, frequency)
        };
        let is_to_go = matches!(verdict, Verdict::Drop { .. });
        let verdict = if is_owed && is_to_go { Verdict::Keep { frequency: 0 } } else { verdict };
        if !is_owed && self.quotas.has_guarantee(header.group()) {
            victim.kept -= size;
        }
        if let Verdict::Keep { frequency } = verdict {
            let is_alone = size > KEPT_BYTES_MAX && size == live as usize;
            let kept_in = if is_renewal { pool.of_policy() } else { Pool::Main };
            let to = if is_owed { Pool::Guaranteed } else { kept_in };
            // What a rule says of it would be forgotten with the rule, if it stayed.
            if is_alone && victim.reason != Reason::Window && !self.is_ended(at, &header) {
                let stamp = self.rules.stamp(now.ms());
                self.index.set_frequency(place, frequency);
                self.leave(at, &header);
                self.segments.keep_run(victim.segment, to, stamp);
                self.enter(at, &header);
                return Settled::Stays;
            }
            let is_bound = !is_renewal && !is_owed;
            if size <= SEGMENT_SIZE && !(is_bound && victim.kept + size > KEPT_BYTES_MAX) {
                if size > work.bytes {
                    return Settled::Later;
                }
                if let Some(moved) = self.relocate(at, header, to, now) {
                    self.index.set(place, hash, moved, frequency);
                    victim.kept += if is_owed { 0 } else { size };
                    work.bytes -= size;
                    self.statistics.moved_bytes += size as u64;
                    self.statistics.spared_bytes += if is_owed { size as u64 } else { 0 };
                    return Settled::Done;
                }
            }
        }
        if verdict == (Verdict::Drop { is_remembered: true }) {
            self.ghost.remember(hash, self.statistics.entries);
        }
        self.index.clear(place);
        self.count_out(at, &header);
        self.statistics.evicted_guaranteed += u64::from(is_owed);
        let count = match (is_dead, is_hidden) {
            (true, _) => &mut self.statistics.expired,
            (_, true) => &mut self.statistics.purged,
            _ => &mut self.statistics.evicted,
        };
        *count += 1;
        Settled::Done
    }

    /// Copies an entry to the end of a pool's queue: where it lies now, unless there is no room or
    /// its times cannot be told there.
    fn relocate(
        &mut self,
        at: EntryRef,
        header: Header,
        pool: Pool,
        now: Instant,
    ) -> Option<EntryRef> {
        let stamp = self.rules.stamp(now.ms());
        let (born, fresh_until) = self.times(at, &header);
        if born < oldest_told(stamp) && !header.ever {
            return None;
        }
        let retained_ms = self.retained_ms(header.kind, header.negative);
        let dead_ms = fresh_until.map_or(u64::MAX, |end| end + retained_ms);
        let left_ms = dead_ms - now.ms();
        let size = header.entry_size();
        let allocate =
            |segments: &mut Segments| segments.allocate(size, pool, left_ms, stamp, Writer::Move);
        let offset = allocate(&mut self.segments).or_else(|| {
            if pool != Pool::Guaranteed {
                return None;
            }
            // A large value had rather wait once more than that a guaranteed entry goes.
            self.segments.give_up_window();
            allocate(&mut self.segments)
        })?;
        let moved = self.copy(at, header, offset, stamp);
        let segment = self.segment_mut(moved);
        segment.dead_ms = segment.dead_ms.max(dead_ms);
        self.segment_mut(at).live -= size_32(size);
        // Without guarantees it is the same wherever an entry lies.
        if self.quotas.are_any() {
            self.leave(at, &header);
            self.enter(moved, &header);
        }
        Some(moved)
    }

    /// Copies an entry to `offset`, where there is room for it. It takes along that its freshness
    /// was ended, and one that is older than 32 bits can tell there is 24 days old from then on.
    pub(crate) fn copy(
        &mut self,
        at: EntryRef,
        mut header: Header,
        offset: usize,
        stamp: u64,
    ) -> EntryRef {
        let (born, fresh_until) = self.times(at, &header);
        let born = born.max(oldest_told(stamp));
        self.arena.copy_within(at.offset()..at.offset() + header.entry_size(), offset);
        let copy = EntryRef::at(offset);
        header.born_ms = low(born);
        header.ever = fresh_until.is_none();
        header.fresh_until_ms = low(fresh_until.unwrap_or(born).max(born));
        header.write(self.arena, copy);
        let segment = self.segment_mut(copy);
        segment.base = segment.base.min(born);
        copy
    }
}

/// The earliest time that a segment opened or written at `stamp` is sure to tell.
fn oldest_told(stamp: u64) -> u64 {
    stamp.saturating_sub(u64::from(LIFETIME_MS_MAX))
}
