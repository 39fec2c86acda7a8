//! A customer of Pelton's public seam: what the tests share.

#![forbid(unsafe_code)]

pub mod model;
pub mod prng;
pub mod sim;
