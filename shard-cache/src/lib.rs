//! One core's cache. So far: how it hashes, and how it tells time.

pub mod hash;
pub mod time;
