//! A customer of Pelton's public seam: what the tests share.
//!
//! `sim` is a made-up world around real shards, `model` the obviously right answers it compares
//! with, `prng` its one source of chance. `process` starts the real binary, `http` speaks to it,
//! `fixture` gives it stores with known content, `http_origin` another origin, and `proxy`
//! stands between the two and misbehaves on order. `meaning` and `heads` say what bytes mean to our
//! parser and to another one, `reference` what they mean by the rules; `damage` spoils them, and
//! `smuggling` holds bytes that should mean nothing. `fuzz` holds the targets of `make fuzz`,
//! `mutants` the faults of `make mutants`; `wire` plays scripts on the simulated world and on the
//! real binary, and `snapshots` lets simulated shards write to a disk that fails. `history` judges
//! what clients saw of values that others wrote meanwhile.

#![forbid(unsafe_code)]

pub mod damage;
pub mod fixture;
pub mod fuzz;
pub mod heads;
pub mod history;
pub mod http;
pub mod http_origin;
pub mod meaning;
pub mod model;
pub mod mutants;
pub mod prng;
pub mod process;
pub mod proxy;
pub mod reference;
pub mod sim;
pub mod smuggling;
pub mod snapshots;
pub mod wire;
