//! Pelton: an HTTP/1.1 server for hot keys, one shard a core, each with an io_uring of its own.

pub mod config;
pub mod error;
pub mod histograms;
pub mod http;
pub mod limits;
pub mod mesh;
pub mod metrics;
pub mod origin;
pub mod ring;
pub mod shard;
pub mod sys;
