//! Whether the history of one key is that of a register which does one thing at a time.
//!
//! In general that takes exponential time. Here each value is written once, so who reads it names
//! its write, and only absence can come from more than one delete. That is enough for an exact
//! answer in `O(n log n)` time and `O(n)` memory, whatever overlaps: nothing is searched, so there
//! is no bound at which to give up.
//!
//! 1. A *cluster* is a write and all reads of its value (Gibbons and Korach, "Testing shared
//!    memories", 1997). Where one of them had ended before another began, the key has the value
//!    from that end to that beginning. It *holds* it there, and can do nothing else:
//!
//!    ```text
//!    write  |------|                          first response
//!    read       |------|                      .
//!    read                      |-----|        .       last invocation
//!                  [ holds     ]
//!    ```
//!
//!    Two holds may share an end, not more.
//! 2. A cluster without a hold can happen at one *moment*, the write and then its reads; so do a
//!    delete and a read of absence. Each moment has a range, and none lies within a hold.
//! 3. A sweep over time finds places for the moments. It does what it may do later, later, so it
//!    acts only where a range ends or a hold begins:
//!    - A read of absence is satisfied by any absence in its range. So is a cluster by any value:
//!      it happens beside it and changes nothing that matters.
//!    - A cluster that was not satisfied ends an absence. A hold does, too, and leaves a value.
//!    - A delete begins an absence; just before that, all clusters that wait happen.
//!    - A read of absence that was not satisfied takes a delete that was not needed so far: the
//!      one whose range ends first, since those left can do all that it could. Where there is
//!      none, there is no order: earlier deletes were used as late as they could be, and what
//!      ended their absence could not wait.
//!
//! What has an unknown outcome has a range without end: it is never due, and so need not happen.
//! Where two times are equal, neither operation came first. The key has no value at first.

use super::violation::{Fault, Violation};
use super::{Action, Operation, Outcome, Version};
use std::collections::{BTreeMap, BTreeSet};

/// Of what has no end.
const FOREVER_NS: u64 = u64::MAX;

/// What cannot be, and the operations that show it.
pub(super) struct Found {
    pub(super) fault: Fault,
    pub(super) witnesses: Vec<Operation>,
}

/// Checks the operations on one key, in any order.
///
/// # Errors
/// They cannot have happened.
///
/// # Panics
/// If two writes have the same value.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    find(operations).map_err(|found| Violation::new(found, operations))
}

fn find(operations: &[Operation]) -> Result<(), Found> {
    let mut holds = Vec::new();
    let mut moments: Vec<Moment> = operations.iter().filter_map(Moment::of_one).collect();
    for cluster in clusters(operations)? {
        if cluster.ended.latest_ns() < cluster.begun.invoked_ns {
            holds.push(cluster);
        } else {
            moments.push(Moment::of_cluster(&cluster));
        }
    }
    holds.sort_unstable_by_key(|hold| hold.ended.latest_ns());
    if let Some(pair) = holds.windows(2).find(|pair| pair[1].begin_ns() < pair[0].end_ns()) {
        let witnesses = pair.iter().flat_map(Cluster::witnesses).collect();
        return Err(Found { fault: Fault::TwoAtOnce, witnesses });
    }
    for moment in &mut moments {
        moment.keep_out(&holds)?;
    }
    Sweep::new(&moments).run(&holds)
}

/// A write and the reads of its value.
struct Cluster {
    write: Operation,
    /// Which of them ended first.
    ended: Operation,
    /// Which of them began last.
    begun: Operation,
}

impl Cluster {
    const fn new(write: Operation) -> Self {
        Self { write, ended: write, begun: write }
    }

    fn add(&mut self, read: Operation) {
        if read.latest_ns() < self.ended.latest_ns() {
            self.ended = read;
        }
        if read.invoked_ns > self.begun.invoked_ns {
            self.begun = read;
        }
    }

    /// Of a hold, where it begins.
    const fn begin_ns(&self) -> u64 {
        self.ended.latest_ns()
    }

    /// Of a hold, where it ends.
    const fn end_ns(&self) -> u64 {
        self.begun.invoked_ns
    }

    fn witnesses(&self) -> Vec<Operation> {
        vec![self.write, self.ended, self.begun]
    }
}

impl Operation {
    /// The latest moment at which it can have happened.
    const fn latest_ns(&self) -> u64 {
        match self.outcome {
            Outcome::Done | Outcome::NotDone => self.responded_ns,
            Outcome::Unknown => FOREVER_NS,
        }
    }
}

