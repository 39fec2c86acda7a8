//! The limit on open files: each connection takes one.

use std::mem::MaybeUninit;

/// Raises the limit on open files as far as it goes. Returns what it is then.
#[must_use]
pub fn raise_descriptors() -> u64 {
    let limit = get(libc::RLIMIT_NOFILE);
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY:
    // - `raised` is initialised and valid for reads for the length of the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    if result == 0 { limit.rlim_max } else { limit.rlim_cur }
}

fn get(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = MaybeUninit::uninit();
    // SAFETY:
    // - `limit` is valid for writes of a whole rlimit.
    let result = unsafe { libc::getrlimit(resource, limit.as_mut_ptr()) };
    assert_eq!(result, 0, "the resource exists");
    // SAFETY:
    // - The call has succeeded, so it has written the value.
    unsafe { limit.assume_init() }
}
