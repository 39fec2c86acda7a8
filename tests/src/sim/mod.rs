//! A simulated world: real shards on simulated rings, driven by one seed in one thread.
//!
//! ```text
//!   clients --- net --- ring --- Shard --- mesh --- origin, keeper
//!      \__________________ host ____________________/      clock, record, faults
//! ```
//!
//! One tick is one act of one of them, drawn from all who have something to do; time jumps to the
//! next moment at which somebody has. A run has four parts: a storm, in which everything goes wrong
//! that the seed has chosen; a calm, in which everything must come to rest; an exam, in which the
//! server has no excuses; and a drain. The oracles of `oracle` watch all of it.

pub mod badge;
pub mod batch;
pub mod client;
pub(crate) mod cluster;
mod explainer;
pub mod faults;
pub mod host;
mod items;
pub mod keeper;
pub mod marks;
pub mod net;
mod oracle;
pub mod origin;
mod origin_writes;
pub mod reader;
pub mod reply;
pub mod request;
pub mod ring;
pub mod runs;
mod sending;
pub mod swarm;
pub mod trace;
mod wording;
mod world;
mod write;

pub use world::{Report, World};
