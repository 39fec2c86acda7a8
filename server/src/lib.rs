//! Pelton: an HTTP/1.1 server for hot keys, one shard a core, each with an io_uring of its own.
//!
//! The binary `pelton` is a thin shell around [`commands`]. To embed the server, make a
//! [`config::Config`], give [`server::Server::start`] an [`origin::Origin`], and
//! [`server::Server::join`] it.
//!
//! The modules, ground to top; each uses only those above it in this list, and a test enforces it:
//!
//! - [`error`], [`config`], [`limits`], [`metrics`], [`histograms`], [`hot`], [`token`]: what
//!   everything else speaks of
//! - [`sys`]: the system calls we make ourselves
//! - [`ring`]: the seam through which a shard reads, writes and learns the time
//! - [`http`]: bytes to requests, replies to bytes
//! - [`mesh`]: messages between threads
//! - [`shard`]: one core's connections, cache, flights
//! - [`host`]: whether this machine can run it
//! - [`origin`], [`storage`], [`admin`]: the source of truth, snapshots, the port for operators
//! - [`server`]: builds the planes and connects them
//! - [`commands`]: the command line

pub mod admin;
pub mod api_key;
pub mod commands;
pub mod config;
pub mod error;
pub mod histograms;
pub mod host;
pub mod hot;
pub mod http;
pub mod limits;
pub mod mesh;
pub mod metrics;
pub mod origin;
pub mod ring;
pub mod server;
pub mod shard;
pub mod storage;
pub mod sys;
pub mod token;
