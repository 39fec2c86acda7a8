//! One core's cache: an append-only log of immutable entries, owned by one thread.
//!
//! Pure: no input or output, no clock, no threads, no environment; memory is lent, time is passed
//! in. No operation does unbounded work, so none can stall the turn of the shard that owns it.
//!
//! ```text
//! index   buckets of 8 slots, a cache line each        slot = tag + where the entry lies
//!              |
//!              v
//! arena   [ segment | segment | segment | ... ]        256 KiB each
//!           entry entry entry ...                      header, key, value
//! ```
//!
//! Entries are appended to the open segment and never change; a new version of a key is a new
//! entry and the slot swings over. Space comes back a whole segment at a time, in the order in
//! which it was written ([`Cache::step`]). Bytes on their way to a client are held by a [`Pin`] on
//! their segment: it may be emptied of its keys, but its bytes stay until the last pin is gone.
//!
//! Modules, ground to top: `time`, `hash`, `freshness`, `prefetch`, `entry`, `layout`, `index`,
//! `segments`, `cache`.

mod cache;
mod entry;
mod freshness;
pub mod hash;
mod index;
mod layout;
#[allow(unsafe_code, reason = "a prefetch instruction")]
mod prefetch;
mod segments;
pub mod time;

pub use cache::{Cache, Hit, NewValue, Pin, Statistics, StoreRefused};
pub use entry::{Entry, EntryRef, FreshFor, Kind};
pub use freshness::{Freshness, StaleWindows};
pub use layout::{Layout, LayoutError, SEGMENT_SIZE};
