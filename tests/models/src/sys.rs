//! The server's queue, over loom, and a stand-in for the kernel.

pub mod eventfd;
#[path = "../../../server/src/sys/spsc.rs"]
#[expect(unsafe_code, reason = "a slot is written by one thread and read by another")]
pub mod spsc;
pub mod sync;
