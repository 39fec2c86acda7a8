//! The server's queues between threads, and stand-ins for what travels in them.

#[path = "../../../server/src/mesh/boxes.rs"]
mod boxes;
#[path = "../../../server/src/mesh/link.rs"]
mod link;
#[path = "../../../server/src/mesh/peers.rs"]
mod peers;
#[path = "../../../server/src/mesh/sleep.rs"]
mod sleep;

pub use boxes::{Giver, Taker, boxes};
pub use explain::Explanation;
pub use link::{Delivery, OriginLink, OriginPort, origin_link};
pub use origin::{Key, Landing, Order};
pub use parcel::Parcel;
pub use peers::{Message, Peers, peers};
pub use purge::PurgeOrder;
pub use sleep::Sleep;
pub use upload::Upload;

/// What shards send each other.
mod parcel {
    /// A read, by its number.
    #[derive(Debug)]
    pub struct Parcel(pub u32);
}

/// No model writes.
mod upload {
    /// Never made.
    #[derive(Debug)]
    pub struct Upload;
}

/// What travels between a shard and the origin plane.
mod origin {
    /// A fetch, by its number.
    #[derive(Debug)]
    pub struct Order(pub u32);

    /// What became of it.
    #[derive(Debug)]
    pub struct Landing(pub u32);

    /// Never made.
    #[derive(Debug)]
    pub struct Key;
}

/// No model asks for explanations.
mod explain {
    pub(super) const EXPLANATIONS_MAX: usize = 0;

    /// Never made.
    #[derive(Debug)]
    pub struct Explanation;
}

/// No model purges or drops keys, so that queues are as short as can be.
mod purge {
    pub(super) const PURGES_MAX: usize = 0;
    pub(super) const FORGETS_MAX: usize = 0;

    /// Never made.
    #[derive(Debug)]
    pub struct PurgeOrder;
}
