//! Messages between threads. So far: the flag that saves wake-ups.

mod sleep;

pub use sleep::Sleep;
