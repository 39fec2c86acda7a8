//! Catches allocations where there must be none: on a shard's thread after its start.
//!
//! The guard is active in builds with debug assertions, which is what the tests run. A release
//! build uses the system's allocator as it is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// From here on, an allocation or a release on this thread aborts the process, in builds with
/// debug assertions.
pub fn forbid_on_this_thread() {
    FORBIDDEN.set(true);
}

/// Allocations are allowed again: the shard has stopped and its parts are taken down.
pub fn allow_on_this_thread() {
    FORBIDDEN.set(false);
}

/// The system's allocator behind the guard.
#[derive(Debug)]
pub struct Guarded;

impl Guarded {
    fn check() {
        if FORBIDDEN.get() {
            // The panic message itself allocates.
            FORBIDDEN.set(false);
            panic!("a shard allocated or freed memory after its start");
        }
    }
}

// SAFETY:
// - Every call is passed on to the system's allocator unchanged; the guard only looks at a flag
//   that needs no allocation itself (a const-initialised cell without a destructor).
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::check();
        // SAFETY:
        // - The caller's obligations are the callee's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        Self::check();
        // SAFETY:
        // - The caller's obligations are the callee's.
        unsafe { System.dealloc(address, layout) }
    }
}
