//! The checker that is obviously right: it tries every order. For a handful of operations.

use super::{Action, Operation, Outcome, Version};

/// Whether some order of the operations explains them all.
pub(super) fn is_linearizable(operations: &[Operation]) -> bool {
    let matters = |operation: &&Operation| match operation.outcome {
        Outcome::Done => true,
        Outcome::NotDone => false,
        Outcome::Unknown => !matches!(operation.action, Action::Read(_)),
    };
    explains(&operations.iter().filter(matters).copied().collect::<Vec<_>>(), None)
}

/// Whether what is left can follow, now that the key has `value`.
fn explains(left: &[Operation], value: Option<Version>) -> bool {
    let is_done = |operation: &&Operation| operation.outcome == Outcome::Done;
    let Some(first_end_ns) = left.iter().filter(is_done).map(|other| other.responded_ns).min()
    else {
        return true;
    };
    (0..left.len()).any(|next| {
        let operation = left[next];
        let after = match operation.action {
            Action::Read(read) if read != value => return false,
            Action::Read(_) => value,
            Action::Write(version) => Some(version),
            Action::Delete => None,
        };
        let rest = [&left[..next], &left[next + 1..]].concat();
        operation.invoked_ns <= first_end_ns && explains(&rest, after)
    })
}
