//! A simulated kernel: sockets, and a ring that is as unkind as the contract of `Ring` allows.

pub mod faults;
pub mod host;
pub mod marks;
pub mod net;
pub mod ring;
mod sending;
pub mod trace;
mod wording;
