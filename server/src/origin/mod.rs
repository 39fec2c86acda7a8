//! The origin plane: who is asked on a miss, and how the answer travels back to the shards.
//!
//! Async code lives here and in `admin`. The plane knows shards only through `mesh`.

mod backoff;
mod choice;
mod embedded;
mod explain;
mod guard;
mod holder;
pub mod import;
mod news;
mod plane;
mod postgres;
mod record;
mod redis;
mod room;
mod sampler;
mod secret;
mod servers;
mod store;
mod tier;
mod tls;
mod upstream;
mod writer;
mod writes;

pub use choice::open;
pub use embedded::Embedded;
pub use guard::{BreakerState, Guard, Trouble};
pub use news::{Changed, News, Teller, news};
pub use plane::{Plane, PlaneLimits, Purges, Requests};
pub use postgres::Postgres;
pub use redis::Redis;
pub use room::Room;
pub use servers::tell_servers;
pub use store::{Batch, Puts, Store, StoreFailure, StoreOptions};
pub use tier::Tier;
pub use upstream::Upstream;

use crate::error::FetchFailure;
use crate::mesh::{
    Audit, Change, Found, Key, OriginServer, Outcome, Precondition, Upload, Written,
};
use shard_cache::hash::Etag;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// What an origin finds that is never told what is known: the value, a clear absence (`None`), or a
/// failure.
type Fetched = Result<Option<Found>, FetchFailure>;

/// A fetch under way.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A write as an origin is given it. It owns its bytes: it may outlive the upload that brought it.
#[derive(Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What becomes of it.
    pub change: Change,
    /// The value, where it is to have one.
    pub value: Box<[u8]>,
    /// When that is done.
    pub precondition: Precondition,
}

impl Write {
    /// What an upload asks for; copies the body.
    #[must_use]
    pub fn of(upload: &Upload) -> Self {
        let Upload { change, precondition, .. } = *upload;
        Self { key: upload.key().clone(), change, value: upload.body().into(), precondition }
    }
}

/// A write under way.
pub type Writing<'a> = Pin<Box<dyn Future<Output = Written> + 'a>>;

/// A source of truth. Its futures run on the one thread of the origin plane and must not block.
pub trait Origin {
    /// What it is, in a few words, for the start-up lines and `/stats`.
    fn describe(&self) -> String;

    /// Fetches one key. The plane applies `origin.timeout` and `cache.value_size_max` around it.
    ///
    /// `known` is the tag of the value that is in memory, if there is one. An origin that knows
    /// that this is still the one may say so ([`Outcome::Unchanged`]) and not bring it again.
    fn fetch<'a>(&'a self, key: &'a [u8], known: Option<Etag>) -> Fetch<'a>;

    /// Does a write if its precondition holds; nothing comes between the two. What it answers is
    /// durable. The plane waits for `origin.timeout`, and lets what takes longer go on.
    ///
    /// An origin that cannot be written leaves this as it is: nothing is done.
    fn write(&self, _write: Write) -> Writing<'_> {
        Box::pin(async { Written::Failed(FetchFailure::Unavailable) })
    }

    /// Where it says unasked that keys have changed; `None` where it never does. What it says is
    /// dropped, and nothing older is kept after that.
    fn news(&self) -> Option<&News> {
        None
    }

    /// How long a value is called fresh at most after the origin has another one that nobody wrote
    /// here, if that is known.
    fn staleness_max(&self) -> Option<Duration> {
        None
    }

    /// What tells, on another thread, whether a value that a snapshot has is still what the origin
    /// holds. One that can be written has it: a write could else be followed by what was there
    /// before it, once the process was killed. `None` where a value is as good as its age.
    fn audit(&self) -> Option<Audit> {
        None
    }

    /// Its servers, and what their guards have seen, for the admin port.
    fn servers(&self) -> Vec<OriginServer> {
        Vec::new()
    }

    /// The server that is asked for this key, as far as that is known before.
    fn server_of(&self, _key: &[u8]) -> Option<OriginServer> {
        None
    }

    /// Whether it can answer: asked before the server reports itself ready.
    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>>;
}
