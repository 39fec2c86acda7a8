//! The last fetches of keys: why each was one, what the origin said, and what took that away.
//!
//! A table of fixed size, found by the key's hash: a key takes the place of another one. It is
//! written where a fetch begins and ends and where something is taken away, never for a hit.

use super::jitter;
use crate::error::FetchFailure;
use crate::limits::{Limits, RECENT_SIZE_MAX};
use crate::mesh::{FetchAnswer, FetchFacts, FlightId, Taken, Why};
use shard_cache::FreshFor;
use shard_cache::hash::KeyHash;
use shard_cache::time::Instant;
use std::time::Duration;

/// How long a key is left alone after one failed fetch; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time for which a key is left alone whose fetch has failed: an origin that is well
/// again is soon asked for everything.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is remembered of a key.
#[derive(Clone, Copy, Debug)]
struct Memory {
    hash: KeyHash,
    fetch: Option<Fetch>,
    /// Until when what was stored last is kept, milliseconds; 0 where nothing was.
    kept_until_ms: u64,
    /// What has taken it away since.
    taken: Option<Taken>,
    /// Fetches that have failed one after the other.
    failures: u8,
    /// Until when it is not fetched again, if the last fetch failed.
    paused_until: Instant,
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
        Self {
            hash,
            fetch: None,
            kept_until_ms: 0,
            taken: None,
            failures: 0,
            paused_until: Instant::ZERO,
        }
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
        let failures = self.get(hash).map_or(0, |memory| memory.failures);
        *self.place(hash) = Memory { fetch: Some(fetch), failures, ..Memory::of(hash) };
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
        if matches!(answer, FetchAnswer::Failed(_)) && place.taken.is_none() {
            place.failures = place.failures.saturating_add(1);
            place.paused_until = now + pause(place.failures, hash, now);
        } else {
            place.failures = 0;
        }
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
        memory.failures = 0;
    }

    /// What was kept of a key, or would have been, is taken away.
    pub(super) fn take(&mut self, hash: KeyHash, taken: Taken) {
        let memory = self.remember(hash);
        memory.taken = Some(taken);
        memory.failures = 0;
    }

    /// How the last fetch of a key failed, if that was so short ago that it is not fetched again:
    /// those who ask for it are answered as those were who waited for that fetch, and the origin is
    /// not asked once a request while it is down.
    pub(super) fn pause(&self, hash: KeyHash, now: Instant) -> Option<FetchFailure> {
        let memory = self.get(hash)?;
        let is_paused = memory.failures > 0 && now < memory.paused_until;
        match memory.fetch?.answer {
            FetchAnswer::Failed(failure) => is_paused.then_some(failure),
            FetchAnswer::Pending
            | FetchAnswer::Found
            | FetchAnswer::Unchanged
            | FetchAnswer::Absent => None,
        }
    }

    /// How long the last fetch took, if it brought a value.
    pub(super) fn fetch_us(&self, hash: KeyHash) -> Option<u32> {
        let fetch = self.get(hash)?.fetch?;
        let is_value = matches!(fetch.answer, FetchAnswer::Found | FetchAnswer::Unchanged);
        is_value.then_some(fetch.took_us)
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

/// How long a key is left alone after so many failures: between half of the whole and all of it,
/// so that keys which have failed together are not fetched together.
fn pause(failures: u8, hash: KeyHash, now: Instant) -> Duration {
    let doublings = u32::from(failures.saturating_sub(1)).min(16);
    let whole = (PAUSE * (1 << doublings)).min(PAUSE_MAX);
    whole - jitter::share_of(whole / 2, hash, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
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
    fn a_key_whose_fetch_failed_is_left_alone_for_longer_and_longer_up_to_a_second() {
        let failure = FetchFailure::Timeout;
        let mut recent = recent();
        let mut now = at(10);
        for (half_ms, whole_ms) in [(50, 100), (100, 200), (200, 400), (400, 800), (500, 1_000)] {
            assert_eq!(recent.pause(KEY, now), None);
            recent.begin(KEY, FLIGHT, now, Why::New);
            assert_eq!(recent.pause(KEY, now), None, "it is being fetched");
            recent.end(KEY, FLIGHT, now, FetchAnswer::Failed(failure), None);
            let in_ms = |ms| now + Duration::from_millis(ms);
            assert_eq!(recent.pause(KEY, in_ms(half_ms - 1)), Some(failure));
            now = in_ms(whole_ms);
        }
        recent.begin(KEY, FLIGHT, now, Why::New);
        recent.end(KEY, FLIGHT, now, FetchAnswer::Absent, None);
        assert_eq!(recent.pause(KEY, now), None);
        recent.begin(KEY, FLIGHT, now, Why::New);
        recent.end(KEY, FLIGHT, now, FetchAnswer::Failed(failure), None);
        let later = now + Duration::from_millis(100);
        assert_eq!(recent.pause(KEY, later), None, "the failures before are forgotten");
    }

    #[test]
    fn a_key_that_was_taken_away_is_fetched_whatever_failed_before() {
        for taken in [Taken::Purged, Taken::Changed, Taken::Written] {
            let mut recent = recent();
            let failed = FetchAnswer::Failed(FetchFailure::Unavailable);
            recent.begin(KEY, FLIGHT, at(10), Why::New);
            recent.end(KEY, FLIGHT, at(10), failed, None);
            assert!(recent.pause(KEY, at(11)).is_some());
            recent.take(KEY, taken);
            assert_eq!(recent.pause(KEY, at(11)), None);
            recent.begin(KEY, FLIGHT, at(12), Why::New);
            recent.take(KEY, taken);
            recent.end(KEY, FLIGHT, at(13), failed, None);
            assert_eq!(recent.pause(KEY, at(13)), None, "it was asked before that");
        }
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
