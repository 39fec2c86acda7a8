//! One write on a session that nobody else uses.
//!
//! A precondition and its write are one step: in a transaction of one snapshot (REPEATABLE READ)
//! the row is locked first. Whoever has changed it since the snapshot, or adds it before we do, is
//! a conflict that the server reports, and the whole is done again on what is there then; whoever
//! comes later waits. So it does not matter how others write.

use super::fault::Fault;
use super::session::{Look, Session};
use crate::mesh::{Change, Lifetime, Precondition, Stale, Stored, Written};
use crate::origin::Write;
use crate::origin::store::checked;
use shard_cache::hash::Etag;

/// Why a write has no answer.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) fault: Fault,
    /// It was surely not done.
    pub(super) is_undone: bool,
}

impl From<Fault> for Broken {
    /// A fault before anything was done that could last.
    fn from(fault: Fault) -> Self {
        Self { fault, is_undone: true }
    }
}

impl Broken {
    /// A fault of what makes the write last.
    fn of_last(fault: Fault) -> Self {
        Self { is_undone: fault.is_undone(), fault }
    }

    /// The same again may work, and does nothing twice.
    pub(super) fn may_repeat(&self) -> bool {
        let Self { fault, is_undone } = self;
        *is_undone && (fault.is_conflict() || fault.is_outdated() || fault.is_lost())
    }
}

/// Does a write if its precondition holds.
pub(super) async fn write(session: &Session, write: &Write) -> Result<Written, Broken> {
    if write.precondition == Precondition::default() {
        return plainly(session, write).await;
    }
    session.begin().await?;
    let done = inside(session, write).await;
    if let Ok(Written::Stored(_) | Written::Deleted) = done {
        session.commit().await.map_err(Broken::of_last)?;
    } else {
        session.roll_back().await;
    }
    done.map_err(Broken::from)
}

/// A statement that is a transaction by itself.
async fn plainly(session: &Session, write: &Write) -> Result<Written, Broken> {
    // Only who puts is told whether the key is new.
    let look = match write.change {
        Change::Put { .. } => Some(session.find(write.key.as_bytes()).await?),
        Change::Delete => None,
    };
    let changed = session.change(write).await.map_err(Broken::of_last)?;
    Ok(outcome(session, write, look.as_ref(), changed).await?)
}

/// What is done between the two ends of a transaction.
async fn inside(session: &Session, write: &Write) -> Result<Written, Fault> {
    let look = session.lock(write.key.as_bytes()).await?;
    if !write.precondition.holds(look.etag()?) {
        return Ok(Written::PreconditionFailed);
    }
    let changed = session.change(write).await?;
    outcome(session, write, Some(&look), changed).await
}

/// What has become of a write that has changed so many rows.
async fn outcome(
    session: &Session,
    write: &Write,
    look: Option<&Look>,
    changed: u64,
) -> Result<Written, Fault> {
    let (Change::Put { content_type, .. }, Some(look)) = (write.change, look) else {
        return Ok(if changed > 0 { Written::Deleted } else { Written::Absent });
    };
    if changed == 0 {
        return Err(Fault::Wrong("postgres.put has changed no row".to_owned()));
    }
    let content_type = session.kept_type(look, content_type).await?;
    let etag = Etag::of(content_type.as_str(), &write.value);
    Ok(Written::Stored(Stored {
        content_type: checked(content_type, &write.value),
        etag,
        is_new: !look.is_there(),
        lifetime: Lifetime::Default,
        stale: Stale::default(),
    }))
}
