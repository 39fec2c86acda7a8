//! A purge on its way: from whoever asks for it to the origin plane, to every shard, and back.
//!
//! One purge is under way at a time. The plane makes a box for each shard, which comes back when
//! the purge is in force there: so no shard allocates or frees, and who asked is told the truth.

use super::origin::Key;
use shard_cache::{Force, Purge};
use tokio::sync::oneshot;

/// Purges under way at a time: the room that a shard's queues keep for them.
pub const PURGES_MAX: usize = 1;

/// Keys that a shard may have been told to drop at a time, since their origin has changed them: the
/// room that its queues keep for them.
pub const FORGETS_MAX: usize = 64;

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// One key.
    Key(Key),
    /// The keys that begin with this.
    Prefix(Key),
    /// The keys that have this before their first separator.
    Group(Key),
    /// All keys.
    Everything,
}

impl Named {
    /// The cache's rule for it; a single key has none.
    #[must_use]
    pub fn rule(&self) -> Option<Purge<'_>> {
        match self {
            Self::Key(_) => None,
            Self::Prefix(prefix) => Some(Purge::Prefix(prefix.as_bytes())),
            Self::Group(group) => Some(Purge::Group(group.as_bytes())),
            Self::Everything => Some(Purge::Everything),
        }
    }
}

/// What became of a purge in a shard. What the greatest of them says holds for all shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purged {
    /// It is in force.
    Done,
    /// It is in force. The key was there; of other purges nobody counts what they name.
    Found,
    /// The cache has no room for another rule.
    Refused,
    /// The disk's fault: what was written of the cache might bring it back. Nothing was purged.
    NotNoted,
}

/// A purge for one shard: the plane sends it with any outcome, and the shard says what it was.
#[derive(Clone, Debug)]
pub struct PurgeOrder {
    /// What is purged.
    pub named: Named,
    /// Whether it is hidden, or made stale.
    pub force: Force,
    /// What became of it.
    pub outcome: Purged,
}

/// A purge for all shards, and who is told when it is in force.
#[derive(Debug)]
pub struct PurgeRequest {
    /// What is purged, and how.
    pub order: PurgeOrder,
    /// Told what became of it in all shards together.
    pub answer: oneshot::Sender<Purged>,
}
