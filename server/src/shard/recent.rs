//! The last fetches of keys: why each was one, what the origin said, and what took that away.
//!
//! A table of fixed size, found by the key's hash: a key takes the place of another one. It is
//! written where a fetch begins and ends and where something is taken away, never for a hit.

use crate::limits::{Limits, RECENT_SIZE_MAX};
use crate::mesh::{FetchAnswer, FetchFacts, FlightId, Taken, Why};
use shard_cache::FreshFor;
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;

/// What is remembered of a key.
#[derive(Clone, Copy, Debug)]
struct Memory {
    hash: KeyHash,
    fetch: Option<Fetch>,
    /// Until when what was stored last is kept, milliseconds; 0 where nothing was.
    kept_until_ms: u64,
    /// What has taken it away since.
    taken: Option<Taken>,
}

const _: () = assert!(size_of::<Memory>() as u64 <= RECENT_SIZE_MAX, "the bill says so");

/// The last fetch of a key.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    flight: FlightId,
    asked: Instant,
    why: Why,
    answer: FetchAnswer,
    took_us: u32,
    kept: Option<FreshFor>,
}

impl Memory {
    const fn of(hash: KeyHash) -> Self {
        Self { hash, fetch: None, kept_until_ms: 0, taken: None }
    }
}

/// How long what was stored is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) fresh_for: FreshFor,
    pub(super) until_ms: u64,
}

/// The last fetches of a shard's keys.
#[derive(Debug)]
pub(super) struct Recent {
    places: Box<[Memory]>,
}

impl Recent {
    /// Nothing is remembered yet; allocates all it will ever need.
    pub(super) fn new(limits: &Limits) -> Self {
        let nobody = Memory::of(KeyHash::from_bits(0));
        Self { places: vec![nobody; limits.recent_count as usize].into() }
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self, hash: KeyHash, flight: FlightId, now: Instant, why: Why) {
        let fetch =
            Fetch { flight, asked: now, why, answer: FetchAnswer::Pending, took_us: 0, kept: None };
        *self.place(hash) = Memory { fetch: Some(fetch), ..Memory::of(hash) };
    }

    /// A fetch has ended, and this was kept of what it brought. It may be forgotten by now.
    pub(super) fn end(
        &mut self,
        hash: KeyHash,
        flight: FlightId,
        now: Instant,
        answer: FetchAnswer,
        kept: Option<Kept>,
    ) {
        let place = self.place(hash);
        let known = place.fetch.as_mut().filter(|fetch| fetch.flight == flight);
        let Some(fetch) = known else { return };
        fetch.answer = answer;
        fetch.took_us = u32::try_from(now.ns_since(fetch.asked) / 1000).unwrap_or(u32::MAX);
        if let Some(kept) = kept {
            fetch.kept = Some(kept.fresh_for);
            place.kept_until_ms = kept.until_ms;
        }
    }

    /// What is kept of a key was stored by a write, until then.
    pub(super) fn written(&mut self, hash: KeyHash, kept_until_ms: u64) {
        let memory = self.remember(hash);
        (memory.kept_until_ms, memory.taken) = (kept_until_ms, None);
    }

    /// What was kept of a key, or would have been, is taken away.
    pub(super) fn take(&mut self, hash: KeyHash, taken: Taken) {
        self.remember(hash).taken = Some(taken);
    }

    /// Why a key without an entry has none.
    pub(super) fn why(&self, hash: KeyHash, now: Instant) -> Why {
        match self.get(hash) {
            None => Why::New,
            Some(Memory { taken: Some(taken), .. }) => (*taken).into(),
            Some(Memory { kept_until_ms: 0, .. }) => Why::NotKept,
            Some(memory) if memory.kept_until_ms <= now.ms() => Why::Expired,
            Some(_) => Why::Gone,
        }
    }

    /// The flight of the last fetch.
    pub(super) fn flight(&self, hash: KeyHash) -> Option<FlightId> {
        Some(self.get(hash)?.fetch?.flight)
    }

    /// The last fetch.
    pub(super) fn facts(&self, hash: KeyHash, now: Instant) -> Option<FetchFacts> {
        let memory = self.get(hash)?;
        let Fetch { asked, why, answer, took_us, kept, .. } = memory.fetch?;
        let age_ms = now.ns_since(asked) / 1_000_000;
        Some(FetchFacts { age_ms, why, answer, took_us, kept, taken: memory.taken })
    }

