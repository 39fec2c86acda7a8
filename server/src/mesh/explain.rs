//! Why a key is served as it is: an explanation on its way from the origin plane to the shard that
//! owns the key, which fills it in, and back.
//!
//! All of it has a fixed size, so no shard allocates or frees.

use super::origin::{ContentType, Key};
use super::servers::OriginServer;
use crate::error::FetchFailure;
use serde::{Deserialize, Serialize};
use shard_cache::FreshFor;
use shard_cache::hash::Etag;
use tokio::sync::oneshot;

/// Explanations under way at a time: the room that a shard's queues keep for them.
pub const EXPLANATIONS_MAX: usize = 4;

/// What the owner of a key says of it. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// The shard that owns it.
    pub owner: u16,
    /// What its entry may be used for.
    pub state: State,
    /// Its entry.
    pub entry: Option<EntryFacts>,
    /// The fetch that is under way; one that may still be joined where there are several.
    pub flight: Option<FlightFacts>,
    /// Writes, purges and changes of it that are under way or wait.
    pub changes_count: u32,
    /// A purge of many keys is under way.
    pub is_purging: bool,
    /// The shards that may have copies: a bit for each of 63, which later ones share.
    pub holders: u64,
    /// The last fetch that is remembered.
    pub fetch: Option<FetchFacts>,
}

impl Explanation {
    /// Nothing is known of `key` yet.
    #[must_use]
    pub const fn of(key: Key) -> Self {
        Self {
            key,
            owner: 0,
            state: State::Missing,
            entry: None,
            flight: None,
            changes_count: 0,
            is_purging: false,
            holders: 0,
            fetch: None,
        }
    }
}

/// What the entry of a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is none.
    Missing,
    /// It is served.
    Fresh,
    /// It is served, and fetched anew.
    Stale,
    /// It is fetched anew, and served if that fails.
    Retained,
    /// It says that the origin does not have the key, and is served.
    Absent,
    /// Its time is over.
    Expired,
    /// A purge hides it.
    Purged,
}

/// The entry of a key.
#[derive(Clone, Copy, Debug)]
pub struct EntryFacts {
    /// Since it was stored.
    pub age_ms: u64,
    /// What is left of its time; none if that never ends.
    pub left: Option<Left>,
    /// Its value; none if it says that the key does not exist.
    pub value: Option<ValueFacts>,
}

/// The value of an entry.
#[derive(Clone, Copy, Debug)]
pub struct ValueFacts {
    /// Its bytes.
    pub size: u32,
    /// Its content type.
    pub content_type: ContentType,
    /// Its tag.
    pub etag: Etag,
}

/// What is left of the time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// It is fresh; below zero since it is not.
    pub fresh_ms: i64,
    /// It is served while it is fetched anew.
    pub while_revalidate_ms: u64,
    /// It is served if that fails.
    pub if_error_ms: u64,
}

/// A fetch that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightFacts {
    /// Since the origin was asked.
    pub age_ms: u64,
    /// Requests and shards that wait for it.
    pub waiters_count: u32,
    /// The key has changed since: what it brings is for those who wait, and is not kept.
    pub is_void: bool,
}

/// A fetch that is remembered.
#[derive(Clone, Copy, Debug)]
pub struct FetchFacts {
    /// Since the origin was asked.
    pub age_ms: u64,
    /// Why it was asked.
    pub why: Why,
    /// What it said.
    pub answer: FetchAnswer,
    /// How long it took to say it, microseconds.
    pub took_us: u32,
    /// How long what it said is fresh; none if it was not kept.
    pub kept: Option<FreshFor>,
    /// What has taken that away since.
    pub taken: Option<Taken>,
}

/// What became of a fetch that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchAnswer {
    /// Nothing yet.
    Pending,
    /// The origin has the key.
    Found,
    /// The origin does not have the key.
    Absent,
    /// The value that was in memory is still the one that the origin has.
    Unchanged,
    /// The origin failed, or there was no room for what it said.
    Failed(FetchFailure),
}

/// What takes an entry away before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// A purge of the key.
    Purged,
    /// The origin said that it has changed.
    Changed,
    /// A client wrote it.
    Written,
}

/// Why a key was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No earlier fetch of it is remembered.
    New,
    /// It is asked for often, and its value was soon to be stale.
    Early,
    /// Its value was stale, and served.
    Stale,
    /// The time of its entry was over.
    Expired,
    /// It was purged.
    Purged,
    /// The origin had said that it has changed.
    Changed,
    /// A client had written it.
    Written,
    /// The fetch before left nothing.
    NotKept,
    /// Its entry was gone before its time: it gave way to others, or was purged with them.
    Gone,
}

impl From<Taken> for Why {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Purged => Self::Purged,
            Taken::Changed => Self::Changed,
            Taken::Written => Self::Written,
        }
    }
}

/// What is asked for, and who is told.
#[derive(Debug)]
pub struct ExplainRequest {
    /// To be filled in.
    pub explanation: Box<Explanation>,
    /// Told what the owner and the origin say.
    pub answer: oneshot::Sender<Explained>,
}

/// What the owner of a key and its origin say of it.
#[derive(Debug)]
pub struct Explained {
    /// The owner's part.
    pub explanation: Box<Explanation>,
    /// The server of the origin that is asked for the key, where that is known.
    pub server: Option<OriginServer>,
}
