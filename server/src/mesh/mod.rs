//! Messages between threads: shard to shard, and shard to origin and storage plane and back.
//!
//! Every queue is bounded and has one producer and one consumer. Who sends a request keeps the
//! room that its answer needs: a read travels in a [`Parcel`] that the reader owns and the answer
//! comes back in, and a shard has as many parcels as the queues have room for. So no push can find
//! a queue full, no shard ever waits for another, and two shards cannot wait for each other.
//!
//! `owner` says which shard has a key, `parcel` and `upload` are what travels between shards,
//! `peers` the queues between them, `loads` how many connections each has, `addresses` how many
//! each client has, `tenants` who may ask for what, `leases` how long copies of values may be
//! served, `origin` and `purge` what travels to and from the origin plane, `explain` what it asks
//! of a key, `link` the queues to it, `sleep` the flag that saves wake-ups, `page` is what travels
//! to and from the storage plane, `storage` the queues to it, `boxes` what a reader is handed,
//! `servers` what the admin port is told of the origin, `control` the word to stop, and what the
//! process is short of.

mod addresses;
mod boxes;
mod control;
mod explain;
mod leases;
mod link;
mod loads;
mod origin;
mod owner;
mod page;
mod parcel;
mod peers;
mod purge;
mod servers;
mod sleep;
mod storage;
mod tenants;
mod upload;

pub use addresses::{AddressPlace, Addresses};
pub use boxes::{Giver, Taker, boxes};
pub use control::{Control, Shortage};
pub use explain::{
    EXPLANATIONS_MAX, EntryFacts, ExplainRequest, Explained, Explanation, FetchAnswer, FetchFacts,
    FlightFacts, Left, State, Taken, ValueFacts, Why,
};
pub use leases::{LEASE, Leases, MARGIN, leases, leases_size};
pub use link::{Delivery, OriginLink, OriginPort, origin_link};
pub use loads::Loads;
pub use origin::{
    ContentType, FlightId, Found, Held, Key, Landing, Lifetime, Order, Outcome, Unchanged,
};
pub use owner::{OwnerHash, Owners};
pub use page::{NoRecord, PAGE_ALIGN, Page, Record, record_size};
pub use parcel::{Answer, Grant, LentId, Parcel, ReplyRef, Value};
pub use peers::{Message, Peers, peers};
pub use purge::{FORGETS_MAX, Named, PURGES_MAX, PurgeOrder, PurgeRequest, Purged};
pub use servers::{OriginServer, ServersRequest};
pub use sleep::Sleep;
pub use storage::{
    Audit, Look, PageDone, PageJob, PageOutcome, StorageLink, StoragePort, storage_link,
};
pub use tenants::{Action, Class, NO_TENANT, Rate, Rule, Slice, TenantIndex, Tenants};
pub use upload::{Change, Precondition, Stale, Stored, Upload, Written};
