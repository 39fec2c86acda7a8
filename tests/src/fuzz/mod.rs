//! The targets of `make fuzz`: each takes any bytes and panics if something is wrong.
//!
//! They lie here and not in the fuzzer's crate, so that every test run tries all inputs that were
//! ever worth keeping (`tests/fuzz_corpus.rs`), without a fuzzer and its sanitizer.

mod cache;
mod config;
mod exchange;
mod import;
mod replies;
mod request;
mod snapshot;
mod stream;

pub use cache::cache;
pub use config::config;
pub use exchange::exchange;
pub use import::import;
pub use replies::replies;
pub use request::request;
pub use snapshot::snapshot;

/// Takes any bytes; panics if something is wrong.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its folder in `tests/fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("cache", cache),
    ("config", config),
    ("exchange", exchange),
    ("import", import),
    ("replies", replies),
    ("request", request),
    ("snapshot", snapshot),
];
