//! Histories that are true because they were made by one register.

use super::{Action, Operation, Outcome, Seen, Version};
use crate::prng::Prng;

/// What a history is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) count: usize,
    /// Longest time from an invocation to its effect, and from there to its response. From one
    /// effect to the next it is 10 ns.
    pub(super) stretch_ns: u64,
    pub(super) changes_per_mille: u32,
    pub(super) deletes_per_mille: u32,
    /// Of changes, those that are refused or whose outcome is not known, each.
    pub(super) failures_per_mille: u32,
}

/// Lets so many operations happen one after the other, and hides from their clients when.
pub(super) fn history(prng: &mut Prng, shape: Shape) -> Vec<Operation> {
    let mut value: Option<Version> = None;
    let operation = |number: usize| {
        let now_ns = 1_000_000 + 10 * number as u64;
        let action = if !prng.chance(shape.changes_per_mille) {
            Action::Read(value)
        } else if prng.chance(shape.deletes_per_mille) {
            Action::Delete
        } else {
            Action::Write(number as Version)
        };
        let is_read = matches!(action, Action::Read(_));
        let fails = |prng: &mut Prng| !is_read && prng.chance(shape.failures_per_mille);
        let outcome = match (fails(prng), fails(prng)) {
            (true, _) => Outcome::NotDone,
            (_, true) => Outcome::Unknown,
            (false, false) => Outcome::Done,
        };
        // Half of those whose outcome is not known have none.
        if outcome == Outcome::Done || outcome == Outcome::Unknown && prng.coin() {
            value = match action {
                Action::Read(value) => value,
                Action::Write(version) => Some(version),
                Action::Delete => None,
            };
        }
        // Some are known to be over before they have happened.
        let given_up = outcome == Outcome::Unknown && prng.coin();
        let before_ns = prng.below(shape.stretch_ns);
        let after_ns = prng.below(shape.stretch_ns);
        let responded_ns = if given_up { now_ns - before_ns / 2 } else { now_ns + after_ns };
        let (invoked_ns, seen) = (now_ns - before_ns, Seen::default());
        Operation { action, outcome, invoked_ns, responded_ns, seen }
    };
    let mut history: Vec<Operation> = (0..shape.count).map(operation).collect();
    prng.shuffle(&mut history);
    history
}
