//! A customer of Pelton's public seam: what the tests share.
//!
//! `sim` is a made-up world around real shards, `model` the obviously right answers it compares
//! with, `prng` its one source of chance. `process` starts the real binary, `http` speaks to it,
//! `fixture` gives it stores with known content.

#![forbid(unsafe_code)]

pub mod fixture;
pub mod http;
pub mod model;
pub mod prng;
pub mod process;
pub mod sim;