/// All clusters, once every read names a write that can have come before it.
fn clusters(operations: &[Operation]) -> Result<Vec<Cluster>, Found> {
    let mut refused: BTreeMap<Version, Operation> = BTreeMap::new();
    let mut clusters: BTreeMap<Version, Cluster> = BTreeMap::new();
    for write in operations {
        let Action::Write(version) = write.action else { continue };
        let is_new = !refused.contains_key(&version) && !clusters.contains_key(&version);
        assert!(is_new, "value {version} is written twice");
        if write.outcome == Outcome::NotDone {
            refused.insert(version, *write);
        } else {
            clusters.insert(version, Cluster::new(*write));
        }
    }
    for read in operations.iter().filter(|read| read.outcome == Outcome::Done) {
        let Action::Read(Some(version)) = read.action else { continue };
        let Some(cluster) = clusters.get_mut(&version) else {
            let write = refused.get(&version);
            let fault = if write.is_some() { Fault::Refused } else { Fault::NeverWritten };
            return Err(Found {
                fault,
                witnesses: write.into_iter().chain([read]).copied().collect(),
            });
        };
        if read.responded_ns < cluster.write.invoked_ns {
            return Err(Found { fault: Fault::Early, witnesses: vec![*read, cluster.write] });
        }
        cluster.add(*read);
    }
    Ok(clusters.into_values().collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A value comes, is read by all who read it, and may go at once.
    Value,
    Delete,
    Absence,
}

/// What can happen at one moment of a range; both ends are in it.
struct Moment {
    kind: Kind,
    from_ns: u64,
    until_ns: u64,
    /// What sets the ends of the range; twice the same where it is one operation.
    ends: [Operation; 2],
}

impl Moment {
    /// That of an operation which is no part of a cluster and says something.
    fn of_one(operation: &Operation) -> Option<Self> {
        let kind = match (operation.action, operation.outcome) {
            (Action::Delete, Outcome::Done | Outcome::Unknown) => Kind::Delete,
            (Action::Read(None), Outcome::Done) => Kind::Absence,
            _ => return None,
        };
        let (from_ns, until_ns) = (operation.invoked_ns, operation.latest_ns());
        Some(Self { kind, from_ns, until_ns, ends: [*operation; 2] })
    }

    const fn of_cluster(cluster: &Cluster) -> Self {
        Self {
            kind: Kind::Value,
            from_ns: cluster.begun.invoked_ns,
            until_ns: cluster.ended.latest_ns(),
            ends: [cluster.begun, cluster.ended],
        }
    }

    /// Where the range ends within a hold, it ends when that begins. A range that begins within
    /// one may stay: until the hold is over, the sweep does nothing.
    fn keep_out(&mut self, holds: &[Cluster]) -> Result<(), Found> {
        let next = holds.partition_point(|hold| hold.begin_ns() < self.until_ns);
        let Some(hold) = next.checked_sub(1).map(|last| &holds[last]) else { return Ok(()) };
        if hold.end_ns() <= self.until_ns {
            return Ok(());
        }
        if self.from_ns <= hold.begin_ns() {
            self.until_ns = hold.begin_ns();
            return Ok(());
        }
        let fault = match self.kind {
            Kind::Value => Fault::Overwritten,
            Kind::Delete => Fault::Deleted,
            Kind::Absence => Fault::Missing,
        };
        let witnesses = hold.witnesses().into_iter().chain(self.ends).collect();
        Err(Found { fault, witnesses })
    }
}

/// What the sweep comes by, in this order where the time is the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The range of a moment begins.
    Begin,
    /// It ends.
    End,
    /// A hold begins. Until its end no range ends.
    Hold,
}

struct Sweep<'a> {
    moments: &'a [Moment],
    is_absent: bool,
    /// When it was last the other way round, if ever.
    changed_ns: Option<u64>,
    /// What ended the last absence.
    ended_by: Vec<Operation>,
    /// Deletes that were not needed so far, by the end of their range.
    deletes: BTreeSet<(u64, usize)>,
}

impl<'a> Sweep<'a> {
    const fn new(moments: &'a [Moment]) -> Self {
        Self {
            moments,
            is_absent: true,
            changed_ns: None,
            ended_by: Vec::new(),
            deletes: BTreeSet::new(),
        }
    }

    fn run(mut self, holds: &[Cluster]) -> Result<(), Found> {
        let mut steps = Vec::new();
        for (index, moment) in self.moments.iter().enumerate() {
            steps.push((moment.from_ns, Step::Begin, index));
            steps.push((moment.until_ns, Step::End, index));
        }
        let hold = |(index, hold): (usize, &Cluster)| (hold.begin_ns(), Step::Hold, index);
        steps.extend(holds.iter().enumerate().map(hold));
        steps.sort_unstable();
        for (now_ns, step, index) in steps {
            match step {
                Step::Begin => self.begin(index),
                Step::End => self.end(now_ns, index)?,
                Step::Hold => self.appear(now_ns, || holds[index].witnesses()),
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) {
        let moment = &self.moments[index];
        if moment.kind == Kind::Delete {
            self.deletes.insert((moment.until_ns, index));
        }
    }

    fn end(&mut self, now_ns: u64, index: usize) -> Result<(), Found> {
        let moment = &self.moments[index];
        let was_other = self.changed_ns.is_some_and(|changed_ns| moment.from_ns <= changed_ns);
        match moment.kind {
            Kind::Value if was_other => {}
            Kind::Value => self.appear(now_ns, || moment.ends.to_vec()),
            Kind::Delete if self.deletes.contains(&(now_ns, index)) => self.delete(now_ns, index),
            Kind::Delete => {}
            Kind::Absence if self.is_absent || was_other => {}
            Kind::Absence => {
                let Some(&(_, delete)) = self.deletes.first() else {
                    let witnesses = self.ended_by.iter().copied().chain(moment.ends).collect();
                    return Err(Found { fault: Fault::NotDeleted, witnesses });
                };
                self.delete(now_ns, delete);
            }
        }
        Ok(())
    }

    fn appear(&mut self, now_ns: u64, by: impl Fn() -> Vec<Operation>) {
        if self.is_absent {
            self.is_absent = false;
            self.changed_ns = Some(now_ns);
            self.ended_by = by();
        }
    }

    /// Also where it is absent: clusters that wait happen before it, and then it is so again.
    fn delete(&mut self, now_ns: u64, index: usize) {
        self.deletes.remove(&(self.moments[index].until_ns, index));
        self.is_absent = true;
        self.changed_ns = Some(now_ns);
    }
}
