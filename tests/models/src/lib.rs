//! What passes values between the server's threads, compiled over loom.
//!
//! These are the server's own files, included by their paths. They name everything by `crate::`,
//! and so they find here, in place of `sys::sync`, the atomics and cells of loom, and beside them
//! no more of the server than they speak of. A feature or a flag would not do: what the server
//! depends on, tokio above all, is another crate under `--cfg loom`, and does not build.
//!
//! `tests/threads` has the models. The files' unit tests know nothing of loom and are left out.

#![cfg(not(test))]

pub mod mesh;
pub mod ring;
pub mod sys;
