//! The binary: runs a command and turns its end into an exit code.

use std::process::ExitCode;

/// Catches a shard that allocates after its start, in builds with debug assertions.
#[cfg(debug_assertions)]
#[global_allocator]
static ALLOCATOR: pelton::sys::alloc::Guarded = pelton::sys::alloc::Guarded;

fn main() -> ExitCode {
    ExitCode::from(pelton::commands::run(std::env::args_os()) as u8)
}
