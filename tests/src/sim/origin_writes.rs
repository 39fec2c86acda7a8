//! Takes the origin plane's place where shards write: at any moment between order and answer.
//!
//! Checks that no two writes of a key are under way. Where the plane gives up on a write, it may be
//! done all the same, now or later; when the plane hears of that, it makes all shards forget the
//! key.

use super::faults::OriginFaults;
use super::host::Host;
use super::marks::Mark;
use super::trace::Who;
use crate::model::{self, Cause, Content, Fate, KeyNumber, Model, Version, WriteId};
use crate::prng::Prng;
use pelton::error::FetchFailure;
use pelton::mesh::{Change, Lifetime, Stored, Upload, Written};
use shard_cache::hash::Etag;
use shard_cache::time::Instant;
use std::time::Duration;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Do,
    Fail(FetchFailure),
    /// The plane is not told.
    DoUnknown,
    /// The plane has given up on it long before.
    DoLate,
    /// Nobody ever does it, nor says so.
    Lose,
}

/// A write at the origin.
#[derive(Debug)]
struct Writing {
    id: WriteId,
    key: KeyNumber,
    port: usize,
    plan: Plan,
    /// When the origin does it.
    at: Instant,
    done: bool,
    /// When the shard is told.
    due: Instant,
    upload: Box<Upload>,
}

/// A write that the plane has given up on.
#[derive(Debug)]
struct Late {
    id: WriteId,
    key: KeyNumber,
    at: Instant,
    /// The version that came of it, once it is done.
    done: Option<Version>,
    /// When the plane hears of it.
    heard: Instant,
}

/// What shards are to know now.
#[derive(Debug)]
pub(super) struct Due {
    /// Answers, and to which ports.
    pub(super) told: Vec<(usize, Box<Upload>)>,
    /// Keys that have changed without an answer, and the versions that came of it: all shards are
    /// to forget what was before.
    pub(super) late: Vec<(KeyNumber, Version)>,
}

/// The writes that the origin has been asked for.
#[derive(Debug)]
pub(super) struct OriginWrites {
    prng: Prng,
    /// How long a written value is fresh unless the client says otherwise.
    lifetime: Lifetime,
    writing: Vec<Writing>,
    late: Vec<Late>,
}

impl OriginWrites {
    pub(super) const fn new(prng: Prng, lifetime: Lifetime) -> Self {
        Self { prng, lifetime, writing: Vec::new(), late: Vec::new() }
    }

    /// Writes that are not over.
    pub(super) fn count(&self) -> usize {
        self.writing.len() + self.late.len()
    }

    /// When it acts next.
    pub(super) fn acts_at(&self) -> Option<Instant> {
        let writing =
            self.writing.iter().map(|write| if write.done { write.due } else { write.at });
        let late = self.late.iter().filter(|late| !self.is_behind(late));
        writing.chain(late.map(|late| late.done.map_or(late.at, |_| late.heard))).min()
    }

    /// A shard asks for a write.
    ///
    /// # Panics
    /// If another one of the same key is under way, or no client waits for it.
    pub(super) fn begin(
        &mut self,
        host: &mut Host,
        model: &mut Model,
        port: usize,
        upload: Box<Upload>,
        faults: &OriginFaults,
        is_down: bool,
    ) {
        let id = model.order_write(&upload);
        let key = model.written(id).0;
        assert_eq!(upload.outcome, Written::Pending, "a write that is ordered has no outcome");
        let twin = self.writing.iter().any(|write| write.key == key);
        assert!(!twin, "key {key} is being written already");
        let took_ns = self.prng.below(faults.delay_ns_max + 1);
        let due = host.now() + Duration::from_nanos(took_ns);
        let at = host.now() + Duration::from_nanos(self.prng.below(took_ns + 1));
        let plan = self.plan(model, key, faults, is_down);
        self.writing.push(Writing { id, key, port, plan, at, done: false, due, upload });
        host.trace.note(host.now(), Who::Origin, "is to write (key, write)", words(key, id));
    }

    fn plan(
        &mut self,
        model: &Model,
        key: KeyNumber,
        faults: &OriginFaults,
        is_down: bool,
    ) -> Plan {
        if self.prng.chance(faults.write_unknown) {
            return self.prng.pick(&[Plan::DoUnknown, Plan::DoLate, Plan::Lose]);
        }
        if model.content(key) == Content::Failing {
            return Plan::Fail(FetchFailure::Unavailable);
        }
        if is_down || self.prng.chance(faults.failure) {
            let failures = [FetchFailure::Unavailable, FetchFailure::Timeout, FetchFailure::NoRoom];
            return Plan::Fail(self.prng.pick(&failures));
        }
        Plan::Do
    }

