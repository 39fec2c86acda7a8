//! The operator's signals, taken one at a time by the main thread.
//!
//! They are blocked before any thread starts, so that every thread inherits that and no handler
//! ever runs; the main thread asks for them.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// Asks the process to stop: SIGTERM or SIGINT.
#[derive(Debug)]
pub struct StopSignals(libc::sigset_t);

impl StopSignals {
    /// Blocks the signals on this thread and on all that it starts.
    ///
    /// # Errors
    /// As pthread_sigmask(3) has them.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY:
        // - `set` is valid for writes of a sigset_t.
        let _always_zero = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY:
        // - sigemptyset has initialised it.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY:
            // - `set` is initialised, and both are valid signal numbers.
            let _always_zero = unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY:
        // - `set` is initialised; a null pointer asks for no old mask.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        if result == 0 { Ok(Self(set)) } else { Err(io::Error::from_raw_os_error(result)) }
    }

    /// Waits for the next one.
    pub fn wait(&self) {
        let mut signal = 0;
        // SAFETY:
        // - The set is initialised, and `signal` is valid for writes.
        let result = unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        assert_eq!(result, 0, "the set holds valid signals");
    }

    /// Waits at most `patience` for the next one. Returns whether one came.
    #[must_use]
    pub fn wait_for(&self, patience: Duration) -> bool {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        // SAFETY:
        // - Set and timeout are initialised and valid for reads; a null pointer asks for no
        //   further facts about the signal.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const timeout) };
        signal > 0
    }
}
