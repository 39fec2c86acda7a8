//! What cannot have been, told so that it can be seen: the operations that show it, and what else
//! changed the key meanwhile.

use super::check::Found;
use super::{Action, Operation, Outcome, Seen};
use std::fmt;

/// Lines of other changes that are told.
const OTHERS_MAX: usize = 20;

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A value was read that nobody wrote.
    NeverWritten,
    /// A value was read whose write was refused.
    Refused,
    /// A value was read before anybody began to write it.
    Early,
    /// Two values were each read before and after the other.
    TwoAtOnce,
    /// A value was read before and after another was written.
    Overwritten,
    /// A value was read before and after a delete.
    Deleted,
    /// Absence was read while there must have been a value.
    Missing,
    /// Absence was read, and no delete is left that can have made it.
    NotDeleted,
}

impl Fault {
    const fn sentence(self) -> &'static str {
        match self {
            Self::NeverWritten => "a value was read that nobody wrote",
            Self::Refused => "a value was read whose write was refused",
            Self::Early => "a value was read before anybody began to write it",
            Self::TwoAtOnce => "two values must have been there at the same time",
            Self::Overwritten => "a value was there before and after another was written",
            Self::Deleted => "a value was there before and after a delete",
            Self::Missing => "absence was read while there must have been a value",
            Self::NotDeleted => "absence was read, and no delete is left that can have made it",
        }
    }
}

/// A fault, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    fault: Fault,
    /// By their beginnings; those that show the fault are marked.
    lines: Vec<(bool, Operation)>,
    /// Further changes at the same time.
    more: usize,
}

impl Violation {
    /// Tells of a fault what else is to be known from all operations on the key.
    pub(super) fn new(found: Found, operations: &[Operation]) -> Self {
        let witnesses = found.witnesses;
        let from_ns = witnesses.iter().map(|witness| witness.invoked_ns).min().unwrap_or(0);
        let until_ns = witnesses.iter().map(|witness| witness.responded_ns).max().unwrap_or(0);
        let is_other = |operation: &&Operation| {
            !matches!(operation.action, Action::Read(_))
                && operation.invoked_ns <= until_ns
                && operation.responded_ns >= from_ns
                && !witnesses.contains(operation)
        };
        let mut others: Vec<Operation> = operations.iter().filter(is_other).copied().collect();
        // Those next to the end are the ones to look at.
        others.sort_unstable_by_key(|other| std::cmp::Reverse(other.responded_ns));
        let more = others.len().saturating_sub(OTHERS_MAX);
        others.truncate(OTHERS_MAX);
        let others = others.into_iter().map(|other| (false, other));
        let mut lines: Vec<(bool, Operation)> =
            witnesses.iter().map(|witness| (true, *witness)).chain(others).collect();
        lines.sort_by_key(|(_, operation)| (operation.invoked_ns, operation.responded_ns));
        lines.dedup();
        Self { fault: found.fault, lines, more }
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first_ns = self.lines.first().map_or(0, |(_, operation)| operation.invoked_ns);
        writeln!(
            out,
            "{}; us from {first_ns} ns on; status, client/connection:",
            self.fault.sentence()
        )?;
        for (is_witness, operation) in &self.lines {
            let us = |time_ns: u64| {
                let time_ns = time_ns - first_ns;
                format!("{}.{:03}", time_ns / 1000, time_ns % 1000)
            };
            let mark = if *is_witness { '>' } else { ' ' };
            let (begun, ended) = (us(operation.invoked_ns), us(operation.responded_ns));
            writeln!(out, "{mark} {begun:>14} {ended:>14}  {operation}")?;
        }
        if self.more > 0 {
            writeln!(out, "  and {} changes before these", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Read(Some(version)) => write!(out, "read {version:#x}")?,
            Action::Read(None) => write!(out, "read nothing")?,
            Action::Write(version) => write!(out, "write {version:#x}")?,
            Action::Delete => write!(out, "delete")?,
        }
        match self.outcome {
            Outcome::Done => {}
            Outcome::NotDone => write!(out, ", refused")?,
            Outcome::Unknown => write!(out, ", outcome unknown")?,
        }
        let Seen { client, connection, status } = self.seen;
        write!(out, " ({status} to {client}/{connection})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::check::check;

    #[test]
    fn a_stale_read_is_told_with_what_it_contradicts_and_what_else_went_on() {
        let at = |action, outcome, invoked_ns, responded_ns| Operation {
            action,
            outcome,
            invoked_ns,
            responded_ns,
            seen: Seen { client: 1, connection: 2, status: 200 },
        };
        let done = |action, from_ns, until_ns| at(action, Outcome::Done, from_ns, until_ns);
        let history = [
            done(Action::Write(1), 1_000, 2_000),
            done(Action::Write(2), 3_000, 4_500),
            at(Action::Write(3), Outcome::Unknown, 3_500, 9_000),
            done(Action::Read(Some(1)), 2_000, 3_000),
            done(Action::Read(Some(1)), 5_000, 6_000),
            done(Action::Write(4), 7_000, 8_000),
        ];
        let violation = check(&history).expect_err("1 was replaced by 2");
        assert_eq!(violation.fault(), Fault::Overwritten);
        let told = [
            "a value was there before and after another was written; \
             us from 1000 ns on; status, client/connection:",
            ">          0.000          1.000  write 0x1 (200 to 1/2)",
            ">          2.000          3.500  write 0x2 (200 to 1/2)",
            "           2.500          8.000  write 0x3, outcome unknown (200 to 1/2)",
            ">          4.000          5.000  read 0x1 (200 to 1/2)",
            "",
        ];
        assert_eq!(violation.to_string(), told.join("\n"));
    }
}
