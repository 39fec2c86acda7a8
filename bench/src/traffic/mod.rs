//! What the load generator sends, written out before a run begins.

mod distribution;
mod mix;
mod random;
mod records;
mod requests;
mod verify;

pub(crate) use distribution::{Distribution, Sampler, mass};
pub(crate) use mix::{Kind, Mix};
pub(crate) use random::Random;
pub(crate) use records::{Records, write_generated};
pub(crate) use requests::{Keys, Recipe, Requests};
pub(crate) use verify::{Verifier, Verify};
