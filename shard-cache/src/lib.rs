//! One core's cache: an append-only log of immutable entries, owned by one thread.
//!
//! Pure: no input or output, no clock, no threads, no environment; memory is lent, time is passed
//! in. No operation does unbounded work, so none can stall the turn of the shard that owns it.
//!
//! ```text
//! index   buckets of 8 slots, a cache line each        slot = tag + frequency + where it lies
//!              |                                        ghost = keys that left a while ago
//!              v
//! arena   [ segment | segment | segment | ... ]        256 KiB each, in a small and a main pool
//!           entry entry entry ...                      header, key, value
//! ```
//!
//! Entries are appended to an open segment and never change; a new version of a key is a new entry
//! and the slot swings over. A segment takes entries that live about as long as one another, so it
//! comes back whole when they are dead, and each of them is dead exactly when it says. While room
//! is short, the oldest segment of a pool is emptied ([`Cache::step`]): what the [`Policy`] spares
//! is copied to the end of the main pool, so fragmentation has nowhere to build up.
//!
//! Bytes on their way to a client are held by a [`Pin`] on their segment: it may be emptied of its
//! keys, but its bytes stay until the last pin is gone. What somebody sends too slowly is copied
//! out ([`Cache::spill`]), so that the rest of its segment comes back. A purge ([`Cache::purge`])
//! hides entries by a rule, or ends their freshness, and walks over none of them. Entries may
//! belong to groups with a guaranteed share of the arena, which others do not evict
//! ([`Cache::guarantee`]).
//!
//! The budget is hard: [`Layout`] says every byte, and nothing is allocated after construction.
//!
//! Modules, ground to top: `time`, `hash`, `freshness`, `policy`, `prefetch`, `entry`, `layout`,
//! `index`, `ghost`, `segments`, `purge`, `cache`, `quota`, `reclaim`, `pins`, `snapshot`,
//! `inspect`.

mod cache;
mod entry;
mod freshness;
mod ghost;
pub mod hash;
mod index;
mod inspect;
mod layout;
mod pins;
pub mod policy;
#[allow(unsafe_code, reason = "a prefetch instruction")]
mod prefetch;
mod purge;
mod quota;
mod reclaim;
mod segments;
mod snapshot;
pub mod time;

pub use cache::{Cache, Hit, NewValue, Renewal, Statistics, StoreRefused, WINDOWS_COUNT_MAX};
pub use entry::{Entry, EntryRef, FreshFor, GROUPS_COUNT_MAX, Kind, entry_size};
pub use freshness::{Freshness, StaleWindows};
pub use inspect::Standing;
pub use layout::{Layout, LayoutError, SEGMENT_SIZE};
pub use pins::Pin;
pub use policy::Policy;
pub use purge::{Force, Purge, PurgeRefused};
pub use reclaim::{STEP_ENTRIES_MAX, STEP_MOVED_BYTES_MAX};
pub use snapshot::{NotRestored, REMOVED_MAX, Saved, Walked, Withdrawals, Withdrawn};
