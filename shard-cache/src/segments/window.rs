//! Windows: neighbours that are emptied and reserved for a value larger than a segment.
//!
//! A window lies around one of the oldest segments, and where pins hold none of it. What is emptied
//! of it moves, but what is as large as the value itself cannot: it goes. So where there are
//! guarantees, a window that has such an entry of a group within its guarantee is taken only if
//! there is no other in all of the arena, which is searched a piece at a time.

use super::{LOOKS_MAX, NONE, Segments, State};
use crate::policy::Pool;

/// How long a window waits for the value that it was made for, milliseconds.
const WINDOW_MS_MAX: u64 = 1_000;

/// Segments that a piece of the search looks at, beyond twice what is searched.
const SEARCH_LOOKS: u32 = 64;

/// Neighbours that are emptied for one large value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: u32,
    pub(super) run: u32,
    until_ms: u64,
}

impl Window {
    pub(super) const fn has(&self, index: u32) -> bool {
        index >= self.start && index < self.start + self.run
    }
}

/// A search for a window through the whole arena.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    /// Where it goes on.
    from: u32,
    /// Segments looked at since one was found.
    looked_at: u32,
}

/// How far a piece of a search came.
enum Searched {
    /// Here is a window.
    Found(u32),
    /// There is more to look at.
    On,
    /// There is none.
    End,
}

impl Segments {
    /// Reserves a window for a run of `run` segments; none if one that is as large waits already,
    /// pins hold what a bounded look at the oldest of `pool` finds, or the search for one without
    /// runs that begin where `is_owed` says so is to go on.
    pub(crate) fn reserve(
        &mut self,
        run: u32,
        pool: Pool,
        now_ms: u64,
        is_owed: impl Fn(u32) -> bool,
    ) {
        if self.window.is_some_and(|window| window.run >= run) || run > self.ready {
            return;
        }
        self.give_up_window();
        let is_free = |segments: &Self, part| segments.get(segments.speaker(part)).pins == 0;
        let is_lent = |segments: &Self, part| {
            let speaker = segments.speaker(part);
            is_free(segments, part) && !(segments.get(speaker).run > 1 && is_owed(speaker))
        };
        let found = self.oldest_window(run, pool, is_lent).or_else(|| {
            let are_guarantees = self.free_for_spared > 0;
            match if are_guarantees { self.search(run, is_lent) } else { Searched::End } {
                Searched::Found(start) => Some(start),
                Searched::On => None,
                Searched::End => self.oldest_window(run, pool, is_free),
            }
        });
        let Some(start) = found else { return };
        for part in start..start + run {
            if self.get(part).state == State::Free {
                self.set_free(part, false);
                self.get_mut(part).state = State::Reserved;
            }
        }
        self.window = Some(Window { start, run, until_ms: now_ms + WINDOW_MS_MAX });
    }

    /// Where a window begins around one of the oldest segments of a pool, if all its parts are fit.
    fn oldest_window(
        &self,
        run: u32,
        pool: Pool,
        is_fit: impl Fn(&Self, u32) -> bool,
    ) -> Option<u32> {
        let mut candidate = self.queues[pool as usize].first;
        for _ in 0..LOOKS_MAX {
            if candidate == NONE {
                return None;
            }
            let start = candidate.min(self.ready - run);
            if (start..start + run).all(|part: u32| is_fit(self, part)) {
                return Some(start);
            }
            candidate = self.get(candidate).next;
        }
        None
    }

    /// A piece of a search for `run` neighbours that are fit.
    fn search(&mut self, run: u32, is_fit: impl Fn(&Self, u32) -> bool) -> Searched {
        let Search { from, looked_at } = std::mem::take(&mut self.search);
        if looked_at >= self.ready + run {
            return Searched::End;
        }
        let (mut start, mut part) = (from, from);
        for _ in 0..2 * run + SEARCH_LOOKS {
            if part == self.ready {
                (start, part) = (0, 0);
            }
            part += 1;
            if !is_fit(self, part - 1) {
                start = part;
            } else if part - start == run {
                self.search.from = part;
                return Searched::Found(start);
            }
        }
        self.search = Search { from: start, looked_at: looked_at + run + SEARCH_LOOKS };
        Searched::On
    }

    /// The first segment of the run that `index` belongs to.
    fn speaker(&self, index: u32) -> u32 {
        let segment = self.get(index);
        if segment.state == State::Rest { index - segment.run } else { index }
    }

    /// The next segment of the window that is to be emptied. A window whose value does not come
    /// for it is given up.
    pub(crate) fn next_in_window(&mut self, now_ms: u64) -> Option<u32> {
        let window = self.window?;
        if now_ms >= window.until_ms {
            self.give_up_window();
            return None;
        }
        let mut parts = window.start..window.start + window.run;
        parts
            .find(|part| matches!(self.get(self.speaker(*part)).state, State::Open | State::Sealed))
            .map(|part| self.speaker(part))
    }

    pub(super) fn is_empty(&self, window: Window) -> bool {
        let mut parts = window.start..window.start + window.run;
        parts.all(|part| self.get(part).state == State::Reserved)
    }

    /// Lets others have what was emptied of the window.
    pub(crate) fn give_up_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        for part in window.start..window.start + window.run {
            if self.get(part).state == State::Reserved {
                self.get_mut(part).state = State::Free;
                self.set_free(part, true);
            }
        }
    }
}
