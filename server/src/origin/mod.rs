//! The origin plane: who is asked on a miss, and how the answer travels back to the shards.
//!
//! Async code lives here and in `admin`. The plane knows shards only through `mesh`.

mod embedded;
mod holder;
pub mod import;
mod plane;
mod record;
mod room;
mod store;

pub use embedded::Embedded;
pub use plane::{Plane, PlaneLimits, Purges};
pub use room::Room;
pub use store::{Batch, Puts, Store, StoreFailure, StoreOptions};

use crate::error::FetchFailure;
use crate::mesh::Found;
use std::future::Future;
use std::pin::Pin;

/// What a fetch resolves to: the value, a clear absence (`None`), or a failure.
pub type Fetched = Result<Option<Found>, FetchFailure>;

/// A fetch under way.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Fetched> + 'a>>;

/// A source of truth. Its futures run on the one thread of the origin plane and must not block.
pub trait Origin {
    /// What it is, in a few words, for the start-up lines and `/stats`.
    fn describe(&self) -> String;

    /// Fetches one key. The plane applies `origin.timeout` and `cache.value_size_max` around it.
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetch<'a>;

    /// Whether it can answer: asked before the server reports itself ready.
    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>>;
}
