//! Wire scripts: one behaviour each, played on the simulated world and on the real binary.
//!
//! `script` reads a script, `player` plays it on a `Stage`, of which there are two: `simulator`,
//! whose origin takes `writes`, and `process`. The language is described in `docs/wire.md`. A test
//! that needs more of the simulator takes its `steps` itself.

mod player;
mod process;
mod script;
mod simulator;
mod stage;
mod steps;
mod writes;

pub use player::play;
pub use process::ProcessStage;
pub use script::{Only, Script};
pub use simulator::SimulatorStage;
pub use stage::{Received, Source, Stage};

/// A script's text as it is sent: cut into pieces of so many bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces(pub usize);
