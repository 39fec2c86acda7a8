//! Asks the owners of keys why they are served as they are, in the origin plane's place, and checks
//! what they say against the model.

use super::host::Host;
use super::marks::Mark;
use crate::model::{Content, KeyNumber, Model};
use pelton::mesh::{EntryFacts, Explanation, FetchAnswer, State, ValueFacts};
use shard_cache::time::Instant;
use std::collections::VecDeque;

/// The explanations that are under way.
#[derive(Debug, Default)]
pub(super) struct Explainer {
    /// Who was asked for what and when; a shard answers in the order in which it is asked.
    asked: VecDeque<(usize, KeyNumber, Instant)>,
}

impl Explainer {
    /// Explanations that have not come back.
    pub(super) fn count(&self) -> usize {
        self.asked.len()
    }

    /// A shard is asked.
    pub(super) fn ask(&mut self, shard: usize, key: KeyNumber, now: Instant) {
        self.asked.push_back((shard, key, now));
    }

    /// A shard has answered.
    ///
    /// # Panics
    /// If it was not asked, or what it says cannot be.
    pub(super) fn answer(
        &mut self,
        host: &mut Host,
        model: &Model,
        shard: usize,
        explanation: &Explanation,
    ) {
        let place = self.asked.iter().position(|(asked, ..)| *asked == shard);
        let asked = place.and_then(|place| self.asked.remove(place));
        let (_, key, since) = asked.expect("an explanation comes back once");
        assert_eq!(explanation.key.as_bytes(), model.key(key), "the key that was asked for");
        assert_eq!(explanation.owner, model.owners[key as usize], "its owner is known");
        let others = ((1 << host.shards_count) - 1) & !(1 << explanation.owner);
        assert_eq!(explanation.holders & !others, 0, "other shards have copies");
        mark(host, explanation);
        let Explanation { state, entry, fetch, .. } = explanation;
        assert_eq!(*state == State::Missing, entry.is_none(), "an entry has a state");
        if let Some(entry) = entry {
            check_entry(model, key, since, *state, entry);
        }
        let had = |is_it: fn(Content) -> bool| {
            (0..=model.newest(key)).any(|version| is_it(model.at(key, version)))
        };
        match fetch.map(|fetch| fetch.answer) {
            Some(FetchAnswer::Found | FetchAnswer::Unchanged) => {
                assert!(had(|content| matches!(content, Content::Value(_))), "it was found");
            }
            Some(FetchAnswer::Absent) => {
                assert!(had(|content| content == Content::Absent), "it was absent");
            }
            Some(FetchAnswer::Pending | FetchAnswer::Failed(_)) | None => {}
        }
    }
}

/// What is served could be the reply to a request of the same time; what is not was there once.
fn check_entry(model: &Model, key: KeyNumber, since: Instant, state: State, entry: &EntryFacts) {
    let is_served = matches!(state, State::Fresh | State::Stale | State::Absent);
    let mut versions = if is_served { model.allowed(key, since) } else { 0..=model.newest(key) };
    let is_allowed = versions.any(|version| match (model.at(key, version), entry.value) {
        (Content::Absent, None) => true,
        (Content::Value(edition), Some(ValueFacts { size, content_type, etag })) => {
            model.value_size(key, edition) == size as usize
                && model.content_type(key, edition) == content_type.as_str()
                && model.may_have(key, edition, etag.bits())
        }
        _ => false,
    });
    assert!(is_allowed, "{key} cannot be {entry:?}, which is {state:?}");
    assert!(state != State::Absent || entry.value.is_none(), "an absence has no value");
}

/// Counts what there was to explain.
fn mark(host: &mut Host, explanation: &Explanation) {
    let Explanation { state, flight, holders, changes_count, .. } = explanation;
    let is_void = |is_void| flight.is_some_and(|flight| flight.is_void == is_void);
    for (mark, is_met) in [
        (Mark::ExplainedAbsent, *state == State::Absent),
        (Mark::ExplainedChanging, *changes_count > 0),
        (Mark::ExplainedCopied, *holders != 0),
        (Mark::ExplainedInFlight, is_void(false)),
        (Mark::ExplainedPurged, *state == State::Purged),
        (Mark::ExplainedStale, *state == State::Stale),
        (Mark::ExplainedVoid, is_void(true)),
    ] {
        host.marks.hit_if(is_met, mark);
    }
}
