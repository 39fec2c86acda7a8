//! Why a key of ours is served as it is, for whoever asks by the origin plane; and why a key is
//! fetched, as far as that can be known then.

use super::Shard;
use super::flights::Landed;
use super::recent::Kept;
use crate::mesh::{
    EntryFacts, Explanation, FetchAnswer, FlightId, Left, Order, State, ValueFacts, Why,
};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use shard_cache::{EntryRef, FreshFor, Freshness, Standing};

impl<R: Ring> Shard<R> {
    /// Fills an explanation in, and sends it back.
    pub(super) fn explain(&mut self, mut explanation: Box<Explanation>) {
        let key = explanation.key.as_bytes();
        let hash = self.hasher.hash(key);
        let seen = self.cache.inspect(hash, key, self.now);
        let flight = self.flights.facts(hash, key, self.recent.flight(hash), self.now);
        explanation.owner = self.index;
        explanation.state = match seen {
            None => State::Missing,
            Some((_, Standing::Kept | Standing::Dead)) => State::Expired,
            Some((_, Standing::Purged)) => State::Purged,
            Some((at, Standing::Live(_))) if self.cache.entry(at).is_negative() => State::Absent,
            Some((_, Standing::Live(Freshness::Fresh))) => State::Fresh,
            Some((_, Standing::Live(Freshness::Stale))) => State::Stale,
            Some((_, Standing::Live(Freshness::Retained))) => State::Retained,
        };
        explanation.entry = seen.map(|(at, _)| self.entry_facts(at));
        explanation.flight = flight;
        explanation.changes_count = self.changes.count(hash);
        explanation.is_purging = self.changes.is_purging();
        explanation.holders = self.directory.holders(hash);
        explanation.fetch = self.recent.facts(hash, self.now);
        self.link.order(Order::Explained(explanation));
    }

    fn entry_facts(&self, at: EntryRef) -> EntryFacts {
        let (entry, now_ms) = (self.cache.entry(at), self.now.ms());
        let windows = self.cache.windows(entry.kind());
        let left = entry.fresh_until_ms().map(|end_ms| {
            let until_ms = |window_ms: u32| (end_ms + u64::from(window_ms)).saturating_sub(now_ms);
            Left {
                fresh_ms: end_ms.cast_signed() - now_ms.cast_signed(),
                while_revalidate_ms: until_ms(windows.while_revalidate_ms),
                if_error_ms: until_ms(windows.if_error_ms),
            }
        });
        EntryFacts {
            age_ms: now_ms.saturating_sub(entry.born_ms()),
            left,
            value: (!entry.is_negative()).then(|| ValueFacts {
                size: u32::try_from(entry.value().len()).expect("values are bounded"),
                content_type: self.content_types.name(entry.kind().content_type),
                etag: entry.etag(),
            }),
        }
    }

    /// Why a key is fetched now.
    pub(super) fn why(&mut self, hash: KeyHash, key: &[u8]) -> Why {
        let dropped = self.cache.take_unserved(hash);
        let seen = self.cache.inspect(hash, key, self.now).map(|(_, standing)| standing);
        match seen.or(dropped) {
            Some(Standing::Live(Freshness::Fresh)) => Why::Early,
            Some(Standing::Live(Freshness::Stale)) => Why::Stale,
            Some(Standing::Live(Freshness::Retained) | Standing::Kept | Standing::Dead) => {
                Why::Expired
            }
            Some(Standing::Purged) => Why::Purged,
            None => self.recent.why(hash, self.now),
        }
    }

    /// Remembers what a fetch has come to.
    pub(super) fn remember(&mut self, flight: FlightId, landed: &Landed, answer: FetchAnswer) {
        let (hash, _) = self.flights.key(flight);
        let kept = match landed {
            Landed::Entry(pin) if !self.flights.is_void(flight) => {
                Some(self.kept_until(pin.entry()))
            }
            Landed::Entry(_) | Landed::Stale(..) | Landed::Absent | Landed::Failed(_) => None,
        };
        self.recent.end(hash, flight, self.now, answer, kept);
    }

    /// How long the entry at `at` is kept, if nothing takes it away.
    pub(super) fn kept_until(&self, at: EntryRef) -> Kept {
        let entry = self.cache.entry(at);
        let Some(end_ms) = entry.fresh_until_ms() else {
            return Kept { fresh_for: FreshFor::Ever, until_ms: u64::MAX };
        };
        let windows = self.cache.windows(entry.kind());
        let fresh_ms = u32::try_from(end_ms.saturating_sub(entry.born_ms())).unwrap_or(u32::MAX);
        let window_ms = windows.while_revalidate_ms.max(windows.if_error_ms);
        Kept { fresh_for: FreshFor::Ms(fresh_ms), until_ms: end_ms + u64::from(window_ms) }
    }
}