    /// Does what is due.
    pub(super) fn act(&mut self, host: &mut Host, model: &mut Model, faults: &OriginFaults) -> Due {
        let now = host.now();
        for write in self.writing.iter_mut().filter(|write| !write.done && write.at <= now) {
            write.done = true;
            write.upload.outcome = execute(host, model, write, self.lifetime);
        }
        for late in self.late.iter_mut().filter(|late| late.done.is_none() && late.at <= now) {
            let fate = model.do_write(late.id, Cause::LateWrite, now);
            host.trace.note(now, Who::Origin, "writes late (key, write)", words(late.key, late.id));
            host.marks.hit(Mark::WriteDoneLate);
            late.done = Some(fate.version().unwrap_or(0));
        }
        let told = self.tell(host, faults);
        Due { told, late: self.hear(now) }
    }

    fn tell(&mut self, host: &mut Host, faults: &OriginFaults) -> Vec<(usize, Box<Upload>)> {
        let now = host.now();
        let mut told = Vec::new();
        while let Some(at) = self.writing.iter().position(|write| write.done && write.due <= now) {
            let Writing { id, key, port, plan, upload, .. } = self.writing.swap_remove(at);
            if plan == Plan::DoLate {
                let late_ns = 1 + self.prng.below(faults.delay_ns_max + 1);
                let at = now + Duration::from_nanos(late_ns);
                let heard = at + Duration::from_nanos(1 + self.prng.below(late_ns));
                self.late.push(Late { id, key, at, done: None, heard });
            }
            host.trace.note(now, Who::Origin, "has written (key, write)", words(key, id));
            told.push((port, upload));
        }
        told
    }

    /// The keys of late writes that the plane hears of now.
    fn hear(&mut self, now: Instant) -> Vec<(KeyNumber, Version)> {
        let is_heard =
            |late: &Late| late.done.is_some() && late.heard <= now && !self.is_behind(late);
        let heard: Vec<bool> = self.late.iter().map(is_heard).collect();
        let mut keys = Vec::new();
        for at in (0..heard.len()).rev().filter(|at| heard[*at]) {
            let Late { key, done, .. } = self.late.swap_remove(at);
            keys.extend(done.map(|version| (key, version)));
        }
        keys
    }

    /// Whether the shards are to be told before of another write, which the origin did before this
    /// one: or what it has left would be kept.
    fn is_behind(&self, late: &Late) -> bool {
        late.done.is_some() && self.writing.iter().any(|write| write.key == late.key && write.done)
    }
}

/// Does one write, or not. Returns what its shard is told.
fn execute(host: &mut Host, model: &mut Model, write: &Writing, lifetime: Lifetime) -> Written {
    let Writing { id, key, plan, ref upload, .. } = *write;
    let current = model.tag(key, model.content(key));
    let (_, change, condition) = model.written(id);
    assert_eq!(
        upload.precondition.holds(current.map(Etag::from_bits)),
        condition.holds(current),
        "a precondition is handed on as the client has sent it: {condition:?}"
    );
    let fate = match plan {
        Plan::Do | Plan::DoUnknown => model.do_write(id, Cause::Write, host.now()),
        Plan::Fail(failure) => Fate::Failed(failure),
        Plan::DoLate | Plan::Lose => Fate::Unknown(None),
    };
    let fate = if plan == Plan::DoUnknown { Fate::Unknown(fate.version()) } else { fate };
    model.decide(id, fate);
    let (what, mark) = match fate {
        Fate::Stored { is_new: true, .. } => ("creates (key, write)", Mark::WriteCreated),
        Fate::Stored { .. } => ("replaces (key, write)", Mark::WriteReplaced),
        Fate::Deleted(_) => ("deletes (key, write)", Mark::WriteDeleted),
        Fate::Absent(_) => ("has nothing to delete (key, write)", Mark::WriteOfNothing),
        Fate::Refused(_) => ("refuses to write (key, write)", Mark::WriteRefused),
        Fate::Failed(_) => ("fails to write (key, write)", Mark::WriteFailed),
        Fate::Unknown(None) => ("says nothing of (key, write)", Mark::WriteUnknown),
        Fate::Unknown(Some(_)) => ("writes and says nothing (key, write)", Mark::WriteDoneUnknown),
        Fate::Sent | Fate::Ordered => unreachable!("it was decided"),
    };
    host.trace.note(host.now(), Who::Origin, what, words(key, id));
    host.marks.hit(mark);
    match (fate, upload.change) {
        (Fate::Stored { is_new, .. }, Change::Put { content_type, lifetime: said, stale }) => {
            let etag = Etag::of(content_type.as_str(), upload.body());
            let lifetime = if said == Lifetime::Default { lifetime } else { said };
            let is_json =
                matches!(change, model::Change::Put(edition) if model.is_json(key, edition));
            let content_type = if is_json { content_type.checked_json() } else { content_type };
            Written::Stored(Stored { content_type, etag, is_new, lifetime, stale })
        }
        (Fate::Deleted(_), Change::Delete) => Written::Deleted,
        (Fate::Absent(_), _) => Written::Absent,
        (Fate::Refused(_), _) => Written::PreconditionFailed,
        (Fate::Failed(failure), _) => Written::Failed(failure),
        (Fate::Unknown(_), _) => Written::Unknown,
        (fate, change) => unreachable!("{fate:?} of {change:?}"),
    }
}

fn words(key: KeyNumber, id: WriteId) -> [u64; 2] {
    [key.into(), id as u64]
}