    fn get(&self, hash: KeyHash) -> Option<&Memory> {
        let memory = &self.places[self.index(hash)];
        let is_any = memory.fetch.is_some() || memory.taken.is_some() || memory.kept_until_ms > 0;
        (is_any && memory.hash == hash).then_some(memory)
    }

    /// The place of a key, whatever it remembers.
    fn place(&mut self, hash: KeyHash) -> &mut Memory {
        let index = self.index(hash);
        &mut self.places[index]
    }

    /// What is remembered of a key, which takes its place now at the latest.
    fn remember(&mut self, hash: KeyHash) -> &mut Memory {
        let place = self.place(hash);
        if place.hash != hash {
            *place = Memory::of(hash);
        }
        place
    }

    fn index(&self, hash: KeyHash) -> usize {
        let mask = self.places.len() as u64 - 1;
        usize::try_from(hash.bits() & mask).expect("masked by the size of the table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::error::FetchFailure;
    use crate::limits::Grant;

    const KEY: KeyHash = KeyHash::from_bits(0x1_0005);
    const FLIGHT: FlightId = FlightId { slot: 3, generation: 9 };

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    fn recent() -> Recent {
        let grant = Grant { shards: 1, descriptors_max: 1 << 20, memory_size: 4 << 30 };
        Recent::new(&Limits::new(&Config::default(), &grant).unwrap())
    }

    fn kept(until_ms: u64) -> Option<Kept> {
        Some(Kept { fresh_for: FreshFor::Ms(60), until_ms })
    }

    #[test]
    fn the_next_fetch_is_told_by_what_became_of_the_one_before() {
        let fetched = |answer, kept| {
            let mut recent = recent();
            recent.begin(KEY, FLIGHT, at(10), Why::New);
            recent.end(KEY, FLIGHT, at(12), answer, kept);
            recent
        };
        let failed = FetchAnswer::Failed(FetchFailure::Timeout);
        assert_eq!(recent().why(KEY, at(100)), Why::New);
        assert_eq!(fetched(failed, None).why(KEY, at(100)), Why::NotKept);
        assert_eq!(fetched(FetchAnswer::Absent, kept(100)).why(KEY, at(99)), Why::Gone);
        let mut recent = fetched(FetchAnswer::Found, kept(100));
        assert_eq!(recent.why(KEY, at(100)), Why::Expired);
        recent.take(KEY, Taken::Changed);
        assert_eq!(recent.why(KEY, at(100)), Why::Changed);
        recent.written(KEY, 200);
        assert_eq!(recent.why(KEY, at(100)), Why::Gone);
        recent.begin(KEY, FLIGHT, at(101), Why::Gone);
        assert_eq!(recent.facts(KEY, at(103)).unwrap().answer, FetchAnswer::Pending);
    }

    #[test]
    fn a_fetch_says_why_it_was_one_and_what_it_came_to() {
        let mut recent = recent();
        recent.begin(KEY, FLIGHT, at(10), Why::Purged);
        let other = FlightId { slot: 3, generation: 8 };
        recent.end(KEY, other, at(11), FetchAnswer::Absent, None);
        recent.end(KEY, FLIGHT, at(12), FetchAnswer::Found, kept(100));
        let facts = recent.facts(KEY, at(30)).unwrap();
        assert_eq!((facts.age_ms, facts.why, facts.took_us), (20, Why::Purged, 2_000));
        assert_eq!((facts.answer, facts.taken), (FetchAnswer::Found, None));
        assert_eq!(facts.kept, Some(FreshFor::Ms(60)));
        assert_eq!(recent.flight(KEY), Some(FLIGHT));
    }

    #[test]
    fn a_key_that_takes_a_place_forgets_who_had_it() {
        let mut recent = recent();
        let other = KeyHash::from_bits(0x2_0005);
        recent.begin(KEY, FLIGHT, at(10), Why::New);
        recent.take(other, Taken::Purged);
        assert_eq!((recent.why(KEY, at(11)), recent.why(other, at(11))), (Why::New, Why::Purged));
        assert!(recent.facts(KEY, at(11)).is_none() && recent.facts(other, at(11)).is_none());
        recent.end(KEY, FLIGHT, at(12), FetchAnswer::Found, kept(100));
        assert_eq!(recent.why(other, at(13)), Why::Purged, "who was forgotten writes nothing");
    }
}
