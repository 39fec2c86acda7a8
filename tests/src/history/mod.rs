//! What clients saw of values that others write meanwhile, and whether it can be true.
//!
//! A [`History`] holds, key by key, what was asked, what came of it and when. [`check`] says
//! whether each key can have been one register that does one thing at a time (linearizability,
//! Herlihy and Wing 1990); [`violation`] tells what cannot have been so. [`crowd`] makes such
//! histories with a real server: connections over all shards, and a [`purger`] beside them.
//! `docs/history.md` says how to run it.
//!
//! Times are nanoseconds since one moment, by one clock that never goes back, all of one host.

pub mod check;
pub mod connection;
pub mod crowd;
pub mod purger;
pub mod values;
pub mod violation;

#[cfg(test)]
mod brute;
#[cfg(test)]
mod made;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod stub;

use violation::Violation;

/// Names a value: no two writes of a key have the same.
pub type Version = u64;

/// What was asked of a key; of a read, what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It had this value, or none.
    Read(Option<Version>),
    /// It shall have this value, whatever it had.
    Write(Version),
    /// It shall have none, whatever it had.
    Delete,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, at some moment from its invocation to its response.
    Done,
    /// It was refused: it was not done and never will be.
    NotDone,
    /// Nobody knows: done at any moment from its invocation on, or never.
    Unknown,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// When the client began to ask.
    pub invoked_ns: u64,
    /// When the client had the whole answer, or gave up.
    pub responded_ns: u64,
    /// Who saw it and how, for who looks for the cause.
    pub seen: Seen,
}

/// Where an answer came from. Nothing follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The client.
    pub client: u16,
    /// Which of its connections.
    pub connection: u16,
    /// The status of the reply.
    pub status: u16,
}

/// All operations, by the number of their key.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: Vec<Vec<Operation>>,
}

impl History {
    /// Notes an operation on a key. They may come in any order.
    pub fn note(&mut self, key: usize, operation: Operation) {
        if self.keys.len() <= key {
            self.keys.resize_with(key + 1, Vec::new);
        }
        self.keys[key].push(operation);
    }

    /// Takes over what another client saw meanwhile.
    pub fn merge(&mut self, other: Self) {
        for (key, operations) in other.keys.into_iter().enumerate() {
            for operation in operations {
                self.note(key, operation);
            }
        }
    }

    /// Operations, by key.
    #[must_use]
    pub fn keys(&self) -> &[Vec<Operation>] {
        &self.keys
    }

    /// Checks every key. A history is linearizable when each of its keys is.
    ///
    /// # Errors
    /// The first key whose history cannot be true, and what shows it.
    pub fn check(&self) -> Result<(), (usize, Violation)> {
        let check = |(key, operations): (usize, &Vec<Operation>)| {
            check::check(operations).map_err(|violation| (key, violation))
        };
        self.keys.iter().enumerate().try_for_each(check)
    }

    /// Pairs of operations on one key, a read and one that changes it, of which neither had ended
    /// when the other began; each change counts once at most.
    #[must_use]
    pub fn overlaps(&self) -> usize {
        self.keys.iter().map(|operations| overlaps(operations)).sum()
    }
}

/// Changes that were under way while a read began.
fn overlaps(operations: &[Operation]) -> usize {
    let is_read = |operation: &&Operation| matches!(operation.action, Action::Read(_));
    let mut reads: Vec<u64> =
        operations.iter().filter(is_read).map(|read| read.invoked_ns).collect();
    reads.sort_unstable();
    let changes = operations.iter().filter(|operation| !is_read(operation));
    let meets = |change: &&Operation| {
        let next = reads.partition_point(|&invoked_ns| invoked_ns < change.invoked_ns);
        reads.get(next).is_some_and(|&invoked_ns| invoked_ns < change.responded_ns)
    };
    changes.filter(meets).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, invoked_ns: u64, responded_ns: u64) -> Operation {
        let (outcome, seen) = (Outcome::Done, Seen::default());
        Operation { action, outcome, invoked_ns, responded_ns, seen }
    }

    #[test]
    fn a_history_is_as_true_as_its_keys_and_names_the_one_that_is_not() {
        let mut history = History::default();
        history.note(2, operation(Action::Write(1), 0, 10));
        let mut other = History::default();
        other.note(0, operation(Action::Write(1), 0, 10));
        other.note(2, operation(Action::Read(Some(1)), 5, 8));
        history.merge(other);
        assert_eq!(history.check(), Ok(()));
        history.note(0, operation(Action::Read(None), 11, 12));
        assert_eq!(history.check().expect_err("the write was acknowledged").0, 0);
    }

    #[test]
    fn a_change_overlaps_where_a_read_began_meanwhile() {
        let mut history = History::default();
        history.note(0, operation(Action::Write(1), 10, 20));
        history.note(0, operation(Action::Read(None), 5, 15));
        history.note(0, operation(Action::Read(None), 20, 25));
        history.note(1, operation(Action::Read(None), 15, 16));
        assert_eq!(history.overlaps(), 0);
        history.note(0, operation(Action::Read(None), 19, 25));
        history.note(0, operation(Action::Read(None), 12, 13));
        assert_eq!(history.overlaps(), 1);
    }
}
